//! Errors of predicted numbers.

/// How far one predicted number is off, over all images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ValueError {
    /// Mean absolute error, in the number's unit.
    pub mae: f64,
    /// Root of the mean squared error, in the number's unit.
    pub rmse: f64,
    /// Coefficient of determination, `1 - Σ (t - p)² / Σ (t - mean t)²`: 1 is perfect, 0 no better than answering the mean.
    /// Of truths that are all the same, 1 where every answer is right and 0 otherwise (scikit-learn's `force_finite`).
    pub r2: f64,
    /// The mean of the truths.
    pub mean: f64,
    /// Their standard deviation (divided by the number of images).
    pub std: f64,
}

/// The errors of each of `width` numbers an image; `answers` and `truths` are `[images, width]`. The errors of all numbers
/// together are the means of these (scikit-learn's `multioutput="uniform_average"`).
pub fn value_errors(answers: &[f64], truths: &[f64], width: usize) -> Vec<ValueError> {
    let images = truths.len() / width.max(1);
    let one = |column: usize| {
        let pairs = || (0..images).map(move |row| row * width + column).map(|i| (answers[i], truths[i]));
        let n = images.max(1) as f64;
        let mean = pairs().map(|(_, t)| t).sum::<f64>() / n;
        let total: f64 = pairs().map(|(_, t)| (t - mean).powi(2)).sum();
        let squared: f64 = pairs().map(|(p, t)| (t - p).powi(2)).sum();
        let r2 = match (total > 0.0, squared > 0.0) {
            (true, _) => 1.0 - squared / total,
            (false, wrong) => f64::from(u8::from(!wrong)),
        };
        ValueError {
            mae: pairs().map(|(p, t)| (t - p).abs()).sum::<f64>() / n,
            rmse: (squared / n).sqrt(),
            r2,
            mean,
            std: (total / n).sqrt(),
        }
    };
    (0..width).map(one).collect()
}
