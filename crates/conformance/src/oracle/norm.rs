//! Batch normalisation (Ioffe and Szegedy 2015), with PyTorch's `BatchNorm2d` as the reference.

use defrost_tensor::RunningVariance;
use defrost_tensor::call::{FoldNorm, NormEval, NormEvalGrad, NormTrain, NormTrainGrad};

use super::{Read, Write, apply, channel, passes, target};

/// `µ = Σx / m`, `σ² = Σ(x - µ)² / m`, `y = activation((x - µ) / √(σ² + ε) · γ + β + residual)`.
pub(super) fn train(call: NormTrain<Read<'_>, Write<'_>>) {
    let NormTrain { desc, shape, x, mut running_mean, mut running_var, .. } = call;
    let m = shape.rows() as f64;
    let momentum = f64::from(desc.momentum);
    for c in 0..shape.c {
        let mean = channel(shape, c).map(|i| x[i]).sum::<f64>() / m;
        let squares = channel(shape, c).map(|i| (x[i] - mean).powi(2)).sum::<f64>();
        let inv_std = 1.0 / (squares / m + f64::from(desc.eps)).sqrt();
        for i in channel(shape, c) {
            let normal = (x[i] - mean) * inv_std;
            let residual = call.residual.map_or(0.0, |residual| residual[i]);
            call.out[i] = apply(call.activation, normal * call.weight[c] + call.bias[c] + residual);
        }
        call.mean[c] = mean;
        call.inv_std[c] = inv_std;
        if let Some(running) = &mut running_mean {
            running[c] = (1.0 - momentum) * running[c] + momentum * mean;
        }
        if let Some(running) = &mut running_var {
            let unbiased = desc.running_variance == RunningVariance::Unbiased;
            let var = squares / if unbiased { m - 1.0 } else { m };
            running[c] = (1.0 - momentum) * running[c] + momentum * var;
        }
    }
}

/// With `g` the masked gradient and `x̂ = (x - µ) · inv_std`:
/// `dβ = Σg`, `dγ = Σ g·x̂`, `dx = γ · inv_std · (g - dβ/m - x̂ · dγ/m)`, `d residual = g`.
pub(super) fn train_grad(call: NormTrainGrad<Read<'_>, Write<'_>>) {
    let NormTrainGrad { shape, x, weight, mean, inv_std, mut grad_residual, .. } = call;
    let m = shape.rows() as f64;
    let mut grad_in = call.grad_in.map(|t| target(t, shape.len(), call.accumulate));
    let mut grad_weight = call.grad_weight.map(|t| target(t, shape.c, call.accumulate_params));
    let mut grad_bias = call.grad_bias.map(|t| target(t, shape.c, call.accumulate_params));
    for c in 0..shape.c {
        let g = |i: usize| {
            let passes = call.out.is_none_or(|out| passes(call.activation, out[i]));
            if passes { call.grad_out[i] } else { 0.0 }
        };
        let normal = |i: usize| (x[i] - mean[c]) * inv_std[c];
        let sum: f64 = channel(shape, c).map(g).sum();
        let dot: f64 = channel(shape, c).map(|i| g(i) * normal(i)).sum();
        if let Some(grad_in) = &mut grad_in {
            for i in channel(shape, c) {
                grad_in[i] += weight[c] * inv_std[c] * (g(i) - sum / m - normal(i) * dot / m);
            }
        }
        if let Some(grad_weight) = &mut grad_weight {
            grad_weight[c] += dot;
        }
        if let Some(grad_bias) = &mut grad_bias {
            grad_bias[c] += sum;
        }
        if let Some(grad_residual) = &mut grad_residual {
            channel(shape, c).for_each(|i| grad_residual[i] = g(i));
        }
    }
}

/// `y = activation((x - µ) / √(σ² + ε) · γ + β + residual)` with running statistics.
pub(super) fn eval(call: NormEval<Read<'_>, Write<'_>>) {
    for c in 0..call.shape.c {
        let inv_std = 1.0 / (call.running_var[c] + f64::from(call.desc.eps)).sqrt();
        for i in channel(call.shape, c) {
            let normal = (call.x[i] - call.running_mean[c]) * inv_std;
            let residual = call.residual.map_or(0.0, |residual| residual[i]);
            call.out[i] = apply(call.activation, normal * call.weight[c] + call.bias[c] + residual);
        }
    }
}

/// With `g` the masked gradient: `dx = g · γ / √(σ² + ε)`, `dγ = Σ g · (x - µ) / √(σ² + ε)`, `dβ = Σg`.
pub(super) fn eval_grad(call: NormEvalGrad<Read<'_>, Write<'_>>) {
    let shape = call.shape;
    let mut grad_in = call.grad_in.map(|t| target(t, shape.len(), call.accumulate));
    let mut grad_weight = call.grad_weight.map(|t| target(t, shape.c, call.accumulate_params));
    let mut grad_bias = call.grad_bias.map(|t| target(t, shape.c, call.accumulate_params));
    for c in 0..shape.c {
        let inv_std = 1.0 / (call.running_var[c] + f64::from(call.desc.eps)).sqrt();
        for i in channel(shape, c) {
            if call.out.is_some_and(|out| !passes(call.activation, out[i])) {
                continue;
            }
            let g = call.grad_out[i];
            if let Some(grad_in) = &mut grad_in {
                grad_in[i] += g * call.weight[c] * inv_std;
            }
            if let (Some(grad_weight), Some(x)) = (&mut grad_weight, call.x) {
                grad_weight[c] += g * (x[i] - call.running_mean[c]) * inv_std;
            }
            if let Some(grad_bias) = &mut grad_bias {
                grad_bias[c] += g;
            }
        }
    }
}

/// `s = γ / √(σ² + ε)`, `w' = s · w`, `b' = β + s · (b - µ)` for each output channel.
pub(super) fn fold(call: FoldNorm<Read<'_>, Write<'_>>) {
    let fan_in = call.conv.fan_in();
    for c in 0..call.conv.out_channels {
        let s = call.norm_weight[c] / (call.running_var[c] + f64::from(call.desc.eps)).sqrt();
        for k in c * fan_in..(c + 1) * fan_in {
            call.folded_weight[k] = s * call.weight[k];
        }
        let bias = call.bias.map_or(0.0, |bias| bias[c]);
        call.folded_bias[c] = call.norm_bias[c] + s * (bias - call.running_mean[c]);
    }
}
