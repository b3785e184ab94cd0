//! What happens in a run, as data: the lines of `metrics.jsonl` and the argument of a run's callback.
//!
//! Phases, epochs and steps are counted from 0; whoever prints them adds 1. Losses are means an image, accuracies are
//! parts of 1, rates are learning rates, times are seconds.

use std::collections::BTreeMap;

use defrost_policy::Task;
use serde::{Deserialize, Serialize};

use crate::Profile;

/// One thing that happened. In JSON an object whose `event` says which: `{"event":"epoch","phase":0,…}`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The first line of a run, and of each part of a resumed one.
    Start(Start),
    /// What drift and retention are measured by, and where they start. Once in a run that measures them.
    Retention(RetentionStart),
    /// A phase begins, or goes on in a resumed run.
    PhaseStart(PhaseStart),
    /// A sweep of the learning-rate finder, which left no other trace.
    LrFind(LrFind),
    /// The prefix of the network is run once on the images, so that the phase's epochs need not. To the callback only.
    Caching(Caching),
    /// One step is done. To the callback only, never in `metrics.jsonl`.
    Step(Step),
    /// Part of a validation is done. To the callback only.
    Validating(Validating),
    /// Where the time of a phase's steps went, at its end and where a run stops, if profiling was asked for. To the callback
    /// only.
    Profile(Profile),
    /// One epoch is done.
    Epoch(Epoch),
    /// Something a person should know; the run goes on.
    Warning {
        /// One line.
        message: String,
    },
    /// The run decided something: a thaw, a lower rate, an early end, a return to the best weights.
    Decision(Decision),
    /// What trains changed within a phase; a [`Event::Decision`] in front of it says why.
    Thaw(Thaw),
    /// The run ended before its last epoch and can be resumed.
    Stopped(Stopped),
    /// The run is over.
    Done(Done),
}

/// What a run starts from.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Start {
    /// The version of this format, [`FORMAT`](crate::FORMAT).
    pub format: u32,
    /// The architecture's name.
    pub model: String,
    /// The device in words.
    pub device: String,
    /// The run's seed.
    pub seed: u64,
    /// What is asked of the network.
    #[serde(default)]
    pub task: Task,
    /// Classes, or values that the network puts out.
    pub classes: usize,
    /// Images in the training part.
    pub train_images: usize,
    /// Images in the validation part.
    pub val_images: usize,
    /// Images a step.
    pub batch: usize,
    /// Steps an epoch.
    pub steps: usize,
    /// Phases.
    pub phases: usize,
    /// Epochs of all phases together.
    pub epochs: usize,
    /// Where a resumed run goes on; absent in a fresh one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Place>,
}

/// What drift and retention are measured by.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RetentionStart {
    /// Images on which features are compared.
    pub images: usize,
    /// Images of the source task; 0 without one.
    pub source_images: usize,
    /// The accuracy on them before the first step.
    pub source_accuracy: Option<f64>,
    /// Seconds that this took.
    pub seconds: f64,
}

/// A moment of a run: so many steps of this epoch of this phase are done.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Place {
    /// The phase.
    pub phase: usize,
    /// The epoch within the phase.
    pub epoch: usize,
    /// Steps done in it.
    pub step: usize,
}

/// What a phase does.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PhaseStart {
    /// Which phase.
    pub phase: usize,
    /// Its name.
    pub name: String,
    /// Its epochs.
    pub epochs: usize,
    /// Its first epoch counted over all phases.
    pub first_epoch: usize,
    /// What trains, stage by stage from the input to the output.
    pub stages: Vec<StageState>,
    /// Parameter groups in which something trains, with the rates that the schedule multiplies.
    pub groups: Vec<GroupRate>,
    /// The optimizer in one word, as in `adamw`.
    pub optimizer: String,
    /// Values that train.
    pub trained: usize,
    /// Whether the prefix runs once an image and the epochs run on what it gave.
    pub cached: bool,
    /// Why it is cached or not, in one line.
    pub cache_reason: String,
    /// The node at which the network is cut into prefix and suffix; `input` where there is no prefix.
    pub cut: String,
    /// Floating-point operations of one step, forward and backward, without a prefix that is cached.
    pub flops: u64,
    /// Bytes the device holds in a step: weights, gradients, optimizer, activations.
    pub memory: usize,
    /// Bytes of the cached features; 0 where nothing is cached.
    pub cache_bytes: usize,
}

/// What one stage does in a phase.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct StageState {
    /// The stage's name.
    pub stage: String,
    /// Its parameters, buffers not counted.
    pub params: usize,
    /// Those that train.
    pub trained: usize,
    /// The modes of its batch normalisations, in words, without repeats.
    pub norm: Vec<String>,
}

/// A parameter group and its learning rate.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct GroupRate {
    /// The group's name.
    pub group: String,
    /// The learning rate.
    pub lr: f64,
}

/// The curve of the learning-rate finder and what it suggests.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LrFind {
    /// The phase it was made for.
    pub phase: usize,
    /// Rates of the greatest group, rising, with the smoothed loss at each; those that are no number are left out.
    pub points: Vec<defrost_policy::Point>,
    /// What each reading of the curve suggests.
    pub suggestions: Vec<LrSuggestion>,
    /// The reading that sets the phase's rates; absent where the recipe's stay.
    pub applied: Option<String>,
}

