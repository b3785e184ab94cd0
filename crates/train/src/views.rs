//! Test-time augmentation: the mean of what a network says of several views of each image.

use defrost_augment::View;
use defrost_data::Loader;
use defrost_exec::Session;
use defrost_policy::Task;
use defrost_tensor::PixelScale;

use crate::evaluate::outputs;
use crate::{Outputs, Result, TrainError, sigmoid, softmax};

/// The answers to all images of `loader`, each the weighted mean over `views` (whose weights add up to 1). What is averaged
/// are probabilities (fastai's `tta`), in regression the numbers themselves; the outputs given back are those of which
/// [`Outputs`] makes these probabilities again. The loader's own pipeline is not used.
///
/// `progress` is told the number of images done, every view counted.
///
/// # Errors
/// The data, the device; [`TrainError::NoImages`].
pub fn evaluate_views(
    session: &mut dyn Session,
    loader: &Loader,
    pixels: &PixelScale,
    views: &[View],
    task: Task,
    progress: &mut dyn FnMut(usize),
) -> Result<Outputs> {
    let (mut mean, mut done) = (None::<(Outputs, Mean)>, 0);
    for view in views {
        let loader = loader.with_pipeline(view.pipeline.clone())?;
        let found = outputs(session, loader.dataset(), loader.epoch(view.epoch), pixels, &mut |n| {
            progress(done + n);
            true
        })?;
        let Some(found) = found else { continue };
        done += found.samples.len();
        let (_, sum) = mean.get_or_insert_with(|| {
            let sum = Mean::new(task, found.classes, found.samples.len());
            (found.clone(), sum)
        });
        sum.add(&found.logits, view.weight);
    }
    match mean {
        Some((outputs, sum)) if !outputs.samples.is_empty() => {
            Ok(Outputs { logits: sum.outputs(), ..outputs })
        }
        _ => Err(TrainError::NoImages { purpose: "measure on" }),
    }
}

/// A weighted mean of answers.
#[derive(Clone, Debug)]
pub struct Mean {
    task: Task,
    classes: usize,
    sums: Vec<f64>,
}

impl Mean {
    /// Of the answers to `n` images, `classes` values each.
    pub fn new(task: Task, classes: usize, n: usize) -> Self {
        Self { task, classes, sums: vec![0.0; n * classes] }
    }

    /// Takes in raw outputs, `[n, classes]`, with a weight.
    pub fn add(&mut self, outputs: &[f32], weight: f64) {
        let mut values = outputs.to_vec();
        match self.task {
            Task::Classification => values.chunks_exact_mut(self.classes.max(1)).for_each(softmax),
            Task::MultiLabel => sigmoid(&mut values),
            _ => {}
        }
        self.sums.iter_mut().zip(values).for_each(|(sum, v)| *sum += weight * f64::from(v));
    }

    /// Raw outputs that stand for the mean: its logarithm, the logit, or itself.
    pub fn outputs(&self) -> Vec<f32> {
        // What is below the smallest of floats is no less likely than that: the logarithm stays a number.
        let p = |sum: &f64| sum.clamp(f64::from(f32::MIN_POSITIVE), 1.0);
        let of = |sum: &f64| match self.task {
            Task::Classification => p(sum).ln(),
            Task::MultiLabel => (p(sum) / (1.0 - p(sum)).max(f64::from(f32::EPSILON) / 4.0)).ln(),
            _ => *sum,
        };
        self.sums.iter().map(|sum| of(sum) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: &[f32], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5)
    }

    /// fastai: `torch.lerp(aug.mean(0), plain, 0.25)` of `[[0.7, 0.2, 0.1]]`, and two augmented `[[0.5, 0.4, 0.1]]`,
    /// `[[0.1, 0.8, 0.1]]`.
    #[test]
    fn probabilities_are_averaged_and_come_back() {
        let ln = |p: [f64; 3]| p.map(|v| (v.ln() + 3.0) as f32);
        let mut mean = Mean::new(Task::Classification, 3, 1);
        mean.add(&ln([0.7, 0.2, 0.1]), 0.25);
        mean.add(&ln([0.5, 0.4, 0.1]), 0.375);
        mean.add(&ln([0.1, 0.8, 0.1]), 0.375);
        let mut found = mean.outputs();
        softmax(&mut found);
        assert!(near(&found, &[0.25 * 0.7 + 0.75 * 0.3, 0.25 * 0.2 + 0.75 * 0.6, 0.1]), "{found:?}");
    }

    #[test]
    fn labels_and_numbers_have_means_of_their_own() {
        let mut mean = Mean::new(Task::MultiLabel, 2, 1);
        mean.add(&[0.0, 100.0], 0.5);
        mean.add(&[3f32.ln(), 100.0], 0.5);
        let sigmoid: Vec<_> = mean.outputs().iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect();
        assert!(near(&sigmoid, &[0.625, 1.0]), "{sigmoid:?}");
        let mut mean = Mean::new(Task::Regression, 1, 2);
        mean.add(&[4.0, -2.0], 0.25);
        mean.add(&[8.0, 2.0], 0.75);
        assert_eq!(mean.outputs(), [7.0, 1.0]);
    }

    #[test]
    fn what_is_impossible_stays_a_number() {
        let mut mean = Mean::new(Task::Classification, 2, 1);
        mean.add(&[0.0, -1e30], 1.0);
        assert!(mean.outputs().iter().all(|v| v.is_finite()), "{:?}", mean.outputs());
    }
}
