//! The data, the recipe, and how to make the run again.

use maud::{Markup, html};

use super::Part;
use crate::run::Run;
use crate::say;

/// Lines of a list that are shown.
const LINES: usize = 50;

/// What the run learnt from.
pub(super) fn data(run: &Run) -> Option<Part> {
    let start = run.start.as_ref()?;
    let mut facts = vec![
        ("training", say::things(start.train_images, "picture", "pictures")),
        ("validation", say::things(start.val_images, "picture", "pictures")),
        ("classes", say::count(start.classes as u64)),
        (
            "a step",
            format!(
                "{}, {} an epoch",
                say::things(start.batch, "picture", "pictures"),
                say::things(start.steps, "step", "steps")
            ),
        ),
    ];
    if let Some(folder) = &run.origin.data {
        facts.insert(0, ("folder", folder.display().to_string()));
    }
    let counts = &run.origin.train_counts;
    let warnings: Vec<_> = run.origin.warnings.iter().chain(&run.warnings).collect();
    let about = html! { "What it learnt from, and what was noticed about it." };
    let body = html! {
        dl .list { @for (name, value) in &facts { div { dt { (name) } dd { (value) } } } }
        @if counts.len() == run.classes.len() && !counts.is_empty() { (balance(run)) }
        @if !warnings.is_empty() {
            h3 { "Warnings" }
            ul .warnings {
                @for w in warnings.iter().take(LINES) { li { (w) } }
                @if warnings.len() > LINES { li { "and " (warnings.len() - LINES) " more" } }
            }
        }
        @if !run.skipped.is_empty() {
            details {
                summary { (say::things(run.skipped.len(), "file", "files")) " skipped" }
                ul .files {
                    @for line in run.skipped.iter().take(LINES) { li { (line) } }
                    @if run.skipped.len() > LINES { li { "and " (run.skipped.len() - LINES) " more in skipped.txt" } }
                }
            }
        }
    };
    Some(Part { id: "data", title: "Data", about, body })
}

/// The training images of each class as bars, the fewest first.
fn balance(run: &Run) -> Markup {
    let most = run.origin.train_counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let mut classes: Vec<_> = run.classes.iter().zip(&run.origin.train_counts).collect();
    classes.sort_by_key(|(_, n)| **n);
    html! {
        details {
            summary { "Training pictures of each class" }
            table .counts {
                thead { tr { th scope="col" { "class" } th scope="col" .n { "pictures" } } }
                tbody {
                    @for (name, n) in classes {
                        tr {
                            th scope="row" { (name) }
                            td .n.bar style={ "--p:" (format!("{:.3}", *n as f64 / most)) } { (say::count(*n as u64)) }
                        }
                    }
                }
            }
        }
    }
}

/// How to make the run again.
pub(super) fn part(run: &Run) -> Option<Part> {
    let about = html! {
        "The same data, recipe, seed and version give the same bits on the same kind of device."
    };
    let a = &run.origin;
    let mut facts: Vec<(String, String)> = Vec::new();
    if let Some(start) = &run.start {
        facts.push(("network".into(), start.model.clone()));
        facts.push(("device".into(), start.device.clone()));
        facts.push(("seed".into(), start.seed.to_string()));
        if run.resumed > 0 {
            facts.push(("resumed".into(), say::things(run.resumed, "time", "times")));
        }
    }
    let named = a.versions.iter().chain(&a.facts).chain(&a.hashes);
    facts.extend(named.map(|(k, v)| (k.clone(), v.clone())));
    facts.retain(|(_, v)| !v.is_empty());
    if facts.is_empty() && run.recipe.is_none() && a.command.is_empty() {
        return None;
    }
    let body = html! {
        @if !a.command.is_empty() {
            h3 { "Command" }
            (block(&a.command))
        }
        @if !facts.is_empty() {
            dl .list { @for (name, value) in &facts { div { dt { (name) } dd { (value) } } } }
        }
        @if let Some(recipe) = &run.recipe {
            h3 { "Recipe" }
            p { "Everything that was decided, defaults included. Given back with " code { "--recipe" } ", it decides the same again." }
            (block(recipe))
        }
    };
    Some(Part { id: "repeat", title: "How to repeat it", about, body })
}

fn block(text: &str) -> Markup {
    html! {
        div .code {
            button type="button" data-copy hidden { "Copy" }
            pre tabindex="0" { code { (text) } }
        }
    }
}
