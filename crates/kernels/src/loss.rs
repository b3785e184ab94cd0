//! Softmax cross-entropy with any target weights.

/// The loss' sum and the number of hits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossStats {
    /// `Σ_rows -Σ_c t_c · log softmax(z)_c`.
    pub loss: f64,
    /// Rows whose largest logit (the first of equals) is where their target is largest.
    pub hits: usize,
}

/// Softmax cross-entropy of rows of `classes` logits, and its gradient `(Σ_c t_c) · softmax(z) - t`.
///
/// A weight of 0 contributes nothing, even where the probability is 0.
///
/// # Panics
/// Where the lengths do not fit.
pub fn softmax_cross_entropy(
    classes: usize,
    logits: &[f32],
    targets: &[f32],
    mut grad: Option<&mut [f32]>,
) -> LossStats {
    assert_eq!((logits.len(), logits.len() % classes), (targets.len(), 0), "logits and targets");
    assert!(grad.as_ref().is_none_or(|g| g.len() == logits.len()), "gradient");
    let mut stats = LossStats::default();
    for (row, (z, t)) in logits.chunks_exact(classes).zip(targets.chunks_exact(classes)).enumerate() {
        let (best, top) = first_largest(z);
        stats.hits += usize::from(!top.is_nan() && best == first_largest(t).0);
        let exp = |z: f32| f64::from(z - top).exp();
        let total: f64 = z.iter().map(|&z| exp(z)).sum();
        let log_total = total.ln();
        let mut weight = 0.0;
        for (&z, &t) in z.iter().zip(t).filter(|&(_, &t)| t != 0.0) {
            stats.loss -= f64::from(t) * (f64::from(z - top) - log_total);
            weight += f64::from(t);
        }
        if let Some(grad) = &mut grad {
            for ((g, &z), &t) in grad[row * classes..].iter_mut().zip(z).zip(t) {
                *g = (weight * exp(z) / total - f64::from(t)) as f32;
            }
        }
    }
    stats
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
        let stats = softmax_cross_entropy(3, &z, &t, Some(&mut grad));
        let total: f64 = [1.0f64, 3.0, 2.0].iter().map(|z| z.exp()).sum();
        let first = -(0.1 * 1.0 + 0.8 * 3.0 + 0.1 * 2.0 - total.ln());
        assert!((stats.loss - (first + 2f64.ln())).abs() < 1e-6, "{}", stats.loss);
        assert_eq!(stats.hits, 2);
        let want =
            [1f64.exp() / total - 0.1, 3f64.exp() / total - 0.8, 2f64.exp() / total - 0.1, -0.5, 0.5, 0.0];
        assert!(grad.iter().zip(want).all(|(&g, w)| (f64::from(g) - w).abs() < 1e-6), "{grad:?}");
        assert_eq!(softmax_cross_entropy(3, &z, &t, None), stats);
    }

    #[test]
    fn a_broken_row_shows_and_is_no_hit() {
        let stats = softmax_cross_entropy(2, &[f32::NAN, 1.0], &[1.0, 0.0], None);
        assert!(stats.loss.is_nan() && stats.hits == 0);
    }
}
