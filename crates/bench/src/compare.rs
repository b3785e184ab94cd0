//! Figures against those of another day.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

/// What is told of: a change by more than a twentieth, which is what a shared machine does by itself.
const NOISE: f64 = 0.05;

/// Every figure of `now` that is in `base` too, where it changed.
pub(crate) fn table(base: &Value, now: &Value) -> String {
    let (old, new) = (by_id(base), by_id(now));
    let mut out = String::new();
    let (mut same, mut missing) = (0, 0);
    for (id, (value, unit)) in &new {
        let Some((before, _)) = old.get(id) else {
            missing += 1;
            continue;
        };
        let ratio = value / before;
        if (ratio - 1.0).abs() <= NOISE {
            same += 1;
            continue;
        }
        // Of seconds and bytes less is more.
        let better = (ratio > 1.0) == unit.ends_with("/s");
        let verdict = if better { "better" } else { "WORSE" };
        let _ = writeln!(out, "{id:60} {before:10.3} -> {value:10.3} {unit:9} {ratio:6.3} {verdict}");
    }
    let _ = writeln!(
        out,
        "{same} figures within {:.0} % of the base, {missing} that it does not have",
        NOISE * 100.0
    );
    out
}

fn by_id(file: &Value) -> BTreeMap<&str, (f64, &str)> {
    let sections = file.as_object().into_iter().flat_map(|o| o.values());
    let rows = sections.filter_map(Value::as_array).flatten();
    rows.filter_map(|row| Some((row["id"].as_str()?, (row["value"].as_f64()?, row["unit"].as_str()?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn more_a_second_is_better_and_more_seconds_are_worse() {
        let row = |id: &str, value: f64, unit: &str| json!({ "id": id, "value": value, "unit": unit });
        let base = json!({ "machine": {}, "steps": [row("a", 10.0, "images/s"), row("b", 2.0, "s"), row("c", 1.0, "s")] });
        let now = json!({ "steps": [row("a", 12.0, "images/s"), row("b", 3.0, "s"), row("c", 1.01, "s"), row("d", 1.0, "s")] });
        let text = table(&base, &now);
        let line = |id: &str| text.lines().find(|l| l.starts_with(id)).unwrap_or_default().to_owned();
        assert!(line("a ").ends_with("1.200 better"), "{text}");
        assert!(line("b ").ends_with("1.500 WORSE"), "{text}");
        assert!(text.ends_with("1 figures within 5 % of the base, 1 that it does not have\n"), "{text}");
    }
}
