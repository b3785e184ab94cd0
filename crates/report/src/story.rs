//! What one would say aloud about a run.

use defrost_policy::{Metric, Task};
use defrost_train::{Confused, Epoch, Validation};

use crate::run::Run;
use crate::say;

/// How a run stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    /// It ran to its end.
    Done,
    /// It was interrupted and said so.
    Stopped,
    /// It goes on, or was killed.
    Open,
}

impl Status {
    pub(crate) fn of(run: &Run) -> Self {
        match (&run.done, &run.stopped) {
            (Some(_), _) => Self::Done,
            (None, Some(_)) => Self::Stopped,
            (None, None) => Self::Open,
        }
    }

    /// In a word or two.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Done => "finished",
            Self::Stopped => "interrupted",
            Self::Open => "not finished",
        }
    }
}

/// The headline in three parts, of which the middle one is the number.
#[derive(Debug, PartialEq)]
pub(crate) struct Headline {
    pub(crate) before: String,
    pub(crate) number: String,
    pub(crate) after: String,
}

impl Headline {
    pub(crate) fn text(&self) -> String {
        format!("{}{}{}", self.before, self.number, self.after)
    }
}

/// The one sentence.
pub(crate) fn headline(run: &Run) -> Headline {
    let model = run.model();
    let part =
        |before: String, number: String, after: &str| Headline { before, number, after: after.to_owned() };
    if let Some(v) = run.validation.as_ref().filter(|v| v.images > 0) {
        let images = say::count(v.images as u64);
        match (v.task, v.metric(v.task.headline())) {
            (Task::MultiLabel, Some(map)) => {
                let labels = say::things(v.classes.len(), "label", "labels");
                let after = format!(" for {labels} on {images} validation pictures.");
                return part(format!("{model} has a mean average precision of "), say::percent(map), &after);
            }
            (Task::Regression, Some(mae)) => {
                let what = match &v.classes[..] {
                    [only] => format!("in {only} "),
                    several => format!("over {} numbers ", several.len()),
                };
                let after = format!(" on average {what}on {images} validation pictures.");
                return part(format!("{model} is off by "), say::number(mae), &after);
            }
            _ if v.confusion.is_empty() => {
                let after = format!(" on {images} validation pictures.");
                return part(format!("{model} reaches a loss of "), say::number(v.loss), &after);
            }
            _ => {}
        }
        let after = format!(" of {} validation pictures.", say::count(v.images as u64));
        let classes = v.classes.len();
        return part(
            format!("{model} tells {classes} classes apart in "),
            say::percent(v.accuracy.unwrap_or(0.0)),
            &after,
        );
    }
    let images = run.start.as_ref().map_or(0, |s| s.val_images);
    match run.best().or_else(|| run.epochs.values().next_back()) {
        Some(e) if run.task() != Task::Classification && measured(run, e).is_some() => {
            let (name, value) = measured(run, e).unwrap_or_default();
            let so_far = if run.done.is_some() { "." } else { " so far." };
            part(format!("{model} has a validation {name} of "), value, so_far)
        }
        Some(e) => match (e.val_accuracy, e.val_loss) {
            (Some(accuracy), _) => {
                let classes = run.start.as_ref().map_or(run.classes.len(), |s| s.classes);
                let of = if images > 0 { format!("{} ", say::count(images as u64)) } else { String::new() };
                let so_far = if run.done.is_some() { "" } else { " so far" };
                part(
                    format!("{model} tells {classes} classes apart in "),
                    say::percent(accuracy),
                    &format!(" of {of}validation pictures{so_far}."),
                )
            }
            (None, Some(loss)) => {
                part(format!("{model} reaches a validation loss of "), say::number(loss), ".")
            }
            (None, None) => {
                part(format!("{model} reaches a training loss of "), say::number(e.train_loss), ".")
            }
        },
        None => part(format!("{model} has not finished "), "an epoch".into(), " yet."),
    }
}

