//! A phase as a recipe has it.

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::optimizer::optimizer;
use crate::schedule::schedule;
use crate::short::form;
use crate::{Clip, Lr, Norm, Optimizer, Schedule, Selection, Sweep, Thaw, Warmup};

/// A stretch of training with one selection, one optimizer and one schedule: `[[phase]]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PhaseSpec {
    /// A name for logs, plots and checkpoints.
    pub name: String,
    /// Passes over the training part.
    pub epochs: usize,
    /// What trains from the phase's first step on.
    pub train: Selection,
    /// What batch normalisations do.
    pub norm: Norm,
    /// What the parameter groups are.
    pub groups: Grouping,
    /// The greatest rate of each group.
    pub lr: Lr,
    /// Multiplier for the rates of biases (2 in Caffe's recipes).
    pub bias_lr: f64,
    /// Multiplier for the rates of normalisations.
    pub norm_lr: f64,
    /// How gradients become steps.
    #[serde(deserialize_with = "optimizer")]
    pub optimizer: Optimizer,
    /// Whether the optimizer's state of the phase before is kept; else it starts anew (fastai clears it, Keras
    /// recompiles). Only where both phases have the same kind of optimizer.
    pub keep_state: bool,
    /// How rates move.
    #[serde(deserialize_with = "schedule")]
    pub schedule: Schedule,
    /// A rise in front of the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
    /// Limits on gradients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<Clip>,
    /// Samples whose gradients make one step (fastai's `GradientAccumulation`); 0: each batch is a step.
    pub accumulate: usize,
    /// What thaws while the phase runs, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thaw: Option<Thaw>,
    /// Which weights the phase starts from.
    pub start: Start,
    /// A sweep of the learning-rate finder before the phase, which leaves a plot and no other trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub find_lr: Option<Sweep>,
    /// The name of a checkpoint that is written when the phase ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save: Option<String>,
}

impl Default for PhaseSpec {
    /// One epoch of everything at a constant 1e-3.
    fn default() -> Self {
        Self {
            name: String::new(),
            epochs: 1,
            train: Selection::all(),
            norm: Norm::default(),
            groups: Grouping::Stage,
            lr: Lr::Uniform(1e-3),
            bias_lr: 1.0,
            norm_lr: 1.0,
            optimizer: Optimizer::default(),
            keep_state: false,
            schedule: Schedule::default(),
            warmup: None,
            clip: None,
            accumulate: 0,
            thaw: None,
            start: Start::Last,
            find_lr: None,
            save: None,
        }
    }
}

impl PhaseSpec {
    /// A phase of `epochs` epochs that trains `train`.
    pub fn new(name: impl Into<String>, epochs: usize, train: impl Into<Selection>) -> Self {
        Self { name: name.into(), epochs, train: train.into(), ..Self::default() }
    }

    /// With these rates.
    #[must_use]
    pub fn lr(self, lr: impl Into<Lr>) -> Self {
        Self { lr: lr.into(), ..self }
    }

    /// With this optimizer.
    #[must_use]
    pub fn optimizer(self, optimizer: Optimizer) -> Self {
        Self { optimizer, ..self }
    }

    /// With this schedule.
    #[must_use]
    pub fn schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// With this behaviour of batch normalisations.
    #[must_use]
    pub fn norm(self, norm: impl Into<Norm>) -> Self {
        Self { norm: norm.into(), ..self }
    }

    /// With these parameter groups.
    #[must_use]
    pub fn groups(self, groups: Grouping) -> Self {
        Self { groups, ..self }
    }

    /// With this rise in front of the schedule.
    #[must_use]
    pub fn warmup(self, warmup: Warmup) -> Self {
        Self { warmup: Some(warmup), ..self }
    }

    /// With rates of biases and of normalisations multiplied by these.
    #[must_use]
    pub fn multipliers(self, bias: f64, norm: f64) -> Self {
        Self { bias_lr: bias, norm_lr: norm, ..self }
    }

    /// With the optimizer's state of the phase before.
    #[must_use]
    pub fn keep_state(self) -> Self {
        Self { keep_state: true, ..self }
    }

    /// With this limit on gradients.
    #[must_use]
    pub fn clip(self, clip: Clip) -> Self {
        Self { clip: Some(clip), ..self }
    }

