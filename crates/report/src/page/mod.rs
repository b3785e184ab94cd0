//! The report as one HTML file.
//!
//! Everything is inside the file and a policy in its head forbids the browser to load anything else; of scripts only the
//! one below runs, known by its hash. So a class that is called `<script>` can do nothing even if escaping failed, which
//! `maud` does for every value.

mod answers;
mod confusion;
mod curves;
mod mistakes;
mod repeat;
mod training;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use defrost_policy::{Metric, Task};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::run::Run;
use crate::story::{self, Status};
use crate::{Options, Result, say, theme};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// A part of the report.
struct Part {
    id: &'static str,
    title: &'static str,
    /// One or two sentences on how to read it.
    about: Markup,
    body: Markup,
}

/// The whole file.
pub(crate) fn page(run: &Run, options: &Options) -> Result<String> {
    let gallery = mistakes::Gallery::collect(run, options);
    let mut parts = Vec::new();
    parts.extend(curves::part(run)?);
    parts.extend(confusion::matrix(run, &gallery));
    parts.extend(confusion::classes(run));
    parts.extend(answers::numbers(run)?);
    parts.extend(mistakes::part(run, &gallery));
    parts.extend(answers::worst(run, options));
    parts.extend(training::part(run)?);
    parts.extend(repeat::data(run));
    parts.extend(repeat::part(run));

    let headline = story::headline(run);
    let policy = format!(
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'",
        STANDARD.encode(Sha256::digest(SCRIPT))
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="description" content=(headline.text());
                title { (run.name) " · defrost" }
                style { (PreEscaped(theme::css())) (PreEscaped(theme::PLOT_CSS)) (PreEscaped(STYLE)) }
            }
            body {
                (head(run))
                nav aria-label="Parts of this report" {
                    @for part in &parts { a href={ "#" (part.id) } { (part.title) } }
                }
                main {
                    @for part in &parts {
                        section id=(part.id) aria-labelledby={ "h-" (part.id) } {
                            header {
                                h2 id={ "h-" (part.id) } { (part.title) }
                                p { (part.about) }
                            }
                            div .body { (part.body) }
                        }
                    }
                }
                footer {
                    "Written by defrost " (env!("CARGO_PKG_VERSION"))
                    ". This file is complete in itself and loads nothing."
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}

/// Name, sentence, key numbers, and what is wrong with the run where something is.
fn head(run: &Run) -> Markup {
    let headline = story::headline(run);
    let status = Status::of(run);
    html! {
        header .top {
            p .eyebrow {
                span .name { (run.name) }
                @if !run.origin.started.is_empty() { span { (run.origin.started) } }
                span .status.done[status == Status::Done] { (status.word()) }
            }
            h1 { (headline.before) em { (headline.number) } (headline.after) }
            p .lede { @for sentence in story::more(run) { (sentence) " " } }
            @if let Some(stopped) = &run.stopped {
                p .notice {
                    "Interrupted in epoch " (stopped.at.epoch + 1) " of phase " (stopped.at.phase + 1) ": "
                    (stopped.reason) ". To go on: "
                    code { "defrost train --resume " (stopped.resume) }
                }
            }
            @for note in &run.notes { p .notice { (note) } }
            (facts(run))
        }
    }
}

/// The key numbers.
fn facts(run: &Run) -> Markup {
    let mut facts: Vec<(&str, String, String)> = Vec::new();
    let v = run.validation.as_ref().filter(|v| v.images > 0);
    if let Some(v) = v.filter(|v| !v.confusion.is_empty()) {
        let hits = v.per_class.iter().map(|c| c.hits).sum();
        let (low, high) = say::wilson(hits, v.images);
        let interval = format!("{1:.1} to {2:.1}{0}%, 95{0}% sure", say::NBSP, low * 100.0, high * 100.0);
        facts.push(("Accuracy", say::percent(v.accuracy.unwrap_or(0.0)), interval));
        if let Some(top5) = v.top5 {
            facts.push(("Top 5", say::percent(top5), "among the five likeliest".into()));
        }
        facts.extend(v.f1.map(|f1| ("Mean F1", say::percent(f1), "over the classes".into())));
    }
    if let Some(v) = v.filter(|v| v.confusion.is_empty()) {
        let percent = |m: Metric| v.metric(m).map(say::percent);
        let number = |m: Metric| v.metric(m).map(say::number);
        let told = |name, value: Option<String>, more: &str| value.map(|v| (name, v, more.to_owned()));
        let all = match v.task {
            Task::Regression => [
                told("MAE", number(Metric::Mae), "off on average"),
                told("RMSE", number(Metric::Rmse), ""),
                told("R²", number(Metric::R2), "of the variance explained"),
            ],
            _ => [
                told("mAP", percent(Metric::Map), "over the labels"),
                told("Mean F1", percent(Metric::F1), "over the labels"),
                told("All right", percent(Metric::Accuracy), "every label of a picture"),
            ],
        };
        facts.extend(all.into_iter().flatten());
    }
    if let Some(v) = v {
        facts.push(("Validation loss", say::number(v.loss), String::new()));
    } else if let Some(e) = run.best() {
        if let Some((name, value)) = story::measured(run, e) {
            facts.push((name, value, "best so far".into()));
        }
        facts.extend(e.val_loss.map(|l| ("Validation loss", say::number(l), String::new())));
    }
    if let Some(best) = run.best() {
        let done = format!("of {}", say::count(run.epochs.len() as u64));
        facts.push(("Best epoch", (best.global_epoch + 1).to_string(), done));
    }
    if !run.epochs.is_empty() {
        // Of the last phase: the one before may have run on cached features.
        let last = run.epochs.values().next_back().map(|e| e.phase);
        let of_last = run.epochs.values().filter(|e| Some(e.phase) == last);
        let mut speeds: Vec<_> = of_last.map(|e| e.images_per_second).filter(|s| *s > 0.0).collect();
        speeds.sort_by(f64::total_cmp);
        let median = speeds.get(speeds.len() / 2);
        let speed = median.map(|s| format!("{} images/s in the end", say::count(s.round() as u64)));
        facts.push(("Time", say::seconds(run.seconds()), speed.unwrap_or_default()));
    }
    html! {
        @if !facts.is_empty() {
            dl .facts {
                @for (name, value, more) in &facts {
                    div {
                        dt { (name) }
                        dd { (value) @if !more.is_empty() { small { (more) } } }
                    }
                }
            }
        }
    }
}

/// A table in a box that scrolls sideways where there is no room.
fn scrolling(label: &str, table: &Markup) -> Markup {
    html! { div .scroll role="region" aria-label=(label) tabindex="0" { (table) } }
}
