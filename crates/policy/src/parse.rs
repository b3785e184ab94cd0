//! TOML in and out, with errors that tell the line and what was meant.

use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table};

use crate::error::nearest;
use crate::{Recipe, RecipeError, RecipeErrorKind};

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// No TOML, an unknown key, a wrong type, a value out of its range; each with its line.
    pub fn from_toml(text: &str) -> Result<Self, RecipeError> {
        let parsed: Result<Self, _> = toml::from_str(text);
        let recipe = parsed.map_err(|e| explain(&e, text))?;
        recipe.check().map_err(|e| e.locate(text))?;
        Ok(recipe)
    }

    pub(crate) fn from_table(table: Table) -> Result<Self, RecipeError> {
        let recipe = Self::deserialize(table);
        recipe.map_err(|e| RecipeError::new("", kind(e.message())))
    }
}

impl RecipeError {
    /// With the line of its key in `text`, the recipe that the error is about.
    #[must_use]
    pub fn locate(self, text: &str) -> Self {
        let line = line_of(text, self.key());
        self.at_line(line)
    }
}

/// The line of `key` (a path as in `phase.2.lr`, phases count from 1) in a recipe's text, or of what it lies in.
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut offset = None;
    let mut here = Place::Table(document.get_ref());
    for segment in key.split('.') {
        let Some((start, next)) = here.step(segment) else { break };
        offset = Some(start);
        here = next;
    }
    offset.map(|at| line(text, at))
}

/// Where one is in a document, on the way down to a key.
enum Place<'d> {
    Table(&'d DeTable<'d>),
    List(&'d [Spanned<DeValue<'d>>]),
    Leaf,
}

impl<'d> Place<'d> {
    fn of(value: &'d DeValue<'d>) -> Self {
        match value {
            DeValue::Table(table) => Self::Table(table),
            DeValue::Array(list) => Self::List(list),
            _ => Self::Leaf,
        }
    }

    /// The place below `segment` and where it starts in the text.
    fn step(&self, segment: &str) -> Option<(usize, Self)> {
        match self {
            Self::Table(table) => {
                let (key, value) = table.iter().find(|(key, _)| key.get_ref() == segment)?;
                Some((key.span().start, Self::of(value.get_ref())))
            }
            Self::List(list) => {
                let value = list.get(segment.parse::<usize>().ok()?.checked_sub(1)?)?;
                Some((value.span().start, Self::of(value.get_ref())))
            }
            Self::Leaf => None,
        }
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count()
}

/// A parser's error as ours.
fn explain(error: &toml::de::Error, text: &str) -> RecipeError {
    let span = error.span();
    if DeTable::parse(text).is_err() {
        let mut message = error.message().to_owned();
        if let Some(what) = span.clone().and_then(|s| text.get(s)).filter(|_| message == "duplicate key") {
            message += &format!(" `{what}`");
        }
        let at = span.map(|s| line(text, s.start));
        return RecipeError::new("", RecipeErrorKind::Syntax { message }).at_line(at);
    }
    let kind = match kind(error.message()) {
        RecipeErrorKind::Type { message } if message.ends_with("a list, found a table") => {
            RecipeErrorKind::Type { message: message + "; the header of a list's entry is written `[[…]]`" }
        }
        kind => kind,
    };
    let key = span.as_ref().and_then(|s| key_at(text, s)).unwrap_or_default();
    let mut at = span.clone().map(|s| s.start);
    // Within a table that is read as a whole, the span is the table's or its header's: look for the word itself.
    if let (RecipeErrorKind::UnknownKey { name, .. } | RecipeErrorKind::UnknownWord { name, .. }, Some(span)) =
        (&kind, span)
        && let Some(part) = text.get(span.start..)
    {
        let word = |i: &usize| {
            let before = part[..*i].chars().next_back();
            let after = part[*i + name.len()..].chars().next();
            let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !inside(before) && !inside(after)
        };
        at = part.match_indices(name.as_str()).map(|(i, _)| i).find(word).map(|i| span.start + i).or(at);
    }
    RecipeError::new(key, kind).at_line(at.map(|at| line(text, at)))
}

/// The path of the innermost key whose value is or holds what is at `span`.
fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    fn below(value: &Spanned<DeValue<'_>>, path: String, span: &Range<usize>) -> Option<String> {
        let rows: Vec<(String, &Spanned<DeValue<'_>>)> = match value.get_ref() {
            DeValue::Table(table) => {
                table.iter().map(|(key, value)| (format!("{path}.{}", key.get_ref()), value)).collect()
            }
            DeValue::Array(list) => {
                (1..).zip(list.iter()).map(|(i, value)| (format!("{path}.{i}"), value)).collect()
            }
            _ => Vec::new(),
        };
        let found = rows.into_iter().find_map(|(path, value)| below(value, path, span));
        let own = value.span();
        found.or_else(|| (own.start <= span.start && span.end <= own.end).then_some(path))
    }
    let document = DeTable::parse(text).ok()?;
    let rows = document.get_ref().iter();
    rows.filter_map(|(key, value)| below(value, key.get_ref().to_string(), span)).next()
}

/// What serde says of types in the words of its own language, in those of a recipe.
fn plainly(message: &str) -> String {
    let words = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = words.and_then(|words| words.split_once(", expected ")) else {
        return message.to_owned();
    };
    let found = match found {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        "unit variant" => "a name or a value alone".to_owned(),
        other => ["floating point ", "integer ", "boolean "]
            .iter()
            .find_map(|kind| other.strip_prefix(kind).map(str::to_owned))
            .unwrap_or_else(|| other.replace("string ", "the string ")),
    };
    let expected = match expected {
        "usize" | "u64" | "u32" | "u8" => "a whole number that is not negative",
        "isize" | "i64" | "i32" => "a whole number",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "newtype variant" | "struct variant" | "string only" => "a table, as in `{ name = … }`",
        other if other.starts_with("struct ") || other == "a map" => "a table",
        other => other,
    };
    format!("expected {expected}, found {found}")
}

/// What serde says, as ours. Its messages are the same for every format and have been since serde 1.0.
fn kind(message: &str) -> RecipeErrorKind {
    let message = message.trim();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let others = || -> Vec<String> { quoted.iter().skip(1).map(|s| (*s).to_owned()).collect() };
    let Some(name) = quoted.first().map(|s| (*s).to_owned()) else {
        return RecipeErrorKind::Type { message: plainly(message) };
    };
    let known = others();
    let nearest = nearest(&name, known.iter().map(String::as_str));
    if message.starts_with("unknown field") {
        RecipeErrorKind::UnknownKey { name, nearest, known }
    } else if message.starts_with("unknown variant") {
        RecipeErrorKind::UnknownWord { name, nearest, known }
    } else if message.starts_with("missing field") {
        RecipeErrorKind::MissingKey { name }
    } else {
        RecipeErrorKind::Type { message: plainly(message) }
    }
}
