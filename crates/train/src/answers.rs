//! Outputs told image by image and class by class: what fills a [`Validation`].

use defrost_data::Dataset;
use defrost_policy::{Loss, Metric, Task};

use crate::metrics::{Counts, Scores, average_precision, counts_of_confusion, counts_of_labels, roc_auc};
use crate::outputs::{Truth, largest};
use crate::state::by_name;
use crate::{
    CONFUSED, ClassScore, Confused, FORMAT, LabelAnswer, Labelled, Measured, Outputs, Prediction, Validation,
    ValueScore, WORST,
};

impl Outputs {
    /// Everything about the answers to `data`, whose images these are, under `loss`.
    pub fn validation(
        &self,
        data: &Dataset,
        loss: &Loss,
        checkpoint: &str,
        epoch: Option<usize>,
    ) -> Validation {
        let all = self.metrics(loss, &[Metric::Map, Metric::Auc]);
        let mut v = Validation {
            format: FORMAT,
            checkpoint: checkpoint.into(),
            epoch,
            task: self.task(),
            classes: data.classes().to_vec(),
            loss: all.get(Metric::Loss).unwrap_or(0.0),
            metrics: by_name(&all),
            accuracy: all.get(Metric::Accuracy),
            top5: all.get(Metric::Top5),
            precision: all.get(Metric::Precision),
            recall: all.get(Metric::Recall),
            f1: all.get(Metric::F1),
            ..Validation::default()
        };
        match v.task {
            Task::MultiLabel => self.tell_labels(&mut v, data, loss),
            Task::Regression => self.tell_values(&mut v, data),
            _ => self.tell_classes(&mut v, data),
        }
        v
    }

    fn tell_classes(&self, v: &mut Validation, data: &Dataset) {
        let answers = self.answers();
        let tell = |(at, truth, row): (usize, usize, &[f32])| {
            let (prediction, p) = (largest(row), &answers[at * self.classes..]);
            let path = data.samples()[self.samples[at]].name.clone();
            Prediction { path, truth, prediction, confidence: p[prediction], truth_confidence: p[truth] }
        };
        v.predictions = self.labelled().map(tell).collect();
        v.images = v.predictions.len();
        v.confusion = self.confusion();
        v.per_class = self.class_scores(data.classes(), &counts_of_confusion(&v.confusion));
        v.confused = most_confused(&v.confusion);
        v.worst = worst_mistakes(&v.predictions);
    }

    fn tell_labels(&self, v: &mut Validation, data: &Dataset, loss: &Loss) {
        let (said, truth) = self.said_and_true();
        let (answers, losses) = (self.answers(), self.losses(loss));
        let tell = |(at, &sample): (usize, &usize)| {
            let label = |class: usize| {
                let i = at * self.classes + class;
                LabelAnswer { class, truth: truth[i], said: said[i], probability: answers[i] }
            };
            let labels = (0..self.classes).map(label).filter(|l| l.truth || l.said).collect();
            Labelled { path: data.samples()[sample].name.clone(), loss: losses[at] as f32, labels }
        };
        v.labelled = self.samples.iter().enumerate().map(tell).collect();
        v.images = v.labelled.len();
        v.per_class = self.class_scores(data.classes(), &counts_of_labels(&said, &truth, self.classes));
        let wrong = (0..v.images).filter(|&i| !v.labelled[i].is_right());
        v.worst = greatest(wrong.map(|i| (i, losses[i])));
    }