/// What says most of an epoch, with its name.
pub(crate) fn measured(run: &Run, epoch: &Epoch) -> Option<(&'static str, String)> {
    let metric = |m: Metric| epoch.metrics.get(m.name()).copied();
    match run.task() {
        Task::MultiLabel => metric(Metric::Map).map(|v| ("mAP", say::percent(v))),
        Task::Regression => metric(Metric::Mae).map(|v| ("MAE", say::number(v))),
        _ => epoch.val_accuracy.map(|v| ("Accuracy", say::percent(v))),
    }
}

/// What else one would say, a sentence each.
pub(crate) fn more(run: &Run) -> Vec<String> {
    let mut say = Vec::new();
    if let Some(v) = run.validation.as_ref().filter(|v| !v.confusion.is_empty() && v.images > 0) {
        say.extend(mistakes(v));
        say.extend(guessing(v));
    }
    say.extend(training(run));
    say
}

fn mistakes(v: &Validation) -> Option<String> {
    let Some(most) = v.confused.first() else { return Some("It made no mistake.".into()) };
    let hardest = hardest(v)?;
    let c = &v.per_class[hardest];
    let found = match c.hits {
        0 => "never found".to_owned(),
        n => format!("found {} in {}", times(n), say::count(c.images as u64)),
    };
    let &Confused { truth, prediction, images } = most;
    Some(format!(
        "The hardest class is {}, {found}; the most frequent mistake is {} taken for {}, {}.",
        c.class,
        v.classes[truth],
        v.classes[prediction],
        times(images),
    ))
}

fn times(n: usize) -> String {
    match n {
        1 => "once".into(),
        2 => "twice".into(),
        n => format!("{} times", say::count(n as u64)),
    }
}

/// The class that is found least, and of those found equally the one with more images.
pub(crate) fn hardest(v: &Validation) -> Option<usize> {
    let classes = v.per_class.iter().enumerate().filter(|(_, c)| c.images > 0);
    let order = |a: &(usize, &defrost_train::ClassScore), b: &(usize, &defrost_train::ClassScore)| {
        a.1.recall.total_cmp(&b.1.recall).then(b.1.images.cmp(&a.1.images))
    };
    classes.min_by(order).map(|(i, _)| i)
}

/// The part of right answers that needs no network.
fn guessing(v: &Validation) -> Option<String> {
    let largest = v.per_class.iter().max_by_key(|c| c.images)?;
    let part = largest.images as f64 / v.images as f64;
    if v.per_class.iter().filter(|c| c.images == largest.images).count() > 1 {
        return Some(format!("Guessing would be right in {}.", say::percent(part)));
    }
    let class = &largest.class;
    Some(format!(
        "Answering {class} every time, the largest class, would be right in {}.",
        say::percent(part)
    ))
}

fn training(run: &Run) -> Option<String> {
    let epochs = run.epochs.len();
    if epochs == 0 {
        return None;
    }
    let all = run.start.as_ref().map_or(0, |s| s.epochs);
    let phases = match run.phases.len() {
        0 | 1 => String::new(),
        n => format!(" in {} phases", say::word(n)),
    };
    let device = run.start.as_ref().map(|s| s.device.as_str()).filter(|d| !d.is_empty());
    let device = device.map(|d| format!(" on {d}")).unwrap_or_default();
    let time = say::seconds(run.seconds());
    let mut s = format!("{}{phases} took {time}{device}", capital(&say::things(epochs, "epoch", "epochs")));
    if let Some(best) = run.best() {
        s += &format!("; the best weights are those of epoch {}", best.global_epoch + 1);
    }
    s.push('.');
    if Status::of(run) != Status::Done && all > epochs {
        s += &format!(
            " {} of {} are left.",
            say::things(all - epochs, "epoch", "epochs"),
            say::count(all as u64)
        );
    }
    Some(s)
}

fn capital(s: &str) -> String {
    let mut chars = s.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}
