//! Selectors: parts of a network by name, by place and by pattern, always in whole dotted segments.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::short::form;

/// A part of a network.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Selector {
    /// `"all"`: everything.
    All,
    /// `"head"`: the stages that are new for new classes.
    Head,
    /// `"body"`: everything but the head.
    Body,
    /// `"norms"`: scale and shift of every normalisation.
    Norms,
    /// `"biases"`: biases of convolutions and dense layers.
    Biases,
    /// Any other string: what is called so or lies below it, by the names of parameters (`layer4`, `features.18.0`,
    /// `fc.bias`); where no parameter is, the block or the stage of that name. Or a glob over such names: `*` and `?` within
    /// a segment, `**` over segments, `[0-9]`, `{a,b}`. Whole segments only: `features.1` is not `features.10`.
    Name(String),
    /// `{ regex = "layer[34]" }`: as a name, by a regular expression that must match the whole of a name or of its
    /// leading segments.
    Regex(String),
    /// `{ stage = "conv1" }`: a stage, or stages by a glob. On a ResNet this one has `bn1`, which the name alone has not.
    Stage(String),
    /// `{ last_stages = 2 }`: stages from the end, the head counted.
    LastStages(usize),
    /// `{ last_blocks = 3 }`: blocks from the end, the head counted.
    LastBlocks(usize),
    /// `{ last_layers = 3 }`: layers with weights from the end, a normalisation counted with the layer before it
    /// (Lasagne's `layers[-3:]`).
    LastLayers(usize),
    /// `{ last_keras_layers = 20 }`: layers from the end as Keras counts them in a base without top, activations,
    /// paddings and additions included; and the head, which Keras code puts on top of the base.
    LastKerasLayers(usize),
    /// `{ freeze_to = -2 }`: the groups from this one on, negative from the end (fastai's `freeze_to`).
    FreezeTo(i64),
    /// `"!features.0"` or `{ not = … }`: taken out of what the others select.
    Not(Box<Self>),
}

impl Selector {
    const WORDS: [(&'static str, Self); 5] = [
        ("all", Self::All),
        ("head", Self::Head),
        ("body", Self::Body),
        ("norms", Self::Norms),
        ("biases", Self::Biases),
    ];
    pub(crate) const KEYS: [&'static str; 8] = [
        "regex",
        "stage",
        "last_stages",
        "last_blocks",
        "last_layers",
        "last_keras_layers",
        "freeze_to",
        "not",
    ];
}

impl From<&str> for Selector {
    fn from(text: &str) -> Self {
        match text.strip_prefix('!') {
            Some(rest) => Self::Not(Box::new(rest.trim_start().into())),
            None => Self::WORDS
                .into_iter()
                .find(|(word, _)| *word == text)
                .map_or_else(|| Self::Name(text.to_owned()), |(_, selector)| selector),
        }
    }
}

impl fmt::Display for Selector {
    /// As written in a recipe.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Value::from(self.clone()) {
            Value::String(text) => f.pad(&text),
            Value::Table(table) => {
                let rows: Vec<_> = table.iter().map(|(k, v)| format!("{k} = {v}")).collect();
                f.pad(&format!("{{ {} }}", rows.join(", ")))
            }
            other => other.fmt(f),
        }
    }
}

impl TryFrom<Value> for Selector {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let table = match value {
            Value::String(text) => return Ok(text.as_str().into()),
            Value::Table(table) => table,
            other => {
                return Err(format!(
                    "expected a selector (a name or a table as {{ last_stages = 2 }}), found {}",
                    form(&other)
                ));
            }
        };
        let mut rows = table.into_iter();
        let (Some((key, value)), None) = (rows.next(), rows.next()) else {
            return Err("a selector table has one key; write a list for several selectors".into());
        };
        let count = |value: Value| {
            let n = value.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
            n.ok_or_else(|| format!("`{key}` takes a number from 1, found {}", form(&value)))
        };
        match (key.as_str(), value) {
            ("regex", Value::String(text)) => Ok(Self::Regex(text)),
            ("stage", Value::String(text)) => Ok(Self::Stage(text)),
            ("last_stages", n) => count(n).map(Self::LastStages),
            ("last_blocks", n) => count(n).map(Self::LastBlocks),
            ("last_layers", n) => count(n).map(Self::LastLayers),
            ("last_keras_layers", n) => count(n).map(Self::LastKerasLayers),
            ("freeze_to", Value::Integer(n)) => Ok(Self::FreezeTo(n)),
            ("not", inner) => Ok(Self::Not(Box::new(Self::try_from(inner)?))),
            ("regex" | "stage" | "freeze_to", other) => {
                let want = if key == "freeze_to" { "an integer" } else { "a string" };
                Err(format!("`{key}` takes {want}, found {}", form(&other)))
            }
            _ => {
                let known: Vec<_> = Self::KEYS.iter().map(|k| format!("`{k}`")).collect();
                Err(format!("unknown field `{key}`, expected one of {}", known.join(", ")))
            }
        }
    }
}

impl From<Selector> for Value {
    fn from(selector: Selector) -> Self {
        let table = |key: &str, value: Self| Self::Table(Table::from_iter([(key.to_owned(), value)]));
        let count = |n: usize| Self::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        match selector {
            Selector::Name(name) => Self::String(name),
            Selector::Regex(text) => table("regex", Self::String(text)),
            Selector::Stage(text) => table("stage", Self::String(text)),
            Selector::LastStages(n) => table("last_stages", count(n)),
            Selector::LastBlocks(n) => table("last_blocks", count(n)),
            Selector::LastLayers(n) => table("last_layers", count(n)),
            Selector::LastKerasLayers(n) => table("last_keras_layers", count(n)),
            Selector::FreezeTo(n) => table("freeze_to", Self::Integer(n)),
            Selector::Not(inner) => match Self::from(*inner) {
                Self::String(text) => Self::String(format!("!{text}")),
                other => table("not", other),
            },
            word => {
                let found = Selector::WORDS.into_iter().find(|(_, selector)| *selector == word);
                Self::String(found.map_or_else(String::new, |(word, _)| word.to_owned()))
            }
        }
    }
}

/// What trains: one selector or a list, whose union is taken; `"!name"` takes something out again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Selection(pub Vec<Selector>);

impl Selection {
    /// Everything.
    pub fn all() -> Self {
        Self(vec![Selector::All])
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(Selector::to_string).collect();
        f.pad(&parts.join(", "))
    }
}

impl From<Selector> for Selection {
    fn from(selector: Selector) -> Self {
        Self(vec![selector])
    }
}

impl From<&str> for Selection {
    fn from(text: &str) -> Self {
        Self(vec![text.into()])
    }
}

impl<S: Into<Selector>, const N: usize> From<[S; N]> for Selection {
    fn from(selectors: [S; N]) -> Self {
        Self(selectors.into_iter().map(Into::into).collect())
    }
}

impl TryFrom<Value> for Selection {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Array(values) => {
                values.into_iter().map(Selector::try_from).collect::<Result<_, _>>().map(Self)
            }
            one => Ok(Self(vec![Selector::try_from(one)?])),
        }
    }
}

impl From<Selection> for Value {
    fn from(selection: Selection) -> Self {
        match <[Selector; 1]>::try_from(selection.0) {
            Ok([one]) => one.into(),
            Err(many) => Self::Array(many.into_iter().map(Self::from).collect()),
        }
    }
}