    /// With the gradients of so many samples making a step.
    #[must_use]
    pub fn accumulate(self, samples: usize) -> Self {
        Self { accumulate: samples, ..self }
    }

    /// With these thaws.
    #[must_use]
    pub fn thaw(self, thaw: Thaw) -> Self {
        Self { thaw: Some(thaw), ..self }
    }

    /// Starting from these weights.
    #[must_use]
    pub fn start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// With a sweep of rates before it.
    #[must_use]
    pub fn find_lr(self, sweep: Sweep) -> Self {
        Self { find_lr: Some(sweep), ..self }
    }

    /// Saving its last weights under a name.
    #[must_use]
    pub fn save(self, name: impl Into<String>) -> Self {
        Self { save: Some(name.into()), ..self }
    }
}

/// What the parameter groups are: the units that rates by place are spread over.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Value", into = "Value")]
#[non_exhaustive]
pub enum Grouping {
    /// `"stage"`: each stage.
    #[default]
    Stage,
    /// `"block"`: each block. Layer decay always takes these.
    Block,
    /// `"whole"`: body and head.
    Whole,
    /// A list of selections, from the input to the output (fastai's splitters). Each takes what none before it took.
    Split(Vec<Selection>),
}

impl TryFrom<Value> for Grouping {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(s) if s == "stage" => Ok(Self::Stage),
            Value::String(s) if s == "block" => Ok(Self::Block),
            Value::String(s) if s == "whole" => Ok(Self::Whole),
            Value::String(s) => {
                Err(format!("unknown variant `{s}`, expected one of `stage`, `block`, `whole`"))
            }
            Value::Array(parts) => {
                parts.into_iter().map(Selection::try_from).collect::<Result<_, _>>().map(Self::Split)
            }
            other => Err(format!(
                "expected \"stage\", \"block\", \"whole\" or a list of selections, found {}",
                form(&other)
            )),
        }
    }
}

impl From<Grouping> for Value {
    fn from(grouping: Grouping) -> Self {
        match grouping {
            Grouping::Stage => "stage".into(),
            Grouping::Block => "block".into(),
            Grouping::Whole => "whole".into(),
            Grouping::Split(parts) => Self::Array(parts.into_iter().map(Self::from).collect()),
        }
    }
}

/// Which weights a phase starts from. A string in TOML: `"last"`, `"best"`, `"best-1"` or the name of a checkpoint.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum Start {
    /// Those that the phase before ended with.
    #[default]
    Last,
    /// Those of the best epoch so far, or of so many epochs before it: a model that is the start of the next one is taken
    /// a little before its best.
    Best {
        /// Epochs before the best one.
        before: usize,
    },
    /// Those that a phase before saved under this name.
    Named(String),
}

/// Whether a checkpoint can be called so.
///
/// # Errors
/// Why it cannot.
pub fn checkpoint_name(name: &str) -> Result<(), &'static str> {
    Err(match name {
        "" => "it is empty",
        _ if name.len() > 100 => "it is longer than 100 bytes",
        _ if name == "resume" || name.starts_with("restore-") => "the run itself uses it",
        _ if name.starts_with('.') => "it begins with a dot",
        _ if name.contains(['/', '\\', ':', '\0']) => "it has a character that stands for a folder",
        _ => return Ok(()),
    })
}

/// Whether a phase can save under this name: one of a checkpoint, and none that the run writes by itself.
pub(crate) fn save_name(name: &str) -> Result<(), &'static str> {
    let own = name == "last"
        || name.starts_with("epoch-")
        || matches!(Start::from(name.to_owned()), Start::Best { .. });
    checkpoint_name(name).and(if own {
        Err("the run itself writes a checkpoint of this name")
    } else {
        Ok(())
    })
}

impl From<String> for Start {
    fn from(text: String) -> Self {
        match text.strip_prefix("best") {
            _ if text == "last" => Self::Last,
            Some("") => Self::Best { before: 0 },
            Some(rest) => match rest.strip_prefix('-').and_then(|n| n.parse().ok()) {
                Some(before) => Self::Best { before },
                None => Self::Named(text),
            },
            None => Self::Named(text),
        }
    }
}

impl From<Start> for String {
    fn from(start: Start) -> Self {
        match start {
            Start::Last => "last".into(),
            Start::Best { before: 0 } => "best".into(),
            Start::Best { before } => format!("best-{before}"),
            Start::Named(name) => name,
        }
    }
}
