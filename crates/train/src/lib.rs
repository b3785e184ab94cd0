//! The training loop: phases, epochs, steps, checkpoints, resuming.

mod event;
mod validation;

pub use event::{
    Caching, Decision, Done, Epoch, Event, GroupRate, PhaseStart, Place, StageState, Start, Step, Stopped,
    Thaw, Validating,
};
pub use validation::{
    CONFUSED, ClassScore, Confused, Prediction, Validation, WORST, class_scores, most_confused,
    worst_mistakes,
};

/// The version of the files of a run. A file of a newer version is refused, an older one is read.
pub const FORMAT: u32 = 1;
