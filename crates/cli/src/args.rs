//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use defrost::export::onnx::{Element, Layout};

use crate::data::{Data, Table};

/// Fine-tunes pre-trained image classifiers.
#[derive(Debug, Parser)]
#[command(name = "defrost", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fine-tune a network on a folder of pictures
    #[command(after_help = "Examples:
  defrost train photos                           one sub-folder a class; or train/ and val/ with such folders
  defrost train photos --recipe head             the head alone
  defrost train photos --set phase.2.epochs=20   one value of the recipe changed
  defrost train labels.csv --images photos       a table with a column of paths and one of classes
  defrost train tags.csv --recipe t4-labels      several labels a picture; numbers by t4-regression
  defrost train --resume runs/photos-1           go on with an interrupted run
  defrost train --resume runs/photos-1 --recipe full
                                                 thaw by hand: another recipe goes on where a run ended")]
    Train(Train),
    /// Show what a training would do, stage by stage, without training
    #[command(after_help = "Examples:
  defrost plan photos
  defrost plan --classes 10 --model resnet50 --weights none --image-size 224")]
    Plan(Plan),
    /// Find a learning rate: the loss at rising rates, and what four readings of it suggest
    #[command(after_help = "Examples:
  defrost lr-find photos                                 of the first phase of the default recipe
  defrost lr-find photos --recipe f1 --phase 3 --weights runs/photos-1/checkpoints/last.safetensors
  defrost lr-find photos --steps 50 --end 1 --output rates.png")]
    LrFind(LrFind),
    /// Look for mistakes in a run before it runs; exit code 1 where there are warnings
    #[command(after_help = "Example:
  defrost lint photos --recipe full --set phase.1.lr=0.1")]
    Lint(Lint),
    /// Tell how far a network carries for pictures, stage by stage, and write the recipe that follows
    #[command(after_help = "Examples:
  defrost probe photos                           a table and where to cut
  defrost probe photos --out probed.toml         and the recipe: defrost train photos --recipe probed.toml
  defrost probe photos --plot probes.svg --json")]
    Probe(crate::probe::Probe),
    /// Measure a run's best network on pictures: on their validation part where they have one, else on all
    #[command(after_help = "Example:
  defrost eval runs/photos-1 more-photos --json")]
    Eval(Eval),
    /// Say what pictures show: the class, the labels or the numbers that a run has learned
    #[command(after_help = "Examples:
  defrost predict runs/photos-1 cat.jpg dog.jpg
  defrost predict --model resnet18 --weights resnet18.safetensors batch.npy --logits out.npy")]
    Predict(Predict),
    /// Say what a weight file is, which network it fits and how its pictures are prepared
    #[command(after_help = "Example:
  defrost inspect resnet18-f37072fd.pth")]
    Inspect(Inspect),
    /// Write a weight file or a run's best network in another format, under torchvision's names
    #[command(after_help = "Examples:
  defrost convert model.h5 model.safetensors
  defrost convert runs/photos-1 best.npz")]
    Convert(Convert),
    /// Show what augmentation does to pictures, as a contact sheet
    #[command(after_help = "Examples:
  defrost augment cat.jpg                                   the default recipe's, epoch by epoch
  defrost augment cat.jpg --recipe mine.toml --seed 7 --epochs 23
  defrost augment cat.jpg --op rotate --op 'color_jitter={ hue = 0.1 }'
  defrost augment cat.jpg cup.jpg --op mixup --op cutmix    two pictures, mixed
  defrost augment cat.jpg cup.jpg --op all --output sheets/ a picture for each there is")]
    Augment(Augment),
    /// List the networks and the weights that are known for them
    Models(Models),
    /// Download published weights, or say where they are
    #[command(after_help = "Examples:
  defrost pull resnet18 vgg16                    the first set that `defrost pull --list` has for each
  defrost pull resnet50/a1_in1k                  one set; prints the file's path
  HF_ENDPOINT=https://mirror defrost pull timm/resnet18.a1_in1k

