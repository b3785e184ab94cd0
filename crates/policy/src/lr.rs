//! Rates of the parameter groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::short::{form, number};

/// The greatest learning rate of each group; the schedule multiplies all of them by one factor, so ratios stay.
///
/// In TOML:
/// - `1e-3`: all groups.
/// - `[1e-5, 1e-3]`: geometric from the first group to the last (fastai's `slice(a, b)`).
/// - `{ slice = 1e-3 }`: the last group, a tenth of it for all others (fastai's `slice(stop)`).
/// - `{ base = 1e-3, layer_decay = 0.75 }`: timm's layer decay; groups are blocks.
/// - `{ default = 1e-3, "features.1" = 1e-5, head = 1e-2 }`: by stage, block, parameter or pattern, as selectors
///   match. Two entries that match one parameter are an error (as in Keras' `OptimizerMap`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Value", into = "Value")]
#[non_exhaustive]
pub enum Lr {
    /// The same for all groups.
    Uniform(f64),
    /// `a (b/a)^(i/(G-1))` for group `i` of `G`; `b` if there is one group (fastai's `even_mults`).
    Slice([f64; 2]),
    /// `stop` for the last group, `stop / 10` for the others (fastai).
    SliceStop(f64),
    /// `base * max(min_scale, layer_decay^(L-1-i))` for block `i` of `L` (timm's `param_groups_layer_decay`).
    LayerDecay {
        /// Rate of the last layer.
        base: f64,
        /// Factor from a layer to the one before.
        layer_decay: f64,
        /// Least factor.
        min_scale: f64,
    },
    /// By name.
    ByName {
        /// What no entry matches.
        default: f64,
        /// Rates by selector.
        rates: BTreeMap<String, f64>,
    },
}

impl Lr {
    /// By name: `default`, and rates for selectors.
    pub fn by_name<S: Into<String>>(default: f64, rates: impl IntoIterator<Item = (S, f64)>) -> Self {
        Self::ByName { default, rates: rates.into_iter().map(|(k, v)| (k.into(), v)).collect() }
    }

    /// The greatest of its rates.
    pub fn max(&self) -> f64 {
        match self {
            Self::Uniform(v) | Self::SliceStop(v) => *v,
            Self::Slice([a, b]) => a.max(*b),
            Self::LayerDecay { base, .. } => *base,
            Self::ByName { default, rates } => rates.values().fold(*default, |a, &b| a.max(b)),
        }
    }

    /// All rates multiplied by `factor`.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        match self.clone() {
            Self::Uniform(v) => Self::Uniform(v * factor),
            Self::SliceStop(v) => Self::SliceStop(v * factor),
            Self::Slice([a, b]) => Self::Slice([a * factor, b * factor]),
            Self::LayerDecay { base, layer_decay, min_scale } => {
                Self::LayerDecay { base: base * factor, layer_decay, min_scale }
            }
            Self::ByName { default, rates } => Self::ByName {
                default: default * factor,
                rates: rates.into_iter().map(|(k, v)| (k, v * factor)).collect(),
            },
        }
    }

    /// All rates with the key each has below `lr`.
    pub(crate) fn values(&self) -> Vec<(String, f64)> {
        match self {
            Self::Uniform(v) => vec![(String::new(), *v)],
            Self::SliceStop(v) => vec![(".slice".into(), *v)],
            Self::Slice(ends) => ends.iter().map(|v| (String::new(), *v)).collect(),
            Self::LayerDecay { base, .. } => vec![(".base".into(), *base)],
            Self::ByName { default, rates } => {
                let rates = rates.iter().map(|(k, v)| (format!(".{k}"), *v));
                std::iter::once((".default".into(), *default)).chain(rates).collect()
            }
        }
    }
}

impl From<f64> for Lr {
    fn from(value: f64) -> Self {
        Self::Uniform(value)
    }
}

impl From<[f64; 2]> for Lr {
    fn from(ends: [f64; 2]) -> Self {
        Self::Slice(ends)
    }
}

impl TryFrom<Value> for Lr {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Array(ends) => match ends.as_slice() {
                [a, b] => Ok(Self::Slice([number(a)?, number(b)?])),
                _ => {
                    Err(format!("a slice of rates has two ends, [first, last]; found {} values", ends.len()))
                }
            },
            Value::Table(mut table) if table.contains_key("layer_decay") => {
                let mut take = |key: &str| table.remove(key).map(|v| number(&v)).transpose();
                let layer_decay = take("layer_decay")?.unwrap_or(0.75);
                let base = take("base")?
                    .ok_or("a rate with `layer_decay` needs `base`, the rate of the last layer")?;
                let min_scale = take("min_scale")?.unwrap_or(0.0);
                only_these(&table, "base, layer_decay, min_scale")?;
                Ok(Self::LayerDecay { base, layer_decay, min_scale })
            }
            Value::Table(mut table) if table.contains_key("slice") => {
                let stop = table.remove("slice").map_or(Ok(0.0), |v| number(&v))?;
                only_these(&table, "slice")?;
                Ok(Self::SliceStop(stop))
            }
            Value::Table(mut table) => {
                let default = table.remove("default");
                let default =
                    default.ok_or("a table of rates needs `default` for what its names do not match")?;
                let rates = table.iter().map(|(k, v)| Ok((k.clone(), number(v)?)));
                let rates = rates.collect::<Result<_, String>>()?;
                Ok(Self::ByName { default: number(&default)?, rates })
            }
            other => number(&other).map(Self::Uniform).map_err(|_| {
                format!("expected a rate, a slice [first, last] or a table of rates, found {}", form(&other))
            }),
        }
    }
}

fn only_these(rest: &Table, known: &str) -> Result<(), String> {
    match rest.keys().next() {
        Some(key) => Err(format!("there is no key `{key}` beside {known}")),
        None => Ok(()),
    }
}

impl From<Lr> for Value {
    fn from(lr: Lr) -> Self {
        let table = |rows: Vec<(String, f64)>| {
            Self::Table(rows.into_iter().map(|(k, v)| (k, Self::Float(v))).collect())
        };
        match lr {
            Lr::Uniform(v) => Self::Float(v),
            Lr::Slice([a, b]) => Self::Array(vec![Self::Float(a), Self::Float(b)]),
            Lr::SliceStop(v) => table(vec![("slice".into(), v)]),
            Lr::LayerDecay { base, layer_decay, min_scale } => table(vec![
                ("base".into(), base),
                ("layer_decay".into(), layer_decay),
                ("min_scale".into(), min_scale),
            ]),
            Lr::ByName { default, rates } => {
                table(std::iter::once(("default".into(), default)).chain(rates).collect())
            }
        }
    }
}
