//! What was frozen when.

use defrost_train::{DRIFT, LrFind, SIMILARITY, SOURCE_ACCURACY, StageState};
use maud::{Markup, PreEscaped, html};

use super::{Part, scrolling};
use crate::plot;
use crate::run::{Run, State};
use crate::{Result, say};

/// The stages over the phases, the phases, what was decided, and how far the stages moved.
pub(super) fn part(run: &Run) -> Result<Option<Part>> {
    if run.phases.is_empty() {
        return Ok(None);
    }
    let about = html! {
        "What trains in a stage, from the input (top) to the output, with its learning rate at the schedule's height. "
        "What is frozen keeps every bit, running statistics included."
    };
    let mut moved = Vec::new();
    moved.extend(plot::drift(run, DRIFT, None, "Drift from the first weights")?);
    moved.extend(plot::drift(
        run,
        SIMILARITY,
        Some(1.0),
        "Similarity of features to the first (linear CKA)",
    )?);
    let first = run.retention.and_then(|r| r.source_accuracy);
    moved.extend(plot::drift(run, SOURCE_ACCURACY, first, "Accuracy on the source task")?);
    let sweeps = sweeps(run);
    let body = html! {
        (scrolling("What trains when", &stages(run)))
        h3 { "Phases" }
        (scrolling("Phases", &phases(run)))
        @if !run.decisions.is_empty() { (decisions(run)) }
        @if !sweeps.is_empty() {
            h3 { "Learning-rate finder" }
            div .plots { @for (svg, about) in &sweeps { figure { (PreEscaped(svg)) figcaption { (about) } } } }
        }
        @if !moved.is_empty() {
            h3 { "Drift and retention" }
            @if let Some(retained) = retained(run) { p { (retained) } }
            div .plots { @for svg in &moved { figure { (PreEscaped(svg)) } } }
        }
    };
    Ok(Some(Part { id: "frozen", title: "What was frozen", about, body }))
}

/// What is left of the source task in the best epoch, as a sentence.
fn retained(run: &Run) -> Option<String> {
    let start = run.retention?;
    let (before, now) = (start.source_accuracy?, *run.best()?.metrics.get(SOURCE_ACCURACY)?);
    let part = if before > 0.0 { now / before } else { 1.0 };
    Some(format!(
        "Of the source task, measured on {}, the best epoch retains {}: {} before training, {} now.",
        say::things(start.source_images, "image", "images"),
        say::percent(part),
        say::percent(before),
        say::percent(now)
    ))
}

/// Consecutive stages that are treated alike throughout.
struct Row<'r> {
    first: &'r str,
    last: &'r str,
    params: usize,
    /// For each state: what the first and the last of the stages do.
    cells: Vec<Option<(&'r StageState, &'r StageState)>>,
}

fn stages(run: &Run) -> Markup {
    let states = run.states();
    let rows = rows(&states);
    html! {
        table .freeze {
            thead {
                tr {
                    th scope="col" { "stage" }
                    th scope="col" .n { "parameters" }
                    @for (i, state) in states.iter().enumerate() {
                        th scope="col" .state {
                            @let thaw = i > 0 && states[i - 1].phase == state.phase;
                            b { @if thaw { "thaw" } @else { (state.phase + 1) " · " (run.phases[&state.phase].name) } }
                            small { (epochs(run, &states, i)) }
                        }
                    }
                }
            }
            tbody {
                @for row in &rows {
                    tr {
                        th scope="row" {
                            (row.first) @if row.first != row.last { " … " (row.last) }
                        }
                        td .n { (say::count(row.params as u64)) }
                        @for (state, cell) in states.iter().zip(&row.cells) { (cell_of(state, *cell)) }
                    }
                }
            }
        }
    }
}

fn cell_of(state: &State<'_>, cell: Option<(&StageState, &StageState)>) -> Markup {
    let Some((first, last)) = cell else { return html! { td { "–" } } };
    let rate = |stage: &str| state.groups.iter().find(|g| g.group == stage).map(|g| g.lr);
    let rates = match (rate(&first.stage), rate(&last.stage)) {
        (Some(a), Some(b)) if a != b => Some(format!("{} … {}", say::rate(a), say::rate(b))),
        (Some(a), _) => Some(say::rate(a)),
        _ => None,
    };
    let part = first.trained as f64 / first.params.max(1) as f64;
    html! {
        td .frozen[first.trained == 0] .part[first.trained > 0 && first.trained < first.params]
            .trains[first.trained > 0 && first.trained == first.params] {
            @if first.trained == 0 {
                "frozen"
            } @else {
                b {
                    @if first.trained < first.params { (say::percent(part)) " trains" } @else { "trains" }
                }
                @if let Some(rates) = rates { " " span .rate { (rates) } }
            }
            @let said = first.trained == 0 && first.norm == ["frozen"];
            @if !said && !first.norm.is_empty() { small { "norm: " (first.norm.join(", ")) } }
        }
    }
}