Files land where Python looks for them: HF_HOME or HF_HUB_CACHE, TORCH_HOME, KERAS_HOME. HF_TOKEN,
HF_HUB_OFFLINE, HTTPS_PROXY and SSL_CERT_FILE are heeded.")]
    Pull(Pull),
    /// Write a run's network for other programs: ONNX, or safetensors under torchvision's names
    #[command(after_help = "Examples:
  defrost export runs/photos-1                       runs/photos-1/model.onnx; input [N, 3, h, w], prepared
  defrost export runs/photos-1 --preprocess-inside   input [N, h, w, 3], bytes of pictures of the right size
  defrost export runs/photos-1 -o cats.safetensors   for torchvision's load_state_dict
  defrost export --model resnet50 --weights imagenet -o resnet50.onnx")]
    Export(Export),
    /// List the recipes, or print one
    #[command(after_help = "Examples:
  defrost recipes
  defrost recipes two-stage > mine.toml")]
    Recipes(Recipes),
    /// List the devices of this build
    Devices,
    /// Write a run's report again
    Report(Report),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What decides a run: a recipe and what is changed in it.
#[derive(Args, Debug)]
pub(crate) struct Recipe {
    /// A recipe by name (see `defrost recipes`) or a TOML file [default: two-stage, or the resumed run's own]
    #[arg(long, short, value_name = "NAME|FILE")]
    pub(crate) recipe: Option<String>,
    /// The network: efficientnet_lite0, mobilenet_v2, resnet18, resnet50, vgg16
    #[arg(long, short, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Where its weights come from: embedded, none, imagenet or another published set (downloaded where missing, see
    /// `defrost models`), or a file
    #[arg(long, short, value_name = "embedded|none|imagenet|NAME|FILE")]
    pub(crate) weights: Option<String>,
    /// Keep the classifier that the weights come with; the data must have as many classes
    #[arg(long)]
    pub(crate) keep_head: bool,
    /// Make it an error that weights start anew or that the file has any that are not used
    #[arg(long)]
    pub(crate) strict_weights: bool,
    /// Height and width of the network's input
    #[arg(long, value_name = "PIXELS")]
    pub(crate) image_size: Option<usize>,
    /// Images a step
    #[arg(long, short, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// The seed of everything that is random
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Change one value of the recipe, as in `--set phase.2.lr=1e-3`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Where it runs.
#[derive(Args, Debug)]
pub(crate) struct Device {
    /// The device, see `defrost devices`: cpu; wgpu, wgpu:INDEX, wgpu:NAME for a GPU; candle, candle:cuda:N, candle:metal
    #[arg(long, visible_alias = "backend", default_value = "cpu", value_name = "NAME")]
    pub(crate) device: String,
    /// Compute threads; they change the time, never a bit of the result
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// In which numbers a GPU stores and multiplies activations (f16; candle's bf16, too), or a CPU multiplies (bf16)
    /// [default: the recipe's, f32 where it says none]
    #[arg(long, value_enum, value_name = "f32|f16|bf16", hide_possible_values = true)]
    pub(crate) precision: Option<Activations>,
}

/// What activations are stored in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Activations {
    F32,
    F16,
    Bf16,
}

