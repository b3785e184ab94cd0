//! Loss and accuracy over the epochs, with the phases' grounds and the thaws.

use defrost_policy::{Metric, Task};
use defrost_train::Epoch;

use super::panel::{Axis, Beside, Panel, short, width};
use super::{Ground, drawing};
use crate::run::Run;
use crate::theme::{self, Ink};
use crate::{Error, Result, say};

/// The size of one plot, in pixels.
pub(crate) const WIDTH: i32 = 430;
/// The height that belongs to it.
pub(crate) const HEIGHT: i32 = 300;

/// The box of the axes within a plot, with room for names at the right.
pub(super) const BOX: (f64, f64, f64, f64) = (46.0, 50.0, 358.0, 256.0);

/// A measure over the epochs.
struct Curve<'a> {
    name: &'a str,
    ink: Ink,
    width: f64,
    values: Vec<(f64, f64)>,
}

/// The losses.
pub(crate) fn loss(run: &Run) -> Result<String> {
    drawing(WIDTH, HEIGHT, &loss_words(run), |ground| draw_loss(run, ground))
}

/// The accuracies.
pub(crate) fn accuracy(run: &Run) -> Result<String> {
    drawing(WIDTH, HEIGHT, &accuracy_words(run), |ground| draw_accuracy(run, ground))
}

/// Both side by side, for a file of its own.
pub(crate) fn both(run: &Run) -> Result<(String, i32, i32)> {
    if run.epochs.is_empty() {
        return Err(Error::Nothing("no epoch was finished"));
    }
    let words = format!("{} {}", loss_words(run), accuracy_words(run));
    let has_accuracy = draws_accuracy(run);
    let width = if has_accuracy { 2 * WIDTH + 20 } else { WIDTH };
    let svg = drawing(width, HEIGHT, &words, |ground| {
        if !has_accuracy {
            return draw_loss(run, ground);
        }
        let (left, right) = ground.split_horizontally((WIDTH + 20) * super::FINE);
        draw_loss(run, &left)?;
        draw_accuracy(run, &right)
    })?;
    Ok((svg, width, HEIGHT))
}

/// Whether there is anything to draw beside the loss.
pub(crate) fn draws_accuracy(run: &Run) -> bool {
    run.epochs.values().any(|e| headline(run).1(e).is_some())
}

/// What says most of a run of its task: its name, and its value in an epoch.
fn headline(run: &Run) -> (&'static str, fn(&Epoch) -> Option<f64>) {
    match run.task() {
        Task::MultiLabel => ("mAP", |e| e.metrics.get(Metric::Map.name()).copied()),
        Task::Regression => ("MAE", |e| e.metrics.get(Metric::Mae.name()).copied()),
        _ => ("Accuracy", |e| e.val_accuracy),
    }
}

fn draw_loss(run: &Run, ground: &Ground<'_>) -> Result<()> {
    let curves = [
        curve("validation", theme::GOOD, 2.0, run, |e| e.val_loss),
        curve("training", theme::BAD, 1.5, run, |e| Some(e.train_loss)),
    ];
    let top = extent(&curves).map_or(1.0, |(_, high)| high * 1.08);
    let y = Axis::linear((0.0, top), 6, |v| trimmed(v, 2));
    plot(run, ground, "Loss", &curves, &y, say::number)
}

fn draw_accuracy(run: &Run, ground: &Ground<'_>) -> Result<()> {
    let ((title, value), of_classes) = (headline(run), run.task() == Task::Classification);
    let curves = [
        curve("validation", theme::GOOD, 2.0, run, value),
        curve("training", theme::BAD, 1.5, run, |e| e.train_accuracy.filter(|_| of_classes)),
    ];
    if run.task() == Task::Regression {
        let top = extent(&curves).map_or(1.0, |(_, high)| high * 1.08);
        let y = Axis::linear((0.0, top), 6, |v| trimmed(v, 3));
        return plot(run, ground, title, &curves, &y, say::number);
    }
    let (low, high) = extent(&curves).unwrap_or((0.0, 1.0));
    let air = ((high - low) * 0.12).max(0.02);
    let range = ((low - air).max(0.0), (high + 1.5 * air).min(1.0));
    let y = Axis::linear(range, 6, |v| format!("{} %", trimmed(v * 100.0, 1)));
    plot(run, ground, title, &curves, &y, say::percent)
}

