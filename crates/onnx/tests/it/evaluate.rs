//! ONNX' rules for the operators that are written, in the plainest loops: what a runtime has to make of a file.

use std::collections::HashMap;

use defrost_onnx::proto::{self, data_type};

/// A tensor: extents and elements.
#[derive(Clone, Debug)]
pub(crate) struct Array(pub(crate) Vec<usize>, pub(crate) Vec<f32>);

/// Runs `model` on `input`.
pub(crate) fn evaluate(model: &proto::Model, input: Array) -> Array {
    let graph = model.graph.as_ref().unwrap();
    let mut values: HashMap<&str, Array> =
        graph.initializer.iter().map(|t| (&*t.name, constant(t))).collect();
    values.insert("input", input);
    for node in &graph.node {
        let inputs: Vec<_> = node.input.iter().map(|name| values[&**name].clone()).collect();
        values.insert(&node.output[0], run(node, &inputs));
    }
    values.remove(&*graph.output[0].name).unwrap()
}

fn constant(t: &proto::Tensor) -> Array {
    let values = match t.data_type {
        data_type::FLOAT => {
            t.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        }
        data_type::INT64 => {
            t.raw_data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect()
        }
        other => panic!("type {other}"),
    };
    Array(t.dims.iter().map(|&d| d as usize).collect(), values)
}

fn run(node: &proto::Node, inputs: &[Array]) -> Array {
    let x = &inputs[0];
    match &*node.op_type {
        "Conv" => conv(node, inputs),
        "BatchNormalization" => {
            let epsilon = node.attribute("epsilon").unwrap().f;
            let area: usize = x.0[2..].iter().product();
            let at = |i: usize, p: usize| inputs[p].1[i / area % x.0[1]];
            let norm =
                |(i, v): (usize, &f32)| (v - at(i, 3)) / (at(i, 4) + epsilon).sqrt() * at(i, 1) + at(i, 2);
            Array(x.0.clone(), x.1.iter().enumerate().map(norm).collect())
        }
        "Relu" => map(x, |v| v.max(0.0)),
        "Clip" => map(x, |v| v.max(inputs[1].1[0]).min(inputs[2].1[0])),
        "Cast" => x.clone(),
        "Sigmoid" => map(x, |v| 1.0 / (1.0 + (-v).exp())),
        "Softmax" => softmax(x),
        "Add" => broadcast(x, &inputs[1], |a, b| a + b),
        "Mul" => broadcast(x, &inputs[1], |a, b| a * b),
        "MaxPool" => pool(node, x, f32::NEG_INFINITY, f32::max, |v, _| v),
        "AveragePool" => pool(node, x, 0.0, |a, b| a + b, |sum, count| sum / count as f32),
        "GlobalMaxPool" => global(x, |values| values.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
        "GlobalAveragePool" => global(x, |values| values.iter().sum::<f32>() / values.len() as f32),
        "Flatten" => Array(vec![x.0[0], x.0[1..].iter().product()], x.1.clone()),
        "Gemm" => gemm(node, inputs),
        "MatMul" => matmul(x, &inputs[1]),
        "Concat" => concat(inputs),
        "Transpose" => transpose(x, node.ints("perm")),
        "Gather" => gather(x, &inputs[1]),
        other => panic!("{other}"),
    }
}

fn map(x: &Array, f: impl Fn(f32) -> f32) -> Array {
    Array(x.0.clone(), x.1.iter().map(|&v| f(v)).collect())
}

fn broadcast(a: &Array, b: &Array, f: impl Fn(f32, f32) -> f32) -> Array {
    let of = |i: usize| match a.0[1..] == b.0[1..] {
        true => i % b.1.len(),
        // `[1, c, 1, 1]`.
        false => i / (a.0[2] * a.0[3]) % a.0[1],
    };
    Array(a.0.clone(), a.1.iter().enumerate().map(|(i, &v)| f(v, b.1[of(i)])).collect())
}

fn conv(node: &proto::Node, inputs: &[Array]) -> Array {
    let (x, weight) = (&inputs[0], &inputs[1]);
    let [n, c, h, w] = x.0[..] else { panic!("{:?}", x.0) };
    let [out, inner, kh, kw] = weight.0[..] else { panic!("{:?}", weight.0) };
    let group = node.attribute("group").unwrap().i as usize;
    assert_eq!((inner * group, &[kh as i64, kw as i64][..]), (c, node.ints("kernel_shape")));
    assert_eq!(node.ints("dilations"), [1, 1]);
    let Windows { out: [oh, ow], stride, pads } = Windows::of(node, [h, w]);
    let mut y = Vec::with_capacity(n * out * oh * ow);
    for (image, o) in (0..n).flat_map(|image| (0..out).map(move |o| (image, o))) {
        let first = o / (out / group) * inner;
        for (r, s) in (0..oh).flat_map(|r| (0..ow).map(move |s| (r, s))) {
            let mut sum = inputs.get(2).map_or(0.0, |b| b.1[o]);
            for (i, k) in (0..inner).flat_map(|i| (0..kh).map(move |k| (i, k))) {
                let Some(row) = (r * stride[0] + k).checked_sub(pads[0]).filter(|&row| row < h) else {
                    continue;
                };
                let line = ((image * c + first + i) * h + row) * w;
                for l in 0..kw {
                    if let Some(column) = (s * stride[1] + l).checked_sub(pads[1]).filter(|&s| s < w) {
                        sum += x.1[line + column] * weight.1[((o * inner + i) * kh + k) * kw + l];
                    }
                }
            }
            y.push(sum);
        }
    }
    Array(vec![n, out, oh, ow], y)
}

/// Where windows lie, `ceil_mode` 0.
struct Windows {
    out: [usize; 2],
    stride: [usize; 2],
    pads: [usize; 4],
}

impl Windows {
    fn of(node: &proto::Node, size: [usize; 2]) -> Self {
        let two = |name: &str| [0, 1].map(|i| node.ints(name)[i] as usize);
        let (kernel, stride) = (two("kernel_shape"), two("strides"));
        let pads = [0, 1, 2, 3].map(|i| node.ints("pads")[i] as usize);
        let out = [0, 1].map(|i| (size[i] + pads[i] + pads[i + 2] - kernel[i]) / stride[i] + 1);
        Self { out, stride, pads }
    }
}

/// Padding is no part of a window (`count_include_pad` 0).
fn pool(
    node: &proto::Node,
    x: &Array,
    start: f32,
    add: impl Fn(f32, f32) -> f32,
    end: impl Fn(f32, usize) -> f32,
) -> Array {
    let [n, c, h, w] = x.0[..] else { panic!("{:?}", x.0) };
    let kernel = [0, 1].map(|i| node.ints("kernel_shape")[i] as usize);
    let Windows { out: [oh, ow], stride, pads } = Windows::of(node, [h, w]);
    assert!((0..4).all(|i| pads[i] < kernel[i % 2]), "a window of padding alone");
    let range = |i: usize, at: usize, size: usize| {
        let from = at * stride[i];
        from.saturating_sub(pads[i])..(from + kernel[i] - pads[i]).min(size)
    };
    let mut y = Vec::new();
    for plane in x.1.chunks_exact(h * w) {
        for (r, s) in (0..oh).flat_map(|r| (0..ow).map(move |s| (r, s))) {
            let (rows, columns) = (range(0, r, h), range(1, s, w));
            let count = rows.len() * columns.len();
            let values = rows.flat_map(|r| plane[r * w..][columns.clone()].iter().copied());
            y.push(end(values.fold(start, &add), count));
        }
    }
    Array(vec![n, c, oh, ow], y)
}

fn global(x: &Array, f: impl Fn(&[f32]) -> f32) -> Array {
    Array(vec![x.0[0], x.0[1], 1, 1], x.1.chunks_exact(x.0[2] * x.0[3]).map(f).collect())
}

fn softmax(x: &Array) -> Array {
    let rows = x.1.chunks_exact(x.0[1]).flat_map(|row| {
        let exp: Vec<_> = row.iter().map(|v| v.exp()).collect();
        let sum: f32 = exp.iter().sum();
        exp.into_iter().map(move |v| v / sum)
    });
    Array(x.0.clone(), rows.collect())
}

fn gemm(node: &proto::Node, inputs: &[Array]) -> Array {
    let int = |name: &str| node.attribute(name).unwrap().i;
    assert_eq!((int("transA"), int("transB")), (0, 1));
    let (a, b) = (&inputs[0], &inputs[1]);
    let (m, k, n) = (a.0[0], a.0[1], b.0[0]);
    assert_eq!(b.0[1], k);
    let dot = |i: usize, j: usize| {
        let products = a.1[i * k..][..k].iter().zip(&b.1[j * k..][..k]).map(|(a, b)| a * b);
        products.sum::<f32>() + inputs.get(2).map_or(0.0, |bias| bias.1[j])
    };
    Array(vec![m, n], (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| dot(i, j)).collect())
}

/// One side is a matrix, the other a stack of them.
fn matmul(a: &Array, b: &Array) -> Array {
    let last = |x: &Array| (x.0[x.0.len() - 2], x.0[x.0.len() - 1]);
    let ((m, k), (k2, n)) = (last(a), last(b));
    assert_eq!(k, k2);
    let (stack, dims) = match a.0.len() {
        2 => (b.1.len() / (k * n), &b.0),
        _ => (a.1.len() / (m * k), &a.0),
    };
    let mut y = Vec::new();
    for s in 0..stack {
        let a = if a.0.len() == 2 { &a.1[..] } else { &a.1[s * m * k..][..m * k] };
        let b = if b.0.len() == 2 { &b.1[..] } else { &b.1[s * k * n..][..k * n] };
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            y.push((0..k).map(|l| a[i * k + l] * b[l * n + j]).sum());
        }
    }
    Array([&dims[..dims.len() - 2], &[m, n]].concat(), y)
}

