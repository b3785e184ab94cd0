//! What a network put out for a data set, and what that is worth.

use defrost_data::{Dataset, NO_LABEL, TargetKind};
use defrost_policy::{Loss, Metric, Metrics, Task};

use crate::loss::{log_softmax, of_class, of_targets, sigmoid, softmax};
use crate::metrics::{
    Average, average, average_precision, counts_of_confusion, counts_of_labels, mean, roc_auc,
    subset_accuracy, value_errors,
};
use crate::{Scale, metrics};

/// Outputs below which mean average precision and the area under the curve are measured in every epoch, asked for or not:
/// fewer than a tenth of a second's work.
const CHEAP: usize = 2_000_000;

/// A network's answers to the images of a data set, in the data set's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// Values an image.
    pub classes: usize,
    /// Which sample of the data set each answer is for. Images that could not be read have none.
    pub samples: Vec<usize>,
    /// What is true.
    pub truth: Truth,
    /// `[samples, classes]`: raw outputs.
    pub logits: Vec<f32>,
    /// What the outputs of a regression have to be taken through to be in the data's units; absent where they are.
    pub scale: Option<Scale>,
}

/// What is true of images.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Truth {
    /// The class of each, or [`NO_LABEL`].
    Classes(Vec<u32>),
    /// `[samples, classes]`: 1 for each label that an image has, else 0, or a number between.
    Labels(Vec<f32>),
    /// `[samples, classes]`: numbers in the data's units.
    Values(Vec<f32>),
}

impl Default for Truth {
    fn default() -> Self {
        Self::Classes(Vec::new())
    }
}

impl Truth {
    /// What is true of these samples of `data`.
    pub fn of(data: &Dataset, samples: &[usize]) -> Self {
        let rows = || samples.iter().flat_map(|&s| data.targets(s).iter().copied()).collect();
        match data.kind() {
            TargetKind::Values => Self::Values(rows()),
            TargetKind::Classes => Self::Labels(rows()),
            _ => Self::Classes(samples.iter().map(|&s| data.samples()[s].label).collect()),
        }
    }
}

impl Outputs {
    /// What was asked of the network.
    pub const fn task(&self) -> Task {
        match self.truth {
            Truth::Classes(_) => Task::Classification,
            Truth::Labels(_) => Task::MultiLabel,
            Truth::Values(_) => Task::Regression,
        }
    }

