//! The network of a run: architecture, weights, head.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::short::form;

/// The network: `[model]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Model {
    /// The architecture's name in the zoo, as in `mobilenet_v2`.
    pub arch: String,
    /// Where its weights come from.
    pub weights: Weights,
    /// Width multiplier, for architectures that have one.
    pub width: f64,
    /// Channels of the input images.
    pub in_channels: usize,
    /// How much a new batch counts in the running statistics of batch norm, in (0, 1] (PyTorch's convention; Keras' `momentum` is
    /// one minus this). 0.1, as torchvision and fastai train, whatever the weights were trained with: at the 0.01 and 0.001 of
    /// Keras' networks the statistics of a short fine-tuning stay behind the weights, and evaluation suffers.
    pub norm_momentum: f64,
    /// What replaces the classifier of the published network.
    pub head: Head,
    /// Whether the classifier that the weights come with is kept; then it must be for the classes of the data. Else it is
    /// replaced where it has other classes.
    #[serde(skip_serializing_if = "is_false")]
    pub keep_head: bool,
    /// Whether it is an error that weights start anew or that the file has any that are not used.
    #[serde(skip_serializing_if = "is_false")]
    pub strict: bool,
    /// How pixels become numbers, where it is not as the weights' origin says: `torch`, `tf`, `caffe`, `inception` or
    /// `lite`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // What serde asks for.
fn is_false(value: &bool) -> bool {
    !value
}

impl Default for Model {
    fn default() -> Self {
        Self {
            arch: "mobilenet_v2".into(),
            weights: Weights::default(),
            width: 1.0,
            in_channels: 3,
            norm_momentum: 0.1,
            head: Head::default(),
            keep_head: false,
            strict: false,
            preprocess: None,
        }
    }
}

/// Where weights come from. A string in TOML: `"embedded"`, `"none"`, a path or a name in the registry.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum Weights {
    /// Those that the program carries for the architecture.
    #[default]
    Embedded,
    /// Fresh ones: training from scratch.
    None,
    /// A file, or a name in the registry; whoever opens it decides which.
    From(String),
}

impl From<String> for Weights {
    fn from(text: String) -> Self {
        match text.as_str() {
            "embedded" => Self::Embedded,
            "none" => Self::None,
            _ => Self::From(text),
        }
    }
}

impl From<Weights> for String {
    fn from(weights: Weights) -> Self {
        weights.to_string()
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Embedded => "embedded",
            Self::None => "none",
            Self::From(text) => text,
        })
    }
}

/// The layers that turn features into classes: `[model.head]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Head {
    /// Its form.
    pub kind: HeadKind,
    /// Units of the hidden dense layers (ReLU after each). One number or a list; the linear head has none.
    #[serde(deserialize_with = "one_or_many")]
    pub hidden: Vec<usize>,
    /// Dropout: in front of the last layer for `linear`, behind each hidden layer for the others. Left out: the
    /// architecture's own for `linear`, none for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Whether a batch normalisation follows each hidden layer of a pooled head.
    pub batch_norm: bool,
}

impl Default for Head {
    /// The architecture's own classifier with another number of classes.
    fn default() -> Self {
        Self { kind: HeadKind::Linear, hidden: Vec::new(), dropout: None, batch_norm: false }
    }
}

impl Head {
    /// Global average pooling and dense layers of these sizes.
    pub fn pooled(hidden: impl Into<Vec<usize>>) -> Self {
        Self { kind: HeadKind::Pooled, hidden: hidden.into(), ..Self::default() }
    }

    /// The feature map flattened, and dense layers of these sizes.
    pub fn flattened(hidden: impl Into<Vec<usize>>) -> Self {
        Self { kind: HeadKind::Flattened, hidden: hidden.into(), ..Self::default() }
    }

    /// fastai's: pooled maxima and means, a normalised hidden layer of 512 units, dropout 0.25 and 0.5.
    pub fn fastai() -> Self {
        Self { kind: HeadKind::Fastai, hidden: vec![512], dropout: Some(0.5), batch_norm: false }
    }

    /// With this dropout rate.
    #[must_use]
    pub fn dropout(self, rate: f64) -> Self {
        Self { dropout: Some(rate), ..self }
    }

    /// With a batch normalisation after each hidden layer.
    #[must_use]
    pub fn batch_norm(self) -> Self {
        Self { batch_norm: true, ..self }
    }
}

/// The form of a head.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HeadKind {
    /// The published classifier, its last layer for the new classes.
    #[default]
    Linear,
    /// Global average pooling, then dense layers (Keras' usual head).
    Pooled,
    /// The feature map flattened, then dense layers.
    Flattened,
    /// fastai's: pooled maxima and means, then normalised dense layers (`hidden = 512` and `dropout = 0.5` are fastai's).
    Fastai,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    let one = |value: &Value| {
        value.as_integer().and_then(|v| usize::try_from(v).ok()).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "expected a number of units or a list of them, found {}",
                form(value)
            ))
        })
    };
    match Value::deserialize(deserializer)? {
        Value::Array(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(&value)?]),
    }
}