    fn tell_values(&self, v: &mut Validation, data: &Dataset) {
        let Truth::Values(truth) = &self.truth else { return };
        let (answers, width) = (self.answers(), self.classes);
        let row = |values: &[f32], at: usize| values[at * width..(at + 1) * width].to_vec();
        let tell = |(at, &sample): (usize, &usize)| Measured {
            path: data.samples()[sample].name.clone(),
            truth: row(truth, at),
            prediction: row(&answers, at),
        };
        v.measured = self.samples.iter().enumerate().map(tell).collect();
        v.images = v.measured.len();
        let errors = self.value_errors();
        let score = |(name, e): (&String, &crate::metrics::ValueError)| ValueScore {
            name: name.clone(),
            mae: e.mae,
            rmse: e.rmse,
            r2: e.r2,
            mean: e.mean,
            std: e.std,
        };
        v.per_value = data.classes().iter().zip(&errors).map(score).collect();
        let distance = |m: &Measured| {
            let each = m.prediction.iter().zip(&m.truth).zip(&errors);
            each.map(|((p, t), e)| {
                ((f64::from(*p) - f64::from(*t)) / if e.std > 0.0 { e.std } else { 1.0 }).powi(2)
            })
            .sum::<f64>()
        };
        let wrong = v.measured.iter().map(distance).enumerate().filter(|(_, d)| *d > 0.0);
        v.worst = greatest(wrong);
    }

    fn class_scores(&self, classes: &[String], counts: &[Counts]) -> Vec<ClassScore> {
        scores(classes, counts, &self.per_class(average_precision), &self.per_class(roc_auc))
    }
}

/// The scores of each class from `confusion[truth][prediction]`, those of the order of probabilities left out.
pub fn class_scores(classes: &[String], confusion: &[Vec<usize>]) -> Vec<ClassScore> {
    let none = vec![None; classes.len()];
    scores(classes, &counts_of_confusion(confusion), &none, &none)
}

fn scores(
    classes: &[String],
    counts: &[Counts],
    precisions: &[Option<f64>],
    areas: &[Option<f64>],
) -> Vec<ClassScore> {
    let score = |(i, class): (usize, &String)| {
        let Counts { images, predicted, hits } = counts[i];
        let Scores { precision, recall, f1 } = counts[i].scores();
        let (class, average_precision, auc) = (class.clone(), precisions[i], areas[i]);
        ClassScore { class, images, predicted, hits, precision, recall, f1, average_precision, auc }
    };
    classes.iter().enumerate().map(score).collect()
}

/// The places with the greatest values, at most [`WORST`].
fn greatest(places: impl Iterator<Item = (usize, f64)>) -> Vec<usize> {
    let mut places: Vec<_> = places.collect();
    places.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    places.into_iter().take(WORST).map(|(i, _)| i).collect()
}

/// The pairs off the diagonal, the most frequent first, at most [`CONFUSED`].
pub fn most_confused(confusion: &[Vec<usize>]) -> Vec<Confused> {
    let rows = confusion.iter().enumerate();
    let pairs = rows.flat_map(|(truth, row)| {
        row.iter().enumerate().map(move |(prediction, &images)| Confused { truth, prediction, images })
    });
    let mut pairs: Vec<_> = pairs.filter(|p| p.truth != p.prediction && p.images > 0).collect();
    pairs.sort_by_key(|p| (std::cmp::Reverse(p.images), p.truth, p.prediction));
    pairs.truncate(CONFUSED);
    pairs
}

/// The places of wrong answers, the most confident one first, at most [`WORST`].
pub fn worst_mistakes(predictions: &[Prediction]) -> Vec<usize> {
    let wrong = (0..predictions.len()).filter(|&i| predictions[i].prediction != predictions[i].truth);
    greatest(wrong.map(|i| (i, f64::from(predictions[i].confidence))))
}

#[cfg(test)]
mod tests {
    use defrost_data::TargetKind;

    use super::*;

    fn data(images: usize, classes: &[&str]) -> Dataset {
        let names = classes.iter().map(|c| (*c).to_owned()).collect();
        Dataset::from_arrays(vec![0; images], [1, 1, 1], vec![0; images], names).unwrap()
    }

    fn outputs(data: &Dataset, logits: Vec<f32>) -> Outputs {
        let samples: Vec<_> = (0..data.len()).collect();
        let truth = Truth::of(data, &samples);
        Outputs { classes: data.classes().len(), samples, truth, logits, scale: None }
    }