    /// The raw outputs of each image.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.logits.chunks_exact(self.classes.max(1))
    }

    /// The raw outputs of each image with its place and its class, where it has one.
    pub(crate) fn labelled(&self) -> impl Iterator<Item = (usize, usize, &[f32])> {
        let labels = match &self.truth {
            Truth::Classes(labels) => labels.as_slice(),
            _ => &[],
        };
        let known = |&(_, (label, _)): &(usize, (&u32, &[f32]))| {
            *label != NO_LABEL && (*label as usize) < self.classes
        };
        labels.iter().zip(self.rows()).enumerate().filter(known).map(|(i, (l, row))| (i, *l as usize, row))
    }

    /// `[samples, classes]`: the softmax of each row, of several labels the sigmoid of each value, of a regression the
    /// numbers in the data's units.
    pub fn answers(&self) -> Vec<f32> {
        let mut all = self.logits.clone();
        match (&self.truth, &self.scale) {
            (Truth::Classes(_), _) => all.chunks_exact_mut(self.classes.max(1)).for_each(softmax),
            (Truth::Labels(_), _) => sigmoid(&mut all),
            (Truth::Values(_), Some(scale)) => scale.restore(&mut all),
            (Truth::Values(_), None) => {}
        }
        all
    }

    /// The metrics of the task ([`Task::metrics`]) over the images whose truth is known; nothing where there is none. The
    /// loss is that of `loss` without smoothing and weights, in the units that are learned. Those that take long for many
    /// images and classes are only measured where `more` asks for them. Sums run over images in the data set's order in
    /// double precision.
    pub fn metrics(&self, loss: &Loss, more: &[Metric]) -> Metrics {
        let mut all = match self.task() {
            Task::MultiLabel => self.label_metrics(loss),
            Task::Regression => self.value_metrics(loss),
            _ => self.class_metrics(loss, more.contains(&Metric::Top5)),
        };
        let ranks = self.task() != Task::Regression && !all.0.is_empty();
        for (metric, score) in [(Metric::Map, average_precision as Ranking), (Metric::Auc, roc_auc)] {
            if ranks && (self.logits.len() <= CHEAP || more.contains(&metric)) {
                // Where no class has a score, 0: as bad as can be, and comparable.
                all.0.insert(metric, mean(self.per_class(score)).unwrap_or(0.0));
            }
        }
        all
    }

    fn class_metrics(&self, loss: &Loss, top5: bool) -> Metrics {
        let (mut images, mut sum, mut first, mut fifth) = (0usize, 0.0, 0usize, 0usize);
        for (_, label, row) in self.labelled() {
            images += 1;
            sum += of_class(loss, row, label);
            let rank = rank(row, label);
            first += usize::from(rank == 0);
            fifth += usize::from(rank < 5);
        }
        if images == 0 {
            return Metrics::default();
        }
        let part = |n: usize| n as f64 / images as f64;
        let mut metrics =
            Metrics::from([(Metric::Loss, sum / images as f64), (Metric::Accuracy, part(first))]);
        if top5 || self.classes > 5 {
            metrics.0.insert(Metric::Top5, part(fifth));
        }
        // Classes without an image and never named say nothing (scikit-learn takes those that occur).
        let counts: Vec<_> = counts_of_confusion(&self.confusion())
            .into_iter()
            .filter(|c| c.images + c.predicted > 0)
            .collect();
        put(&mut metrics, average(&counts, Average::Macro), MACRO);
        put(&mut metrics, average(&counts, Average::Weighted), WEIGHTED);
        metrics
    }

    fn label_metrics(&self, loss: &Loss) -> Metrics {
        if self.samples.is_empty() {
            return Metrics::default();
        }
        let (said, truth) = self.said_and_true();
        let counts = counts_of_labels(&said, &truth, self.classes);
        let mut metrics = Metrics::from([
            (Metric::Loss, self.mean_loss(loss)),
            (Metric::Accuracy, subset_accuracy(&said, &truth, self.classes)),
        ]);
        put(&mut metrics, average(&counts, Average::Macro), MACRO);
        put(&mut metrics, average(&counts, Average::Weighted), WEIGHTED);
        put(&mut metrics, average(&counts, Average::Micro), MICRO);
        metrics
    }

    fn value_metrics(&self, loss: &Loss) -> Metrics {
        if self.samples.is_empty() {
            return Metrics::default();
        }
        let errors = self.value_errors();
        let over = |value: fn(&metrics::ValueError) -> f64| {
            mean(errors.iter().map(|e| Some(value(e)))).unwrap_or(0.0)
        };
        Metrics::from([
            (Metric::Loss, self.mean_loss(loss)),
            (Metric::Mae, over(|e| e.mae)),
            (Metric::Rmse, over(|e| e.rmse)),
            (Metric::R2, over(|e| e.r2)),
        ])
    }

    /// The errors of each number of a regression.
    pub(crate) fn value_errors(&self) -> Vec<metrics::ValueError> {
        let Truth::Values(truth) = &self.truth else { return Vec::new() };
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        value_errors(&wide(&self.answers()), &wide(truth), self.classes)
    }

    /// Which labels are said (a probability above one half) and which are true (a target above one half).
    pub(crate) fn said_and_true(&self) -> (Vec<bool>, Vec<bool>) {
        let Truth::Labels(truth) = &self.truth else { return Default::default() };
        (self.logits.iter().map(|v| *v > 0.0).collect(), truth.iter().map(|t| *t > 0.5).collect())
    }

    /// The loss of each image whose targets are rows.
    pub(crate) fn losses(&self, loss: &Loss) -> Vec<f64> {
        let (targets, scale) = match &self.truth {
            Truth::Labels(truth) => (truth, None),
            Truth::Values(truth) => (truth, self.scale.as_ref()),
            Truth::Classes(_) => return Vec::new(),
        };
        let learned = |(c, t): (usize, &f32)| scale.map_or(f64::from(*t), |s| s.learned(c, f64::from(*t)));
        let rows = self.rows().zip(targets.chunks_exact(self.classes.max(1)));
        rows.map(|(row, t)| of_targets(loss, row, t.iter().enumerate().map(learned))).collect()
    }

    fn mean_loss(&self, loss: &Loss) -> f64 {
        let losses = self.losses(loss);
        losses.iter().sum::<f64>() / losses.len().max(1) as f64
    }

    /// A score of the order of images for each class against all others; nothing for classes for which it is not defined.
    pub(crate) fn per_class(&self, score: Ranking) -> Vec<Option<f64>> {
        let rows: Vec<(Vec<f64>, Vec<bool>)> = match &self.truth {
            Truth::Classes(_) => {
                let row = |(_, label, row): (usize, usize, &[f32])| {
                    (log_softmax(row), (0..self.classes).map(|c| c == label).collect())
                };
                self.labelled().map(row).collect()
            }
            Truth::Labels(truth) => {
                let row = |(row, truth): (&[f32], &[f32])| {
                    (row.iter().map(|&v| f64::from(v)).collect(), truth.iter().map(|&t| t > 0.5).collect())
                };
                self.rows().zip(truth.chunks_exact(self.classes.max(1))).map(row).collect()
            }
            Truth::Values(_) => return Vec::new(),
        };
        let of = |class: usize| {
            let answers: Vec<_> = rows.iter().map(|(scores, truth)| (scores[class], truth[class])).collect();
            score(&answers)
        };
        (0..self.classes).map(of).collect()
    }

    /// `[truth][prediction]`: images of one class each.
    pub fn confusion(&self) -> Vec<Vec<usize>> {
        let mut confusion = vec![vec![0; self.classes]; self.classes];
        self.labelled().for_each(|(_, label, row)| confusion[label][largest(row)] += 1);
        confusion
    }
}

/// A score of the order of images by (score, is it of the class).
pub(crate) type Ranking = fn(&[(f64, bool)]) -> Option<f64>;

const MACRO: [Metric; 3] = [Metric::Precision, Metric::Recall, Metric::F1];
const WEIGHTED: [Metric; 3] = [Metric::PrecisionWeighted, Metric::RecallWeighted, Metric::F1Weighted];
const MICRO: [Metric; 3] = [Metric::PrecisionMicro, Metric::RecallMicro, Metric::F1Micro];

fn put(metrics: &mut Metrics, scores: metrics::Scores, names: [Metric; 3]) {
    metrics.0.extend(names.into_iter().zip([scores.precision, scores.recall, scores.f1]));
}

/// The place of the greatest value, the first of equals.
pub(crate) fn largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best
}

/// How many values come before `row[at]`: greater ones, and equal ones to its left.
fn rank(row: &[f32], at: usize) -> usize {
    row.iter().enumerate().filter(|&(i, &v)| v > row[at] || (v == row[at] && i < at)).count()
}
