//! Metrics of an epoch, and stopping when they no longer improve.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A number that tells of a model's quality, on the validation part unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// The loss.
    #[default]
    Loss,
    /// Part of the images whose class has the greatest output; of several labels an image, part of the images for which
    /// every label is right (subset accuracy).
    Accuracy,
    /// Part of the images whose class is among the five greatest outputs.
    #[serde(rename = "top5")]
    Top5,
    /// Precision, the mean over classes.
    Precision,
    /// Recall, the mean over classes (balanced accuracy).
    Recall,
    /// F1, the mean over classes.
    F1,
    /// Precision, the mean over classes weighted by their images.
    PrecisionWeighted,
    /// Recall, the mean over classes weighted by their images.
    RecallWeighted,
    /// F1, the mean over classes weighted by their images.
    F1Weighted,
    /// Precision over all answers of all labels together.
    PrecisionMicro,
    /// Recall over all answers of all labels together.
    RecallMicro,
    /// F1 over all answers of all labels together.
    F1Micro,
    /// Mean average precision over classes.
    Map,
    /// Area under the receiver's curve, the mean over classes.
    Auc,
    /// Mean absolute error.
    Mae,
    /// Root of the mean squared error.
    Rmse,
    /// Coefficient of determination.
    R2,
    /// The mean loss of the epoch's training batches.
    TrainLoss,
}

impl Metric {
    /// Whether less of it is better.
    pub const fn less_is_better(self) -> bool {
        matches!(self, Self::Loss | Self::Mae | Self::Rmse | Self::TrainLoss)
    }

    /// The name as written in a recipe and in `metrics.jsonl`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Accuracy => "accuracy",
            Self::Top5 => "top5",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::F1 => "f1",
            Self::PrecisionWeighted => "precision_weighted",
            Self::RecallWeighted => "recall_weighted",
            Self::F1Weighted => "f1_weighted",
            Self::PrecisionMicro => "precision_micro",
            Self::RecallMicro => "recall_micro",
            Self::F1Micro => "f1_micro",
            Self::Map => "map",
            Self::Auc => "auc",
            Self::Mae => "mae",
            Self::Rmse => "rmse",
            Self::R2 => "r2",
            Self::TrainLoss => "train_loss",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether less or more of a metric is better.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mode {
    /// As the metric itself says.
    #[default]
    Auto,
    /// Less is better.
    Min,
    /// More is better.
    Max,
}

impl Mode {
    /// Whether `new` is better than `old` by more than `min_delta`.
    pub(crate) fn improves(self, metric: Metric, new: f64, old: f64, min_delta: f64) -> bool {
        let less = match self {
            Self::Auto => metric.less_is_better(),
            Self::Min => true,
            Self::Max => false,
        };
        if less { new < old - min_delta } else { new > old + min_delta }
    }
}

/// What an epoch measured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Metrics(pub BTreeMap<Metric, f64>);

impl Metrics {
    /// The value of one.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(&metric).copied()
    }
}

impl<const N: usize> From<[(Metric, f64); N]> for Metrics {
    fn from(values: [(Metric, f64); N]) -> Self {
        Self(values.into())
    }
}

/// When to end a phase early: `[early_stopping]`. Counted anew in every phase.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct EarlyStopping {
    /// What is watched.
    pub metric: Metric,
    /// Whether less or more of it is better.
    pub mode: Mode,
    /// Epochs without improvement that are waited for: the phase ends after `patience` of them in a row.
    pub patience: usize,
    /// What counts as an improvement.
    pub min_delta: f64,
    /// Whether the phase ends with its best weights instead of its last.
    pub restore_best: bool,
}

impl Default for EarlyStopping {
    /// Validation loss, patience 3 (Lightning), best weights restored.
    fn default() -> Self {
        Self { metric: Metric::Loss, mode: Mode::Auto, patience: 3, min_delta: 0.0, restore_best: true }
    }
}

impl EarlyStopping {
    /// By this metric, after so many epochs without improvement.
    pub fn of(metric: Metric, patience: usize) -> Self {
        Self { metric, patience, ..Self::default() }
    }

    /// With this much counting as an improvement.
    #[must_use]
    pub fn min_delta(self, min_delta: f64) -> Self {
        Self { min_delta, ..self }
    }

    /// Ending with the last weights instead of the best.
    #[must_use]
    pub fn keep_last(self) -> Self {
        Self { restore_best: false, ..self }
    }
}

/// What to do after an epoch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Best so far: worth keeping.
    Improved,
    /// Not better; so many more epochs are waited for.
    Wait {
        /// Epochs left.
        left: usize,
    },
    /// The phase ends here.
    Stop {
        /// Why, as a line to log.
        reason: String,
    },
}

/// The state of early stopping within a phase. Saved with a checkpoint, it goes on as if never interrupted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Stopper {
    best: Option<(usize, f64)>,
    waited: usize,
}

impl Stopper {
    /// The best epoch (from 0, of the phase) and its value.
    pub const fn best(&self) -> Option<(usize, f64)> {
        self.best
    }

    /// Counts from zero again, the best kept.
    pub(crate) const fn wait_anew(&mut self) {
        self.waited = 0;
    }

    /// Takes in the value that `rule` watches, after `epoch` (from 0, of the phase).
    ///
    /// A value that is not finite stops at once (Lightning's `check_finite`).
    pub fn observe(&mut self, rule: &EarlyStopping, epoch: usize, value: f64) -> Verdict {
        let metric = rule.metric;
        if !value.is_finite() {
            return Verdict::Stop { reason: format!("{metric} is {value} after epoch {}", epoch + 1) };
        }
        if self.best.is_none_or(|(_, best)| rule.mode.improves(metric, value, best, rule.min_delta)) {
            self.best = Some((epoch, value));
            self.waited = 0;
            return Verdict::Improved;
        }
        self.waited += 1;
        // Patience 0 means what it means in Keras: the first epoch without improvement ends it.
        if self.waited < rule.patience.max(1) {
            return Verdict::Wait { left: rule.patience - self.waited };
        }
        let (best_epoch, best) = self.best.unwrap_or((epoch, value));
        Verdict::Stop {
            reason: format!(
                "{metric} has not improved on {best:.4} (epoch {}) for {} epochs",
                best_epoch + 1,
                self.waited
            ),
        }
    }
}
