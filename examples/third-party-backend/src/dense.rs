//! Matrix products, sums, what treats each element alone, the loss and the optimizer.

use defrost_tensor::call::*;
use defrost_tensor::{ElementLoss, Limit, dropout_keeps};

use crate::{at, channel, positions, store, sum};

type Buf = Vec<f32>;

pub(crate) fn gemm(call: Gemm<&Buf, &mut Buf>) {
    let Gemm { m, n, k, transpose_a, transpose_b, .. } = call;
    let a = |i: usize, p: usize| call.a[if transpose_a { p * m + i } else { i * k + p }];
    let b = |p: usize, j: usize| call.b[if transpose_b { j * k + p } else { p * n + j }];
    store(call.c, m * n, call.accumulate, |at| {
        let (i, j) = (at / n, at % n);
        let product = (0..k).map(|p| f64::from(a(i, p)) * f64::from(b(p, j))).sum::<f64>() as f32;
        call.activation.apply(product + call.bias.map_or(0.0, |bias| bias[j]))
    });
}

pub(crate) fn channel_sum(call: ChannelSum<&Buf, &mut Buf>) {
    let total = |c| sum(channel(call.shape, c).map(|i| call.x[i])) as f32;
    store(call.sum, call.shape.c, call.accumulate, total);
}

pub(crate) fn sum_squares(call: SumSquares<&Buf, &mut Buf>) {
    let total = sum(call.x[..call.len].iter().map(|v| v * v)) as f32;
    store(call.sum, 1, call.accumulate, |_| total);
}

pub(crate) fn activate(call: Activate<&Buf, &mut Buf>) {
    store(call.out, call.len, false, |i| call.activation.apply(call.x[i]));
}

pub(crate) fn activate_grad(call: ActivateGrad<&Buf, &mut Buf>) {
    let grad = |i: usize| if call.activation.passes(call.out[i]) { call.grad_out[i] } else { 0.0 };
    store(call.grad_in, call.len, call.accumulate, grad);
}

pub(crate) fn add(call: Add<&Buf, &mut Buf>) {
    store(call.out, call.len, false, |i| call.activation.apply(call.a[i] + call.b[i]));
}

pub(crate) fn copy(call: Copy<&Buf, &mut Buf>) {
    store(call.out, call.len, call.accumulate, |i| call.x[i]);
}

pub(crate) fn flatten(call: Flatten<&Buf, &mut Buf>) {
    store(call.out, call.input.len(), false, |i| call.x[i]);
}

pub(crate) fn unflatten(call: Unflatten<&Buf, &mut Buf>) {
    store(call.out, call.input.len(), call.accumulate, |i| call.x[i]);
}

pub(crate) fn copy_channels(call: CopyChannels<&Buf, &mut Buf>) {
    for (i, [n, c, y, x]) in positions(call.output) {
        if (call.to..call.to + call.channels).contains(&c) {
            let value = call.x[at(call.input, [n, c - call.to + call.from, y, x])];
            call.out[i] = if call.accumulate { call.out[i] + value } else { value };
        }
    }
}

/// The place of the first of the largest.
fn first_largest(row: &[f32]) -> usize {
    (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best }).unwrap_or(0)
}

/// Softmax cross-entropy, times `(1 - p)^gamma` for the focal loss.
pub(crate) fn softmax_cross_entropy(call: SoftmaxCrossEntropy<&Buf, &mut Buf>) {
    let SoftmaxCrossEntropy { n, classes, mut grad, .. } = call;
    let gamma = f64::from(call.gamma);
    let (mut loss, mut hits) = (0f64, 0f32);
    for row in (0..n).map(|i| i * classes..(i + 1) * classes) {
        let (z, t) = (&call.logits[row.clone()], &call.targets[row.clone()]);
        let top = f64::from(z[first_largest(z)]);
        let total: f64 = z.iter().map(|&z| (f64::from(z) - top).exp()).sum();
        let log_p = |c: usize| f64::from(z[c]) - top - total.ln();
        // What the loss loses where `log p` grows, and why a weight of 0 is left out: its logarithm may be infinite.
        let slope = |c: usize| {
            let (p, rest) = (log_p(c).exp(), -log_p(c).exp_m1());
            match f64::from(t[c]) {
                0.0 => 0.0,
                t if gamma == 0.0 || p == 0.0 => t,
                _ if rest == 0.0 => 0.0,
                t => t * (rest.powf(gamma) - gamma * p * rest.powf(gamma - 1.0) * log_p(c)),
            }
        };
        let all: f64 = (0..classes).map(slope).sum();
        for (c, i) in row.enumerate() {
            if t[c] != 0.0 {
                loss -= f64::from(t[c]) * (-log_p(c).exp_m1()).powf(gamma) * log_p(c);
            }
            if let Some(grad) = &mut grad {
                grad[i] = (all * log_p(c).exp() - slope(c)) as f32;
            }
        }
        let right = first_largest(t);
        hits += f32::from(u8::from(first_largest(z) == right && t[right] > 0.0 && !total.is_nan()));
    }
    call.stats[..2].copy_from_slice(&[loss as f32, hits]);
}

/// The loss of one output and its slope.
fn element(loss: ElementLoss, x: f64, t: f64) -> (f64, f64) {
    let off = x - t;
    match loss {
        ElementLoss::BinaryCrossEntropy => {
            (x.max(0.0) - x * t + (-x.abs()).exp().ln_1p(), 1.0 / (1.0 + (-x).exp()) - t)
        }
        ElementLoss::Huber { delta } if off.abs() > delta.into() => {
            (f64::from(delta) * (off.abs() - 0.5 * f64::from(delta)), f64::from(delta) * off.signum())
        }
        ElementLoss::Huber { .. } => (0.5 * off * off, off),
        _ => (off * off, 2.0 * off),
    }
}

