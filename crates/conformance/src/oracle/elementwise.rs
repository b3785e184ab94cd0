//! Calls that treat each element alone, activations, sums, dropout; and those that put elements in other places.

use defrost_tensor::call::{Activate, ActivateGrad, Add, Copy, CopyChannels, Dropout, Flatten, Unflatten};
use defrost_tensor::dropout_keeps;

use super::{Read, Write, apply, at, passes, positions, target};

pub(super) fn activate(call: Activate<Read<'_>, Write<'_>>) {
    for i in 0..call.len {
        call.out[i] = apply(call.activation, call.x[i]);
    }
}

pub(super) fn activate_grad(call: ActivateGrad<Read<'_>, Write<'_>>) {
    let grad_in = target(call.grad_in, call.len, call.accumulate);
    for (i, grad_in) in grad_in.iter_mut().enumerate() {
        if passes(call.activation, call.out[i]) {
            *grad_in += call.grad_out[i];
        }
    }
}

pub(super) fn add(call: Add<Read<'_>, Write<'_>>) {
    for i in 0..call.len {
        call.out[i] = apply(call.activation, call.a[i] + call.b[i]);
    }
}

pub(super) fn copy(call: Copy<Read<'_>, Write<'_>>) {
    add_to(target(call.out, call.len, call.accumulate), call.x);
}

/// The oracle stores activations in `n, c, h, w` order already.
pub(super) fn flatten(call: Flatten<Read<'_>, Write<'_>>) {
    add_to(target(call.out, call.input.len(), false), call.x);
}

pub(super) fn unflatten(call: Unflatten<Read<'_>, Write<'_>>) {
    add_to(target(call.out, call.input.len(), call.accumulate), call.x);
}

/// One slice of `torch.cat(…, dim=1)`.
pub(super) fn copy_channels(call: CopyChannels<Read<'_>, Write<'_>>) {
    for (i, [n, c, y, x]) in positions(call.output) {
        if (call.to..call.to + call.channels).contains(&c) {
            let value = call.x[at(call.input, [n, c - call.to + call.from, y, x])];
            call.out[i] = if call.accumulate { call.out[i] + value } else { value };
        }
    }
}

fn add_to(out: &mut [f64], x: &[f64]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += x;
    }
}

/// Inverted dropout (Srivastava et al. 2014, as in PyTorch): what is kept is scaled by `1 / (1 - rate)`.
pub(super) fn dropout(call: Dropout<Read<'_>, Write<'_>>) {
    let image_len = call.shape.image_len();
    let out = target(call.out, call.shape.len(), call.accumulate);
    for (i, out) in out.iter_mut().enumerate() {
        let image = i / image_len;
        let key = [call.keys[2 * image] as u32, call.keys[2 * image + 1] as u32];
        if dropout_keeps(key, call.layer, (i % image_len) as u32, call.rate) {
            *out += call.x[i] / (1.0 - f64::from(call.rate));
        }
    }
}
