//! Progress of a run: bars on a terminal, plain lines elsewhere, JSON for programs.

use std::io::Write;

use defrost::policy::{Metric, Task};
use defrost::train::{Epoch, Event, PhaseStart, SOURCE_ACCURACY};
use indicatif::{ProgressBar, ProgressStyle};

use crate::format::{metric, metric_name, percent, seconds, thousands};

/// Shows events as they happen.
pub(crate) trait Show {
    /// One more.
    fn event(&mut self, event: &Event);
}

/// Nothing at all.
pub(crate) struct Silent;

impl Show for Silent {
    fn event(&mut self, _: &Event) {}
}

/// Each event as one line of JSON.
pub(crate) struct Json;

impl Show for Json {
    fn event(&mut self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            print(&line);
        }
    }
}

/// One plain line an epoch.
pub(crate) struct Lines {
    epochs: usize,
    task: Task,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self { epochs: 0, task: Task::default() }
    }
}

impl Show for Lines {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Start(start) => self.task = start.task,
            Event::PhaseStart(phase) => {
                self.epochs = phase.epochs;
                print(&phase_line(phase));
            }
            Event::Epoch(epoch) => print(&epoch_line(epoch, self.epochs, self.task)),
            other => other_line(other).iter().for_each(|line| print(line)),
        }
    }
}

/// A bar an epoch that leaves its line behind.
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
    epochs: usize,
    task: Task,
}

impl Bars {
    pub(crate) fn new() -> Self {
        Self { bar: None, epochs: 0, task: Task::default() }
    }

    fn bar(&mut self, length: usize, prefix: &str) -> &ProgressBar {
        let style = "  {prefix:<26} {bar:24.cyan/dim} {pos}/{len}  {msg}";
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(style).map(|s| s.progress_chars("━╸━"));
            ProgressBar::new(length as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        bar.set_prefix(prefix.to_owned());
        bar.set_length(length as u64);
        bar
    }

    fn line(&mut self, line: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        print(line);
    }
}

impl Show for Bars {
    fn event(&mut self, event: &Event) {
        let epochs = self.epochs;
        match event {
            Event::Start(start) => self.task = start.task,
            Event::PhaseStart(phase) => {
                self.epochs = phase.epochs;
                self.line(&phase_line(phase));
            }
            Event::Caching(c) => self.bar(c.images, "features").set_position(c.done as u64),
            Event::Step(s) => {
                let hits = match self.task {
                    Task::Regression => String::new(),
                    _ => format!("{}  ", percent(s.hits as f64 / s.images.max(1) as f64)),
                };
                let message = format!(
                    "loss {:.3}  {hits}{:.0} img/s  {} left",
                    s.mean_loss,
                    s.images_per_second,
                    seconds(s.run_left)
                );
                let bar = self.bar(s.steps, &format!("epoch {}/{epochs}", s.epoch + 1));
                bar.set_message(message);
                bar.set_position(s.step as u64);
            }
            Event::Validating(v) => self.bar(v.images, "validation").set_position(v.done as u64),
            Event::Epoch(epoch) => self.line(&epoch_line(epoch, epochs, self.task)),
            other => {
                if let Some(line) = other_line(other) {
                    self.line(&line);
                }
            }
        }
    }
}

fn phase_line(phase: &PhaseStart) -> String {
    let cached = if phase.cached { "; the frozen part runs once a picture" } else { "" };
    format!(
        "  phase {}     {}: {} values train{cached}",
        phase.phase + 1,
        phase.name,
        thousands(phase.trained)
    )
}

/// With the metric that the task is told by, where the epoch has it.
fn epoch_line(epoch: &Epoch, epochs: usize, task: Task) -> String {
    let watched = task.headline();
    let own = epoch.metrics.get(watched.name()).copied();
    let val = match epoch.val_accuracy.filter(|_| watched == Metric::Accuracy).or(own) {
        Some(value) if watched == Metric::Accuracy => format!("  val {:>6}", percent(value)),
        Some(value) => format!("  val {} {:>6}", metric_name(watched), metric(watched, value)),
        None => String::new(),
    };
    let val_loss = epoch.val_loss.map_or(String::new(), |l| format!(" ({l:.3})"));
    let source =
        epoch.metrics.get(SOURCE_ACCURACY).map_or(String::new(), |a| format!("  source {}", percent(*a)));
    let train = epoch.train_accuracy.map_or(String::new(), |a| format!("  train {:>6}", percent(a)));
    format!(
        "    epoch {:>3}/{epochs}  loss {:.3}{train}{val}{val_loss}{source}  {:>6} img/s  {:>6}{}",
        epoch.epoch + 1,
        epoch.train_loss,
        thousands(epoch.images_per_second.round() as usize),
        seconds(epoch.seconds),
        if epoch.best { "  best" } else { "" },
    )
}

fn other_line(event: &Event) -> Option<String> {
    match event {
        Event::Warning { message } => Some(format!("  warning     {message}")),
        Event::Retention(r) => {
            let accuracy = percent(r.source_accuracy?);
            Some(format!(
                "  source      {accuracy} of {} pictures before training",
                thousands(r.source_images)
            ))
        }
        Event::Profile(p) => Some(crate::profile::table(p)),
        Event::Decision(d) => Some(format!("  decided     {}: {}", d.what, d.reason)),
        _ => None,
    }
}

/// A line on stdout; a reader that went away is no failure of the run.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
