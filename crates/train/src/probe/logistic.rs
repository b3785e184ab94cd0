//! Multinomial logistic regression with an L2 penalty, fitted by L-BFGS on all data at once.

use std::collections::VecDeque;

use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};

/// Most steps of L-BFGS; what has not converged by then is used as it is.
const STEPS: usize = 200;
/// Pairs of steps that L-BFGS remembers.
const MEMORY: usize = 10;
/// The greatest partial derivative at which a fit counts as converged (scikit-learn's `tol` for `lbfgs`).
const TOLERANCE: f64 = 1e-4;

/// Weights `[features + 1, classes]`, the last row the bias.
pub(crate) type Weights = Array2<f64>;

/// Minimises `mean cross-entropy + l2 / 2 ‖W‖²`, the bias free of penalty, from `start`. scikit-learn's
/// `LogisticRegression(C=1 / (n l2))` has the same minimum.
///
/// `x` is `[n, features]`, `labels` are below the number of classes.
pub(crate) fn fit(x: ArrayView2<'_, f64>, labels: &[usize], l2: f64, start: Weights) -> Weights {
    fit_to(x, labels, l2, start, TOLERANCE)
}

fn fit_to(x: ArrayView2<'_, f64>, labels: &[usize], l2: f64, start: Weights, tolerance: f64) -> Weights {
    let mut w = start;
    let (mut value, mut grad) = loss(x, labels, l2, &w);
    let mut pairs: VecDeque<(Weights, Weights, f64)> = VecDeque::new();
    for _ in 0..STEPS {
        if grad.iter().all(|g| g.abs() <= tolerance) {
            break;
        }
        let mut direction = descent(&grad, &pairs);
        let mut slope = dot(&grad, &direction);
        if slope >= 0.0 {
            pairs.clear();
            direction = -&grad;
            slope = -dot(&grad, &grad);
        }
        // The very first step knows nothing of the scale.
        let mut step =
            if pairs.is_empty() { 1.0 / grad.iter().map(|g| g.abs()).sum::<f64>().max(1.0) } else { 1.0 };
        let Some((new, new_value, new_grad)) = (0..30).find_map(|_| {
            let new = &w + &(&direction * step);
            let (value_there, grad_there) = loss(x, labels, l2, &new);
            // Armijo's condition.
            if value_there <= value + 1e-4 * step * slope {
                return Some((new, value_there, grad_there));
            }
            step /= 2.0;
            None
        }) else {
            break; // No better point that f64 can tell from this one.
        };
        let (s, y) = (&new - &w, &new_grad - &grad);
        let curvature = dot(&s, &y);
        if curvature > 1e-12 * dot(&y, &y) {
            pairs.push_back((s, y, 1.0 / curvature));
            if pairs.len() > MEMORY {
                pairs.pop_front();
            }
        }
        (w, value, grad) = (new, new_value, new_grad);
    }
    w
}

/// Raw outputs `[n, classes]`.
pub(crate) fn logits(x: ArrayView2<'_, f64>, w: &Weights) -> Array2<f64> {
    let features = x.ncols();
    x.dot(&w.slice(ndarray::s![..features, ..])) + w.row(features)
}

/// The mean cross-entropy and the accuracy of `w` on data; the first of equal outputs counts.
pub(crate) fn measure(x: ArrayView2<'_, f64>, labels: &[usize], w: &Weights) -> (f64, f64) {
    let z = logits(x, w);
    let (mut loss, mut hits) = (0.0, 0);
    for (row, &label) in z.rows().into_iter().zip(labels) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        loss += max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln() - row[label];
        hits += usize::from(row.iter().position(|v| *v == max) == Some(label));
    }
    let n = labels.len().max(1) as f64;
    (loss / n, hits as f64 / n)
}

/// The penalised loss and its gradient.
fn loss(x: ArrayView2<'_, f64>, labels: &[usize], l2: f64, w: &Weights) -> (f64, Weights) {
    let (n, features) = x.dim();
    let mut p = logits(x, w);
    let mut value = 0.0;
    for (mut row, &label) in p.rows_mut().into_iter().zip(labels) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let own = row[label];
        row.mapv_inplace(|v| (v - max).exp());
        let sum = row.sum();
        value += max + sum.ln() - own;
        row.mapv_inplace(|v| v / sum);
        row[label] -= 1.0;
    }
    p /= n as f64;
    let mut grad = Array2::zeros(w.raw_dim());
    grad.slice_mut(ndarray::s![..features, ..]).assign(&x.t().dot(&p));
    grad.row_mut(features).assign(&p.sum_axis(Axis(0)));
    let inner = ndarray::s![..features, ..];
    grad.slice_mut(inner).scaled_add(l2, &w.slice(inner));
    let penalty = w.slice(inner).iter().map(|v| v * v).sum::<f64>();
    (value / n as f64 + l2 / 2.0 * penalty, grad)
}

