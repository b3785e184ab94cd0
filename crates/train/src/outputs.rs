//! What a network put out for a data set, and what that is worth.

use defrost_data::{Dataset, NO_LABEL};
use defrost_policy::{Metric, Metrics};

use crate::validation::{class_scores, most_confused, worst_mistakes};
use crate::{FORMAT, Prediction, Validation};

/// A network's answers to the images of a data set, in the data set's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// Values an image.
    pub classes: usize,
    /// Which sample of the data set each answer is for. Images that could not be read have none.
    pub samples: Vec<usize>,
    /// The class of each, or [`NO_LABEL`].
    pub labels: Vec<u32>,
    /// `[samples, classes]`: raw outputs.
    pub logits: Vec<f32>,
}

impl Outputs {
    /// The raw outputs of each image with its label, where it has one.
    fn labelled(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let rows = self.labels.iter().zip(self.logits.chunks_exact(self.classes.max(1)));
        rows.filter(|(l, _)| **l != NO_LABEL && (**l as usize) < self.classes)
            .map(|(l, row)| (*l as usize, row))
    }

    /// `[samples, classes]`: the softmax of each row.
    pub fn probabilities(&self) -> Vec<f32> {
        let mut all = self.logits.clone();
        all.chunks_exact_mut(self.classes.max(1)).for_each(softmax);
        all
    }

    /// Loss (cross-entropy without smoothing and weights), accuracy, top-5, and mean precision, recall and F1 over the
    /// classes; mean average precision and area under the curve where `more` asks for them. Nothing where no image has
    /// a label. Sums run over images in the data set's order in double precision.
    pub fn metrics(&self, more: &[Metric]) -> Metrics {
        let mut metrics = Metrics::default();
        let (mut images, mut loss, mut top1, mut top5) = (0usize, 0.0, 0usize, 0usize);
        for (label, row) in self.labelled() {
            images += 1;
            loss += cross_entropy(row, label);
            let rank = rank(row, label);
            top1 += usize::from(rank == 0);
            top5 += usize::from(rank < 5);
        }
        if images == 0 {
            return metrics;
        }
        let mut put = |metric, value| metrics.0.insert(metric, value);
        put(Metric::Loss, loss / images as f64);
        put(Metric::Accuracy, top1 as f64 / images as f64);
        put(Metric::Top5, top5 as f64 / images as f64);
        let scores = class_scores(&vec![String::new(); self.classes], &self.confusion());
        // Classes without an image and never named say nothing (scikit-learn takes those that occur).
        let scores: Vec<_> = scores.into_iter().filter(|s| s.images + s.predicted > 0).collect();
        let mean = |value: fn(&crate::ClassScore) -> f64| {
            scores.iter().map(value).sum::<f64>() / scores.len().max(1) as f64
        };
        put(Metric::Precision, mean(|s| s.precision));
        put(Metric::Recall, mean(|s| s.recall));
        put(Metric::F1, mean(|s| s.f1));
        if more.contains(&Metric::Map) {
            put(Metric::Map, self.over_classes(average_precision));
        }
        if more.contains(&Metric::Auc) {
            put(Metric::Auc, self.over_classes(area_under_curve));
        }
        metrics
    }

    /// The mean over classes of a score of one class against all others, computed from (probability, is it) with the
    /// greatest probability first. Classes for which it is not defined are left out.
    fn over_classes(&self, score: fn(&[(f32, bool)]) -> Option<f64>) -> f64 {
        let rows: Vec<_> = self
            .labelled()
            .map(|(label, row)| {
                let mut row = row.to_vec();
                softmax(&mut row);
                (label, row)
            })
            .collect();
        let scores: Vec<_> = (0..self.classes)
            .filter_map(|class| {
                let mut ranked: Vec<_> = rows.iter().map(|(l, row)| (row[class], *l == class)).collect();
                ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
                score(&ranked)
            })
            .collect();
        scores.iter().sum::<f64>() / scores.len().max(1) as f64
    }

    /// `[truth][prediction]`: images.
    pub fn confusion(&self) -> Vec<Vec<usize>> {
        let mut confusion = vec![vec![0; self.classes]; self.classes];
        self.labelled().for_each(|(label, row)| confusion[label][largest(row)] += 1);
        confusion
    }

    /// Everything about the answers to `data`, whose images these are.
    pub fn validation(&self, data: &Dataset, checkpoint: &str, epoch: Option<usize>) -> Validation {
        let metrics = self.metrics(&[]);
        let get = |m| metrics.get(m).unwrap_or(0.0);
        let confusion = self.confusion();
        let per_class = class_scores(data.classes(), &confusion);
        let rows = self.samples.iter().zip(&self.labels).zip(self.logits.chunks_exact(self.classes.max(1)));
        let labelled = rows.filter(|((_, l), _)| **l != NO_LABEL && (**l as usize) < self.classes);
        let predictions: Vec<_> = labelled
            .map(|((&sample, &label), row)| {
                let mut p = row.to_vec();
                softmax(&mut p);
                let prediction = largest(row);
                let truth = label as usize;
                let path = data.samples()[sample].name.clone();
                Prediction { path, truth, prediction, confidence: p[prediction], truth_confidence: p[truth] }
            })
            .collect();
        Validation {
            format: FORMAT,
            checkpoint: checkpoint.into(),
            epoch,
            classes: data.classes().to_vec(),
            images: predictions.len(),
            loss: get(Metric::Loss),
            accuracy: get(Metric::Accuracy),
            top5: metrics.get(Metric::Top5).filter(|_| self.classes > 5),
            precision: get(Metric::Precision),
            recall: get(Metric::Recall),
            f1: get(Metric::F1),
            confused: most_confused(&confusion),
            confusion,
            per_class,
            worst: worst_mistakes(&predictions),
            predictions,
        }
    }
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

/// Softmax in place, computed in double precision.
pub fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
    row.iter_mut().for_each(|v| *v = (f64::from(*v - max).exp() / sum) as f32);
}

