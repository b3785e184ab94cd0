//! Numbers against their truth, and pictures of the worst answers of runs that have no confusion matrix.

use defrost_policy::Task;
use defrost_train::{Labelled, Measured, Validation};
use maud::{Markup, PreEscaped, html};

use super::mistakes::file;
use super::{Part, scrolling};
use crate::run::Run;
use crate::thumb::{Budget, Shown};
use crate::{Options, Result, plot, say};

/// Worst answers that are shown.
const WORST: usize = 20;
/// The sides of their pictures, in pixels.
const SIDE: u32 = 220;
/// Numbers that are drawn against their truth.
const DRAWN: usize = 8;

/// The errors of every number of a regression.
pub(super) fn numbers(run: &Run) -> Result<Option<Part>> {
    let Some(v) = run.validation.as_ref().filter(|v| !v.per_value.is_empty()) else { return Ok(None) };
    let mut plots = Vec::new();
    for (at, score) in v.per_value.iter().enumerate().take(DRAWN) {
        let pair = |m: &Measured| (f64::from(m.truth[at]), f64::from(m.prediction[at]));
        let pairs: Vec<_> = v.measured.iter().map(pair).collect();
        plots.extend(plot::scatter(&score.name, &pairs)?);
    }
    let table = html! {
        table .pairs {
            thead {
                tr {
                    th scope="col" { "number" }
                    th scope="col" .n { "MAE" }
                    th scope="col" .n { "RMSE" }
                    th scope="col" .n { "R²" }
                    th scope="col" .n { "mean of the truths" }
                    th scope="col" .n { "deviation" }
                }
            }
            tbody {
                @for s in &v.per_value {
                    tr {
                        th scope="row" { (s.name) }
                        @for x in [s.mae, s.rmse, s.r2, s.mean, s.std] { td .n { (say::number(x)) } }
                    }
                }
            }
        }
    };
    let about = html! {
        "MAE is how far an answer is off on average; RMSE weighs large errors more. R² is the part of the truths' variance that "
        "the answers explain: 1 at best, 0 for who always answers the mean. A right answer lies on the line."
        @if v.per_value.len() > DRAWN { " The first " (say::word(DRAWN)) " numbers are drawn." }
    };
    let body = html! {
        (scrolling("Errors of every number", &table))
        div .plots { @for svg in &plots { figure { (PreEscaped(svg)) } } }
    };
    Ok(Some(Part { id: "numbers", title: "Numbers", about, body }))
}

/// Pictures of the worst answers.
pub(super) fn worst(run: &Run, options: &Options) -> Option<Part> {
    let v = run.validation.as_ref().filter(|v| !v.worst.is_empty() && v.predictions.is_empty())?;
    let mut budget = Budget::new(options.picture_bytes, options.pictures);
    let path = |at: usize| match v.task {
        Task::Regression => &v.measured[at].path,
        _ => &v.labelled[at].path,
    };
    let worst = &v.worst[..v.worst.len().min(WORST)];
    let data = options.data.as_deref();
    let shown =
        budget.pictures(&worst.iter().map(|&at| (run.image(path(at), data), SIDE)).collect::<Vec<_>>());
    let missing = shown.iter().filter(|s| s.missing).count();
    let card = |(&at, Shown { picture, .. }): (&usize, &Shown)| -> Markup {
        let path = path(at);
        let caption = match v.task {
            Task::Regression => told(v, &v.measured[at]),
            _ => said(v, &v.labelled[at]),
        };
        html! {
            figure {
                div .frame {
                    @match picture {
                        Some(uri) => img src=(uri) loading="lazy" decoding="async" alt=(file(path));,
                        None => span .none { "no picture" },
                    }
                }
                figcaption { (caption) p .file title=(path) { (file(path)) } }
            }
        }
    };
    let cards: Vec<_> = worst.iter().zip(&shown).map(card).collect();
    let about = html! {
        @if v.task == Task::Regression { "The answers that are furthest from the truth, in deviations of each number." }
        @else { "The answers with a wrong label, those of the greatest loss first." }
        " Such a picture is hard, mislabelled, or shows what the network really looks at."
        @if missing > 0 {
            " " (say::things(missing, "picture", "pictures")) " could not be read from the data's folder."
        }
    };
    let body = html! { div .worst { @for card in &cards { (card) } } };
    Some(Part { id: "mistakes", title: "Worst answers", about, body })
}

/// Which labels were said, and which there are.
fn said(v: &Validation, answer: &Labelled) -> Markup {
    let line = |word: &str, which: fn(&defrost_train::LabelAnswer) -> bool| {
        let labels: Vec<_> = answer.labels.iter().filter(|l| which(l)).collect();
        html! {
            @if labels.is_empty() { p { i { (word) } b { "nothing" } } }
            @for label in labels {
                p { i { (word) } b { (v.classes[label.class]) } span .n { (say::percent(label.probability.into())) } }
            }
        }
    };
    html! { (line("said", |l| l.said)) (line("is", |l| l.truth)) }
}

/// Each number as it was said and as it is.
fn told(v: &Validation, answer: &Measured) -> Markup {
    html! {
        @for ((name, truth), prediction) in v.classes.iter().zip(&answer.truth).zip(&answer.prediction) {
            p .said { i { "said" } b { (name) } span .n { (say::number(f64::from(*prediction))) } }
            p { i { "is" } b { (name) } span .n { (say::number(f64::from(*truth))) } }
        }
    }
}
