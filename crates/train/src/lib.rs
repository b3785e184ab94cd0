//! The training loop: phases, epochs, steps, checkpoints, resuming.
//!
//! The decision that shapes this crate: **everything a run knows is in one small value, and everything random is keyed.**
//! [`State`] says where the run stands; weights and optimizer state belong to the session; order, augmentation and
//! dropout follow from (seed, epoch, sample). So what is saved after any step, in one file that is written whole or not
//! at all, is enough to go on with the same bits as if nothing had happened ([`resume`]), across a thaw and in the middle
//! of an epoch. There is no callback that could have state of its own, and no type parameter: the loop sees
//! `dyn Engine` and `dyn Session` only.
//!
//! # A run's folder
//!
//! | file | what it is |
//! |---|---|
//! | `recipe.toml` | the recipe, every default filled in |
//! | `classes.json` | the classes' names in the order of the outputs |
//! | `metrics.jsonl` | one [`Event`] a line, its kind in the field `event` |
//! | `validation.json` | [`Validation`]: the best model's answer to every image of the validation part |
//! | `skipped.txt` | images that could not be used, each with its reason |
//! | `checkpoints/best.safetensors` | the weights of the best epoch under their published names |
//! | `checkpoints/last.safetensors` | the weights after the last epoch |
//! | `checkpoints/<name>.safetensors` | weights that a phase saves, `epoch-003` where every epoch is kept |
//! | `checkpoints/resume.safetensors` | everything a run goes on from |
//!
//! Epochs, phases, steps and classes are counted from 0 in all of them, but names of checkpoints count from 1.
//!
//! The first lines of a `metrics.jsonl`, shortened:
//!
//! ```json
//! {"event":"start","model":"mobilenet_v2","classes":30,"train_images":2400,"batch":32,"epochs":13,"…":0}
//! {"event":"phase_start","phase":0,"name":"head","epochs":5,"stages":[{"stage":"features.0","trained":0,"…":0}],"…":0}
//! {"event":"epoch","phase":0,"epoch":0,"global_epoch":0,"train_loss":2.1,"val_loss":1.6,"val_accuracy":0.55,"…":0}
//! {"event":"done","best_epoch":11,"accuracy":0.69,"…":0}
//! ```

mod answers;
mod between;
mod cache;
mod checkpoint;
mod clock;
mod early;
mod epoch;
mod error;
mod evaluate;
mod event;
mod feed;
mod job;
mod loss;
mod lr_find;
pub mod metrics;
mod outputs;
mod phase;
mod probe;
mod proceed;
mod profile;
mod retention;
mod run;
mod save;
mod scale;
mod state;
mod step;
mod store;
mod targets;
mod trainer;
mod validation;
mod views;

pub use answers::{class_scores, most_confused, worst_mistakes};
pub use checkpoint::{About, read_about, read_weights, write_weights, write_weights_as};
pub use clock::{Cost, costs};
pub use error::{Aspect, Difference, Result, TrainError};
pub use evaluate::{evaluate, predict};
pub use event::{
    Caching, Decision, Done, Epoch, Event, GroupRate, LrFind, LrSuggestion, PhaseStart, Place,
    RetentionStart, StageState, Start, Step, Stopped, Thaw, Validating,
};
pub use job::{Ending, Job, Options, Outcome};
pub use loss::{sigmoid, softmax};
pub use lr_find::lr_find;
pub use outputs::{Outputs, Truth};
pub use phase::lr_found;
pub use probe::{Advice, FOLDS, Probe, Probes, STRENGTHS, probe};
pub use proceed::{phases_done, proceed};
pub use profile::{KernelSeconds, Profile};
pub use retention::{DRIFT, SIMILARITY, SOURCE_ACCURACY, SourceTask, linear_cka};
pub use run::{Folder, Run};
pub use scale::Scale;
pub use state::{Best, Fingerprint, Smooth, State, Sums};
pub use step::{device_loss, passes, rule};
pub use targets::{Rows, Targets};
pub use trainer::{fit, resume};
pub use validation::{
    CONFUSED, ClassScore, Confused, LabelAnswer, Labelled, Measured, Prediction, Validation, ValueScore,
    WORST,
};
pub use views::{Mean, evaluate_views};

/// The version of the files of a run. A file of a newer version is refused, an older one is read.
pub const FORMAT: u32 = 1;
