//! Numbers of a regression on a common scale.

use defrost_data::Dataset;
use serde::{Deserialize, Serialize};

/// What `data.standardize` learns by: each number with `mean` taken away, divided by `std`. Kept in checkpoints, because the
/// network's outputs mean nothing without it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Scale {
    /// The mean of each number over the training part.
    pub mean: Vec<f64>,
    /// The standard deviation of each (divided by the number of images); 1 for one that is always the same.
    pub std: Vec<f64>,
}

impl Scale {
    /// The scale of the numbers of `data`.
    pub fn of(data: &Dataset) -> Self {
        let (width, images) = (data.classes().len(), data.len().max(1) as f64);
        let sum = |value: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            let mut sums = vec![0.0; width];
            for i in 0..data.len() {
                sums.iter_mut()
                    .zip(data.targets(i))
                    .enumerate()
                    .for_each(|(c, (s, t))| *s += value(c, f64::from(*t)));
            }
            sums.into_iter().map(|s| s / images).collect()
        };
        let mean = sum(&|_, t| t);
        let std = sum(&|c, t| (t - mean[c]).powi(2)).into_iter().map(f64::sqrt);
        let std = std.map(|s| if s > 0.0 && s.is_finite() { s } else { 1.0 }).collect();
        Self { mean, std }
    }

    /// A number as the network learns it; `column` is its place among the numbers.
    pub fn learned(&self, column: usize, value: f64) -> f64 {
        (value - self.mean[column]) / self.std[column]
    }

    /// An output of the network in the data's unit.
    pub fn meant(&self, column: usize, output: f64) -> f64 {
        output * self.std[column] + self.mean[column]
    }

    /// Rows of outputs in the data's units, in place.
    pub fn restore(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len().max(1)) {
            row.iter_mut().enumerate().for_each(|(c, v)| *v = self.meant(c, f64::from(*v)) as f32);
        }
    }
}
