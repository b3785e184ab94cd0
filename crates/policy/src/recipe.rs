//! The recipe: everything that decides a run but the data.

use defrost_augment::{Op, Pipeline, Resize, TestTime};
use serde::{Deserialize, Deserializer, Serialize, de};
use toml::Value;

use crate::loss::loss;
use crate::{Balance, EarlyStopping, Head, Loss, Metric, Model, PhaseSpec};

/// Everything that decides a run, as data. In TOML each key may be left out and then has the default given here.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Recipe {
    /// A name.
    pub name: String,
    /// One line on what it does.
    pub about: String,
    /// The seed of everything that is random.
    pub seed: u64,
    /// Images of a batch.
    pub batch_size: usize,
    /// By which the best epoch is chosen.
    pub monitor: Metric,
    /// Whether what the backward pass reads is computed once more instead of being kept (gradient checkpointing): the same
    /// bits from less memory, for up to one more forward pass a step.
    pub recompute: Recompute,
    /// In which numbers the device stores and multiplies activations.
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// The network.
    pub model: Model,
    /// How images reach the network.
    pub data: Data,
    /// How training images are changed.
    pub augment: Augment,
    /// What is minimised.
    #[serde(deserialize_with = "loss")]
    pub loss: Loss,
    /// When a phase ends before its last epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// An average of the weights over steps, used for evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<Ema>,
    /// Which checkpoints are kept beside the best and the last.
    pub checkpoints: Checkpoints,
    /// What is measured of how far the network moves from where it started.
    pub retention: Retention,
    /// After which epochs the validation part is measured.
    #[serde(skip_serializing_if = "Validation::is_default")]
    pub validation: Validation,
    /// The phases, in their order.
    #[serde(rename = "phase")]
    pub phases: Vec<PhaseSpec>,
}

impl Default for Recipe {
    /// Seed 0, batches of 32, accuracy watched, no phase.
    fn default() -> Self {
        Self {
            name: String::new(),
            about: String::new(),
            seed: 0,
            batch_size: 32,
            monitor: Metric::Accuracy,
            recompute: Recompute::Auto,
            precision: Precision::F32,
            model: Model::default(),
            data: Data::default(),
            augment: Augment::default(),
            loss: Loss::default(),
            early_stopping: None,
            ema: None,
            checkpoints: Checkpoints::default(),
            retention: Retention::default(),
            validation: Validation::default(),
            phases: Vec::new(),
        }
    }
}

impl Recipe {
    /// A recipe for `arch` without phases.
    pub fn new(name: impl Into<String>, arch: impl Into<String>) -> Self {
        let model = Model { arch: arch.into(), ..Model::default() };
        Self { name: name.into(), model, ..Self::default() }
    }

    /// With this one line on what it does.
    #[must_use]
    pub fn about(self, about: impl Into<String>) -> Self {
        Self { about: about.into(), ..self }
    }

    /// With these weights: a path, a name, `"embedded"` or `"none"`.
    #[must_use]
    pub fn weights(mut self, weights: impl Into<String>) -> Self {
        self.model.weights = weights.into().into();
        self
    }

    /// With this head.
    #[must_use]
    pub fn head(mut self, head: Head) -> Self {
        self.model.head = head;
        self
    }

    /// With images of so many pixels in height and width.
    #[must_use]
    pub fn image_size(mut self, pixels: usize) -> Self {
        self.data.image_size = pixels;
        self
    }

    /// With batches of so many images.
    #[must_use]
    pub fn batch_size(self, images: usize) -> Self {
        Self { batch_size: images, ..self }
    }

    /// With this seed.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With these operations on training images.
    #[must_use]
    pub fn augment(mut self, train: impl Into<Vec<Op>>) -> Self {
        self.augment.train = Pipeline(train.into());
        self
    }

    /// Mixing batches by mixup and cutmix with these shapes of their beta distributions; 0 for none.
    #[must_use]
    pub fn mix(mut self, mixup: f64, cutmix: f64) -> Self {
        (self.augment.mixup, self.augment.cutmix) = (mixup, cutmix);
        self
    }

    /// Measured and used with these views of each image.
    #[must_use]
    pub fn test_time(mut self, views: TestTime) -> Self {
        self.augment.test_time = views;
        self
    }

    /// Minimising this.
    #[must_use]
    pub fn loss(self, loss: Loss) -> Self {
        Self { loss, ..self }
    }

    /// Comparing epochs by this.
    #[must_use]
    pub fn monitor(self, metric: Metric) -> Self {
        Self { monitor: metric, ..self }
    }

    /// Ending phases early.
    #[must_use]
    pub fn early_stopping(self, rule: EarlyStopping) -> Self {
        Self { early_stopping: Some(rule), ..self }
    }

    /// With an average of the weights.
    #[must_use]
    pub fn ema(self, ema: Ema) -> Self {
        Self { ema: Some(ema), ..self }
    }

    /// With activations computed again in the backward pass, or kept.
    #[must_use]
    pub fn recompute(self, recompute: Recompute) -> Self {
        Self { recompute, ..self }
    }

