//! How often classes are drawn in training.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::short::{form, number};

/// How often classes are drawn: `balance = true`, or weights by class name, `balance = { owl = 3.0 }`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Value", into = "Value")]
#[non_exhaustive]
pub enum Balance {
    /// `false`: as many as there are images of each.
    #[default]
    Natural,
    /// `true`: all equally often.
    Even,
    /// Every image of a class so many times as often as those of weight 1, which all have that are not named (PyTorch's
    /// `WeightedRandomSampler` with a weight for each class; but images take turns instead of being drawn at random).
    Weights(BTreeMap<String, f64>),
}

impl Balance {
    /// The weight of each class by `names`; `None` unless it is a table.
    ///
    /// # Errors
    /// Names in the table that are no class.
    pub fn weights(&self, names: &[String]) -> Result<Option<Vec<f64>>, Vec<String>> {
        let Self::Weights(table) = self else { return Ok(None) };
        let unknown: Vec<_> = table.keys().filter(|k| !names.contains(k)).cloned().collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        Ok(Some(names.iter().map(|n| table.get(n).copied().unwrap_or(1.0)).collect()))
    }
}

impl From<bool> for Balance {
    fn from(even: bool) -> Self {
        if even { Self::Even } else { Self::Natural }
    }
}

impl<S: Into<String>, const N: usize> From<[(S, f64); N]> for Balance {
    fn from(weights: [(S, f64); N]) -> Self {
        Self::Weights(weights.into_iter().map(|(class, weight)| (class.into(), weight)).collect())
    }
}

impl TryFrom<Value> for Balance {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Boolean(even) => Ok(even.into()),
            Value::Table(table) => {
                let rows = table.iter().map(|(k, v)| Ok((k.clone(), number(v)?)));
                Ok(Self::Weights(rows.collect::<Result<_, String>>()?))
            }
            other => Err(format!(
                "expected true, false or a table of weights by class name, found {}",
                form(&other)
            )),
        }
    }
}

impl From<Balance> for Value {
    fn from(balance: Balance) -> Self {
        match balance {
            Balance::Natural => Self::Boolean(false),
            Balance::Even => Self::Boolean(true),
            Balance::Weights(table) => {
                Self::Table(table.into_iter().map(|(k, v)| (k, Self::Float(v))).collect::<Table>())
            }
        }
    }
}
