//! Convolutions, batch normalisation, pools.

use defrost_tensor::call::*;
use defrost_tensor::{Activation, ConvDesc, NormDesc, PoolDesc, RunningVariance, Shape4};

use crate::{at, channel, positions, store, sum};

type Buf = Vec<f32>;

const CHECKED: &str = "shapes are checked before a call is made";

/// Every (output, input, weight) that meet in a convolution.
fn meetings(desc: ConvDesc, input: Shape4, mut visit: impl FnMut(usize, usize, usize)) {
    let output = desc.output(input).expect(CHECKED);
    let pads = desc.pads(input.h, input.w);
    let (each_in, each_out) = (desc.in_channels / desc.groups, desc.out_channels / desc.groups);
    let [kh, kw] = desc.kernel;
    for (o, [n, oc, oy, ox]) in positions(output) {
        for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
            let y = (oy * desc.stride[0] + ky * desc.dilation[0]).wrapping_sub(pads.top);
            let x = (ox * desc.stride[1] + kx * desc.dilation[1]).wrapping_sub(pads.left);
            if y < input.h && x < input.w {
                for ic in 0..each_in {
                    let i = at(input, [n, oc / each_out * each_in + ic, y, x]);
                    visit(o, i, ((oc * each_in + ic) * kh + ky) * kw + kx);
                }
            }
        }
    }
}

pub(crate) fn conv2d(call: Conv2d<&Buf, &mut Buf>) {
    let output = call.desc.output(call.input).expect(CHECKED);
    let mut sums = vec![0f64; output.len()];
    meetings(call.desc, call.input, |o, i, k| sums[o] += f64::from(call.x[i]) * f64::from(call.weight[k]));
    store(call.out, output.len(), false, |o| {
        let bias = call.bias.map_or(0.0, |bias| bias[o / output.area() % output.c]);
        let residual = call.residual.map_or(0.0, |residual| residual[o]);
        call.activation.apply(sums[o] as f32 + bias + residual)
    });
}

pub(crate) fn conv2d_grad_input(call: Conv2dGradInput<&Buf, &mut Buf>) {
    let mut sums = vec![0f64; call.input.len()];
    let (grad, weight) = (call.grad_out, call.weight);
    meetings(call.desc, call.input, |o, i, k| sums[i] += f64::from(grad[o]) * f64::from(weight[k]));
    store(call.grad_in, sums.len(), call.accumulate, |i| sums[i] as f32);
}

pub(crate) fn conv2d_grad_weight(call: Conv2dGradWeight<&Buf, &mut Buf>) {
    let mut sums = vec![0f64; call.desc.weight_shape().iter().product()];
    let (grad, x) = (call.grad_out, call.x);
    meetings(call.desc, call.input, |o, i, k| sums[k] += f64::from(grad[o]) * f64::from(x[i]));
    store(call.grad_weight, sums.len(), call.accumulate, |k| sums[k] as f32);
}

/// `1 / √(var + eps)`.
fn inverse(var: f32, desc: &NormDesc) -> f32 {
    1.0 / (var + desc.eps).sqrt()
}

pub(crate) fn norm_train(call: NormTrain<&Buf, &mut Buf>) {
    let NormTrain { desc, shape, x, mut running_mean, mut running_var, .. } = call;
    let count = shape.rows() as f64;
    for c in 0..shape.c {
        let mean = (sum(channel(shape, c).map(|i| x[i])) / count) as f32;
        let squares = sum(channel(shape, c).map(|i| (x[i] - mean).powi(2)));
        let inv_std = inverse((squares / count) as f32, &desc);
        for i in channel(shape, c) {
            let normal = (x[i] - mean) * inv_std;
            let residual = call.residual.map_or(0.0, |residual| residual[i]);
            call.out[i] = call.activation.apply(normal * call.weight[c] + call.bias[c] + residual);
        }
        (call.mean[c], call.inv_std[c]) = (mean, inv_std);
        let unbiased = desc.running_variance == RunningVariance::Unbiased;
        let var = (squares / if unbiased { (count - 1.0).max(1.0) } else { count }) as f32;
        for (running, new) in [(&mut running_mean, mean), (&mut running_var, var)] {
            if let Some(running) = running {
                running[c] = (1.0 - desc.momentum) * running[c] + desc.momentum * new;
            }
        }
    }
}

/// The gradient that passes the activation at `i`.
fn incoming(grad: &Buf, out: Option<&Buf>, activation: Activation, i: usize) -> f32 {
    if out.is_none_or(|out| activation.passes(out[i])) { grad[i] } else { 0.0 }
}

/// Writes a channel's number, or adds it.
fn put(buf: &mut Option<&mut Buf>, c: usize, accumulate: bool, value: f64) {
    if let Some(buf) = buf {
        buf[c] = if accumulate { buf[c] } else { 0.0 } + value as f32;
    }
}