    #[test]
    fn the_most_confident_mistake_comes_first() {
        let p = |truth, prediction, confidence| Prediction {
            truth,
            prediction,
            confidence,
            ..Prediction::default()
        };
        let all = [p(0, 1, 0.5), p(1, 1, 0.99), p(0, 2, 0.9)];
        assert_eq!(worst_mistakes(&all), [2, 0]);
        let confused = most_confused(&[vec![2, 1, 0], vec![0, 2, 0], vec![4, 0, 0]]);
        assert_eq!(confused[0], Confused { truth: 2, prediction: 0, images: 4 });
        assert_eq!(confused.len(), 2);
    }

    #[test]
    fn an_answer_carries_its_path_and_confidence() {
        let names = ["a", "b"].map(String::from).to_vec();
        let data = Dataset::from_arrays(vec![0; 3], [1, 1, 1], vec![0, 1, 1], names).unwrap();
        let v = outputs(&data, vec![0.0, 2.0, 0.0, 1.0, 3.0, 0.0]).validation(
            &data,
            &Loss::default(),
            "best",
            Some(3),
        );
        assert_eq!(v.confusion, [[0, 1], [1, 1]]);
        assert_eq!(v.worst, [2, 0], "the most confident mistake first");
        assert_eq!(v.predictions[2].path, "#2");
        assert!((v.predictions[2].confidence - 1.0 / (1.0 + (-3f32).exp())).abs() < 1e-6);
        assert!((v.predictions[2].truth_confidence + v.predictions[2].confidence - 1.0).abs() < 1e-6);
    }

    #[test]
    fn labels_that_are_there_or_said_are_told() {
        let names = ["red", "big", "old"].map(String::from).to_vec();
        let truth = vec![1.0, 0.0, 0.0, 0.0, 1.0, 1.0];
        let data = data(2, &["x"]).with_targets(TargetKind::Classes, names, truth).unwrap();
        let loss = Loss::BinaryCrossEntropy { label_smoothing: 0.0 };
        let v = outputs(&data, vec![3.0, 0.5, -2.0, -3.0, 2.0, -1.0]).validation(&data, &loss, "best", None);
        let told =
            |i: usize| v.labelled[i].labels.iter().map(|l| (l.class, l.truth, l.said)).collect::<Vec<_>>();
        assert_eq!(told(0), [(0, true, true), (1, false, true)]);
        assert_eq!(told(1), [(1, true, true), (2, true, false)]);
        assert_eq!(v.worst, [1, 0], "by loss");
        assert_eq!((v.accuracy, v.images, v.confusion.len()), (Some(0.0), 2, 0));
        assert_eq!(
            v.per_class[1],
            ClassScore {
                class: "big".into(),
                images: 1,
                predicted: 2,
                hits: 1,
                precision: 0.5,
                recall: 1.0,
                f1: 2.0 / 3.0,
                average_precision: Some(1.0),
                auc: Some(1.0),
            }
        );
    }

    #[test]
    fn numbers_are_told_in_the_datas_units() {
        let names = ["age", "price"].map(String::from).to_vec();
        let truth = vec![30.0, 1000.0, 50.0, 3000.0];
        let data = data(2, &["x"]).with_targets(TargetKind::Values, names, truth).unwrap();
        let scale = crate::Scale::of(&data);
        assert_eq!((&scale.mean[..], &scale.std[..]), (&[40.0, 2000.0][..], &[10.0, 1000.0][..]));
        let outputs = Outputs { scale: Some(scale), ..outputs(&data, vec![-1.0, -1.5, 2.0, 1.0]) };
        let v = outputs.validation(&data, &Loss::MeanSquared {}, "best", None);
        assert_eq!(v.measured[0].prediction, [30.0, 500.0]);
        assert_eq!(
            v.measured[1],
            Measured { path: "#1".into(), truth: vec![50.0, 3000.0], prediction: vec![60.0, 3000.0] }
        );
        assert_eq!(v.worst, [1, 0], "one deviation is further than half a one");
        assert_eq!((v.per_value[0].mae, v.per_value[1].mae), (5.0, 250.0));
        assert!((v.loss - (0.25 + 1.0) / 4.0).abs() < 1e-12, "the loss is in the units that are learned");
        assert_eq!((v.metric(Metric::Mae), v.accuracy), (Some(127.5), None));
    }
}
