//! Short forms: `schedule = "cosine"` for `schedule = { kind = "cosine" }`, and a default where `kind` is left out.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

/// An enum tagged by `kind`, from its table, from the kind alone, or from a table without a kind.
pub(crate) fn tagged<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
    default: &str,
) -> Result<T, D::Error> {
    let mut table = match Value::deserialize(deserializer)? {
        Value::String(kind) => Table::from_iter([("kind".to_owned(), Value::String(kind))]),
        Value::Table(table) => table,
        other => {
            return Err(Error::custom(format!(
                "expected a table or the name of a kind, found {}",
                form(&other)
            )));
        }
    };
    table.entry("kind").or_insert_with(|| Value::String(default.to_owned()));
    // The message alone: a position within this little table would mislead.
    T::deserialize(table).map_err(|e| Error::custom(e.message()))
}

/// A value as one would say it in a message.
pub(crate) fn form(value: &Value) -> String {
    match value {
        Value::String(s) => format!("the string \"{s}\""),
        Value::Table(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => format!("`{other}`"),
    }
}

/// A number, whether written as an integer or not.
pub(crate) fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(v) => Ok(*v),
        Value::Integer(v) => Ok(*v as f64),
        other => Err(format!("expected a number, found {}", form(other))),
    }
}
