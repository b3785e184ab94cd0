//! What happens between epochs: thaws, rollbacks, falls of the rate, the end of a phase.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::thaw::Decision;
use crate::{Metric, Metrics, Mode, Phase, Schedule, Stopper, Verdict};

/// The state of a phase's decisions. It is all that a checkpoint needs of them: saved and read back it goes on as if never
/// interrupted, because everything else ([`Phase`]) comes from resolving the same recipe.
///
/// Call [`Controller::after_epoch`] once after every epoch and carry out what it says, in order.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Controller {
    step: usize,
    factor: f64,
    stopper: Stopper,
    thaw: Watch,
    plateau: Watch,
    /// Epoch (finished ones) at which the last thaw happened.
    thawed_at: usize,
    /// The best value of what a rollback watches, with its epoch.
    best: Option<(usize, f64)>,
    /// The best before the last thaw, as long as the thaw has not proved itself.
    trial: Option<(usize, f64)>,
    /// Whether a rollback ended all thawing.
    closed: bool,
    cooldown: usize,
}

/// Waiting for an improvement.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Watch {
    best: Option<(usize, f64)>,
    waited: usize,
}

impl Watch {
    /// Epochs without improvement after this value.
    fn observe(&mut self, metric: Metric, mode: Mode, min_delta: f64, epoch: usize, value: f64) -> usize {
        if self.best.is_none_or(|(_, best)| mode.improves(metric, value, best, min_delta)) {
            *self = Self { best: Some((epoch, value)), waited: 0 };
        } else {
            self.waited += 1;
        }
        self.waited
    }
}

impl Default for Controller {
    /// The state at a phase's start.
    fn default() -> Self {
        Self {
            step: 0,
            factor: 1.0,
            stopper: Stopper::default(),
            thaw: Watch::default(),
            plateau: Watch::default(),
            thawed_at: 0,
            best: None,
            trial: None,
            closed: false,
            cooldown: 0,
        }
    }
}

impl Controller {
    /// The step that holds now; [`Phase::step`] has its marking and groups.
    pub const fn step(&self) -> usize {
        self.step
    }

    /// What all rates are multiplied by beside the schedule's factor: the falls of [`Schedule::Plateau`] so far.
    pub const fn factor(&self) -> f64 {
        self.factor
    }

    /// The best epoch (from 0, of the phase) by the metric of early stopping, and its value.
    pub const fn best(&self) -> Option<(usize, f64)> {
        self.stopper.best()
    }

    /// The epochs (from 0, of the phase) whose weights a later decision may ask for; those of other epochs need not be kept.
    pub fn restorable(&self) -> BTreeSet<usize> {
        [self.best, self.trial, self.stopper.best()].into_iter().flatten().map(|(epoch, _)| epoch).collect()
    }

