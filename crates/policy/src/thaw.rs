//! Thawing within a phase: when the next part of the network starts to train, and when that was a mistake.

use serde::{Deserialize, Serialize};

use crate::{Metric, Mode, Selection};

/// What thaws while a phase runs, and when: `thaw = { every = 2, lr_factor = 0.5 }`.
///
/// Each thaw adds to what trains. It happens when any of `at`, `every` and `plateau` says so.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Thaw {
    /// What each thaw adds where `steps` is empty: one such unit after another, from the last frozen one to the first.
    pub unit: Unit,
    /// What each thaw adds, in their order.
    pub steps: Vec<Selection>,
    /// Epochs of the phase (from 0) before which a thaw happens.
    pub at: Vec<usize>,
    /// Epochs between two thaws; 0: not by number of epochs.
    pub every: usize,
    /// Thaw where a metric no longer improves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plateau: Option<Plateau>,
    /// Every thaw multiplies the rates of all groups by this.
    pub lr_factor: f64,
    /// Whether the best weights so far are loaded before a thaw (Lightning's finetuning-scheduler).
    pub restore_best: bool,
    /// Go back if a thaw makes things worse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

impl Default for Thaw {
    /// Stage by stage, at no time yet, rates kept.
    fn default() -> Self {
        Self {
            unit: Unit::Stage,
            steps: Vec::new(),
            at: Vec::new(),
            every: 0,
            plateau: None,
            lr_factor: 1.0,
            restore_best: false,
            rollback: None,
        }
    }
}

impl Thaw {
    /// One `unit` after another, from the last frozen one to the first; say when.
    pub fn by(unit: Unit) -> Self {
        Self { unit, ..Self::default() }
    }

    /// These selections, one after another; say when.
    pub fn steps<S: Into<Selection>>(steps: impl IntoIterator<Item = S>) -> Self {
        Self { steps: steps.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Before these epochs of the phase, from 0.
    #[must_use]
    pub fn at(self, epochs: impl Into<Vec<usize>>) -> Self {
        Self { at: epochs.into(), ..self }
    }

    /// After so many epochs, and again.
    #[must_use]
    pub fn every(self, epochs: usize) -> Self {
        Self { every: epochs, ..self }
    }

    /// Where a metric no longer improves.
    #[must_use]
    pub fn on_plateau(self, plateau: Plateau) -> Self {
        Self { plateau: Some(plateau), ..self }
    }

    /// Each multiplying all rates by this.
    #[must_use]
    pub fn lr_factor(self, factor: f64) -> Self {
        Self { lr_factor: factor, ..self }
    }

    /// Each starting from the best weights so far.
    #[must_use]
    pub fn restore_best(self) -> Self {
        Self { restore_best: true, ..self }
    }

    /// Going back if a thaw makes things worse.
    #[must_use]
    pub fn rollback(self, rollback: Rollback) -> Self {
        Self { rollback: Some(rollback), ..self }
    }
}

/// What gradual thawing goes by.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unit {
    /// Stages.
    #[default]
    Stage,
    /// Blocks.
    Block,
    /// The phase's parameter groups.
    Group,
    /// Everything at once.
    All,
}

/// When a metric counts as no longer improving.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Plateau {
    /// What is watched.
    pub metric: Metric,
    /// Whether less or more of it is better.
    pub mode: Mode,
    /// Epochs without improvement that are waited for.
    pub patience: usize,
    /// What counts as an improvement.
    pub min_delta: f64,
}

impl Default for Plateau {
    /// Validation loss, patience 2.
    fn default() -> Self {
        Self { metric: Metric::Loss, mode: Mode::Auto, patience: 2, min_delta: 0.0 }
    }
}

impl Plateau {
    /// Of this metric, after so many epochs without improvement.
    pub fn of(metric: Metric, patience: usize) -> Self {
        Self { metric, patience, ..Self::default() }
    }

    /// With this much counting as an improvement.
    #[must_use]
    pub fn min_delta(self, min_delta: f64) -> Self {
        Self { min_delta, ..self }
    }
}

/// When a thaw counts as a mistake: the metric has not come back to its best from before the thaw.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Rollback {
    /// What is watched.
    pub metric: Metric,
    /// Whether less or more of it is better.
    pub mode: Mode,
    /// Epochs that a thaw is given.
    pub patience: usize,
    /// How much worse than the best is still accepted.
    pub tolerance: f64,
}

impl Default for Rollback {
    /// Validation loss, three epochs, no tolerance.
    fn default() -> Self {
        Self { metric: Metric::Loss, mode: Mode::Auto, patience: 3, tolerance: 0.0 }
    }
}

impl Rollback {
    /// By this metric, which is given so many epochs to come back to its best.
    pub fn of(metric: Metric, patience: usize) -> Self {
        Self { metric, patience, ..Self::default() }
    }

    /// Accepting what is worse by so much.
    #[must_use]
    pub fn tolerance(self, tolerance: f64) -> Self {
        Self { tolerance, ..self }
    }
}

/// Something that happens between two epochs, with its reason as a line to log.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Decision {
    /// The weights of an epoch (from 0, of the phase) are loaded, optimizer state included.
    Restore {
        /// The epoch whose weights are loaded.
        epoch: usize,
        /// Why.
        reason: String,
    },
    /// From now on [`Phase::step`](crate::Phase::step) of `step` holds. A rollback leads to a lower one.
    Step {
        /// The number of the step, 0 for the phase's start.
        step: usize,
        /// Why.
        reason: String,
    },
    /// All rates are multiplied by [`Controller::factor`](crate::Controller::factor), which is now `factor`.
    Factor {
        /// The product of all falls so far.
        factor: f64,
        /// Why.
        reason: String,
    },
    /// The phase ends here.
    Stop {
        /// Why.
        reason: String,
    },
}

impl Decision {
    /// Why, as a line to log.
    pub fn reason(&self) -> &str {
        match self {
            Self::Restore { reason, .. }
            | Self::Step { reason, .. }
            | Self::Factor { reason, .. }
            | Self::Stop { reason } => reason,
        }
    }
}
