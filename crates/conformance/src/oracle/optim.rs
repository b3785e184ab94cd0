//! Optimizer steps, limits on gradients, averages of weights.

use defrost_tensor::Limit;
use defrost_tensor::call::{Adam, Clip, Lamb, Lerp, RmsProp, Sgd};

use super::{Read, Write};

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

/// `torch.optim.RMSprop`, its variance cut off at 0.
pub(super) fn rms_prop(call: RmsProp<Read<'_>, Write<'_>>) {
    let [lr, alpha, eps] = [call.lr, call.alpha, call.eps].map(f64::from);
    let [momentum, weight_decay] = [call.momentum, call.weight_decay].map(f64::from);
    let (param, square, mut velocity, mut mean) = (call.param, call.square, call.velocity, call.mean);
    for i in 0..call.len {
        let g = call.grad[i] + weight_decay * param[i];
        square[i] = alpha * square[i] + (1.0 - alpha) * g * g;
        let mut centre = 0.0;
        if let Some(mean) = &mut mean {
            mean[i] = alpha * mean[i] + (1.0 - alpha) * g;
            centre = mean[i];
        }
        let mut step = g / ((square[i] - centre * centre).max(0.0).sqrt() + eps);
        if let Some(velocity) = &mut velocity {
            velocity[i] = momentum * velocity[i] + step;
            step = velocity[i];
        }
        param[i] -= lr * step;
    }
}

/// `timm.optim.Lamb` of one parameter, without its clipping.
pub(super) fn lamb(call: Lamb<Read<'_>, Write<'_>>) {
    let [lr, beta1, beta2] = [call.lr, call.beta1, call.beta2].map(f64::from);
    let [eps, weight_decay] = [call.eps, call.weight_decay].map(f64::from);
    let correct1 = 1.0 - beta1.powi(call.step as i32);
    let correct2 = 1.0 - beta2.powi(call.step as i32);
    let (param, first, second) = (call.param, call.first, call.second);
    let mut update = Vec::new();
    for i in 0..call.len {
        first[i] = beta1 * first[i] + (1.0 - beta1) * call.grad[i];
        second[i] = beta2 * second[i] + (1.0 - beta2) * call.grad[i].powi(2);
        let step = (first[i] / correct1) / ((second[i] / correct2).sqrt() + eps);
        update.push(step + weight_decay * param[i]);
    }
    let squares = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>();
    let (weights, updates) = (squares(&param[..call.len]), squares(&update));
    let adapts = weight_decay != 0.0 && weights > 0.0 && updates > 0.0;
    let trust = if adapts { weights.sqrt() / updates.sqrt() } else { 1.0 };
    param.iter_mut().zip(update).for_each(|(p, u)| *p -= lr * trust * u);
    call.squares[..2].copy_from_slice(&[weights, updates]);
}

/// `torch.nn.utils.clip_grad_norm_` and `clip_grad_value_`.
pub(super) fn clip(call: Clip<Read<'_>, Write<'_>>) {
    let x = &mut call.x[..call.len];
    match call.limit {
        Limit::Norm { max, eps } => {
            let norm = call.squares.expect("a norm is limited by the sum of squares")[0].sqrt();
            let factor = f64::from(max) / (norm + f64::from(eps));
            let factor = if factor > 1.0 { 1.0 } else { factor };
            x.iter_mut().for_each(|x| *x *= factor);
        }
        Limit::Value { max } => x.iter_mut().for_each(|x| *x = x.clamp(-f64::from(max), max.into())),
        other => unreachable!("the oracle has no formula for {other:?}"),
    }
}

/// `torch.lerp(out, x, weight)`.
pub(super) fn lerp(call: Lerp<Read<'_>, Write<'_>>) {
    for i in 0..call.len {
        call.out[i] += f64::from(call.weight) * (call.x[i] - call.out[i]);
    }
}
