//! What is minimised.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use toml::Value;

use crate::short::{form, number, tagged};

/// The loss: `[loss]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Loss {
    /// Softmax cross-entropy, the default.
    CrossEntropy {
        /// ε of label smoothing: the target is `1 - ε + ε/C` for the class, `ε/C` for others (PyTorch's).
        #[serde(default)]
        label_smoothing: f64,
        /// Weights of classes, the loss divided by the sum of the weights of the batch (PyTorch's).
        #[serde(default)]
        class_weights: ClassWeights,
    },
    /// Focal loss on softmax (Lin et al. 2017): `-(1 - p)^gamma ln p`.
    Focal {
        /// Exponent; 2 in the paper.
        #[serde(default = "two")]
        gamma: f64,
        /// Weights of classes (the paper's alpha).
        #[serde(default)]
        class_weights: ClassWeights,
    },
    /// Binary cross-entropy on logits, a class by itself: several labels an image.
    BinaryCrossEntropy {
        /// ε of label smoothing: targets become `y (1 - ε) + ε/2` (Keras').
        #[serde(default)]
        label_smoothing: f64,
    },
    /// Mean squared error: regression.
    MeanSquared {},
    /// Quadratic below `delta`, linear above (Huber 1964): regression with outliers.
    Huber {
        /// Where the two meet.
        #[serde(default = "one")]
        delta: f64,
    },
}

impl Default for Loss {
    fn default() -> Self {
        Self::CrossEntropy { label_smoothing: 0.0, class_weights: ClassWeights::None }
    }
}

impl Loss {
    /// Cross-entropy with label smoothing `label_smoothing`.
    pub const fn smoothed(label_smoothing: f64) -> Self {
        Self::CrossEntropy { label_smoothing, class_weights: ClassWeights::None }
    }

    /// The weights of classes, where the loss has them.
    pub const fn class_weights(&self) -> Option<&ClassWeights> {
        match self {
            Self::CrossEntropy { class_weights, .. } | Self::Focal { class_weights, .. } => {
                Some(class_weights)
            }
            _ => None,
        }
    }
}

pub(crate) fn loss<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Loss, D::Error> {
    tagged(deserializer, "cross_entropy")
}

const fn one() -> f64 {
    1.0
}

const fn two() -> f64 {
    2.0
}

/// Weights of classes: `"none"`, `"balanced"` or a table by class name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Value", into = "Value")]
#[non_exhaustive]
pub enum ClassWeights {
    /// All the same.
    #[default]
    None,
    /// `samples / (classes * samples of the class)` (scikit-learn's "balanced").
    Balanced,
    /// By class name; classes that are not named weigh 1.
    Table(BTreeMap<String, f64>),
}

impl ClassWeights {
    /// The weight of each class from their names and numbers of training samples; `None` where all weigh the same.
    /// Names in the table that are no class are returned as the error.
    ///
    /// # Errors
    /// The names that are no class.
    pub fn weights(&self, names: &[String], counts: &[usize]) -> Result<Option<Vec<f64>>, Vec<String>> {
        match self {
            Self::None => Ok(None),
            Self::Balanced => {
                let total: usize = counts.iter().sum();
                let weight = |&c: &usize| total as f64 / (counts.len() as f64 * c.max(1) as f64);
                Ok(Some(counts.iter().map(weight).collect()))
            }
            Self::Table(table) => {
                let unknown: Vec<_> = table.keys().filter(|k| !names.contains(k)).cloned().collect();
                if !unknown.is_empty() {
                    return Err(unknown);
                }
                Ok(Some(names.iter().map(|n| table.get(n).copied().unwrap_or(1.0)).collect()))
            }
        }
    }
}

impl TryFrom<Value> for ClassWeights {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(s) if s == "none" => Ok(Self::None),
            Value::String(s) if s == "balanced" => Ok(Self::Balanced),
            Value::Table(table) => {
                let rows = table.iter().map(|(k, v)| Ok((k.clone(), number(v)?)));
                Ok(Self::Table(rows.collect::<Result<_, String>>()?))
            }
            Value::String(word) => {
                Err(format!("unknown variant `{word}`, expected one of `none`, `balanced`"))
            }
            other => Err(format!(
                "expected \"none\", \"balanced\" or a table of weights by class name, found {}",
                form(&other)
            )),
        }
    }
}

impl From<ClassWeights> for Value {
    fn from(weights: ClassWeights) -> Self {
        match weights {
            ClassWeights::None => "none".into(),
            ClassWeights::Balanced => "balanced".into(),
            ClassWeights::Table(table) => {
                Self::Table(table.into_iter().map(|(k, v)| (k, Self::Float(v))).collect())
            }
        }
    }
}