fn concat(inputs: &[Array]) -> Array {
    let n = inputs[0].0[0];
    let len = |x: &Array| x.1.len() / n;
    let y = (0..n).flat_map(|i| inputs.iter().flat_map(move |x| x.1[i * len(x)..][..len(x)].iter().copied()));
    let mut dims = inputs[0].0.clone();
    dims[1] = inputs.iter().map(|x| x.0[1]).sum();
    Array(dims, y.collect())
}

fn transpose(x: &Array, perm: &[i64]) -> Array {
    assert_eq!(perm, [0, 3, 1, 2]);
    let [n, h, w, c] = x.0[..] else { panic!("{:?}", x.0) };
    let mut y = Vec::new();
    for (image, channel) in (0..n).flat_map(|i| (0..c).map(move |c| (i, c))) {
        y.extend((0..h * w).map(|at| x.1[(image * h * w + at) * c + channel]));
    }
    Array(vec![n, c, h, w], y)
}

fn gather(x: &Array, order: &Array) -> Array {
    let area = x.0[2] * x.0[3];
    let pick = |image: usize, c: f32| x.1[(image * x.0[1] + c as usize) * area..][..area].iter().copied();
    let y = (0..x.0[0]).flat_map(|image| order.1.iter().flat_map(move |&c| pick(image, c)));
    Array(x.0.clone(), y.collect())
}