/// A rate that a reading of the curve suggests.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LrSuggestion {
    /// The reading: `valley`, `steep`, `minimum`, `slide`.
    pub reading: String,
    /// The rate for the greatest group.
    pub lr: f64,
    /// Where on the curve it was read: its rate.
    pub at_lr: f64,
    /// Where on the curve it was read: its loss.
    pub at_loss: f64,
}

/// Images whose features are in the cache.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Caching {
    /// Which phase.
    pub phase: usize,
    /// Images done.
    pub done: usize,
    /// Images in all.
    pub images: usize,
    /// Seconds since the first.
    pub seconds: f64,
}

/// One training step.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Step {
    /// Which phase.
    pub phase: usize,
    /// The epoch within the phase.
    pub epoch: usize,
    /// The epoch counted over all phases.
    pub global_epoch: usize,
    /// Steps of the epoch that are done, this one included.
    pub step: usize,
    /// Steps of the epoch.
    pub steps: usize,
    /// The batch's loss.
    pub loss: f64,
    /// The mean loss of the epoch so far.
    pub mean_loss: f64,
    /// Hits of the epoch so far: right answers, of several labels an image those with every label right; 0 in regression.
    pub hits: usize,
    /// Images of the epoch so far.
    pub images: usize,
    /// Seconds this step took, loading included.
    pub seconds: f64,
    /// Those of them that it waited for its images: 0 where they were made beside the step before.
    pub waited: f64,
    /// Images a second of the epoch so far.
    pub images_per_second: f64,
    /// The norm of all gradients before clipping, where clipping computed it.
    pub grad_norm: Option<f64>,
    /// Seconds to the end of the epoch, validation included.
    pub epoch_left: f64,
    /// Seconds to the end of the run.
    pub run_left: f64,
}

/// Progress of a validation.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Validating {
    /// Images done.
    pub done: usize,
    /// Images in all.
    pub images: usize,
}

/// One epoch.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Epoch {
    /// Which phase.
    pub phase: usize,
    /// The epoch within the phase.
    pub epoch: usize,
    /// The epoch counted over all phases.
    pub global_epoch: usize,
    /// The mean loss over the epoch's training images, taken while the weights changed.
    pub train_loss: f64,
    /// Part of the training images that were hits, taken while the weights changed; absent in regression.
    pub train_accuracy: Option<f64>,
    /// The loss on the validation part; absent without one.
    pub val_loss: Option<f64>,
    /// The accuracy on the validation part (of several labels an image, those with every label right); absent without one
    /// and in regression.
    pub val_accuracy: Option<f64>,
    /// Further metrics of the validation part by the name they have in a recipe (`top5`, `f1`, `mae`, …), and what is
    /// measured of drift and retention: [`DRIFT`](crate::DRIFT), [`SIMILARITY`](crate::SIMILARITY),
    /// [`SOURCE_ACCURACY`](crate::SOURCE_ACCURACY).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// The mean norm of the gradients before they were clipped; absent where nothing is clipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// The learning rate, in the epoch's last step, of each group in which something trains.
    pub rates: Vec<GroupRate>,
    /// Seconds, validation included; a resumed epoch counts both parts.
    pub seconds: f64,
    /// Seconds of the validation.
    pub val_seconds: f64,
    /// Seconds in which drift and retention were measured, counted in `seconds`.
    #[serde(default)]
    pub retention_seconds: f64,
    /// Seconds that steps waited for their images, counted in `seconds`.
    #[serde(default)]
    pub wait_seconds: f64,
    /// Training images a second, validation not counted.
    pub images_per_second: f64,
    /// Whether this is the best epoch so far.
    pub best: bool,
}

/// Something the run decided.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Decision {
    /// Which phase.
    pub phase: usize,
    /// The epoch within the phase after which it was decided.
    pub epoch: usize,
    /// What was decided, in one line: `thaw layer3`, `rates times 0.1`, `end of phase`, `back to epoch 4`.
    pub what: String,
    /// Why, in one line.
    pub reason: String,
}

/// What trains from here on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Thaw {
    /// Which phase.
    pub phase: usize,
    /// The first epoch, within the phase, for which it holds.
    pub epoch: usize,
    /// That epoch counted over all phases.
    pub global_epoch: usize,
    /// What trains, stage by stage from the input to the output.
    pub stages: Vec<StageState>,
    /// Parameter groups in which something trains, with the rates that the schedule multiplies.
    pub groups: Vec<GroupRate>,
}

/// Why and where a run stopped early.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Stopped {
    /// In one line.
    pub reason: String,
    /// Where it stands.
    pub at: Place,
    /// What is to be given to `--resume`: the run's folder.
    pub resume: String,
}

/// How a run ended.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Done {
    /// The best epoch, counted over all phases; absent where no epoch was measured.
    pub best_epoch: Option<usize>,
    /// The phase it belongs to.
    pub best_phase: Option<usize>,
    /// The validation loss of the best epoch.
    pub loss: Option<f64>,
    /// The validation accuracy of the best epoch.
    pub accuracy: Option<f64>,
    /// The metric by which epochs were compared, as in a recipe.
    pub metric: String,
    /// Its value in the best epoch; absent where it was not measured.
    #[serde(default)]
    pub value: Option<f64>,
    /// Epochs done, over all phases.
    pub epochs: usize,
    /// Seconds, those before an interruption included.
    pub seconds: f64,
}