/// The epochs for which the `i`-th state held.
fn epochs(run: &Run, states: &[State<'_>], i: usize) -> String {
    let (_, end) = run.span(states[i].phase);
    let end = states.get(i + 1).filter(|s| s.phase == states[i].phase).map_or(end, |s| s.from);
    match end.saturating_sub(states[i].from) {
        0 => "no epoch done".into(),
        1 => format!("epoch {end}"),
        _ => format!("epochs {}–{end}", states[i].from + 1),
    }
}

fn rows<'r>(states: &[State<'r>]) -> Vec<Row<'r>> {
    let mut rows: Vec<Row<'r>> = Vec::new();
    let Some(first) = states.first() else { return rows };
    for stage in first.stages {
        let find = |s: &State<'r>| s.stages.iter().find(|x| x.stage == stage.stage);
        let cells: Vec<_> = states.iter().map(find).collect();
        let alike = |row: &Row<'r>| {
            row.cells.iter().zip(&cells).all(|(a, b)| match (a, b) {
                (Some((a, _)), Some(b)) => kind(a) == kind(b) && a.norm == b.norm,
                (None, None) => true,
                _ => false,
            })
        };
        match rows.last_mut().filter(|row| alike(row)) {
            Some(row) => {
                row.last = &stage.stage;
                row.params += stage.params;
                for (cell, last) in row.cells.iter_mut().zip(cells) {
                    *cell = cell.zip(last).map(|((a, _), b)| (a, b));
                }
            }
            None => rows.push(Row {
                first: &stage.stage,
                last: &stage.stage,
                params: stage.params,
                cells: cells.into_iter().map(|c| c.map(|c| (c, c))).collect(),
            }),
        }
    }
    rows
}

/// Nothing, a part of, or all of a stage; parts differ from one another.
fn kind(s: &StageState) -> (bool, bool, usize) {
    let part = s.trained > 0 && s.trained < s.params;
    (s.trained == 0, part, if part { s.trained } else { 0 })
}

fn phases(run: &Run) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "phase" }
                    th scope="col" .n { "epochs" }
                    th scope="col" .n { "values that train" }
                    th scope="col" { "optimizer" }
                    th scope="col" { "rates" }
                    th scope="col" { "prefix" }
                    th scope="col" .n { "work of a step" }
                    th scope="col" .n { "memory" }
                }
            }
            tbody {
                @for (&i, p) in &run.phases {
                    @let (first, last) = run.span(i);
                    tr {
                        th scope="row" { (i + 1) @if !p.name.is_empty() { " · " (p.name) } }
                        td .n {
                            (last - first) @if last - first != p.epochs { " of " (p.epochs) }
                        }
                        td .n { (say::count(p.trained as u64)) }
                        td { (p.optimizer) }
                        td { (rates(p)) }
                        td {
                            @if p.cached { "cached up to " code { (p.cut) } small { (say::bytes(p.cache_bytes)) } }
                            @else { "not cached" @if !p.cache_reason.is_empty() { small { (p.cache_reason) } } }
                        }
                        td .n { (say::flops(p.flops)) }
                        td .n { (say::bytes(p.memory)) }
                    }
                }
            }
        }
    }
}

fn rates(phase: &defrost_train::PhaseStart) -> String {
    let rates = || phase.groups.iter().map(|g| g.lr);
    match (rates().reduce(f64::min), rates().reduce(f64::max)) {
        (Some(a), Some(b)) if a != b => {
            format!("{} … {} in {} groups", say::rate(a), say::rate(b), phase.groups.len())
        }
        (Some(a), _) => say::rate(a),
        _ => "–".into(),
    }
}

/// What the learning-rate finder saw before a phase, and which reading was taken.
fn sweeps(run: &Run) -> Vec<(String, String)> {
    let plot = |sweep: &LrFind| {
        let points: Vec<_> = sweep.points.iter().map(|p| (p.lr, p.loss)).collect();
        let suggestions: Vec<_> = sweep.suggestions.iter().map(|s| (s.reading.as_str(), s.lr)).collect();
        // A sweep that broke off at once has no curve to show.
        let svg = plot::lr_find(&points, &suggestions, (plot::WIDTH, plot::HEIGHT)).ok()?;
        let taken = match &sweep.applied {
            Some(reading) => format!("the reading “{reading}” sets its rates"),
            None => "the recipe's rates stay".into(),
        };
        Some((svg, format!("Before phase {}: {taken}.", sweep.phase + 1)))
    };
    run.sweeps.values().filter_map(plot).collect()
}

fn decisions(run: &Run) -> Markup {
    html! {
        h3 { "Decisions on the way" }
        table {
            thead { tr { th scope="col" .n { "after epoch" } th scope="col" { "what" } th scope="col" { "why" } } }
            tbody {
                @for d in &run.decisions {
                    tr {
                        td .n { (run.phases.get(&d.phase).map_or(0, |p| p.first_epoch) + d.epoch + 1) }
                        td { (d.what) }
                        td { (d.reason) }
                    }
                }
            }
        }
    }
}