    /// Multiplying in other numbers.
    #[must_use]
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Keeping the weights of every epoch.
    #[must_use]
    pub fn keep_every_epoch(mut self) -> Self {
        self.checkpoints.every_epoch = true;
        self
    }

    /// Measured on the validation part after every so many epochs of a phase, and after its last; 0: only after that.
    #[must_use]
    pub fn validate_every(mut self, epochs: usize) -> Self {
        self.validation.every = epochs;
        self
    }

    /// Drawing classes as often as this says.
    #[must_use]
    pub fn balance(mut self, balance: impl Into<Balance>) -> Self {
        self.data.balance = balance.into();
        self
    }

    /// With so many cached views of each image for what does not train; 0 for new ones each epoch.
    #[must_use]
    pub fn views(mut self, views: usize) -> Self {
        self.data.views = views;
        self
    }

    /// With up to so many megabytes of cached features in memory, and where that is not enough in a file.
    #[must_use]
    pub fn cache(mut self, memory: u64, file: u64) -> Self {
        (self.data.cache_memory, self.data.cache_file) = (memory, file);
        self
    }

    /// With the file of cached features in this folder.
    #[must_use]
    pub fn cache_folder(mut self, folder: impl Into<String>) -> Self {
        self.data.cache_folder = Some(folder.into());
        self
    }

    /// Predicting these columns of a CSV data set.
    #[must_use]
    pub fn targets<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.data.targets = columns.into_iter().map(Into::into).collect();
        self
    }

    /// With another phase at the end.
    #[must_use]
    pub fn phase(mut self, phase: PhaseSpec) -> Self {
        self.phases.push(phase);
        self
    }
}

/// How images reach the network: `[data]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Data {
    /// Height and width of the network's input, in pixels.
    pub image_size: usize,
    /// Part of each class that is set aside for validation, where the folder does not say it itself.
    pub val_fraction: f64,
    /// The column of a CSV data set with the paths of the images; empty: found by its name (`image`, `file`, `path`, …).
    pub image: String,
    /// Columns of a CSV data set that hold what is to be predicted: the class; one column of labels or a column of 0 and 1
    /// a label for [`Loss::BinaryCrossEntropy`]; a column a number for a regression. Empty: all that can be meant. In a
    /// folder of classes the label of an image is its class, and the number is the class's name where all names are numbers,
    /// otherwise its place among the classes.
    pub targets: Vec<String>,
    /// What stands between labels in one column; empty: found by looking at them.
    pub separator: String,
    /// The column of a CSV data set that tells training from validation (`train`, `val`, or whether an image is for
    /// validation); empty: found by its name (`split`, `part`, `is_valid`, …); `"none"`: `val_fraction` decides.
    pub split: String,
    /// Whether the numbers of a regression are learned with their mean taken away and divided by their standard deviation in
    /// the training part. Answers and metrics are in the data's own units all the same; the loss is not.
    pub standardize: bool,
    /// How often classes are drawn: `true` for all equally often, whatever their numbers of images, or a table of weights.
    pub balance: Balance,
    /// Whether an unreadable image is an error; else it is skipped and counted.
    pub strict: bool,
    /// Whether a last batch that is not full is left out of training.
    pub drop_last: bool,
    /// How images are resized for evaluation; left out: as belongs to the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// Augmented views of an image that a frozen prefix of the network is computed and cached for; epochs take turns over
    /// them. 0: no cache, every epoch has its own view.
    pub views: usize,
    /// Megabytes (2²⁰ bytes) of what is cached that may be kept in memory.
    pub cache_memory: u64,
    /// Megabytes that may be kept in a file where that is not enough; a phase that needs more runs uncached.
    pub cache_file: u64,
    /// The folder of that file, which is gone with the run; left out: the run's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_folder: Option<String>,
    /// Pixels above which an image is taken for a decompression bomb and skipped.
    pub max_pixels: u64,
}

impl Default for Data {
    /// 224 pixels, a fifth for validation, incomplete batches trained on, one cached view, 1 GB of the cache in memory and 16 GB in a file, 178,956,970 pixels (Pillow's
    /// limit for an error).
    fn default() -> Self {
        Self {
            image_size: 224,
            val_fraction: 0.2,
            image: String::new(),
            targets: Vec::new(),
            separator: String::new(),
            split: String::new(),
            standardize: false,
            balance: Balance::Natural,
            strict: false,
            drop_last: false,
            resize: None,
            views: 1,
            cache_memory: 1 << 10,
            cache_file: 16 << 10,
            cache_folder: None,
            max_pixels: 178_956_970,
        }
    }
}

/// How training images are changed: `[augment]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Augment {
    /// Operations on single images, in their order.
    pub train: Pipeline,
    /// Shape of the beta distribution of mixup (Zhang et al. 2018); 0 for none.
    pub mixup: f64,
    /// Shape of the beta distribution of cutmix (Yun et al. 2019); 0 for none.
    pub cutmix: f64,
    /// Part of the batches that are mixed.
    pub mix_prob: f64,
    /// Where both are on, the part of the mixed batches that cutmix takes.
    pub switch_prob: f64,
    /// Views of each image whose predictions are averaged when the finished network is measured (`eval`) or put to use (`predict`). In TOML a
    /// word (`"flip"`, `"ten_crop"`, `"augmented"`), a number of augmented views, or `{ augmented = { n = 4, beta = 0.25 } }`.
    #[serde(deserialize_with = "test_time")]
    pub test_time: TestTime,
}

