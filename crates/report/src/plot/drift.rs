//! How far the stages moved from the weights they started with.

use std::collections::BTreeMap;

use super::curves::{BOX, HEIGHT, WIDTH, phases, thaws, trimmed};
use super::drawing;
use super::panel::{Axis, Panel, short};
use crate::run::Run;
use crate::{Result, theme};

/// The metrics whose names start with `prefix`, a line each; nothing where there are none. `start` is what each was before
/// the first epoch.
pub(crate) fn drift(run: &Run, prefix: &str, start: Option<f64>, title: &str) -> Result<Option<String>> {
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for epoch in run.epochs.values() {
        for (name, &value) in &epoch.metrics {
            let stage = name.strip_prefix(prefix).map(|s| s.trim_start_matches(['.', '/', ':', '_']));
            if let Some(stage) = stage.filter(|_| value.is_finite()) {
                let line =
                    lines.entry(stage).or_insert_with(|| start.map(|v| (0.0, v)).into_iter().collect());
                line.push(((epoch.global_epoch + 1) as f64, value));
            }
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let order = order(run);
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_by_key(|(stage, _)| order.iter().position(|s| s == stage));
    let all = || lines.iter().flat_map(|(_, v)| v).map(|v| v.1);
    let (low, high) = all().fold((0.0, f64::MIN_POSITIVE), |(a, b): (f64, f64), v| (a.min(v), b.max(v)));
    let words = format!("{title} of {} stages over {} epochs.", lines.len(), run.epochs.len());
    let svg = drawing(WIDTH, HEIGHT, &words, |ground| {
        let (x, y) = (Axis::whole(run.length()), Axis::linear((low, high * 1.08), 6, |v| trimmed(v, 4)));
        let mut panel = Panel::new(ground, BOX, &x, &y, |p| phases(run, p))?;
        panel.title(title)?;
        panel.x_name("epochs")?;
        thaws(run, &panel)?;
        let n = lines.len();
        for (i, (_, values)) in lines.iter().enumerate() {
            panel.line(values, theme::ramp(i, n), 1.75)?;
        }
        for (i, (stage, values)) in lines.iter().enumerate().rev() {
            if let Some(&(_, last)) = values.last() {
                let name = if stage.is_empty() { "all" } else { stage };
                panel.name_end(&short(name, 12), last, theme::ramp(i, n))?;
            }
        }
        Ok(())
    })?;
    Ok(Some(svg))
}

/// The stages from the input to the output.
fn order(run: &Run) -> Vec<&str> {
    run.phases.values().flat_map(|p| &p.stages).map(|s| s.stage.as_str()).collect()
}