fn plot(
    run: &Run,
    ground: &Ground<'_>,
    title: &str,
    curves: &[Curve<'_>],
    y: &Axis,
    label: impl Fn(f64) -> String,
) -> Result<()> {
    let x = Axis::whole(run.length());
    let mut panel = Panel::new(ground, BOX, &x, y, |p| phases(run, p))?;
    panel.title(title)?;
    panel.x_name("epochs")?;
    thaws(run, &panel)?;
    for c in curves.iter().rev() {
        panel.line(&c.values, c.ink, c.width)?;
        // What is measured after some epochs only has points there, and nothing but its point where it is one.
        if c.values.len() == 1 || c.values.len() < run.epochs.len() {
            c.values.iter().try_for_each(|&at| panel.dot(at, 2.5, c.ink))?;
        }
    }
    for c in curves {
        if let Some(&(_, last)) = c.values.last() {
            panel.name_end(c.name, last, c.ink)?;
        }
    }
    let best = run.best().map(|e| (e.global_epoch + 1) as f64);
    let marked = curves[0].values.iter().find(|v| Some(v.0) == best);
    if let Some(&(bx, by)) = marked {
        panel.dot((bx, by), 3.5, curves[0].ink)?;
        let text = label(by);
        let (px, py) = panel.at(bx, by);
        // Accuracies rise to their best and losses fall to it, so there is room behind it, if not for the other curve.
        let other = curves
            .iter()
            .skip(1)
            .find_map(|c| c.values.iter().find(|v| v.0 == bx))
            .map(|&(x, y)| panel.at(x, y).1);
        let free = |above: bool| match other {
            _ if above && py < panel.top + 20.0 || !above && py > panel.bottom - 20.0 => false,
            Some(o) => (o - py).abs() > 24.0 || (o > py) == above,
            None => true,
        };
        let natural = matches!(title, "Accuracy" | "mAP");
        let above = if free(natural) || !free(!natural) { natural } else { !natural };
        let py = if above { py - 11.0 } else { py + 12.0 };
        // Right of the point, where the curve that led to it is not.
        let fits = px + 4.0 + width(&text, 11.5) < panel.right;
        let (px, side) = if fits { (px + 4.0, Beside::Right) } else { (px - 4.0, Beside::Left) };
        panel.write(&text, (px, py), side, curves[0].ink, 11.5)?;
    }
    Ok(())
}

/// Shades every other phase and names each, where there is more than one.
pub(super) fn phases(run: &Run, panel: &Panel<'_, '_>) -> Result<()> {
    if run.phases.len() < 2 {
        return Ok(());
    }
    for (&number, phase) in &run.phases {
        let (first, last) = run.span(number);
        let (x0, _) = panel.at(first as f64, 0.0);
        let (x1, _) = panel.at(last as f64, 0.0);
        if number % 2 == 1 {
            panel.fill((x0, panel.top), (x1, panel.bottom), theme::BAND, 1.0)?;
        }
        let room = ((x1 - x0 - 8.0) / width("x", 10.5)) as usize;
        let number = (number + 1).to_string();
        let name = format!("{number} · {}", phase.name);
        let text = if phase.name.is_empty() || room < 6 { number } else { short(&name, room) };
        if room > 0 {
            panel.write(&text, (x0 + 4.0, panel.top - 7.0), Beside::Right, theme::MUTED, 10.5)?;
        }
    }
    Ok(())
}

/// Marks the thaws.
pub(super) fn thaws(run: &Run, panel: &Panel<'_, '_>) -> Result<()> {
    for thaw in run.thaws.values() {
        let (x, _) = panel.at(thaw.global_epoch as f64, 0.0);
        panel.stroke(&[(x, panel.top), (x, panel.bottom)], theme::THAW, 1.25)?;
    }
    Ok(())
}

fn curve<'a>(
    name: &'a str,
    ink: Ink,
    width: f64,
    run: &Run,
    value: impl Fn(&defrost_train::Epoch) -> Option<f64>,
) -> Curve<'a> {
    let values = run.epochs.values().filter_map(|e| Some(((e.global_epoch + 1) as f64, value(e)?)));
    Curve { name, ink, width, values: values.filter(|v| v.1.is_finite()).collect() }
}

fn extent(curves: &[Curve<'_>]) -> Option<(f64, f64)> {
    let all = || curves.iter().flat_map(|c| &c.values).map(|v| v.1);
    Some((all().reduce(f64::min)?, all().reduce(f64::max)?))
}

/// A number for an axis, without zeros behind the point.
pub(super) fn trimmed(v: f64, digits: usize) -> String {
    let s = format!("{v:.digits$}");
    let s = if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.') } else { &s };
    if s == "-0" { "0".into() } else { s.to_owned() }
}

fn loss_words(run: &Run) -> String {
    let ends = || Some((run.epochs.values().next()?, run.epochs.values().next_back()?));
    let Some((first, last)) = ends() else { return "Loss: no epoch was finished.".into() };
    let mut s = format!(
        "Training loss over {}: from {} to {}.",
        say::things(run.epochs.len(), "epoch", "epochs"),
        say::number(first.train_loss),
        say::number(last.train_loss)
    );
    let mut measured = run.epochs.values().filter_map(|e| e.val_loss);
    let first = measured.next();
    if let (Some(a), Some(b)) = (first, measured.next_back().or(first)) {
        s += &format!(" Validation loss: from {} to {}.", say::number(a), say::number(b));
    }
    s
}

fn accuracy_words(run: &Run) -> String {
    let (name, value) = headline(run);
    let say = if name == "MAE" { say::number } else { say::percent };
    let name = if name == "Accuracy" { "accuracy" } else { name };
    let first = run.epochs.values().find_map(value);
    let last = run.epochs.values().rev().find_map(value);
    let (Some(a), Some(b)) = (first, last) else { return String::new() };
    let best = run.best().and_then(value).map(|b| format!(", best {}", say(b))).unwrap_or_default();
    format!("Validation {name}: from {} to {}{best}.", say(a), say(b))
}