impl Default for Augment {
    /// Random resized crop and flip with torchvision's defaults; no mixing.
    fn default() -> Self {
        Self {
            train: Pipeline::train(),
            mixup: 0.0,
            cutmix: 0.0,
            mix_prob: 1.0,
            switch_prob: 0.5,
            test_time: TestTime::Plain,
        }
    }
}

fn test_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TestTime, D::Error> {
    let named = |name: &str| {
        let known = TestTime::NAMES.map(|n| format!("`{n}`")).join(", ");
        let error = || de::Error::custom(format!("unknown variant `{name}`, expected one of {known}"));
        TestTime::named(name).ok_or_else(error)
    };
    match Value::deserialize(deserializer)? {
        Value::String(name) => named(&name),
        Value::Integer(n) => named(&n.to_string()),
        // The message alone: a position within this little table would mislead.
        table => TestTime::deserialize(table).map_err(|e| de::Error::custom(e.message())),
    }
}

/// Whether activations are computed once more in the backward pass: `recompute = "auto"`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Recompute {
    /// In phases that do not fit the memory otherwise.
    #[default]
    Auto,
    /// In every phase, wherever that takes less memory.
    Always,
    /// In no phase.
    Never,
}

/// In which numbers a device stores and multiplies activations: `precision = "bf16"`. Weights, sums, losses and optimizers are
/// in single precision always. A device that has no such numbers refuses the run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Half precision: GPUs, which store activations so and multiply them.
    F16,
    /// bfloat16: candle's GPUs store activations so and multiply them; a CPU rounds the operands of convolutions' products where
    /// that is faster and it has the instructions.
    Bf16,
}

impl Precision {
    /// As recipes and devices' names have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An exponential moving average of the weights: `[ema]`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Ema {
    /// `average = decay * average + (1 - decay) * weights` after every `every` steps.
    pub decay: f64,
    /// Steps between two updates.
    pub every: usize,
    /// Whether `decay` is `min(decay, (1 + n) / (10 + n))` at update `n`, so that early averages are not all start.
    pub warmup: bool,
}

impl Default for Ema {
    /// 0.9998 (timm), every step, with warm-up: a fine-tuning has few steps.
    fn default() -> Self {
        Self { decay: 0.9998, every: 1, warmup: true }
    }
}

impl Ema {
    /// With this decay.
    pub fn of(decay: f64) -> Self {
        Self { decay, ..Self::default() }
    }

    /// Updated after every so many steps.
    #[must_use]
    pub const fn every(self, steps: usize) -> Self {
        Self { every: steps, ..self }
    }

    /// With the full decay from the first update on.
    #[must_use]
    pub const fn without_warmup(self) -> Self {
        Self { warmup: false, ..self }
    }

    /// The decay at update `n`, from 0.
    pub fn decay_at(&self, n: u64) -> f64 {
        if self.warmup { self.decay.min((1.0 + n as f64) / (10.0 + n as f64)) } else { self.decay }
    }
}

/// Which checkpoints are kept beside the best and the last: `[checkpoints]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Checkpoints {
    /// Whether the weights of every epoch are kept.
    pub every_epoch: bool,
}

/// After which epochs the validation part is measured: `[validation]`. Epochs that are not measured are not compared, so
/// neither is one of them the best, nor do rules that watch a metric of validation count them (Keras' `validation_freq`,
/// Lightning's `check_val_every_n_epoch`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Validation {
    /// Epochs of a phase from one measurement to the next; 0: none but that after the phase's last epoch, which is always
    /// measured.
    pub every: usize,
}

impl Default for Validation {
    /// After each epoch.
    fn default() -> Self {
        Self { every: 1 }
    }
}

impl Validation {
    /// Whether it is measured after `epoch` (from 0) of a phase of `epochs`.
    pub const fn is_due(&self, epoch: usize, epochs: usize) -> bool {
        epoch + 1 >= epochs || (self.every > 0 && (epoch + 1).is_multiple_of(self.every))
    }

    /// How many of the epochs of a phase are measured.
    pub fn times(&self, epochs: usize) -> usize {
        (0..epochs).filter(|&epoch| self.is_due(epoch, epochs)).count()
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is measured of how far the network moves from where it started: `[retention]`. It changes nothing else.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retention {
    /// Epochs from one measurement to the next; 0: none.
    pub every: usize,
    /// Validation images on which the features of each stage are compared with those of the start; 0: only weights are.
    pub images: usize,
    /// A folder of images of the task that the weights come from, one sub-folder a class: how well the network still
    /// solves it, through the head it had there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Default for Retention {
    /// Each epoch, on 64 images, no source task.
    fn default() -> Self {
        Self { every: 1, images: 64, source: None }
    }
}
