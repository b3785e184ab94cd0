//! Curves, and the numbers behind them.

use maud::{Markup, PreEscaped, html};

use super::{Part, scrolling};
use crate::plot;
use crate::run::Run;
use crate::{Result, say};

/// The plots over the epochs; nothing before the first epoch is done.
pub(super) fn part(run: &Run) -> Result<Option<Part>> {
    if run.epochs.is_empty() {
        return Ok(None);
    }
    let mut plots = vec![plot::loss(run)?];
    if plot::draws_accuracy(run) {
        plots.push(plot::accuracy(run)?);
    }
    plots.extend(plot::rates(run)?);
    let mut calibration_error = None;
    if let Some(v) = &run.validation
        && let Some((svg, error)) = plot::calibration(&v.predictions)?
    {
        plots.push(svg);
        calibration_error = Some(error);
    }
    let about = html! {
        "Training values are taken while the weights change, so they lag behind. "
        @if run.phases.len() > 1 { "Every other phase is shaded. " }
        @if !run.thaws.is_empty() { "A dashed line is a thaw. " }
        "The point is the best epoch."
        @if let Some(e) = calibration_error {
            " What the network says of its confidence is off by " (say::percent(e)) " on average."
        }
    };
    let body = html! {
        div .plots { @for svg in &plots { figure { (PreEscaped(svg)) } } }
        details { summary { "The numbers of every epoch" } (scrolling("Numbers of every epoch", &numbers(run))) }
    };
    Ok(Some(Part { id: "curves", title: "Curves", about, body }))
}

fn numbers(run: &Run) -> Markup {
    let accuracy = run.epochs.values().any(|e| e.val_accuracy.is_some());
    let mut metrics: Vec<&str> =
        run.epochs.values().flat_map(|e| e.metrics.keys()).map(String::as_str).collect();
    metrics.sort_unstable();
    metrics.dedup();
    metrics.retain(|m| !crate::is_stage_metric(m));
    let best = run.best().map(|e| e.global_epoch);
    let number = |x: Option<f64>| x.map_or_else(|| "–".into(), say::number);
    html! {
        table .numbers {
            thead {
                tr {
                    th scope="col" { "epoch" }
                    th scope="col" { "phase" }
                    th scope="col" { "training loss" }
                    @if accuracy { th scope="col" { "training accuracy" } }
                    th scope="col" { "validation loss" }
                    @if accuracy { th scope="col" { "validation accuracy" } }
                    @for m in &metrics { th scope="col" { (m) } }
                    th scope="col" { "greatest rate" }
                    th scope="col" { "images/s" }
                    th scope="col" { "time" }
                }
            }
            tbody {
                @for e in run.epochs.values() {
                    tr .best[best == Some(e.global_epoch)] {
                        th scope="row" { (e.global_epoch + 1) }
                        td { (e.phase + 1) }
                        td { (say::number(e.train_loss)) }
                        @if accuracy { td { (e.train_accuracy.map_or_else(|| "–".into(), say::percent)) } }
                        td { (number(e.val_loss)) }
                        @if accuracy { td { (e.val_accuracy.map_or_else(|| "–".into(), say::percent)) } }
                        @for m in &metrics { td { (number(e.metrics.get(*m).copied())) } }
                        td { (e.rates.iter().map(|r| r.lr).reduce(f64::max).map_or_else(|| "–".into(), say::rate)) }
                        td { (say::count(e.images_per_second.round() as u64)) }
                        td { (say::seconds(e.seconds)) }
                    }
                }
            }
        }
    }
}
