//! A recipe written out for people: sections, short tables in one line, small rates as `1e-5`.

use std::fmt::Write;

use toml::{Table, Value};

use crate::Recipe;

/// Columns above which a table becomes a section and a list goes over several lines.
const WIDTH: usize = 132;

impl Recipe {
    /// The whole recipe with every default written out. Reading it back gives the same recipe.
    pub fn to_toml(&self) -> String {
        // A recipe is a tree of numbers, strings, lists and tables with string keys: nothing in it can fail.
        let table = Table::try_from(self).unwrap_or_default();
        let mut text = String::new();
        let is_section = |value: &Value| value.is_table() || is_tables(value);
        for (name, value) in table.iter().filter(|(_, v)| !is_section(v)) {
            line(&mut text, name, value);
        }
        for (name, value) in table.iter().filter(|(_, v)| is_section(v)) {
            match value {
                Value::Table(rows) => section(&mut text, name, &format!("[{name}]"), rows),
                Value::Array(list) => {
                    let tables = list.iter().filter_map(Value::as_table);
                    tables.for_each(|rows| section(&mut text, name, &format!("[[{name}]]"), rows));
                }
                _ => {}
            }
        }
        text
    }
}

fn is_tables(value: &Value) -> bool {
    value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_table))
}

/// A section; what is too long for a line goes into sections below it.
fn section(text: &mut String, path: &str, header: &str, rows: &Table) {
    let _ = writeln!(text, "\n{header}");
    let is_long =
        |name: &str, value: &Value| value.is_table() && name.len() + 3 + inline(value).len() > WIDTH;
    for (name, value) in rows.iter().filter(|(k, v)| !is_long(k, v)) {
        line(text, name, value);
    }
    for (name, value) in rows.iter().filter(|(k, v)| is_long(k, v)) {
        let path = format!("{path}.{}", key(name));
        if let Value::Table(inner) = value {
            section(text, &path, &format!("[{path}]"), inner);
        }
    }
}

fn line(text: &mut String, name: &str, value: &Value) {
    let short = inline(value);
    let _ = match value {
        Value::Array(list) if is_tables(value) || name.len() + 3 + short.len() > WIDTH => {
            let items: String = list.iter().map(|v| format!("    {},\n", inline(v))).collect();
            writeln!(text, "{} = [\n{items}]", key(name))
        }
        _ => writeln!(text, "{} = {short}", key(name)),
    };
}

fn inline(value: &Value) -> String {
    match value {
        // Both forms read back to the same number.
        Value::Float(v) if *v != 0.0 && (v.abs() < 1e-3 || v.abs() >= 1e9) => format!("{v:e}"),
        Value::Float(v) => format!("{v:?}"),
        Value::Array(list) => format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Table(rows) if rows.is_empty() => "{}".to_owned(),
        Value::Table(rows) => {
            let rows: Vec<_> = rows.iter().map(|(k, v)| format!("{} = {}", key(k), inline(v))).collect();
            format!("{{ {} }}", rows.join(", "))
        }
        other => other.to_string(),
    }
}

fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        Value::from(name).to_string()
    }
}
