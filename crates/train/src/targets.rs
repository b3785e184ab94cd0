//! From labels to the rows of targets that a step is given.
//!
//! A backend knows one loss: cross-entropy against rows of any weights, summed. Label smoothing, class weights, soft
//! labels and the division that makes a mean of it are all in the rows. The formulas are those of PyTorch's
//! `cross_entropy` (reduction `mean`).

use defrost_augment::Mix;
use defrost_augment::mix::one_hot;
use defrost_data::{Batch, Dataset, NO_LABEL};
use defrost_policy::{Loss, Recipe};

use crate::{Result, TrainError};

/// How rows are made, for one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    classes: usize,
    smoothing: f64,
    /// A weight a class.
    weights: Option<Vec<f64>>,
}

impl Targets {
    /// For the loss of a recipe on this data.
    ///
    /// # Errors
    /// [`TrainError::UnknownClasses`], [`TrainError::Unsupported`] for a loss that backends do not have.
    pub fn new(loss: &Loss, data: &Dataset) -> Result<Self> {
        let classes = data.classes().len();
        match loss {
            Loss::CrossEntropy { label_smoothing, class_weights } => {
                let weights = class_weights.weights(data.classes(), &data.class_counts());
                let unknown =
                    |unknown| TrainError::UnknownClasses { unknown, known: data.classes().to_vec() };
                Ok(Self { classes, smoothing: *label_smoothing, weights: weights.map_err(unknown)? })
            }
            other => Err(TrainError::Unsupported {
                what: format!("the loss {other:?}"),
                why: "backends compute softmax cross-entropy only".into(),
            }),
        }
    }

    /// Rows of a batch's labels, not yet divided: `[n, classes]`, written after what is in `rows`. Returns what the
    /// loss is to be divided by: the sum of the labels' class weights.
    ///
    /// Row `i` is `(1 - ε) w[y_i] δ_c,y_i + ε/C w[c]`.
    pub fn labels(&self, labels: &[u32], rows: &mut Vec<f32>) -> f64 {
        let spread = self.smoothing / self.classes as f64;
        let mut divisor = 0.0;
        for &label in labels {
            let weight = self.weight(label as usize);
            divisor += weight;
            rows.extend((0..self.classes).map(|c| {
                let own = if c == label as usize { (1.0 - self.smoothing) * weight } else { 0.0 };
                (own + spread * self.weight(c)) as f32
            }));
        }
        divisor
    }

    /// Rows of soft labels `q`, `[n, classes]`, not yet divided. Returns what the loss is to be divided by: the number
    /// of rows, whatever the class weights.
    ///
    /// Row `i` is `w[c] ((1 - ε) q_ic + ε/C)`.
    pub fn soft(&self, soft: &[f32], rows: &mut Vec<f32>) -> f64 {
        let spread = self.smoothing / self.classes as f64;
        for row in soft.chunks_exact(self.classes) {
            rows.extend(
                row.iter().enumerate().map(|(c, &q)| {
                    (self.weight(c) * ((1.0 - self.smoothing) * f64::from(q) + spread)) as f32
                }),
            );
        }
        (soft.len() / self.classes) as f64
    }

    /// Rows of a batch of images, mixed with one another where `mix` says so for batch `number` of an epoch: then the
    /// pixels are changed and the labels are soft. Returns as [`Targets::labels`].
    pub(crate) fn batch(
        &self,
        batch: &mut Batch,
        mix: &Mix,
        (seed, epoch, number): (u64, usize, usize),
        rows: &mut Vec<f32>,
    ) -> Result<f64> {
        check_labels(batch, self.classes)?;
        let shape = [batch.n, batch.h, batch.w];
        let Some(plan) = mix.plan(seed, epoch as u64, number as u64, shape) else {
            return Ok(self.labels(&batch.labels, rows));
        };
        let mixed = |e: defrost_augment::Error| TrainError::Data(e.into());
        plan.mix_bytes(&mut batch.pixels, [batch.n, batch.h, batch.w, batch.channels]).map_err(mixed)?;
        let mut soft = one_hot(&batch.labels, self.classes, 0.0);
        plan.mix_targets(&mut soft, self.classes).map_err(mixed)?;
        Ok(self.soft(&soft, rows))
    }

    fn weight(&self, class: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |w| w.get(class).copied().unwrap_or(1.0))
    }
}

/// Labels that are no class of the data are refused before they become targets.
fn check_labels(batch: &Batch, classes: usize) -> Result<()> {
    let bad = batch.labels.iter().find(|&&l| l == NO_LABEL || l as usize >= classes);
    match bad {
        None => Ok(()),
        Some(&label) => Err(TrainError::DataMisfit {
            what: "labels of the training images",
            network: format!("{classes} classes"),
            data: if label == NO_LABEL {
                "an image without a label".into()
            } else {
                format!("label {label}")
            },
        }),
    }
}

