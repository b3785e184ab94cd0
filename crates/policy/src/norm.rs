//! What batch normalisations do in a phase: the traditions of the tools by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::short::form;

/// Which of a normalisation's three bits (affine trains, which statistics, running ones updated) follow from what.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NormMode {
    /// Trains and updates where the selection trains it; frozen, statistics included, elsewhere (Keras' `trainable`).
    #[default]
    Auto,
    /// Frozen everywhere, even where the selection trains the layers around it.
    Frozen,
    /// Affine part as the selection says, running statistics used and kept everywhere (Keras' `base(x, training=False)`,
    /// and PyTorch's `eval()` after every `train()`).
    AffineOnly,
    /// Every normalisation trains and updates, also in frozen stages (fastai's and Lightning's `train_bn=True`).
    TrainBn,
    /// Affine part as the selection says, batch statistics used and the running ones kept.
    Batch,
    /// Affine part as the selection says, batch statistics used and the running ones updated everywhere: what PyTorch does
    /// when `requires_grad = False` is all that was said. A trap, here for comparison.
    Drifting,
}

impl NormMode {
    pub(crate) const NAMES: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("frozen", Self::Frozen),
        ("affine_only", Self::AffineOnly),
        ("train_bn", Self::TrainBn),
        ("batch", Self::Batch),
        ("drifting", Self::Drifting),
    ];

    /// The name as written in a recipe.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }
}

/// The mode of every normalisation: one word for all, or a table by selector:
/// `norm = { default = "auto", layer4 = "affine_only" }`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Value", into = "Value")]
#[non_exhaustive]
pub struct Norm {
    /// What no entry matches.
    pub default: NormMode,
    /// By selector, as [`Lr::ByName`](crate::Lr::ByName).
    pub by_name: BTreeMap<String, NormMode>,
}

impl From<NormMode> for Norm {
    fn from(default: NormMode) -> Self {
        Self { default, by_name: BTreeMap::new() }
    }
}

fn mode(value: &Value) -> Result<NormMode, String> {
    let found = value.as_str().and_then(|s| NormMode::NAMES.iter().find(|(name, _)| *name == s));
    found.map(|(_, mode)| *mode).ok_or_else(|| match value {
        Value::String(word) => {
            let known: Vec<_> = NormMode::NAMES.iter().map(|(name, _)| format!("`{name}`")).collect();
            format!("unknown variant `{word}`, expected one of {}", known.join(", "))
        }
        other => format!("expected the name of a normalisation mode, found {}", form(other)),
    })
}

impl TryFrom<Value> for Norm {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Table(mut table) => {
                let default = table.remove("default").map_or(Ok(NormMode::Auto), |v| mode(&v))?;
                let by_name = table.iter().map(|(k, v)| Ok((k.clone(), mode(v)?)));
                Ok(Self { default, by_name: by_name.collect::<Result<_, String>>()? })
            }
            word => Ok(mode(&word)?.into()),
        }
    }
}

impl From<Norm> for Value {
    fn from(norm: Norm) -> Self {
        if norm.by_name.is_empty() {
            return norm.default.name().into();
        }
        let rows = norm.by_name.into_iter().map(|(k, v)| (k, Self::from(v.name())));
        Self::Table(std::iter::once(("default".to_owned(), norm.default.name().into())).chain(rows).collect())
    }
}
