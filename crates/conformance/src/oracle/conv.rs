//! Convolutions.
//!
//! A convolution is a bilinear form: a list of triples (output, input, weight) that meet, with
//! `out[o] += x[i] · w[k]` for each. Its two gradients are sums over the same triples, so there is one list.

use defrost_tensor::call::{Conv2d, Conv2dGradInput, Conv2dGradWeight};
use defrost_tensor::{ConvDesc, Shape4};

use super::{Read, Write, apply, at, target};

/// Visits every (output, input, weight) that meet, `i = o · stride + k · dilation - padding`.
#[inline(always)]
fn each_tap(desc: &ConvDesc, input: Shape4, mut visit: impl FnMut(usize, usize, usize)) {
    let output = output(desc, input);
    let pads = desc.pads(input.h, input.w);
    let (group_in, group_out) = (desc.in_channels / desc.groups, desc.out_channels / desc.groups);
    let source = |o: usize, axis: usize, k: usize, pad: usize, size: usize| {
        (o * desc.stride[axis] + k * desc.dilation[axis]).checked_sub(pad).filter(|&i| i < size)
    };
    for n in 0..input.n {
        for oc in 0..desc.out_channels {
            for (oy, ky) in pairs(output.h, desc.kernel[0]) {
                let Some(iy) = source(oy, 0, ky, pads.top, input.h) else { continue };
                for (ox, kx) in pairs(output.w, desc.kernel[1]) {
                    let Some(ix) = source(ox, 1, kx, pads.left, input.w) else { continue };
                    let o = at(output, [n, oc, oy, ox]);
                    for ic in 0..group_in {
                        let i = at(input, [n, oc / group_out * group_in + ic, iy, ix]);
                        let k = ((oc * group_in + ic) * desc.kernel[0] + ky) * desc.kernel[1] + kx;
                        visit(o, i, k);
                    }
                }
            }
        }
    }
}

fn pairs(a: usize, b: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..a).flat_map(move |i| (0..b).map(move |j| (i, j)))
}

fn output(desc: &ConvDesc, input: Shape4) -> Shape4 {
    desc.output(input).expect("shapes are checked before a call is made")
}

pub(super) fn conv2d(call: Conv2d<Read<'_>, Write<'_>>) {
    let output = output(&call.desc, call.input);
    let out = target(call.out, output.len(), false);
    each_tap(&call.desc, call.input, |o, i, k| out[o] += call.x[i] * call.weight[k]);
    for (o, value) in out.iter_mut().enumerate() {
        let bias = call.bias.map_or(0.0, |bias| bias[o / output.area() % output.c]);
        let residual = call.residual.map_or(0.0, |residual| residual[o]);
        *value = apply(call.activation, *value + bias + residual);
    }
}

pub(super) fn grad_input(call: Conv2dGradInput<Read<'_>, Write<'_>>) {
    let grad_in = target(call.grad_in, call.input.len(), call.accumulate);
    each_tap(&call.desc, call.input, |o, i, k| grad_in[i] += call.grad_out[o] * call.weight[k]);
}

pub(super) fn grad_weight(call: Conv2dGradWeight<Read<'_>, Write<'_>>) {
    let len = call.desc.weight_shape().iter().product();
    let grad_weight = target(call.grad_weight, len, call.accumulate);
    each_tap(&call.desc, call.input, |o, i, k| grad_weight[k] += call.grad_out[o] * call.x[i]);
}
