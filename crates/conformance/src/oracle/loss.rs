//! Losses and their gradients.

use defrost_tensor::ElementLoss;
use defrost_tensor::call::{ElementwiseLoss, SoftmaxCrossEntropy};

use super::{Read, Write};

/// PyTorch's `cross_entropy` with probabilities as targets and `reduction="sum"`,
/// `log softmax(z) = z - max z - log Σ exp(z - max z)`; with `gamma`, times `(1 - p)^gamma` (Lin et al. 2017).
///
/// With `F(p) = (1 - p)^γ log p` the gradient is `∂L/∂z_k = -t_k p_k F'(p_k) + p_k Σ_c t_c p_c F'(p_c)`, where
/// `p F'(p) = (1 - p)^γ - γ p (1 - p)^(γ-1) log p`.
pub(super) fn softmax_cross_entropy(call: SoftmaxCrossEntropy<Read<'_>, Write<'_>>) {
    let SoftmaxCrossEntropy { n, classes, mut grad, .. } = call;
    let gamma = f64::from(call.gamma);
    let (mut loss, mut hits) = (0.0, 0.0);
    for row in (0..n).map(|i| i * classes..(i + 1) * classes) {
        let (logits, targets) = (&call.logits[row.clone()], &call.targets[row.clone()]);
        let max = logits[first_largest(logits)];
        let log_sum = logits.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
        let log_p = |c: usize| logits[c] - max - log_sum;
        // 1 - p without the loss of digits that the subtraction has near 1.
        let rest = |c: usize| -log_p(c).exp_m1();
        let slope = |c: usize| {
            let (p, rest) = (log_p(c).exp(), rest(c));
            match targets[c] {
                0.0 => 0.0,
                t if gamma == 0.0 => t,
                _ if rest == 0.0 => 0.0,
                t if p == 0.0 => t,
                t => t * (rest.powf(gamma) - gamma * p * rest.powf(gamma - 1.0) * log_p(c)),
            }
        };
        let slopes: f64 = (0..classes).map(slope).sum();
        for (c, i) in row.enumerate() {
            if targets[c] != 0.0 {
                loss -= targets[c] * rest(c).powf(gamma) * log_p(c);
            }
            if let Some(grad) = &mut grad {
                grad[i] = log_p(c).exp() * slopes - slope(c);
            }
        }
        let right = first_largest(targets);
        if first_largest(logits) == right && targets[right] > 0.0 {
            hits += 1.0;
        }
    }
    call.stats[..2].copy_from_slice(&[loss, hits]);
}

fn first_largest(row: &[f64]) -> usize {
    (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best }).unwrap_or(0)
}

/// PyTorch's `binary_cross_entropy_with_logits`, `mse_loss` and `huber_loss` with a weight an element and
/// `reduction="sum"`.
pub(super) fn elementwise(call: ElementwiseLoss<Read<'_>, Write<'_>>) {
    let ElementwiseLoss { n, classes, mut grad, .. } = call;
    let (mut loss, mut hits) = (0.0, 0.0);
    for row in (0..n).map(|i| i * classes..(i + 1) * classes) {
        let known: Vec<usize> = row.clone().filter(|&i| call.weights[i] != 0.0).collect();
        if let Some(grad) = &mut grad {
            grad[row].fill(0.0);
        }
        for &i in &known {
            let (x, t, w) = (call.x[i], call.targets[i], call.weights[i]);
            let (value, slope) = element(call.loss, x, t);
            loss += w * value;
            if let Some(grad) = &mut grad {
                grad[i] = w * slope;
            }
        }
        let right = |&i: &usize| if call.targets[i] > 0.5 { call.x[i] > 0.0 } else { call.x[i] <= 0.0 };
        if call.loss == ElementLoss::BinaryCrossEntropy && !known.is_empty() && known.iter().all(right) {
            hits += 1.0;
        }
    }
    call.stats[..2].copy_from_slice(&[loss, hits]);
}

fn element(loss: ElementLoss, x: f64, t: f64) -> (f64, f64) {
    let off = x - t;
    match loss {
        ElementLoss::BinaryCrossEntropy => {
            // log σ(x) = -log(1 + exp(-x)), and exp does not overflow where its argument is not positive.
            let log_sigmoid = |x: f64| x.min(0.0) - (-x.abs()).exp().ln_1p();
            (-t * log_sigmoid(x) - (1.0 - t) * log_sigmoid(-x), log_sigmoid(x).exp() - t)
        }
        ElementLoss::Squared => (off * off, 2.0 * off),
        ElementLoss::Huber { delta } => {
            let delta = f64::from(delta);
            match off.abs() <= delta {
                true => (off * off / 2.0, off),
                false => (delta * (off.abs() - delta / 2.0), delta * off.signum()),
            }
        }
        other => unreachable!("the oracle has no formula for {other:?}"),
    }
}
