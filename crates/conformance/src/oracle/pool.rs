//! Pools: PyTorch's `MaxPool2d`, `AvgPool2d(count_include_pad=False)` and their adaptive forms.

use defrost_tensor::call::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad};
use defrost_tensor::{PoolDesc, Shape4};

use super::{Read, Write, at, positions, target};

/// Every output with the inputs of its window in row order; padding is no input.
fn windows(desc: PoolDesc, input: Shape4) -> impl Iterator<Item = (usize, Vec<usize>)> {
    let output = desc.output(input).expect("shapes are checked before a call is made");
    positions(output).map(move |(o, [n, c, oy, ox])| {
        let columns = desc.range(1, ox, input.w);
        let row = |y| columns.clone().map(move |x| at(input, [n, c, y, x]));
        (o, desc.range(0, oy, input.h).flat_map(row).collect())
    })
}

/// The first largest element of a window; the first NaN if there is one.
fn largest(x: &[f64], window: &[usize]) -> usize {
    let nan = window.iter().find(|&&i| x[i].is_nan());
    *nan.unwrap_or_else(|| window.iter().reduce(|best, i| if x[*i] > x[*best] { i } else { best }).unwrap())
}

pub(super) fn max(call: MaxPool<Read<'_>, Write<'_>>) {
    for (o, window) in windows(call.desc, call.input) {
        call.out[o] = call.x[largest(call.x, &window)];
    }
}

pub(super) fn max_grad(call: MaxPoolGrad<Read<'_>, Write<'_>>) {
    let grad_in = target(call.grad_in, call.input.len(), call.accumulate);
    for (o, window) in windows(call.desc, call.input) {
        grad_in[largest(call.x, &window)] += call.grad_out[o];
    }
}

pub(super) fn avg(call: AvgPool<Read<'_>, Write<'_>>) {
    for (o, window) in windows(call.desc, call.input) {
        call.out[o] = window.iter().map(|&i| call.x[i]).sum::<f64>() / window.len() as f64;
    }
}

pub(super) fn avg_grad(call: AvgPoolGrad<Read<'_>, Write<'_>>) {
    let grad_in = target(call.grad_in, call.input.len(), call.accumulate);
    for (o, window) in windows(call.desc, call.input) {
        for &i in &window {
            grad_in[i] += call.grad_out[o] / window.len() as f64;
        }
    }
}
