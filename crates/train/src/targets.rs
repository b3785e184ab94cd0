//! From labels to what a step is given: rows of targets and, for losses of single outputs, their weights.
//!
//! A backend's loss is a sum. Label smoothing, class weights, soft labels and the division that makes a mean of it are in the
//! rows ([`Rows`]): for cross-entropy and the focal loss in the targets, for the others in the weights. The means are
//! PyTorch's (`reduction="mean"`): over images, for cross-entropy over the sum of their class weights, for losses of single
//! outputs over images and outputs.

use defrost_augment::Mix;
use defrost_augment::mix::one_hot;
use defrost_data::{Batch, Dataset, NO_LABEL, TargetKind};
use defrost_policy::{Loss, Recipe, Task};

use crate::{Result, Scale, TrainError};

/// How rows are made, for one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    task: Task,
    classes: usize,
    smoothing: f64,
    /// A weight a class.
    weights: Option<Vec<f64>>,
    /// Whether class weights are what the loss is divided by.
    weighted_mean: bool,
    /// What numbers are learned by.
    scale: Option<Scale>,
    /// The loss of who knows nothing.
    guess: f64,
}

/// What a step is given for some images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// `[n, classes]`.
    pub targets: Vec<f32>,
    /// `[n, classes]`: what the loss of each output counts; empty where that is in the targets.
    pub weights: Vec<f32>,
}

impl Rows {
    /// Divides, so that the sum over the rows is a mean.
    pub fn divide(&mut self, divisor: f64) {
        if divisor > 0.0 {
            let values = if self.weights.is_empty() { &mut self.targets } else { &mut self.weights };
            values.iter_mut().for_each(|v| *v = (f64::from(*v) / divisor) as f32);
        }
    }
}

impl Targets {
    /// For the loss of a recipe on this data.
    ///
    /// # Errors
    /// [`TrainError::WrongTask`] for a loss of another kind of data, [`TrainError::UnknownClasses`],
    /// [`TrainError::DataMisfit`] for targets that the loss cannot have.
    pub fn new(recipe: &Recipe, data: &Dataset) -> Result<Self> {
        let (loss, classes) = (&recipe.loss, data.classes().len());
        check_task(loss, data)?;
        let unknown = |unknown| TrainError::UnknownClasses { unknown, known: data.classes().to_vec() };
        let weights = match loss.class_weights() {
            Some(weights) => weights.weights(data.classes(), &data.class_counts()).map_err(unknown)?,
            None => None,
        };
        let scale = recipe.data.standardize.then(|| Scale::of(data));
        let guess = match loss.task() {
            Task::Classification => (classes as f64).ln(),
            Task::MultiLabel => 2.0_f64.ln(),
            // Of whoever answers the mean; Huber's loss is less.
            _ if scale.is_some() => 1.0,
            _ => Scale::of(data).std.iter().map(|s| s * s).sum::<f64>() / classes.max(1) as f64,
        };
        let smoothing = match loss {
            Loss::CrossEntropy { label_smoothing, .. } | Loss::BinaryCrossEntropy { label_smoothing } => {
                *label_smoothing
            }
            _ => 0.0,
        };
        let weighted_mean = matches!(loss, Loss::CrossEntropy { .. });
        Ok(Self { task: loss.task(), classes, smoothing, weights, weighted_mean, scale, guess })
    }

    /// What numbers are learned by, where the recipe asks for it.
    pub const fn scale(&self) -> Option<&Scale> {
        self.scale.as_ref()
    }

    /// About the loss of a network that knows nothing.
    pub const fn guess(&self) -> f64 {
        self.guess
    }

    /// Rows of these samples of `data`, not yet divided. Returns what the loss is to be divided by.
    pub fn samples(&self, data: &Dataset, samples: &[usize], rows: &mut Rows) -> f64 {
        if self.task == Task::Classification {
            let labels: Vec<_> = samples.iter().map(|&s| data.samples()[s].label).collect();
            return self.labels(&labels, rows);
        }
        samples.iter().map(|&s| self.numbers(data.targets(s), rows)).sum()
    }

