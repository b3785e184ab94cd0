//! Heads: what stands between the features and the classes.

use std::{fmt, str::FromStr};

use defrost_tensor::{Activation, NormDesc, PoolDesc};
use serde::{Deserialize, Serialize};

use crate::layers::{LinearInit, Net};
use crate::spec::at_least_one;
use crate::{ModelSpec, ZooError, error::nearest};

/// The classifier. Its parameters have the names that a PyTorch user gets.
///
/// | head | layers | names on a ResNet (`fc`; MobileNetV2 and VGG16: `classifier`) |
/// |---|---|---|
/// | original, linear | the published ones | `fc.weight`, `classifier.1.weight`, VGG16 `classifier.{0,3,6}.weight` |
/// | pooled, flattened, `k` hidden layers | `Sequential(k × (Linear, ReLU, Dropout), Linear)` | `fc.0`, `fc.3`, … `fc.{3k}` |
/// | pooled with batch norm | `Sequential(k × (Linear, BatchNorm1d, ReLU, Dropout), Linear)` | `fc.0`, `fc.1`, `fc.4`, … `fc.{4k}` |
/// | fastai's | `Sequential(pool, Flatten, k × (BatchNorm1d, Dropout, Linear, ReLU), BatchNorm1d, Dropout, Linear)` | `fc.2`, `fc.4`, … `fc.{4k+4}` |
///
/// Where nothing is loaded, the published heads start as torchvision starts them (ResNet: uniform within
/// `1 / sqrt(fan_in)`; the others: normal with deviation 0.01, bias 0). Hidden layers of the dense heads start normal with
/// deviation `sqrt(2 / fan_in)` (He et al. 2015), bias 0; their last layer normal with deviation 0.01, bias 0. fastai's head
/// starts as fastai starts it: dense layers, which have no bias, normal with deviation `sqrt(2 / fan_in)`, normalisations
/// with scale 1 and shift 0.001.
/// [`HeadInit::Zero`] starts the last layer of any head at 0.
///
/// As text: `original`, `linear`, `linear:0.2`, `pooled`, `pooled:512`, `pooled:512,256:0.5`, `pooled_bn:512`,
/// `flattened:256`, `fastai:512:0.5`, `fastai_avg:512`: kind, hidden sizes, dropout rate.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
#[non_exhaustive]
pub enum Head {
    /// The published classifier, dropout included, with its last layer resized to the classes.
    #[default]
    Original,
    /// The published classifier with another dropout rate in front of the last layer (VGG16: behind both wide layers).
    Linear {
        /// Share of the features that become 0 while training.
        #[serde(default)]
        dropout: f32,
    },
    /// Global average pooling and dense layers with ReLU. VGG16 loses its two wide layers.
    Pooled {
        /// Sizes of the hidden layers, 256 to 1024 as a rule; none is a linear classifier on pooled features.
        #[serde(default = "default_hidden")]
        hidden: Vec<usize>,
        /// Dropout rate behind each hidden layer.
        #[serde(default = "default_dropout")]
        dropout: f32,
        /// Whether a batch normalisation stands behind each hidden layer, before its ReLU.
        #[serde(default)]
        batch_norm: bool,
    },
    /// All features of all positions and dense layers with ReLU. It belongs to one image size.
    Flattened {
        /// Sizes of the hidden layers.
        #[serde(default = "default_hidden")]
        hidden: Vec<usize>,
        /// Dropout rate behind each hidden layer.
        #[serde(default = "default_dropout")]
        dropout: f32,
    },
    /// fastai's `create_head`: pooled maxima and means one after the other, then batch normalisation, dropout and a dense
    /// layer without bias for each hidden size and the classes, with ReLU between.
    Fastai {
        /// Sizes of the hidden layers; fastai's default is 512.
        #[serde(default = "default_hidden")]
        hidden: Vec<usize>,
        /// Dropout rate in front of the last layer; half of it in front of the hidden ones.
        #[serde(default = "default_dropout")]
        dropout: f32,
        /// Whether maxima stand before the means (`AdaptiveConcatPool2d`); else there are means alone.
        #[serde(default = "default_concat_pool")]
        concat_pool: bool,
    },
}