/// The two-loop recursion (Nocedal and Wright 2006, algorithm 7.4): minus the approximate inverse Hessian times `grad`.
fn descent(grad: &Weights, pairs: &VecDeque<(Weights, Weights, f64)>) -> Weights {
    let mut q = grad.clone();
    let mut alphas = Vec::with_capacity(pairs.len());
    for (s, y, rho) in pairs.iter().rev() {
        let alpha = rho * dot(s, &q);
        q.scaled_add(-alpha, y);
        alphas.push(alpha);
    }
    if let Some((_, y, rho)) = pairs.back() {
        q *= 1.0 / (rho * dot(y, y));
    }
    for ((s, y, rho), alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = rho * dot(y, &q);
        q.scaled_add(alpha - beta, s);
    }
    -q
}

fn dot(a: &Weights, b: &Weights) -> f64 {
    Zip::from(a).and(b).fold(0.0, |sum, x, y| sum + x * y)
}

/// Mean 0 and deviation 1 of each feature on the data it is made of; a feature that never changes becomes 0.
#[derive(Clone, Debug)]
pub(crate) struct Standard {
    mean: Array1<f64>,
    scale: Array1<f64>,
}

impl Standard {
    pub(crate) fn of(x: ArrayView2<'_, f64>) -> Self {
        let mean = x.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(x.ncols()));
        let scale = x.std_axis(Axis(0), 0.0);
        let scale = Zip::from(&scale).and(&mean).map_collect(|s, m| {
            // What rounding leaves of a constant is no deviation.
            if *s > 1e-7 * m.abs() && *s > 1e-12 { 1.0 / s } else { 0.0 }
        });
        Self { mean, scale }
    }

    pub(crate) fn apply(&self, x: &mut Array2<f64>) {
        *x -= &self.mean;
        *x *= &self.scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        n: usize,
        features: usize,
        classes: usize,
        x: Vec<f64>,
        labels: Vec<usize>,
        fits: Vec<Fit>,
    }

    #[derive(serde::Deserialize)]
    struct Fit {
        l2: f64,
        loss: f64,
        weights: Vec<f64>,
    }

    /// `make_logistic.py` fitted the same data with scikit-learn.
    #[test]
    fn the_minimum_is_scikit_learns() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("logistic.json")).unwrap();
        for c in cases {
            let mut x = Array2::from_shape_vec((c.n, c.features), c.x).unwrap();
            Standard::of(x.view()).apply(&mut x);
            let mut w = Weights::zeros((c.features + 1, c.classes));
            for fitted in &c.fits {
                w = fit(x.view(), &c.labels, fitted.l2, w);
                let rough = loss(x.view(), &c.labels, fitted.l2, &w).0 - fitted.loss;
                assert!((-1e-9..1e-5).contains(&rough), "l2 {}: {rough} above the minimum", fitted.l2);
                w = fit_to(x.view(), &c.labels, fitted.l2, w, 1e-7);
                let (value, _) = loss(x.view(), &c.labels, fitted.l2, &w);
                assert!((value - fitted.loss).abs() < 1e-9, "l2 {}: {value}, not {}", fitted.l2, fitted.loss);
                // Biases are only known up to a constant, which scikit-learn centres.
                let mean = w.row(c.features).mean().unwrap();
                w.row_mut(c.features).mapv_inplace(|v| v - mean);
                let worst = w.iter().zip(&fitted.weights).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-4, "l2 {}: weights differ by {worst}", fitted.l2);
            }
        }
    }

    #[test]
    fn a_constant_feature_says_nothing() {
        let mut x = ndarray::array![[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]];
        Standard::of(x.view()).apply(&mut x);
        assert_eq!(x.column(0).to_vec(), [0.0; 3]);
        assert!((x.column(1)[2] - 1.5f64.sqrt()).abs() < 1e-12);
    }
}