    /// Rows of a batch's labels, not yet divided: `[n, classes]`, written after what is in `rows`. Returns what the loss is
    /// to be divided by: the sum of the labels' class weights, for the focal loss the number of labels.
    ///
    /// Row `i` is `(1 - ε) w[y_i] δ_c,y_i + ε/C w[c]`.
    pub fn labels(&self, labels: &[u32], rows: &mut Rows) -> f64 {
        let spread = self.smoothing / self.classes as f64;
        let mut divisor = 0.0;
        for &label in labels {
            let weight = self.weight(label as usize);
            divisor += if self.weighted_mean { weight } else { 1.0 };
            rows.targets.extend((0..self.classes).map(|c| {
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
    pub fn soft(&self, soft: &[f32], rows: &mut Rows) -> f64 {
        let spread = self.smoothing / self.classes as f64;
        for row in soft.chunks_exact(self.classes) {
            rows.targets.extend(
                row.iter().enumerate().map(|(c, &q)| {
                    (self.weight(c) * ((1.0 - self.smoothing) * f64::from(q) + spread)) as f32
                }),
            );
        }
        (soft.len() / self.classes) as f64
    }

    /// Rows of targets of single outputs, `[n, classes]`, not yet divided, each with weight 1. Returns what the loss is to be
    /// divided by: their number.
    ///
    /// Labels become `y (1 - ε) + ε/2`, numbers are taken to the scale that they are learned by.
    pub fn numbers(&self, targets: &[f32], rows: &mut Rows) -> f64 {
        let learned = |(i, &t): (usize, &f32)| match &self.scale {
            Some(scale) => scale.learned(i % self.classes, f64::from(t)) as f32,
            None if self.smoothing > 0.0 => {
                (f64::from(t) * (1.0 - self.smoothing) + 0.5 * self.smoothing) as f32
            }
            None => t,
        };
        rows.targets.extend(targets.iter().enumerate().map(learned));
        rows.weights.resize(rows.targets.len(), 1.0);
        targets.len() as f64
    }

    /// Rows of a batch of images, mixed with one another where `mix` says so for batch `number` of an epoch: then the
    /// pixels are changed and the labels are soft, the numbers means. Returns as [`Targets::labels`].
    pub(crate) fn batch(
        &self,
        batch: &mut Batch,
        mix: &Mix,
        (seed, epoch, number): (u64, usize, usize),
        rows: &mut Rows,
    ) -> Result<f64> {
        let classes = self.task == Task::Classification;
        if classes {
            check_labels(batch, self.classes)?;
        }
        let shape = [batch.n, batch.h, batch.w];
        let mixed = |e: defrost_augment::Error| TrainError::Data(e.into());
        let Some(plan) = mix.plan(seed, epoch as u64, number as u64, shape) else {
            return Ok(if classes {
                self.labels(&batch.labels, rows)
            } else {
                self.numbers(&batch.targets, rows)
            });
        };
        plan.mix_bytes(&mut batch.pixels, [batch.n, batch.h, batch.w, batch.channels]).map_err(mixed)?;
        if classes {
            let mut soft = one_hot(&batch.labels, self.classes, 0.0);
            plan.mix_targets(&mut soft, self.classes).map_err(mixed)?;
            return Ok(self.soft(&soft, rows));
        }
        plan.mix_targets(&mut batch.targets, self.classes).map_err(mixed)?;
        Ok(self.numbers(&batch.targets, rows))
    }

    fn weight(&self, class: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |w| w.get(class).copied().unwrap_or(1.0))
    }
}

/// The loss and the data must be of one kind, and targets what the loss can have.
pub(crate) fn check_task(loss: &Loss, data: &Dataset) -> Result<()> {
    let has = match data.kind() {
        TargetKind::Classes => Task::MultiLabel,
        TargetKind::Values => Task::Regression,
        _ => Task::Classification,
    };
    if loss.task() != has {
        return Err(TrainError::WrongTask { loss: loss.name(), wants: loss.task(), has });
    }
    let bad = |t: &f32| !t.is_finite() || (has == Task::MultiLabel && !(0.0..=1.0).contains(t));
    for i in 0..data.len() {
        if let Some(at) = data.targets(i).iter().position(bad) {
            return Err(TrainError::Target {
                image: data.samples()[i].name.clone(),
                name: data.classes()[at].clone(),
                value: data.targets(i)[at],
                rule: if has == Task::MultiLabel {
                    "a label is 0, 1 or between"
                } else {
                    "it must be finite"
                },
            });
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use defrost_policy::ClassWeights;

    use super::*;

    /// Three classes of 2, 1 and 1 images.
    fn data() -> Dataset {
        let names = ["a", "b", "c"].map(String::from).to_vec();
        Dataset::from_arrays(vec![0; 4], [1, 1, 1], vec![0, 0, 1, 2], names).unwrap()
    }

    fn targets(loss: Loss) -> Targets {
        Targets::new(&Recipe::default().loss(loss), &data()).unwrap()
    }

    fn cross_entropy(label_smoothing: f64, weights: Option<[f64; 3]>) -> Loss {
        let named = |w: [f64; 3]| ["a", "b", "c"].map(String::from).into_iter().zip(w).collect();
        let class_weights = weights.map_or(ClassWeights::None, |w| ClassWeights::Table(named(w)));
        Loss::CrossEntropy { label_smoothing, class_weights }
    }

    /// `torch.nn.functional.cross_entropy` on these logits, computed from its definition in double precision.
    fn loss(rows: &Rows, logits: &[[f64; 3]]) -> f64 {
        let mut sum = 0.0;
        for (row, logits) in rows.targets.chunks_exact(3).zip(logits) {
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
            let targets = targets(cross_entropy(smoothing, weights));
            let mut rows = Rows::default();
            let divisor = targets.labels(&[2, 0], &mut rows);
            rows.divide(divisor);
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
    fn the_focal_loss_has_weights_and_divides_by_images() {
        let targets = targets(Loss::Focal { gamma: 2.0, class_weights: ClassWeights::Balanced });
        let mut rows = Rows::default();
        assert_eq!(targets.labels(&[0, 2], &mut rows), 2.0);
        // 4 images, 3 classes: 4 / (3 * 2) and 4 / (3 * 1).
        let want = [2.0 / 3.0, 0.0, 0.0, 0.0, 0.0, 4.0 / 3.0];
        assert!(
            rows.targets.iter().zip(want).all(|(&got, want): (_, f64)| (f64::from(got) - want).abs() < 1e-6)
        );
        assert!(rows.weights.is_empty());
    }

    #[test]
    fn mixed_batches_have_the_targets_of_both_images() {
        let targets = targets(Loss::default());
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
        let (mut batch, mut rows) = (plain.clone(), Rows::default());
        assert_eq!(targets.batch(&mut batch, &mix, (1, 2, 3), &mut rows).unwrap(), 2.0);
        let row = &rows.targets;
        // The brightness of the first pixel tells how much of the second image is in it.
        let other = f64::from(batch.pixels[0]) / 200.0;
        assert!(
            other > 0.0 && (f64::from(row[2]) - other).abs() < 0.01 && row[1] == 0.0,
            "{batch:?} {rows:?}"
        );
        assert!((row[0] + row[2] - 1.0).abs() < 1e-6);
        let (mut same, mut again) = (plain.clone(), Rows::default());
        targets.batch(&mut same, &mix, (1, 2, 3), &mut again).unwrap();
        assert_eq!((same, &again), (batch, &rows), "keyed by seed, epoch and number of the batch");

        // Numbers are mixed in the same proportion, on the scale they are learned by.
        let numbers =
            data().with_targets(TargetKind::Values, vec!["v".into()], vec![10.0, 30.0, 10.0, 30.0]).unwrap();
        let mut recipe = Recipe::default().loss(Loss::MeanSquared {});
        recipe.data.standardize = true;
        let targets = Targets::new(&recipe, &numbers).unwrap();
        let (mut batch, mut rows) = (Batch { targets: vec![10.0, 30.0], ..plain }, Rows::default());
        assert_eq!(targets.batch(&mut batch, &mix, (1, 2, 3), &mut rows).unwrap(), 2.0);
        assert!((f64::from(rows.targets[0]) - (2.0 * other - 1.0)).abs() < 0.02, "{rows:?}");
        rows.divide(2.0);
        assert_eq!(rows.weights, [0.5, 0.5]);
    }

    #[test]
    fn soft_labels_divide_by_rows_whatever_the_weights() {
        let targets = targets(cross_entropy(0.1, Some([0.5, 1.0, 2.0])));
        let mut rows = Rows::default();
        let divisor = targets.soft(&[0.25, 0.75, 0.0, 0.0, 0.0, 1.0], &mut rows);
        assert_eq!(divisor, 2.0);
        let want = 1.0 * (0.9 * 0.75 + 0.1 / 3.0);
        assert!((f64::from(rows.targets[1]) - want).abs() < 1e-7);
        let want = 2.0 * (0.9 + 0.1 / 3.0);
        assert!((f64::from(rows.targets[5]) - want).abs() < 1e-7);
    }

    #[test]
    fn labels_by_themselves_are_smoothed_towards_one_half() {
        let names = || ["x", "y"].map(String::from).to_vec();
        let labels =
            |values: [f32; 8]| data().with_targets(TargetKind::Classes, names(), values.to_vec()).unwrap();
        let recipe = Recipe::default().loss(Loss::BinaryCrossEntropy { label_smoothing: 0.2 });
        let set = labels([1.0, 0.0, 0.0, 1.0, 0.5, 0.0, 1.0, 1.0]);
        let (targets, mut rows) = (Targets::new(&recipe, &set).unwrap(), Rows::default());
        assert_eq!(targets.samples(&set, &[2, 1], &mut rows), 4.0);
        assert_eq!(rows, Rows { targets: vec![0.5, 0.1, 0.1, 0.9], weights: vec![1.0; 4] });

        let error =
            Targets::new(&recipe, &labels([1.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0])).unwrap_err().to_string();
        assert!(error.contains("`#1`") && error.contains("`x`") && error.contains('3'), "{error}");
        let error = Targets::new(&recipe, &data()).unwrap_err().to_string();
        assert!(error.contains("binary_cross_entropy") && error.contains("one class an image"), "{error}");
        let error = Targets::new(&Recipe::default(), &set).unwrap_err().to_string();
        assert!(error.contains("cross_entropy") && error.contains("several labels"), "{error}");
    }
}