fn default_concat_pool() -> bool {
    true
}

fn default_hidden() -> Vec<usize> {
    vec![512]
}

fn default_dropout() -> f32 {
    0.5
}

/// How the last layer starts where nothing is loaded.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HeadInit {
    /// As documented at [`Head`].
    #[default]
    Published,
    /// Zeros: the first predictions are uniform and the first step disturbs no features (BiT, Kolesnikov et al. 2020).
    Zero,
}

impl Head {
    /// Whether the layers are the published ones, so that published values of them can be loaded.
    pub const fn is_published(&self) -> bool {
        matches!(self, Self::Original | Self::Linear { .. })
    }

    pub(crate) fn check(&self) -> Result<(), ZooError> {
        let (hidden, dropout): (&[usize], _) = match self {
            Self::Original => (&[], 0.0),
            Self::Linear { dropout } => (&[], *dropout),
            Self::Pooled { hidden, dropout, .. }
            | Self::Flattened { hidden, dropout }
            | Self::Fastai { hidden, dropout, .. } => (hidden, *dropout),
        };
        hidden.iter().try_for_each(|&size| at_least_one("the size of a hidden layer", size))?;
        if !(0.0..1.0).contains(&dropout) {
            let (what, rule) = ("a dropout rate", "at least 0 and less than 1");
            return Err(ZooError::OutOfRange { what, rule, got: dropout.to_string() });
        }
        Ok(())
    }
}

/// The published classifier's last layer.
#[derive(Clone, Copy)]
pub(crate) struct Published {
    /// Its name.
    pub(crate) node: &'static str,
    /// The dropout rate in front of it, if the published network has dropout there.
    pub(crate) dropout: Option<f32>,
    /// How it starts.
    pub(crate) init: LinearInit,
}

/// How the last layer of `spec`'s head starts.
pub(crate) fn last_init(spec: &ModelSpec, published: LinearInit) -> LinearInit {
    match spec.head_init {
        HeadInit::Published => published,
        HeadInit::Zero => LinearInit::Zero,
    }
}

/// Puts the head behind the features, as one stage that pools or flattens, too.
pub(crate) fn build(spec: &ModelSpec, net: &mut Net, published: Published) -> Result<(), ZooError> {
    let root = spec.arch.head_root();
    net.stage(root, true);
    let (hidden, dropout, batch_norm) = match &spec.head {
        Head::Original | Head::Linear { .. } => {
            net.avg_pool("avgpool", PoolDesc::GLOBAL)?;
            net.flatten("flatten")?;
            let rate = match spec.head {
                // timm's `drop_rate`: a function in front of the layer, so its name does not change.
                Head::Linear { dropout } => (published.dropout.is_some() || dropout > 0.0).then_some(dropout),
                _ => published.dropout,
            };
            if let Some(rate) = rate {
                net.dropout("dropout", rate)?;
            }
            net.linear(published.node, spec.classes, last_init(spec, published.init))?;
            return Ok(());
        }
        Head::Pooled { hidden, dropout, batch_norm } => {
            net.avg_pool("avgpool", PoolDesc::GLOBAL)?;
            (hidden, *dropout, *batch_norm)
        }
        Head::Flattened { hidden, dropout } => (hidden, *dropout, false),
        Head::Fastai { hidden, dropout, concat_pool } => {
            return fastai(spec, net, hidden, *dropout, *concat_pool);
        }
    };
    net.flatten("flatten")?;
    let mut index = 0;
    let mut next = || {
        index += 1;
        format!("{root}.{}", index - 1)
    };
    for &size in hidden {
        let std = (2.0 / net.shape().c as f32).sqrt();
        net.linear(&next(), size, LinearInit::Normal(std))?;
        if batch_norm {
            net.norm(&next(), NormDesc::torch(size))?;
        }
        net.activate(&next(), Activation::Relu)?;
        net.dropout(&next(), dropout)?;
    }
    net.linear(&next(), spec.classes, last_init(spec, LinearInit::Normal(0.01)))?;
    Ok(())
}