pub(crate) fn elementwise_loss(call: ElementwiseLoss<&Buf, &mut Buf>) {
    let ElementwiseLoss { n, classes, mut grad, .. } = call;
    let (mut loss, mut hits) = (0f64, 0f32);
    for row in (0..n).map(|i| i * classes..(i + 1) * classes) {
        let (mut known, mut right) = (false, call.loss == ElementLoss::BinaryCrossEntropy);
        for i in row {
            let (x, t, w) = (call.x[i], call.targets[i], f64::from(call.weights[i]));
            let (value, slope) = if w == 0.0 { (0.0, 0.0) } else { element(call.loss, x.into(), t.into()) };
            loss += w * value;
            known |= w != 0.0;
            right &= w == 0.0 || (if t > 0.5 { x > 0.0 } else { x <= 0.0 });
            if let Some(grad) = &mut grad {
                grad[i] = (w * slope) as f32;
            }
        }
        hits += f32::from(u8::from(known && right));
    }
    call.stats[..2].copy_from_slice(&[loss as f32, hits]);
}

pub(crate) fn dropout(call: Dropout<&Buf, &mut Buf>) {
    let c = call.shape.c;
    store(call.out, call.shape.len(), call.accumulate, |i| {
        let key = [0, 1].map(|which| call.keys[i / c * 2 + which] as u32);
        let keeps = dropout_keeps(key, call.layer, (i % c) as u32, call.rate);
        if keeps { call.x[i] / (1.0 - call.rate) } else { 0.0 }
    });
}

pub(crate) fn sgd(call: Sgd<&Buf, &mut Buf>) {
    let (param, mut velocity) = (call.param, call.velocity);
    for i in 0..call.len {
        let grad = call.grad[i] + call.weight_decay * param[i];
        let moved = call.momentum * velocity.as_ref().map_or(0.0, |v| v[i]) + grad;
        if let Some(velocity) = &mut velocity {
            velocity[i] = moved;
        }
        param[i] -= call.lr * if call.nesterov { grad + call.momentum * moved } else { moved };
    }
}

pub(crate) fn rms_prop(call: RmsProp<&Buf, &mut Buf>) {
    let (param, square, mut velocity, mut mean) = (call.param, call.square, call.velocity, call.mean);
    for i in 0..call.len {
        let grad = call.grad[i] + call.weight_decay * param[i];
        square[i] = call.alpha * square[i] + (1.0 - call.alpha) * grad * grad;
        let mut centre = 0.0;
        if let Some(mean) = &mut mean {
            mean[i] += (1.0 - call.alpha) * (grad - mean[i]);
            centre = mean[i];
        }
        let mut step = grad / ((square[i] - centre * centre).max(0.0).sqrt() + call.eps);
        if let Some(velocity) = &mut velocity {
            velocity[i] = call.momentum * velocity[i] + step;
            step = velocity[i];
        }
        param[i] -= call.lr * step;
    }
}

pub(crate) fn lamb(call: Lamb<&Buf, &mut Buf>) {
    let correction = |beta: f32| (1.0 - f64::from(beta).powi(call.step as i32)) as f32;
    let (size, root) = (1.0 / correction(call.beta1), correction(call.beta2).sqrt());
    let (param, first, second) = (call.param, call.first, call.second);
    let mut updates = vec![0f32; call.len];
    for i in 0..call.len {
        first[i] += (1.0 - call.beta1) * (call.grad[i] - first[i]);
        second[i] = call.beta2 * second[i] + (1.0 - call.beta2) * call.grad[i] * call.grad[i];
        updates[i] = size * first[i] / (second[i].sqrt() / root + call.eps) + call.weight_decay * param[i];
    }
    let squares = |v: &[f32]| v.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
    let [weights, moves] = [squares(&param[..call.len]), squares(&updates)];
    let adapts = call.weight_decay != 0.0 && weights > 0.0 && moves > 0.0;
    let trust = if adapts { (weights / moves).sqrt() as f32 } else { 1.0 };
    param.iter_mut().zip(updates).for_each(|(p, update)| *p -= call.lr * trust * update);
    call.squares[..2].copy_from_slice(&[weights as f32, moves as f32]);
}

pub(crate) fn adam(call: Adam<&Buf, &mut Buf>) {
    let correction = |beta: f32| 1.0 - f64::from(beta).powi(call.step as i32);
    let size = (f64::from(call.lr) / correction(call.beta1)) as f32;
    let root = correction(call.beta2).sqrt() as f32;
    let (param, first, second) = (call.param, call.first, call.second);
    for i in 0..call.len {
        let mut grad = call.grad[i];
        match call.decoupled {
            true => param[i] *= 1.0 - call.lr * call.weight_decay,
            false => grad += call.weight_decay * param[i],
        }
        first[i] += (1.0 - call.beta1) * (grad - first[i]);
        second[i] = call.beta2 * second[i] + (1.0 - call.beta2) * grad * grad;
        param[i] -= size * first[i] / (second[i].sqrt() / root + call.eps);
    }
}

pub(crate) fn clip(call: Clip<&Buf, &mut Buf>) {
    let x = &mut call.x[..call.len];
    match (call.limit, call.squares) {
        (Limit::Norm { max, eps }, Some(squares)) => {
            let factor = max / (squares[0].sqrt() + eps);
            let factor = if factor >= 1.0 { 1.0 } else { factor };
            x.iter_mut().for_each(|x| *x *= factor);
        }
        (Limit::Value { max }, _) => x.iter_mut().for_each(|x| *x = x.clamp(-max, max)),
        (other, _) => unreachable!("{other:?} without a sum of squares"),
    }
}
