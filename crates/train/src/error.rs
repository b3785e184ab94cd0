//! What can go wrong in a run.

use std::io;
use std::path::PathBuf;

use defrost_exec::ExecError;
use defrost_graph::GraphError;
use defrost_policy::Task;

use crate::Place;

/// The result of this crate's functions.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Why a run could not start, go on, or be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The backend or the plan.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// Weights that are not this network's.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The data.
    #[error(transparent)]
    Data(#[from] defrost_data::Error),
    /// A weight file or any other file that is written whole.
    #[error(transparent)]
    Weights(#[from] defrost_weights::Error),
    /// A file or folder of the run.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as in "cannot …".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process writes to this run.
    #[error(
        "{} is in use by {holder}: wait for it to end, or choose another folder (a lock never outlives its process)",
        path.display()
    )]
    Locked {
        /// The run's folder.
        path: PathBuf,
        /// The process, in words.
        holder: String,
    },
    /// The folder of a new run already holds one.
    #[error("{} already holds a run: go on with it by `--resume`, or choose another folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds no run.
    #[error("{} holds no run: there is no {missing} in it", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// What a run would have.
        missing: &'static str,
    },
    /// A checkpoint that is not there.
    #[error("{} has no checkpoint `{name}`; it has {}", path.display(), list(known))]
    NoCheckpoint {
        /// The run's folder.
        path: PathBuf,
        /// The checkpoint asked for.
        name: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// A name that no checkpoint can have.
    #[error("`{name}` is no name for a checkpoint: {rule}")]
    CheckpointName {
        /// The name.
        name: String,
        /// What is accepted.
        rule: &'static str,
    },
    /// A file that a newer version wrote.
    #[error("{} has format {found}, this program knows formats up to {known}: use a newer one", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// A file of the run that is not as it was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A checkpoint's tensors are not those of the network.
    #[error("{} does not fit the network: {}", path.display(), problems.join("; "))]
    Misfit {
        /// The file.
        path: PathBuf,
        /// The first mismatches by name and shape.
        problems: Vec<String>,
    },
    /// What is to be resumed is not what was interrupted.
    #[error("this is not the run that was interrupted: {}", differences(.0))]
    Different(Vec<Difference>),
    /// The run that is to be resumed has come to its end.
    #[error("{} is over: all {epochs} epochs are done; `--resume` with another `--recipe` goes on from here", path.display())]
    Finished {
        /// The run's folder.
        path: PathBuf,
        /// Its epochs.
        epochs: usize,
    },
    /// The loss is no number any more.
    #[error("{what} is {value} at step {} of epoch {} in phase {}: {cause}; {kept}", at.step + 1, at.epoch + 1, at.phase + 1)]
    NotFinite {
        /// What was looked at: the loss, a weight.
        what: String,
        /// Its value.
        value: f64,
        /// When it was noticed, the step being the one that failed.
        at: Place,
        /// The likely cause and its remedy.
        cause: String,
        /// Which checkpoint is still good.
        kept: String,
    },
    /// The loss left all bounds.
    #[error(
        "the loss exploded at step {} of epoch {} in phase {}: {now:.4}, having been {before:.4} at the start; \
         {cause}; {kept}",
        at.step + 1, at.epoch + 1, at.phase + 1
    )]
    Exploded {
        /// The smoothed loss at the phase's start.
        before: f64,
        /// The smoothed loss now.
        now: f64,
        /// When it was noticed.
        at: Place,
        /// The likely cause and its remedy.
        cause: String,
        /// Which checkpoint is still good.
        kept: String,
    },
    /// Something that a recipe can ask for and that cannot be done.
    #[error("{what} cannot be done: {why}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// Why not, or what to do instead.
        why: String,
    },
    /// The data does not fit the network.
    #[error("{what}: the network has {network}, the data has {data}")]
    DataMisfit {
        /// What was compared.
        what: &'static str,
        /// The network's.
        network: String,
        /// The data's.
        data: String,
    },
    /// A loss for another kind of data.
    #[error(
        "the loss `{loss}` is for {wants}, and the data has {has}: take {}, or data of the other kind",
        losses(*has)
    )]
    WrongTask {
        /// The loss, as in a recipe.
        loss: &'static str,
        /// What it is for.
        wants: Task,
        /// What the data has.
        has: Task,
    },
    /// A target that the loss cannot have.
    #[error("`{image}` has {value} for `{name}`: {rule}")]
    Target {
        /// The image.
        image: String,
        /// The label or number.
        name: String,
        /// What it is.
        value: f32,
        /// What it may be.
        rule: &'static str,
    },
    /// Class weights for classes that the data does not have.
    #[error(
        "class weights are given for {}, which the data does not have; it has {}",
        list(unknown),
        list(known)
    )]
    UnknownClasses {
        /// Names without a class.
        unknown: Vec<String>,
        /// The data's classes.
        known: Vec<String>,
    },
    /// Nothing to train on or to measure.
    #[error("there is no image to {purpose}")]
    NoImages {
        /// What they were for, as in "train on".
        purpose: &'static str,
    },
}

/// A thing in which a run to be resumed differs from the one that was interrupted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// What differs.
    pub what: Aspect,
    /// What it was.
    pub before: String,
    /// What it is now.
    pub now: String,
}

/// What a resumed run is compared by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Aspect {
    /// The architecture or the shape of a parameter.
    Model,
    /// The names of the classes or their order.
    Classes,
    /// The images, their labels or their split.
    Data,
    /// The recipe.
    Recipe,
    /// How pixels become the network's input.
    Preprocessing,
}

impl Aspect {
    /// The value of `--accept` that lets a run go on although this differs; `None` where that cannot be right.
    pub const fn flag(self) -> Option<&'static str> {
        match self {
            Self::Data => Some("data"),
            Self::Recipe => Some("recipe"),
            Self::Preprocessing => Some("preprocessing"),
            Self::Model | Self::Classes => None,
        }
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "the network",
            Self::Classes => "the classes",
            Self::Data => "the data",
            Self::Recipe => "the recipe",
            Self::Preprocessing => "the preprocessing",
        }
    }
}

fn differences(all: &[Difference]) -> String {
    let one = |d: &Difference| {
        let way = match d.what.flag() {
            Some(flag) => format!("`--accept {flag}` goes on all the same"),
            None => "start a new run from its weights instead".to_owned(),
        };
        format!("{} was {} and is now {} ({way})", d.what.name(), d.before, d.now)
    };
    all.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The losses for a task, as one writes them in a recipe.
const fn losses(task: Task) -> &'static str {
    match task {
        Task::MultiLabel => "`--set loss=binary_cross_entropy`",
        Task::Regression => "`--set loss=huber` or `mean_squared`",
        _ => "`--set loss=cross_entropy` or `focal`",
    }
}

/// Names as one would say them.
fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let shown = names.iter().take(8).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(8) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
