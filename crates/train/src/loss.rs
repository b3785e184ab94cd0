//! The losses of a recipe as they are measured: an image at a time, in double precision, without label smoothing and class
//! weights. Training computes its own on the device.

use defrost_policy::Loss;

/// The loss of one image of class `label` with these raw outputs, under cross-entropy or the focal loss.
pub(crate) fn of_class(loss: &Loss, row: &[f32], label: usize) -> f64 {
    let log_p = log_softmax(row)[label];
    match loss {
        Loss::Focal { gamma, .. } => -(1.0 - log_p.exp()).max(0.0).powf(*gamma) * log_p,
        _ => -log_p,
    }
}

/// The mean loss of the outputs of one image against targets of the same number, under binary cross-entropy or the losses
/// of a regression.
pub(crate) fn of_targets(loss: &Loss, row: &[f32], targets: impl Iterator<Item = f64>) -> f64 {
    let one = |(x, t): (f64, f64)| match loss {
        Loss::MeanSquared {} => (x - t).powi(2),
        Loss::Huber { delta } => match (x - t).abs() {
            near if near <= *delta => 0.5 * near * near,
            far => delta * (far - 0.5 * delta),
        },
        _ => x.max(0.0) - x * t + (-x.abs()).exp().ln_1p(),
    };
    row.iter().map(|&x| f64::from(x)).zip(targets).map(one).sum::<f64>() / row.len().max(1) as f64
}

/// The logarithms of the softmax.
pub(crate) fn log_softmax(row: &[f32]) -> Vec<f64> {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let lse = row.iter().map(|v| (f64::from(*v) - max).exp()).sum::<f64>().ln() + max;
    row.iter().map(|v| f64::from(*v) - lse).collect()
}

/// Softmax in place, computed in double precision.
pub fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
    row.iter_mut().for_each(|v| *v = (f64::from(*v - max).exp() / sum) as f32);
}

/// `1 / (1 + exp(-x))` of each value in place, computed in double precision.
pub fn sigmoid(row: &mut [f32]) {
    row.iter_mut().for_each(|v| *v = (1.0 / (1.0 + (-f64::from(*v)).exp())) as f32);
}
