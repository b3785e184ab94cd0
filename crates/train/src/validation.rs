//! What the best model makes of the validation part: the schema of `validation.json`, and the scores in it.

use serde::{Deserialize, Serialize};

/// How many images [`Validation::worst`] names at most.
pub const WORST: usize = 64;
/// How many pairs [`Validation::confused`] names at most.
pub const CONFUSED: usize = 32;

/// The answer of one model to every image of a validation part: `validation.json`.
///
/// Classes are named by their place in [`Validation::classes`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Validation {
    /// The version of this format, [`FORMAT`](crate::FORMAT).
    pub format: u32,
    /// The checkpoint that was asked, `best` or `last`.
    pub checkpoint: String,
    /// The epoch it is from, counted from 0 over all phases; absent where none was trained.
    pub epoch: Option<usize>,
    /// The classes' names in the order of the network's outputs.
    pub classes: Vec<String>,
    /// Images.
    pub images: usize,
    /// The mean loss, without label smoothing or class weights.
    pub loss: f64,
    /// Part of the images that were right.
    pub accuracy: f64,
    /// Part of the images whose class is among the five most likely; absent with five classes or fewer.
    pub top5: Option<f64>,
    /// Mean precision over the classes.
    pub precision: f64,
    /// Mean recall over the classes.
    pub recall: f64,
    /// Mean F1 over the classes.
    pub f1: f64,
    /// `confusion[truth][prediction]`: images.
    pub confusion: Vec<Vec<usize>>,
    /// The scores of each class, in the order of the classes.
    pub per_class: Vec<ClassScore>,
    /// Every image, in the data set's order.
    pub predictions: Vec<Prediction>,
    /// The places in `predictions` of wrong answers, the most confident one first; at most [`WORST`].
    pub worst: Vec<usize>,
    /// Pairs of classes that are taken for one another, the most frequent first; at most [`CONFUSED`].
    pub confused: Vec<Confused>,
}

/// The scores of one class. Zero where nothing could be divided by (scikit-learn's `zero_division=0`).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ClassScore {
    /// The class's name.
    pub class: String,
    /// Images of it.
    pub images: usize,
    /// Images said to be of it.
    pub predicted: usize,
    /// Right answers.
    pub hits: usize,
    /// Right among those said to be of it.
    pub precision: f64,
    /// Right among those that are of it.
    pub recall: f64,
    /// The harmonic mean of the two.
    pub f1: f64,
}

/// The answer to one image.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Prediction {
    /// The image: its path below the data set's folder, or `#7` for the eighth of an array.
    pub path: String,
    /// Its class.
    pub truth: usize,
    /// The most likely class.
    pub prediction: usize,
    /// The probability of the most likely class.
    pub confidence: f32,
    /// The probability of the true class.
    pub truth_confidence: f32,
}

/// Images of one class taken for another.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Confused {
    /// What they are.
    pub truth: usize,
    /// What they were taken for.
    pub prediction: usize,
    /// How many.
    pub images: usize,
}

/// The scores of each class from `confusion[truth][prediction]`.
pub fn class_scores(classes: &[String], confusion: &[Vec<usize>]) -> Vec<ClassScore> {
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    let score = |(i, class): (usize, &String)| {
        let images: usize = confusion[i].iter().sum();
        let predicted: usize = confusion.iter().map(|row| row[i]).sum();
        let hits = confusion[i][i];
        let (precision, recall) = (ratio(hits as f64, predicted as f64), ratio(hits as f64, images as f64));
        let f1 = ratio(2.0 * hits as f64, (images + predicted) as f64);
        ClassScore { class: class.clone(), images, predicted, hits, precision, recall, f1 }
    };
    classes.iter().enumerate().map(score).collect()
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
    let mut wrong: Vec<_> =
        (0..predictions.len()).filter(|&i| predictions[i].prediction != predictions[i].truth).collect();
    wrong.sort_by(|&a, &b| predictions[b].confidence.total_cmp(&predictions[a].confidence).then(a.cmp(&b)));
    wrong.truncate(WORST);
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_scikit_learns() {
        // sklearn.metrics.precision_recall_fscore_support([0,0,0,1,1,2],[0,0,1,1,1,0], zero_division=0)
        let names = ["a", "b", "c"].map(String::from);
        let confusion = vec![vec![2, 1, 0], vec![0, 2, 0], vec![1, 0, 0]];
        let scores = class_scores(&names, &confusion);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(scores[0].precision, 2.0 / 3.0) && near(scores[0].recall, 2.0 / 3.0));
        assert!(
            near(scores[1].precision, 2.0 / 3.0) && near(scores[1].recall, 1.0) && near(scores[1].f1, 0.8)
        );
        assert_eq!((scores[2].precision, scores[2].recall, scores[2].f1), (0.0, 0.0, 0.0));
        let confused = most_confused(&confusion);
        assert_eq!(confused.len(), 2);
        assert_eq!(confused[0], Confused { truth: 0, prediction: 1, images: 1 });
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
    }
}