/// `create_head`. Where there is no dropout there is no layer for it either, and the numbers move up.
fn fastai(
    spec: &ModelSpec,
    net: &mut Net,
    hidden: &[usize],
    dropout: f32,
    concat_pool: bool,
) -> Result<(), ZooError> {
    let root = spec.arch.head_root();
    if concat_pool {
        let features = net.at();
        net.max_pool(&format!("{root}.0.mp"), PoolDesc::GLOBAL)?;
        let maxima = net.at();
        net.go_to(features);
        net.avg_pool(&format!("{root}.0.ap"), PoolDesc::GLOBAL)?;
        let means = net.at();
        net.concat(&format!("{root}.0"), &[maxima, means])?;
    } else {
        net.avg_pool(&format!("{root}.0"), PoolDesc::GLOBAL)?;
    }
    net.flatten(&format!("{root}.1"))?;
    let mut index = 1;
    let mut next = || {
        index += 1;
        format!("{root}.{index}")
    };
    for (i, size) in hidden.iter().copied().chain([spec.classes]).enumerate() {
        let is_last = i == hidden.len();
        let inputs = net.shape().c;
        net.norm_starting_at(&next(), NormDesc::torch(inputs), 1e-3)?;
        if dropout > 0.0 {
            net.dropout(&next(), if is_last { dropout } else { dropout / 2.0 })?;
        }
        let he = LinearInit::Normal((2.0 / inputs as f32).sqrt());
        net.linear_without_bias(&next(), size, if is_last { last_init(spec, he) } else { he })?;
        if !is_last {
            net.activate(&next(), Activation::Relu)?;
        }
    }
    Ok(())
}

/// The kinds of head by name.
const KINDS: [&str; 7] = ["original", "linear", "pooled", "pooled_bn", "flattened", "fastai", "fastai_avg"];

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |h: &[usize]| h.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Original => f.write_str("original"),
            Self::Linear { dropout } => write!(f, "linear:{dropout}"),
            Self::Pooled { hidden, dropout, batch_norm } => {
                write!(f, "pooled{}:{}:{dropout}", if *batch_norm { "_bn" } else { "" }, list(hidden))
            }
            Self::Flattened { hidden, dropout } => write!(f, "flattened:{}:{dropout}", list(hidden)),
            Self::Fastai { hidden, dropout, concat_pool } => {
                write!(f, "fastai{}:{}:{dropout}", if *concat_pool { "" } else { "_avg" }, list(hidden))
            }
        }
    }
}

impl FromStr for Head {
    type Err = ZooError;

    fn from_str(text: &str) -> Result<Self, ZooError> {
        let bad = |reason| ZooError::BadHead { given: text.into(), reason };
        let mut parts = text.split(':');
        let kind = parts.next().unwrap_or_default();
        let rate = |part: Option<&str>, default| match part {
            Some(part) => part.parse::<f32>().map_err(|_| bad("the dropout rate is no number")),
            None => Ok(default),
        };
        let sizes = |part: Option<&str>| match part {
            Some("") => Ok(Vec::new()),
            Some(part) => part
                .split(',')
                .map(|s| s.trim().parse().map_err(|_| bad("a hidden size is no whole number")))
                .collect(),
            None => Ok(default_hidden()),
        };
        let head = match kind {
            "original" => Self::Original,
            "linear" => Self::Linear { dropout: rate(parts.next(), 0.0)? },
            "pooled" | "pooled_bn" => Self::Pooled {
                hidden: sizes(parts.next())?,
                dropout: rate(parts.next(), default_dropout())?,
                batch_norm: kind == "pooled_bn",
            },
            "flattened" => Self::Flattened {
                hidden: sizes(parts.next())?,
                dropout: rate(parts.next(), default_dropout())?,
            },
            "fastai" | "fastai_avg" => Self::Fastai {
                hidden: sizes(parts.next())?,
                dropout: rate(parts.next(), default_dropout())?,
                concat_pool: kind == "fastai",
            },
            _ => {
                return Err(ZooError::Unknown {
                    what: "head",
                    name: kind.into(),
                    nearest: nearest(kind, KINDS),
                    choices: KINDS.map(String::from).into(),
                });
            }
        };
        if parts.next().is_some() {
            return Err(bad("too many parts"));
        }
        head.check()?;
        Ok(head)
    }
}
