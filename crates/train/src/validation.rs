//! What the best model makes of the validation part: the schema of `validation.json`. [`Outputs::validation`] fills it.
//!
//! [`Outputs::validation`]: crate::Outputs::validation

use std::collections::BTreeMap;

use defrost_policy::{Metric, Task};
use serde::{Deserialize, Serialize};

/// How many images [`Validation::worst`] names at most.
pub const WORST: usize = 64;
/// How many pairs [`Validation::confused`] names at most.
pub const CONFUSED: usize = 32;

/// The answer of one model to every image of a validation part: `validation.json`.
///
/// Classes are named by their place in [`Validation::classes`]. What belongs to another task is absent or empty.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Validation {
    /// The version of this format, [`FORMAT`](crate::FORMAT).
    pub format: u32,
    /// The checkpoint that was asked, `best` or `last`.
    pub checkpoint: String,
    /// The epoch it is from, counted from 0 over all phases; absent where none was trained.
    pub epoch: Option<usize>,
    /// What was asked of the network.
    #[serde(default)]
    pub task: Task,
    /// The names of the classes, the labels, or the numbers, in the order of the network's outputs.
    pub classes: Vec<String>,
    /// Images.
    pub images: usize,
    /// The mean loss, without label smoothing or class weights.
    pub loss: f64,
    /// Every metric of the task by the name it has in a recipe.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Part of the images that were right; of several labels an image, those with every label right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Part of the images whose class is among the five most likely; absent with five classes or fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<f64>,
    /// Mean precision over the classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Mean recall over the classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Mean F1 over the classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
    /// `confusion[truth][prediction]`: images of one class each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Vec<usize>>,
    /// The scores of each class or label, in the order of the classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_class: Vec<ClassScore>,
    /// The errors of each number, in the order of the classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_value: Vec<ValueScore>,
    /// Every image of one class, in the data set's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predictions: Vec<Prediction>,
    /// Every image of several labels, in the data set's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labelled: Vec<Labelled>,
    /// Every image of a regression, in the data set's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Measured>,
    /// The places of the worst answers, the worst first; at most [`WORST`]. Of one class: wrong answers, the most confident
    /// one first. Of several labels: those with a wrong label, by their loss. Of numbers: by their distance from the truth
    /// in standard deviations of each number.
    #[serde(default)]
    pub worst: Vec<usize>,
    /// Pairs of classes that are taken for one another, the most frequent first; at most [`CONFUSED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confused: Vec<Confused>,
}

impl Validation {
    /// The value of a metric.
    pub fn metric(&self, metric: Metric) -> Option<f64> {
        self.metrics.get(metric.name()).copied()
    }
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
    /// Average precision of its probability; absent where no image is of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_precision: Option<f64>,
    /// Area under the curve of its probability; absent where no image or every image is of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auc: Option<f64>,
}

/// The errors of one number of a regression, in its unit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ValueScore {
    /// The number's name.
    pub name: String,
    /// Mean absolute error.
    pub mae: f64,
    /// Root of the mean squared error.
    pub rmse: f64,
    /// Coefficient of determination.
    pub r2: f64,
    /// The mean of the truths.
    pub mean: f64,
    /// Their standard deviation.
    pub std: f64,
}

/// The answer to one image of one class.
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

/// The answer to one image of several labels.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Labelled {
    /// The image, as in [`Prediction::path`].
    pub path: String,
    /// Its loss.
    pub loss: f32,
    /// The labels that it has or is said to have, in the order of the classes.
    pub labels: Vec<LabelAnswer>,
}

impl Labelled {
    /// Whether every label is right.
    pub fn is_right(&self) -> bool {
        self.labels.iter().all(|l| l.truth == l.said)
    }
}

/// One label of an image.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LabelAnswer {
    /// The label.
    pub class: usize,
    /// Whether the image has it.
    pub truth: bool,
    /// Whether the network says so: a probability above one half.
    pub said: bool,
    /// Its probability.
    pub probability: f32,
}

/// The answer to one image of a regression, in the data's units.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Measured {
    /// The image, as in [`Prediction::path`].
    pub path: String,
    /// Its numbers.
    pub truth: Vec<f32>,
    /// The answers.
    pub prediction: Vec<f32>,
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
