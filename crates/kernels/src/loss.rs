//! Losses: softmax cross-entropy and the focal loss with any target weights, and losses of single outputs.

use defrost_tensor::ElementLoss;

/// The loss' sum and the number of hits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossStats {
    /// The sum over all rows.
    pub loss: f64,
    /// Rows that are right: see the calls of `defrost-tensor`.
    pub hits: usize,
}

/// Softmax cross-entropy of rows of `classes` logits, or the focal loss `-Σ_c t_c · (1 - p_c)^gamma · log p_c`, and its
/// gradient `a - (Σ_c a_c) · p` with `a_c = t_c · (gamma · p_c · (1 - p_c)^(gamma - 1) · log p_c - (1 - p_c)^gamma)`.
///
/// A weight of 0 contributes nothing, even where the probability is 0.
///
/// # Panics
/// Where the lengths do not fit.
pub fn softmax_cross_entropy(
    classes: usize,
    gamma: f32,
    logits: &[f32],
    targets: &[f32],
    mut grad: Option<&mut [f32]>,
) -> LossStats {
    assert_eq!((logits.len(), logits.len() % classes), (targets.len(), 0), "logits and targets");
    assert!(grad.as_ref().is_none_or(|g| g.len() == logits.len()), "gradient");
    let mut stats = LossStats::default();
    for (row, (z, t)) in logits.chunks_exact(classes).zip(targets.chunks_exact(classes)).enumerate() {
        let (best, top) = first_largest(z);
        let (right, weight) = first_largest(t);
        stats.hits += usize::from(!top.is_nan() && best == right && weight > 0.0);
        let exp = |z: f32| f64::from(z - top).exp();
        let total: f64 = z.iter().map(|&z| exp(z)).sum();
        let log_total = total.ln();
        let mut pull = 0.0;
        for (&z, &t) in z.iter().zip(t).filter(|&(_, &t)| t != 0.0) {
            let focus = Focus::new(gamma, f64::from(z - top) - log_total);
            stats.loss -= f64::from(t) * focus.value;
            pull += f64::from(t) * focus.slope;
        }
        if let Some(grad) = &mut grad {
            for ((g, &z), &t) in grad[row * classes..].iter_mut().zip(z).zip(t) {
                let own = match t {
                    0.0 => 0.0,
                    t => f64::from(t) * Focus::new(gamma, f64::from(z - top) - log_total).slope,
                };
                *g = (pull * exp(z) / total - own) as f32;
            }
        }
    }
    stats
}

/// `(1 - p)^gamma · log p` and `d/d(log p)` of it, at a `log p`.
struct Focus {
    value: f64,
    slope: f64,
}

impl Focus {
    #[inline]
    fn new(gamma: f32, log_p: f64) -> Self {
        if gamma == 0.0 {
            return Self { value: log_p, slope: 1.0 };
        }
        let (p, rest, gamma) = (log_p.exp(), -log_p.exp_m1(), f64::from(gamma));
        let power = rest.powf(gamma);
        // `log p / (1 - p)` tends to -1 as p tends to 1.
        let ratio = if rest > 0.0 { log_p / rest } else { -1.0 };
        // A probability of 0 has an infinite logarithm and no weight in the slope.
        let bend = if p > 0.0 { gamma * p * ratio } else { 0.0 };
        Self { value: power * log_p, slope: power * (1.0 - bend) }
    }
}

/// A loss of single outputs and its gradient, each element times its weight; what weighs 0 contributes nothing.
///
/// # Panics
/// Where the lengths do not fit.
pub fn elementwise(
    loss: ElementLoss,
    classes: usize,
    x: &[f32],
    targets: &[f32],
    weights: &[f32],
    mut grad: Option<&mut [f32]>,
) -> LossStats {
    assert_eq!((targets.len(), weights.len()), (x.len(), x.len()), "outputs, targets and weights");
    assert_eq!(x.len() % classes, 0, "whole rows");
    assert!(grad.as_ref().is_none_or(|g| g.len() == x.len()), "gradient");
    let mut stats = LossStats::default();
    for (row, x) in x.chunks_exact(classes).enumerate() {
        let (mut known, mut right) = (false, loss == ElementLoss::BinaryCrossEntropy);
        for (i, &x) in x.iter().enumerate() {
            let at = row * classes + i;
            let (t, w) = (targets[at], f64::from(weights[at]));
            let (value, slope) = if w == 0.0 { (0.0, 0.0) } else { element(loss, x.into(), t.into()) };
            stats.loss += w * value;
            if let Some(grad) = &mut grad {
                grad[at] = (w * slope) as f32;
            }
            known |= w != 0.0;
            right &= w == 0.0 || if t > 0.5 { x > 0.0 } else { x <= 0.0 };
        }
        stats.hits += usize::from(known && right);
    }
    stats
}

