//! What a network answers: one class, several labels, or numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Loss, Metric};

/// What is asked of a network for each image. It follows from the loss ([`Loss::task`]) and must be what the data has.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Task {
    /// One class of several.
    #[default]
    Classification,
    /// Any number of labels, each by itself.
    MultiLabel,
    /// Numbers.
    Regression,
}

impl Task {
    /// The name as in `metrics.jsonl` and in checkpoints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::MultiLabel => "multi_label",
            Self::Regression => "regression",
        }
    }

    /// The metrics that mean something for it, in the order in which they are told.
    pub const fn metrics(self) -> &'static [Metric] {
        use Metric::*;
        match self {
            Self::Classification => &[
                Loss,
                Accuracy,
                Top5,
                Precision,
                Recall,
                F1,
                PrecisionWeighted,
                RecallWeighted,
                F1Weighted,
                Map,
                Auc,
                TrainLoss,
            ],
            Self::MultiLabel => &[
                Loss,
                Accuracy,
                Precision,
                Recall,
                F1,
                PrecisionWeighted,
                RecallWeighted,
                F1Weighted,
                PrecisionMicro,
                RecallMicro,
                F1Micro,
                Map,
                Auc,
                TrainLoss,
            ],
            Self::Regression => &[Loss, Mae, Rmse, R2, TrainLoss],
        }
    }

    /// The metric that says most at a glance.
    pub const fn headline(self) -> Metric {
        match self {
            Self::Classification => Metric::Accuracy,
            Self::MultiLabel => Metric::Map,
            Self::Regression => Metric::Mae,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Classification => "one class an image",
            Self::MultiLabel => "several labels an image",
            Self::Regression => "numbers",
        })
    }
}

impl Loss {
    /// The name as written in a recipe.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CrossEntropy { .. } => "cross_entropy",
            Self::Focal { .. } => "focal",
            Self::BinaryCrossEntropy { .. } => "binary_cross_entropy",
            Self::MeanSquared {} => "mean_squared",
            Self::Huber { .. } => "huber",
        }
    }

    /// What a network that minimises it answers.
    pub const fn task(&self) -> Task {
        match self {
            Self::CrossEntropy { .. } | Self::Focal { .. } => Task::Classification,
            Self::BinaryCrossEntropy { .. } => Task::MultiLabel,
            Self::MeanSquared {} | Self::Huber { .. } => Task::Regression,
        }
    }
}