pub(crate) fn norm_train_grad(call: NormTrainGrad<&Buf, &mut Buf>) {
    let NormTrainGrad {
        shape,
        accumulate,
        mut grad_in,
        mut grad_weight,
        mut grad_bias,
        mut grad_residual,
        ..
    } = call;
    let count = shape.rows() as f64;
    for c in 0..shape.c {
        let grad = |i: usize| incoming(call.grad_out, call.out, call.activation, i);
        if let Some(residual) = &mut grad_residual {
            channel(shape, c).for_each(|i| residual[i] = grad(i));
        }
        // In f64: of few values the gradient is small beside what is subtracted.
        let normal = |i: usize| f64::from(call.x[i] - call.mean[c]) * f64::from(call.inv_std[c]);
        let total = sum(channel(shape, c).map(grad));
        let dot: f64 = channel(shape, c).map(|i| f64::from(grad(i)) * normal(i)).sum();
        if let Some(grad_in) = &mut grad_in {
            for i in channel(shape, c) {
                let less = (total + normal(i) * dot) / count;
                let value = call.weight[c] * call.inv_std[c] * (f64::from(grad(i)) - less) as f32;
                grad_in[i] = if accumulate { grad_in[i] + value } else { value };
            }
        }
        put(&mut grad_weight, c, call.accumulate_params, dot);
        put(&mut grad_bias, c, call.accumulate_params, total);
    }
}

pub(crate) fn norm_eval(call: NormEval<&Buf, &mut Buf>) {
    for c in 0..call.shape.c {
        let scale = call.weight[c] * inverse(call.running_var[c], &call.desc);
        for i in channel(call.shape, c) {
            let centred = call.x[i] - call.running_mean[c];
            let residual = call.residual.map_or(0.0, |residual| residual[i]);
            call.out[i] = call.activation.apply(centred * scale + call.bias[c] + residual);
        }
    }
}

pub(crate) fn norm_eval_grad(call: NormEvalGrad<&Buf, &mut Buf>) {
    let NormEvalGrad { shape, accumulate, mut grad_in, mut grad_weight, mut grad_bias, .. } = call;
    for c in 0..shape.c {
        let inv_std = inverse(call.running_var[c], &call.desc);
        let grad = |i: usize| incoming(call.grad_out, call.out, call.activation, i);
        if let Some(grad_in) = &mut grad_in {
            for i in channel(shape, c) {
                let value = grad(i) * call.weight[c] * inv_std;
                grad_in[i] = if accumulate { grad_in[i] + value } else { value };
            }
        }
        if let Some(x) = call.x {
            let centred = |i: usize| x[i] - call.running_mean[c];
            let dot = sum(channel(shape, c).map(|i| grad(i) * centred(i))) * f64::from(inv_std);
            put(&mut grad_weight, c, call.accumulate_params, dot);
        }
        put(&mut grad_bias, c, call.accumulate_params, sum(channel(shape, c).map(grad)));
    }
}

pub(crate) fn fold_norm(call: FoldNorm<&Buf, &mut Buf>) {
    let fan_in = call.conv.fan_in();
    for c in 0..call.conv.out_channels {
        let scale = call.norm_weight[c] * inverse(call.running_var[c], &call.desc);
        for k in c * fan_in..(c + 1) * fan_in {
            call.folded_weight[k] = scale * call.weight[k];
        }
        let bias = call.bias.map_or(0.0, |bias| bias[c]);
        call.folded_bias[c] = call.norm_bias[c] + scale * (bias - call.running_mean[c]);
    }
}

/// Every output with the inputs of its window, in row order.
fn windows(desc: PoolDesc, input: Shape4) -> impl Iterator<Item = (usize, Vec<usize>)> {
    positions(desc.output(input).expect(CHECKED)).map(move |(o, [n, c, oy, ox])| {
        let columns = desc.range(1, ox, input.w);
        let row = |y| columns.clone().map(move |x| at(input, [n, c, y, x]));
        (o, desc.range(0, oy, input.h).flat_map(row).collect())
    })
}

/// The first largest element; NaN wins.
fn largest(x: &Buf, window: &[usize]) -> usize {
    let larger = |a: usize, b: usize| x[b] > x[a] || (x[b].is_nan() && !x[a].is_nan());
    window.iter().copied().reduce(|a, b| if larger(a, b) { b } else { a }).expect(CHECKED)
}

pub(crate) fn max_pool(call: MaxPool<&Buf, &mut Buf>) {
    for (o, window) in windows(call.desc, call.input) {
        call.out[o] = call.x[largest(call.x, &window)];
    }
}

pub(crate) fn max_pool_grad(call: MaxPoolGrad<&Buf, &mut Buf>) {
    let mut grads = vec![0f32; call.input.len()];
    windows(call.desc, call.input)
        .for_each(|(o, window)| grads[largest(call.x, &window)] += call.grad_out[o]);
    store(call.grad_in, grads.len(), call.accumulate, |i| grads[i]);
}

pub(crate) fn avg_pool(call: AvgPool<&Buf, &mut Buf>) {
    for (o, window) in windows(call.desc, call.input) {
        call.out[o] = (sum(window.iter().map(|&i| call.x[i])) / window.len() as f64) as f32;
    }
}

pub(crate) fn avg_pool_grad(call: AvgPoolGrad<&Buf, &mut Buf>) {
    let mut grads = vec![0f32; call.input.len()];
    for (o, window) in windows(call.desc, call.input) {
        window.iter().for_each(|&i| grads[i] += call.grad_out[o] / window.len() as f32);
    }
    store(call.grad_in, grads.len(), call.accumulate, |i| grads[i]);
}