/// The loss of an output and its derivative.
fn element(loss: ElementLoss, x: f64, t: f64) -> (f64, f64) {
    let off = x - t;
    match loss {
        ElementLoss::BinaryCrossEntropy => {
            let small = (-x.abs()).exp();
            let sigmoid = if x < 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
            // The order keeps NaN.
            let above = if x < 0.0 { 0.0 } else { x };
            (above - x * t + small.ln_1p(), sigmoid - t)
        }
        ElementLoss::Huber { delta } if off.abs() > delta.into() => {
            let delta = f64::from(delta);
            (delta * (off.abs() - 0.5 * delta), delta * off.signum())
        }
        ElementLoss::Huber { .. } => (0.5 * off * off, off),
        // `Squared`; a loss that this crate has not heard of is refused by its backend.
        _ => (off * off, 2.0 * off),
    }
}

/// The first of the largest values and its place; NaN counts as the largest.
fn first_largest(row: &[f32]) -> (usize, f32) {
    let mut best = (0, row[0]);
    for (i, &v) in row.iter().enumerate().skip(1) {
        if v > best.1 || (v.is_nan() && !best.1.is_nan()) {
            best = (i, v);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_gradient_and_hits_follow_the_definition() {
        let z = [1.0, 3.0, 2.0, 1000.0, 1000.0, -1000.0];
        let t = [0.1, 0.8, 0.1, 1.0, 0.0, 0.0];
        let mut grad = [0.0; 6];
        let stats = softmax_cross_entropy(3, 0.0, &z, &t, Some(&mut grad));
        let total: f64 = [1.0f64, 3.0, 2.0].iter().map(|z| z.exp()).sum();
        let first = -(0.1 * 1.0 + 0.8 * 3.0 + 0.1 * 2.0 - total.ln());
        assert!((stats.loss - (first + 2f64.ln())).abs() < 1e-6, "{}", stats.loss);
        assert_eq!(stats.hits, 2);
        let want =
            [1f64.exp() / total - 0.1, 3f64.exp() / total - 0.8, 2f64.exp() / total - 0.1, -0.5, 0.5, 0.0];
        assert!(grad.iter().zip(want).all(|(&g, w)| (f64::from(g) - w).abs() < 1e-6), "{grad:?}");
        assert_eq!(softmax_cross_entropy(3, 0.0, &z, &t, None), stats);
    }

    #[test]
    fn a_broken_row_shows_and_is_no_hit() {
        let stats = softmax_cross_entropy(2, 0.0, &[f32::NAN, 1.0], &[1.0, 0.0], None);
        assert!(stats.loss.is_nan() && stats.hits == 0);
    }

    #[test]
    fn a_row_without_a_target_is_no_hit() {
        let stats = softmax_cross_entropy(2, 0.0, &[3.0, 1.0, 3.0, 1.0], &[0.0, 0.0, 1.0, 0.0], None);
        assert_eq!(stats.hits, 1);
    }

    #[test]
    fn the_focal_loss_is_finite_at_both_ends_and_its_gradient_vanishes_where_all_is_well() {
        for gamma in [0.5, 1.0, 2.0] {
            let mut grad = [9.0; 4];
            let z = [500.0, -500.0, -500.0, 500.0];
            let stats = softmax_cross_entropy(2, gamma, &z, &[1.0, 0.0, 1.0, 0.0], Some(&mut grad));
            assert!((stats.loss - 1000.0).abs() < 1e-3, "{}", stats.loss);
            assert_eq!((grad, stats.hits), ([0.0, 0.0, -1.0, 1.0], 1));
        }
    }

    #[test]
    fn losses_of_single_outputs_follow_their_definitions() {
        let (x, t) = ([0.5f32, -3.0, 40.0, 1.0], [1.0f32, 0.5, 1.0, f32::NAN]);
        let w = [2.0, 1.0, 0.5, 0.0];
        let run = |loss| {
            let mut grad = [9.0; 4];
            let stats = elementwise(loss, 2, &x, &t, &w, Some(&mut grad));
            (stats.loss, stats.hits, grad.map(f64::from))
        };
        let close = |got: (f64, usize, [f64; 4]), loss: f64, hits: usize, grad: [f64; 4]| {
            assert!((got.0 - loss).abs() < 1e-6 && got.1 == hits, "{got:?} instead of {loss}");
            assert!(got.2.iter().zip(grad).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?} instead of {grad:?}");
        };
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        let bce = |z: f64, t: f64| -t * sigmoid(z).ln() - (1.0 - t) * sigmoid(-z).ln();
        let want = 2.0 * bce(0.5, 1.0) + bce(-3.0, 0.5);
        let grad = [2.0 * (sigmoid(0.5) - 1.0), sigmoid(-3.0) - 0.5, 0.0, 0.0];
        close(run(ElementLoss::BinaryCrossEntropy), want, 2, grad);
        let want = 2.0 * 0.25 + 3.5 * 3.5 + 0.5 * 39.0 * 39.0;
        close(run(ElementLoss::Squared), want, 0, [-2.0, -7.0, 39.0, 0.0]);
        let want = 2.0 * 0.125 + 2.0 * (3.5 - 1.0) + 0.5 * 2.0 * (39.0 - 1.0);
        close(run(ElementLoss::Huber { delta: 2.0 }), want, 0, [-1.0, -2.0, 1.0, 0.0]);
    }
}
