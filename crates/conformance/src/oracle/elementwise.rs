//! Calls that treat each element alone: activations, sums, dropout, optimizer steps; and flattening.

use defrost_tensor::call::{Activate, ActivateGrad, Adam, Add, Copy, Dropout, Flatten, Sgd, Unflatten};
use defrost_tensor::dropout_keeps;

use super::{Read, Write, apply, passes, target};

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

/// `torch.optim.SGD` with `dampening=0`; PyTorch's first step, `v = g`, is the formula's with `v = 0`.
pub(super) fn sgd(call: Sgd<Read<'_>, Write<'_>>) {
    let [lr, momentum, weight_decay] = [call.lr, call.momentum, call.weight_decay].map(f64::from);
    let (param, mut velocity) = (call.param, call.velocity);
    for i in 0..call.len {
        let g = call.grad[i] + weight_decay * param[i];
        let v = momentum * velocity.as_ref().map_or(0.0, |v| v[i]) + g;
        if let Some(velocity) = &mut velocity {
            velocity[i] = v;
        }
        param[i] -= lr * if call.nesterov { g + momentum * v } else { v };
    }
}

/// `torch.optim.Adam` and `AdamW`:
/// `m = β₁m + (1 - β₁)g`, `v = β₂v + (1 - β₂)g²`, `p -= lr · (m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + ε)`.
pub(super) fn adam(call: Adam<Read<'_>, Write<'_>>) {
    let [lr, beta1, beta2] = [call.lr, call.beta1, call.beta2].map(f64::from);
    let [eps, weight_decay] = [call.eps, call.weight_decay].map(f64::from);
    let correct1 = 1.0 - beta1.powi(call.step as i32);
    let correct2 = 1.0 - beta2.powi(call.step as i32);
    let (param, first, second) = (call.param, call.first, call.second);
    for i in 0..call.len {
        let mut g = call.grad[i];
        if call.decoupled {
            param[i] *= 1.0 - lr * weight_decay;
        } else {
            g += weight_decay * param[i];
        }
        first[i] = beta1 * first[i] + (1.0 - beta1) * g;
        second[i] = beta2 * second[i] + (1.0 - beta2) * g * g;
        param[i] -= lr * (first[i] / correct1) / ((second[i] / correct2).sqrt() + eps);
    }
}