/// `-ln softmax(row)[label]`.
fn cross_entropy(row: &[f32], label: usize) -> f64 {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|v| (f64::from(*v) - max).exp()).sum();
    sum.ln() + max - f64::from(row[label])
}

/// Σ (recall_i - recall_i-1) precision_i over the distinct probabilities (scikit-learn's `average_precision_score`).
fn average_precision(ranked: &[(f32, bool)]) -> Option<f64> {
    let positives = ranked.iter().filter(|r| r.1).count();
    let (mut found, mut sum, mut seen) = (0, 0.0, 0);
    for equal in ranked.chunk_by(|a, b| a.0 == b.0) {
        let new = equal.iter().filter(|r| r.1).count();
        found += new;
        seen += equal.len();
        sum += new as f64 * found as f64 / seen as f64;
    }
    (positives > 0).then(|| sum / positives as f64)
}

/// The chance that one of the class is ranked above one of another class, a tie counting half (Mann and Whitney).
fn area_under_curve(ranked: &[(f32, bool)]) -> Option<f64> {
    let positives = ranked.iter().filter(|r| r.1).count();
    let negatives = ranked.len() - positives;
    let (mut above, mut sum) = (0, 0.0);
    for equal in ranked.chunk_by(|a, b| a.0 == b.0) {
        let new = equal.iter().filter(|r| r.1).count();
        let other = equal.len() - new;
        sum += other as f64 * (above as f64 + new as f64 / 2.0);
        above += new;
    }
    (positives > 0 && negatives > 0).then(|| sum / (positives * negatives) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn metrics_are_those_of_scikit_learn() {
        let outputs = Outputs {
            classes: 6,
            samples: vec![0, 1, 2],
            labels: vec![0, 5, NO_LABEL],
            logits: [[3., 1., 0., 0., 0., 0.], [9., 8., 7., 6., 5., 0.], [0.; 6]].concat(),
        };
        let m = outputs.metrics(&[]);
        let want = [
            (Metric::Accuracy, 0.5),
            (Metric::Top5, 0.5),
            // Class 0: precision 1/2, recall 1; class 5: nothing right. The other classes do not occur.
            (Metric::Precision, 0.25),
            (Metric::Recall, 0.5),
            (Metric::F1, (2.0 / 3.0) / 2.0),
        ];
        for (metric, value) in want {
            assert!(near(m.get(metric).unwrap(), value), "{metric}: {m:?}");
        }
        let ce = |row: [f64; 6], l: usize| row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[l];
        let loss = (ce([3., 1., 0., 0., 0., 0.], 0) + ce([9., 8., 7., 6., 5., 0.], 5)) / 2.0;
        assert!(near(m.get(Metric::Loss).unwrap(), loss));
    }

    #[test]
    fn ranking_scores_count_ties_half() {
        // sklearn: average_precision_score([1,0,1,0], [.9,.8,.8,.1]) = 0.8333…, roc_auc_score = 0.875
        let ranked = [(0.9, true), (0.8, false), (0.8, true), (0.1, false)];
        assert!(near(average_precision(&ranked).unwrap(), 0.5 + 0.5 * 2.0 / 3.0));
        assert!(near(area_under_curve(&ranked).unwrap(), 0.875));
        assert_eq!(area_under_curve(&[(0.5, true)]), None);
    }

    #[test]
    fn an_answer_carries_its_path_and_confidence() {
        let names = ["a", "b"].map(String::from).to_vec();
        let data = Dataset::from_arrays(vec![0; 3], [1, 1, 1], vec![0, 1, 1], names).unwrap();
        let logits = vec![0.0, 2.0, 0.0, 1.0, 3.0, 0.0];
        let outputs = Outputs { classes: 2, samples: vec![0, 1, 2], labels: vec![0, 1, 1], logits };
        let v = outputs.validation(&data, "best", Some(3));
        assert_eq!(v.confusion, [[0, 1], [1, 1]]);
        assert_eq!(v.worst, [2, 0], "the most confident mistake first");
        assert_eq!(v.predictions[2].path, "#2");
        assert!((v.predictions[2].confidence - 1.0 / (1.0 + (-3f32).exp())).abs() < 1e-6);
        assert!((v.predictions[2].truth_confidence + v.predictions[2].confidence - 1.0).abs() < 1e-6);
    }
}
