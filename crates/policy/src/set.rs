//! `--set phase.1.lr=1e-3`: one value changed.

use toml::{Table, Value};

use crate::error::nearest;
use crate::{Metric, Recipe, RecipeError, RecipeErrorKind, Schedule};

impl Recipe {
    /// Changes one value: `set("phase.1.lr", "1e-3")`, `set("model.arch", "resnet18")`.
    ///
    /// Phases count from 1, or go by name (`phase.head.lr`). The value is TOML; what is no TOML is taken as a string.
    /// Another `kind` takes that kind's defaults. A loss of another task takes the place of metrics that mean nothing for it:
    /// `monitor` becomes the task's own ([`Task::headline`](crate::Task::headline)), the others the loss.
    ///
    /// # Errors
    /// A key that no recipe has, with the nearest that it has; a wrong type; a value out of its range. The recipe is then
    /// as it was.
    pub fn set(&mut self, path: &str, value: &str) -> Result<(), RecipeError> {
        let value = parse(value);
        let Ok(mut root) = Table::try_from(&*self) else { return Ok(()) };
        let segments = split(path);
        place(&mut root, &segments, path, value)?;
        let mut changed = Self::from_table(root).map_err(|e| e.below(path))?;
        if changed.loss.task() != self.loss.task() {
            changed.take_metrics();
        }
        changed.check()?;
        *self = changed;
        Ok(())
    }

    /// Metrics of the loss' task in place of others.
    fn take_metrics(&mut self) {
        let task = self.loss.task();
        let take = |metric: &mut Metric, other| {
            if !task.metrics().contains(metric) {
                *metric = other;
            }
        };
        take(&mut self.monitor, task.headline());
        if let Some(stop) = &mut self.early_stopping {
            take(&mut stop.metric, Metric::Loss);
        }
        for phase in &mut self.phases {
            if let Some(plateau) = phase.thaw.as_mut().and_then(|t| t.plateau.as_mut()) {
                take(&mut plateau.metric, Metric::Loss);
            }
            if let Some(rollback) = phase.thaw.as_mut().and_then(|t| t.rollback.as_mut()) {
                take(&mut rollback.metric, Metric::Loss);
            }
            if let Schedule::Plateau { metric, .. } = &mut phase.schedule {
                take(metric, Metric::Loss);
            }
        }
    }
}

fn parse(text: &str) -> Value {
    let table = toml::from_str::<Table>(&format!("value = {text}")).ok().filter(|t| t.len() == 1);
    table.and_then(|mut t| t.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The segments of a path; a quoted one may contain dots (`phase.2.lr."features.1"`).
fn split(path: &str) -> Vec<String> {
    let mut segments = vec![String::new()];
    let mut quoted = false;
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => segments.push(String::new()),
            _ => segments.last_mut().expect("there is always one").push(c),
        }
    }
    segments
}

fn place(table: &mut Table, segments: &[String], path: &str, value: Value) -> Result<(), RecipeError> {
    let Some((key, rest)) = segments.split_first() else { return Ok(()) };
    if rest.is_empty() {
        if key == "kind" && table.get("kind").is_some_and(|old| *old != value) {
            table.clear();
        }
        table.insert(key.clone(), value);
        return Ok(());
    }
    match table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new())) {
        Value::Array(list) => {
            let entry = entry(list, &rest[0], key, path)?;
            match (entry, &rest[1..]) {
                (entry, []) => *entry = value,
                (Value::Table(inner), rest) => place(inner, rest, path, value)?,
                (_, rest) => return Err(no_table(&rest[0], path)),
            }
            Ok(())
        }
        Value::Table(inner) => place(inner, rest, path, value),
        // A short form becomes the table it stands for.
        short @ Value::String(_) if ["schedule", "optimizer", "loss"].contains(&key.as_str()) => {
            let mut inner = Table::from_iter([("kind".to_owned(), short.clone())]);
            place(&mut inner, rest, path, value)?;
            *short = Value::Table(inner);
            Ok(())
        }
        _ => Err(no_table(&rest[0], path)),
    }
}

/// The entry of a list by number from 1 or by name.
fn entry<'l>(
    list: &'l mut [Value],
    which: &str,
    key: &str,
    path: &str,
) -> Result<&'l mut Value, RecipeError> {
    let name = |v: &Value| v.get("name").and_then(Value::as_str).map(str::to_owned);
    let names: Vec<_> = list.iter().filter_map(name).collect();
    let number = which.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).filter(|n| *n < list.len());
    let at = number.or_else(|| list.iter().position(|v| name(v).as_deref() == Some(which)));
    let error = || {
        let mut known: Vec<_> = (1..=list.len()).map(|n| format!("{key}.{n}")).collect();
        known.extend(names.iter().map(|n| format!("{key}.{n}")));
        let nearest = nearest(which, names.iter().map(String::as_str)).map(|n| format!("{key}.{n}"));
        RecipeError::new(path, RecipeErrorKind::UnknownKey { name: format!("{key}.{which}"), nearest, known })
    };
    match at {
        Some(at) => Ok(&mut list[at]),
        None => Err(error()),
    }
}

fn no_table(name: &str, path: &str) -> RecipeError {
    let kind = RecipeErrorKind::UnknownKey { name: name.to_owned(), nearest: None, known: Vec::new() };
    RecipeError::new(path, kind)
}