#[derive(Args, Debug)]
pub(crate) struct Train {
    /// The folder of pictures: one sub-folder a class, or train/ and val/ with such folders; or a table (.csv)
    #[arg(required_unless_present = "resume")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) table: Table,
    #[command(flatten)]
    pub(crate) recipe: Recipe,
    #[command(flatten)]
    pub(crate) device: Device,
    /// The run's folder; by default a new one below runs/
    #[arg(long, value_name = "FOLDER", conflicts_with = "resume")]
    pub(crate) run: Option<PathBuf>,
    /// Go on with this interrupted run: the same bits as without the interruption. With --recipe, go on with a run that is
    /// over by that recipe's phases
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<PathBuf>,
    /// Begin the phases of --recipe now, although the resumed run is not over
    #[arg(long, requires = "resume", requires = "recipe")]
    pub(crate) next: bool,
    /// Begin from this checkpoint of the resumed run: best, best-1 or a name that was saved
    #[arg(long, value_name = "NAME", requires = "resume", requires = "recipe")]
    pub(crate) start: Option<String>,
    /// Save the last weights as the run's checkpoint of this name, beside best and last
    #[arg(long, value_name = "NAME")]
    pub(crate) save: Option<String>,
    /// Resume although this differs: data, recipe or preprocessing
    #[arg(long, value_name = "WHAT", requires = "resume")]
    pub(crate) accept: Vec<String>,
    /// A folder of pictures of the task that the weights come from, one sub-folder a class: after each epoch say how much
    /// of it is left
    #[arg(long, value_name = "FOLDER")]
    pub(crate) retain: Option<PathBuf>,
    /// A picture that cannot be read is an error
    #[arg(long)]
    pub(crate) strict: bool,
    /// Say where the time of the steps of each phase went: waiting for pictures, kernels, layers
    #[arg(long)]
    pub(crate) profile: bool,
    #[command(flatten)]
    pub(crate) cache: crate::train::Cache,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How much is said.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Say nothing but errors and where the run is
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print events as JSON lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// The folder of pictures, or a table; without one, say how many classes
    #[arg(required_unless_present = "classes")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) table: Table,
    /// Classes, in place of a folder
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    #[command(flatten)]
    pub(crate) recipe: Recipe,
    /// Also print every call of a step
    #[arg(long)]
    pub(crate) calls: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LrFind {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) recipe: Recipe,
    #[command(flatten)]
    pub(crate) device: Device,
    /// The phase of the recipe, by number or name [default: the first]
    #[arg(long, value_name = "PHASE")]
    pub(crate) phase: Option<String>,
    /// Rate of the first step [default: 1e-7]
    #[arg(long, value_name = "RATE")]
    pub(crate) start: Option<f64>,
    /// Rate that the last step comes near to [default: 10]
    #[arg(long, value_name = "RATE")]
    pub(crate) end: Option<f64>,
    /// Steps, each at the next rate [default: 100]
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<usize>,
    /// Go on although the loss diverges
    #[arg(long)]
    pub(crate) to_the_end: bool,
    /// The plot, .svg or .png
    #[arg(long, short, default_value = "lr-find.svg", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Print JSON: points, suggestions
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Lint {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) recipe: Recipe,
    /// Print JSON, one line a finding
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Eval {
    /// The run
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Average over views of each picture: plain, flip, five_crop, ten_crop, augmented or a number of augmented views
    /// [default: as the run's recipe says]
    #[arg(long, value_name = "VIEWS")]
    pub(crate) tta: Option<String>,
    #[command(flatten)]
    pub(crate) device: Device,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Predict {
    /// The run (left out with --weights), then pictures or .npy arrays of [n, c, h, w]
    #[arg(required = true, value_name = "RUN|IMAGE")]
    pub(crate) inputs: Vec<PathBuf>,
    /// The network of --weights, where the file does not say it
    #[arg(long, short, requires = "weights")]
    pub(crate) model: Option<String>,
    /// A weight file in place of a run, or with --model a published set: imagenet, or a name of `defrost models`
    #[arg(long, short, value_name = "FILE|NAME")]
    pub(crate) weights: Option<PathBuf>,
    /// Height and width of the network's input with --weights
    #[arg(long, value_name = "PIXELS", requires = "weights")]
    pub(crate) image_size: Option<usize>,
    /// How pictures are prepared, where the file does not say it: torch, torch_v2, timm, tf, caffe, inception or lite
    #[arg(long, value_name = "FAMILY", requires = "weights")]
    pub(crate) preprocess: Option<String>,
    /// Keep the classifier of --weights: predict always does, and the file's class count is the network's
    #[arg(long, requires = "weights")]
    pub(crate) keep_head: bool,
    /// How many classes to name
    #[arg(long, short = 'k', default_value_t = 5, value_name = "K")]
    pub(crate) top: usize,
    /// Of several labels a picture, name those whose probability is above this
    #[arg(long, default_value_t = 0.5, value_name = "P")]
    pub(crate) threshold: f32,
    /// Write raw outputs, [n, classes]
    #[arg(long, value_name = "OUT.npy")]
    pub(crate) logits: Option<PathBuf>,
    /// Average over views of each picture: plain, flip, five_crop, ten_crop, augmented or a number of augmented views
    /// [default: as the run's recipe says]
    #[arg(long, value_name = "VIEWS")]
    pub(crate) tta: Option<String>,
    #[command(flatten)]
    pub(crate) device: Device,
    /// Print JSON, one line a picture
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// The weight file, of any format
    pub(crate) file: PathBuf,
    /// End with 1 unless the file has every tensor of a network, its classifier included, and no other
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Convert {
    /// The weight file, of any format, or a run
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,
    /// What to write, by its extension: .safetensors, .pth or .npz
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// How numbers are stored (not .npz): f32, f16 or bf16
    #[arg(long, default_value = "f32", value_name = "TYPE")]
    pub(crate) precision: String,
    /// How pictures are prepared, where the file does not say it: torch, torch_v2, timm, tf, caffe, inception or lite
    #[arg(long, value_name = "FAMILY")]
    pub(crate) preprocess: Option<String>,
    /// Turn the filters of all convolutions: for networks of Lasagne made with `flip_filters=True`
    #[arg(long)]
    pub(crate) flip_filters: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Augment {
    /// The pictures; mixup and cutmix mix the first with the last
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) recipe: Recipe,
    /// One augmentation by itself in place of the recipe's, by its name in a recipe, with parameters or without; may be
    /// repeated. Also mixup, cutmix and the test-time augmentations flip, five_crop, ten_crop, augmented; or all
    #[arg(long, value_name = "NAME[=PARAMETERS]")]
    pub(crate) op: Vec<String>,
    /// How many epochs' views to show
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// The sheet, .png or .jpg; a folder gets a .jpg for each row
    #[arg(long, short, default_value = "sheet.png", value_name = "FILE|FOLDER")]
    pub(crate) output: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Models {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Pull {
    /// Networks, as in resnet18, or sets of weights, as in resnet18/a1_in1k
    #[arg(required_unless_present = "list", value_name = "MODEL[/WEIGHTS]")]
    pub(crate) names: Vec<String>,
    /// List all sets of weights and where they are
    #[arg(long, conflicts_with_all = ["names", "force"])]
    pub(crate) list: bool,
    /// Download again what is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Print JSON, one line a set
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Export {
    /// The run, whose best network is written
    #[arg(required_unless_present = "weights", conflicts_with = "weights")]
    pub(crate) run: Option<PathBuf>,
    /// What to write; without it, what the output's name says, else onnx
    #[arg(long, value_enum)]
    pub(crate) format: Option<ExportFormat>,
    /// The file, else model.onnx or model.safetensors in the run's folder
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// ONNX: take pictures of the right size, red, green, blue from 0 to 255, and prepare them in the file
    #[arg(long, value_enum, value_name = "LAYOUT", num_args = 0..=1, require_equals = true, default_missing_value = "nhwc-u8")]
    pub(crate) preprocess_inside: Option<Pixels>,
    /// ONNX: put out probabilities in place of logits
    #[arg(long)]
    pub(crate) probabilities: bool,
    /// ONNX: keep batch normalisations and the published name of every parameter
    #[arg(long)]
    pub(crate) no_fold: bool,
    /// safetensors: how numbers are stored
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: crate::export::Stored,
    /// A weight file in place of a run, or with --model a published set: imagenet, or a name of `defrost models`
    #[arg(long, short, value_name = "FILE|NAME")]
    pub(crate) weights: Option<PathBuf>,
    /// The network of --weights, where the file does not say it
    #[arg(long, short, requires = "weights")]
    pub(crate) model: Option<String>,
    /// Height and width of the network's input with --weights
    #[arg(long, value_name = "PIXELS", requires = "weights")]
    pub(crate) image_size: Option<usize>,
    /// How pictures are prepared, where the file does not say it: torch, torch_v2, timm, tf, caffe, inception or lite
    #[arg(long, value_name = "FAMILY", requires = "weights")]
    pub(crate) preprocess: Option<String>,
}

/// What `export` writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ExportFormat {
    Onnx,
    Safetensors,
}

/// How pictures are given to an exported network.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Pixels {
    NhwcU8,
    NchwU8,
    NhwcF32,
    NchwF32,
}

impl Pixels {
    pub(crate) fn parts(self) -> (Layout, Element) {
        match self {
            Self::NhwcU8 => (Layout::Nhwc, Element::U8),
            Self::NchwU8 => (Layout::Nchw, Element::U8),
            Self::NhwcF32 => (Layout::Nhwc, Element::F32),
            Self::NchwF32 => (Layout::Nchw, Element::F32),
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Recipes {
    /// Print this one
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Report {
    /// The run
    pub(crate) run: PathBuf,
}

impl Device {
    /// The name that [`defrost::Device::from_name`] takes.
    pub(crate) fn name(&self) -> String {
        let name = match (self.threads, self.device.as_str()) {
            (Some(threads), "candle" | "candle:cpu") => format!("candle:cpu:{threads}"),
            (Some(threads), "cpu" | "ndarray") => format!("{}:{threads}", self.device),
            _ => self.device.clone(),
        };
        match self.precision {
            None => name,
            Some(Activations::F32) => name + ",f32",
            Some(Activations::F16) => name + ",f16",
            Some(Activations::Bf16) => name + ",bf16",
        }
    }
}