    /// What follows from the metrics of `epoch` (from 0, of `phase`). Nothing is decided after a phase's last epoch but
    /// which weights it ends with.
    pub fn after_epoch(&mut self, phase: &Phase, epoch: usize, metrics: &Metrics) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let last = epoch + 1 >= phase.epochs;
        let watched = self.watch_rollback(phase, epoch, metrics);
        if !last {
            self.roll_back(phase, epoch, watched, &mut decisions);
            if decisions.is_empty() {
                self.thaw(phase, epoch, metrics, &mut decisions);
            }
            self.fall(phase, epoch, metrics, &mut decisions);
        }
        self.stop(phase, epoch, metrics, last, &mut decisions);
        decisions
    }

    /// Takes in what a rollback (or a restore before a thaw) goes by.
    fn watch_rollback(&mut self, phase: &Phase, epoch: usize, metrics: &Metrics) -> Option<f64> {
        let thaw = phase.thaw.as_ref()?;
        let (metric, mode) = match (&thaw.rollback, &thaw.plateau) {
            (Some(r), _) => (r.metric, r.mode),
            (None, Some(p)) => (p.metric, p.mode),
            (None, None) => (Metric::Loss, Mode::Auto),
        };
        let value = metrics.get(metric).filter(|v| v.is_finite())?;
        if self.best.is_none_or(|(_, best)| mode.improves(metric, value, best, 0.0)) {
            self.best = Some((epoch, value));
        }
        Some(value)
    }

    fn roll_back(&mut self, phase: &Phase, epoch: usize, value: Option<f64>, decisions: &mut Vec<Decision>) {
        let Some(rollback) = phase.thaw.as_ref().and_then(|t| t.rollback.as_ref()) else { return };
        let (Some((best_epoch, best)), Some(value)) = (self.trial, value) else { return };
        let metric = rollback.metric;
        // Not worse than before by more than the tolerance: the thaw has proved itself.
        if !rollback.mode.improves(metric, best, value, rollback.tolerance) {
            self.trial = None;
            return;
        }
        let given = epoch + 1 - self.thawed_at;
        if given < rollback.patience {
            return;
        }
        let part = phase.thaws.get(self.step - 1).map_or("", |s| s.name.as_str());
        let reason = format!(
            "thawing {part} made {metric} worse: {value:.4} after {given} epochs, {best:.4} before (epoch {})",
            best_epoch + 1
        );
        self.step -= 1;
        self.trial = None;
        self.closed = true;
        decisions.push(Decision::Restore { epoch: best_epoch, reason: reason.clone() });
        decisions.push(Decision::Step { step: self.step, reason });
    }

    fn thaw(&mut self, phase: &Phase, epoch: usize, metrics: &Metrics, decisions: &mut Vec<Decision>) {
        let Some(thaw) = &phase.thaw else { return };
        let waited = thaw.plateau.as_ref().and_then(|p| {
            let value = metrics.get(p.metric).filter(|v| v.is_finite())?;
            Some((p, self.thaw.observe(p.metric, p.mode, p.min_delta, epoch, value)))
        });
        let Some(next) = phase.thaws.get(self.step) else { return };
        if self.closed {
            return;
        }
        let done = epoch + 1;
        let why = if thaw.at.contains(&done) {
            format!("epoch {done} is over")
        } else if thaw.every > 0 && done - self.thawed_at >= thaw.every {
            format!("{} epochs have passed", done - self.thawed_at)
        } else {
            match waited {
                Some((plateau, waited)) if waited >= plateau.patience => {
                    format!("{} has not improved for {waited} epochs", plateau.metric)
                }
                _ => return,
            }
        };
        if let Some((best_epoch, best)) = self.best.filter(|(e, _)| thaw.restore_best && *e != epoch) {
            let reason = format!(
                "the best weights ({best:.4}, epoch {}) are the start of the next thaw",
                best_epoch + 1
            );
            decisions.push(Decision::Restore { epoch: best_epoch, reason });
        }
        self.step += 1;
        self.thawed_at = done;
        self.thaw.waited = 0;
        self.trial = self.best;
        let mut reason = format!("{} thaws: {why}", next.name);
        if thaw.lr_factor != 1.0 {
            reason += &format!("; rates x {}", thaw.lr_factor);
        }
        decisions.push(Decision::Step { step: self.step, reason });
    }

    /// Keras' `ReduceLROnPlateau`, line by line.
    fn fall(&mut self, phase: &Phase, epoch: usize, metrics: &Metrics, decisions: &mut Vec<Decision>) {
        let Schedule::Plateau { metric, mode, factor, patience, min_delta, cooldown, min_factor } =
            &phase.schedule
        else {
            return;
        };
        let Some(value) = metrics.get(*metric).filter(|v| v.is_finite()) else { return };
        if self.cooldown > 0 {
            self.cooldown -= 1;
            self.plateau.waited = 0;
        }
        let waited = self.plateau.observe(*metric, *mode, *min_delta, epoch, value);
        if self.cooldown > 0 {
            self.plateau.waited = 0;
            return;
        }
        let lower = (self.factor * factor).max(*min_factor);
        if waited >= (*patience).max(1) && lower < self.factor * (1.0 - 1e-9) {
            self.factor = lower;
            self.cooldown = *cooldown;
            self.plateau.waited = 0;
            let reason = format!("{metric} has not improved for {waited} epochs; rates x {lower}");
            decisions.push(Decision::Factor { factor: lower, reason });
        }
    }

    fn stop(
        &mut self,
        phase: &Phase,
        epoch: usize,
        metrics: &Metrics,
        last: bool,
        decisions: &mut Vec<Decision>,
    ) {
        let Some(rule) = &phase.early_stopping else { return };
        let Some(value) = metrics.get(rule.metric) else { return };
        // What a thaw or a rollback has just changed is given a chance of its own.
        let changed = decisions.iter().any(|d| matches!(d, Decision::Step { .. }));
        let verdict = self.stopper.observe(rule, epoch, value);
        if changed {
            self.stopper.wait_anew();
        }
        let reason = match verdict {
            Verdict::Stop { reason } if !changed || !value.is_finite() => Some(reason),
            _ => None,
        };
        if reason.is_none() && !last {
            return;
        }
        if let Some((best, value)) = self.stopper.best().filter(|(e, _)| rule.restore_best && *e != epoch) {
            let reason = format!(
                "the phase ends with its best weights ({} {value:.4}, epoch {})",
                rule.metric,
                best + 1
            );
            decisions.push(Decision::Restore { epoch: best, reason });
        }
        decisions.extend(reason.map(|reason| Decision::Stop { reason }));
    }
}
