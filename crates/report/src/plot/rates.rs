//! The learning rate of each parameter group over the epochs.

use super::curves::{BOX, HEIGHT, WIDTH, phases, thaws};
use super::drawing;
use super::panel::{Axis, Panel, short};
use crate::run::Run;
use crate::{Result, say, theme};

/// Groups that have the same rates throughout are one line.
struct Line {
    first: String,
    last: String,
    groups: usize,
    /// By epoch; nothing where the group does not train.
    rates: Vec<Option<f64>>,
}

impl Line {
    /// The greatest rate in the last phase in which the groups train.
    fn last_peak(&self, run: &Run) -> Option<f64> {
        let last = self.rates.iter().rposition(Option::is_some)?;
        let from = (0..=last).rev().find(|&e| starts_phase(run, e)).unwrap_or(0);
        self.rates[from..=last].iter().flatten().copied().filter(|r| *r > 0.0).reduce(f64::max)
    }

    /// `features.0 … features.13` as `features.0–13`; groups of one stage, as with and without decay, as the stage.
    fn name(&self) -> String {
        if self.groups == 1 || self.last.starts_with(self.first.as_str()) {
            return short(&self.first, 12);
        }
        let common = self.first.rfind('.').map_or(0, |i| i + 1);
        match self.last.get(common..) {
            Some(end) if common > 0 && self.last.starts_with(&self.first[..common]) => {
                short(&format!("{}–{end}", self.first), 14)
            }
            _ => format!("{} groups", self.groups),
        }
    }
}

/// The rates on a logarithmic axis; nothing where none was recorded.
pub(crate) fn rates(run: &Run) -> Result<Option<String>> {
    let lines = lines(run);
    let all = || lines.iter().flat_map(|l| &l.rates).flatten().copied().filter(|r| *r > 0.0);
    let (Some(low), Some(high)) = (all().reduce(f64::min), all().reduce(f64::max)) else { return Ok(None) };
    // A schedule that ends near zero would leave little room for the rest: its end is at the axis.
    let peaks = lines.iter().filter_map(|l| l.last_peak(run)).reduce(f64::min).unwrap_or(high);
    let floor = low.max(peaks / 20.0).log10() - 0.15;
    let words = format!(
        "Learning rates of {}: between {} and {}.",
        say::things(lines.iter().map(|l| l.groups).sum(), "parameter group", "parameter groups"),
        say::rate(low),
        say::rate(high)
    );
    let svg = drawing(WIDTH, HEIGHT, &words, |ground| {
        let (x, y) = (Axis::whole(run.length()), Axis::log((floor, high.log10() + 0.15)));
        let mut panel = Panel::new(ground, BOX, &x, &y, |p| phases(run, p))?;
        panel.title("Learning rate")?;
        panel.x_name("epochs")?;
        thaws(run, &panel)?;
        let n = lines.len();
        for (i, line) in lines.iter().enumerate() {
            let mut stretch = Vec::new();
            for (e, rate) in line.rates.iter().enumerate() {
                let value = rate.map(|r| ((e + 1) as f64, r.max(1e-300).log10().max(floor)));
                stretch.extend(value);
                let ends = value.is_none() || e + 1 == line.rates.len() || starts_phase(run, e + 1);
                if ends && !stretch.is_empty() {
                    // The rate is that of the epoch's last step; a stretch of one epoch is a short level line.
                    if let [(x, y)] = stretch[..] {
                        stretch.insert(0, (x - 1.0, y));
                    }
                    panel.line(&stretch, theme::ramp(i, n), 1.75)?;
                    stretch.clear();
                }
            }
        }
        // The head's rate matters most, then that of the input's end.
        let order = (0..n).rev().take(1).chain(0..n.saturating_sub(1));
        for i in order {
            let line = &lines[i];
            // All may end in one place, so names stand at the height of their lines.
            if let Some(peak) = line.last_peak(run) {
                panel.name_end(&line.name(), peak.log10().max(floor), theme::ramp(i, n))?;
            }
        }
        Ok(())
    })?;
    Ok(Some(svg))
}

fn starts_phase(run: &Run, epoch: usize) -> bool {
    run.phases.values().any(|p| p.first_epoch == epoch)
}

/// The groups in their order, each with the rates of all epochs.
fn lines(run: &Run) -> Vec<Line> {
    // The state in which the most groups are has the order of all of them.
    let mut names: Vec<&str> = Vec::new();
    let longest = run.epochs.values().max_by_key(|e| e.rates.len());
    for rate in longest.into_iter().chain(run.epochs.values()).flat_map(|e| &e.rates) {
        if !names.contains(&rate.group.as_str()) {
            names.push(&rate.group);
        }
    }
    let mut lines: Vec<Line> = Vec::new();
    for name in names {
        let rate =
            |e| run.epochs.get(&e).and_then(|e| e.rates.iter().find(|r| r.group == name)).map(|r| r.lr);
        let rates: Vec<_> = (0..run.length()).map(|e| rate(e).filter(|r| r.is_finite())).collect();
        match lines.last_mut() {
            Some(line) if line.rates == rates => {
                line.last = name.to_owned();
                line.groups += 1;
            }
            _ => lines.push(Line { first: name.to_owned(), last: name.to_owned(), groups: 1, rates }),
        }
    }
    lines
}