/// How the recipe mixes batches.
pub(crate) const fn mix(recipe: &Recipe) -> Mix {
    let augment = &recipe.augment;
    Mix { mixup: augment.mixup, cutmix: augment.cutmix, p: augment.mix_prob, switch: augment.switch_prob }
}

/// Divides rows, so that the sum over them is a mean.
pub(crate) fn divide(rows: &mut [f32], divisor: f64) {
    if divisor > 0.0 {
        rows.iter_mut().for_each(|v| *v = (f64::from(*v) / divisor) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.nn.functional.cross_entropy` on these logits, computed from its definition in double precision.
    fn loss(rows: &[f32], logits: &[[f64; 3]]) -> f64 {
        let mut sum = 0.0;
        for (row, logits) in rows.chunks_exact(3).zip(logits) {
            let lse = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
            sum += row.iter().zip(logits).map(|(&t, l)| f64::from(t) * (lse - l)).sum::<f64>();
        }
        sum
    }

    const LOGITS: [[f64; 3]; 2] = [[1.0, 2.0, 0.5], [0.3, -1.0, 0.7]];

    /// PyTorch 2.5: `F.cross_entropy(torch.tensor(LOGITS), torch.tensor([2, 0]), weight=…, label_smoothing=…)`.
    #[test]
    fn rows_give_pytorchs_mean() {
        let case = |smoothing, weights: Option<[f64; 3]>| {
            let targets = Targets { classes: 3, smoothing, weights: weights.map(|w| w.to_vec()) };
            let mut rows = Vec::new();
            let divisor = targets.labels(&[2, 0], &mut rows);
            divide(&mut rows, divisor);
            loss(&rows, &LOGITS)
        };
        // By hand from `nll` and `smooth_loss` of aten's `cross_entropy_loss_label_smoothing`.
        let log_p = LOGITS.map(|l| {
            let lse = l.iter().map(|v| v.exp()).sum::<f64>().ln();
            l.map(|v| v - lse)
        });
        let torch = |e: f64, w: [f64; 3]| {
            let weight = w[2] + w[0];
            let nll = -(w[2] * log_p[0][2] + w[0] * log_p[1][0]) / weight;
            let smooth =
                -log_p.iter().map(|row| (0..3).map(|c| w[c] * row[c]).sum::<f64>()).sum::<f64>() / weight;
            (1.0 - e) * nll + e / 3.0 * smooth
        };
        for (e, w) in [(0.0, None), (0.1, None), (0.0, Some([0.5, 1.0, 2.0])), (0.2, Some([0.5, 1.0, 2.0]))] {
            let (got, want) = (case(e, w), torch(e, w.unwrap_or([1.0; 3])));
            assert!((got - want).abs() < 1e-6, "smoothing {e}, weights {w:?}: {got} instead of {want}");
        }
        assert!((case(0.0, None) - (log_p[0][2] + log_p[1][0]) / -2.0).abs() < 1e-6);
    }

    #[test]
    fn mixed_batches_have_the_targets_of_both_images() {
        let targets = Targets { classes: 3, smoothing: 0.0, weights: None };
        let mix = Mix { mixup: 1.0, ..Mix::default() };
        let plain = Batch {
            pixels: vec![0, 200],
            n: 2,
            h: 1,
            w: 1,
            channels: 1,
            labels: vec![0, 2],
            ..Batch::default()
        };
        let (mut batch, mut rows) = (plain.clone(), Vec::new());
        assert_eq!(targets.batch(&mut batch, &mix, (1, 2, 3), &mut rows).unwrap(), 2.0);
        // The brightness of the first pixel tells how much of the second image is in it.
        let other = f64::from(batch.pixels[0]) / 200.0;
        assert!(
            other > 0.0 && (f64::from(rows[2]) - other).abs() < 0.01 && rows[1] == 0.0,
            "{batch:?} {rows:?}"
        );
        assert!((rows[0] + rows[2] - 1.0).abs() < 1e-6);
        let (mut same, mut again) = (plain, Vec::new());
        targets.batch(&mut same, &mix, (1, 2, 3), &mut again).unwrap();
        assert_eq!((same, again), (batch, rows), "keyed by seed, epoch and number of the batch");
    }

    #[test]
    fn soft_labels_divide_by_rows_whatever_the_weights() {
        let targets = Targets { classes: 3, smoothing: 0.1, weights: Some(vec![0.5, 1.0, 2.0]) };
        let mut rows = Vec::new();
        let divisor = targets.soft(&[0.25, 0.75, 0.0, 0.0, 0.0, 1.0], &mut rows);
        assert_eq!(divisor, 2.0);
        let want = 1.0 * (0.9 * 0.75 + 0.1 / 3.0);
        assert!((f64::from(rows[1]) - want).abs() < 1e-7);
        let want = 2.0 * (0.9 + 0.1 / 3.0);
        assert!((f64::from(rows[5]) - want).abs() < 1e-7);
    }
}
