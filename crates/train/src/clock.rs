//! How long it will take: from the plan's operations and what the steps so far took.

use std::time::Instant;

use defrost_exec::{Options, Plan};
use defrost_plan::Purpose;
use defrost_policy::Phase;

use crate::cache::Cached;
use crate::{Job, Result, TrainError, device_loss};

/// What a phase costs, in floating-point operations: known before the run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Of one training step, the prefix left out where it is cached.
    pub step: f64,
    /// Of filling the cache.
    pub fill: f64,
    /// Of what an epoch is measured by, those that are not counted in.
    pub validation: f64,
    /// Steps an epoch.
    pub steps: usize,
    /// Epochs.
    pub epochs: usize,
}

impl Cost {
    /// Of the whole phase.
    pub fn total(&self) -> f64 {
        self.fill + self.epochs as f64 * self.epoch()
    }

    /// Of one epoch.
    pub fn epoch(&self) -> f64 {
        self.steps as f64 * self.step + self.validation
    }
}

/// What each phase of `job` costs, counted from its first marking.
///
/// # Errors
/// A phase that cannot be planned.
pub fn costs(job: &Job, options: Options) -> Result<Vec<Cost>> {
    let infer = 2.0 * job.graph.macs() as f64;
    let loss = device_loss(&job.recipe.loss)?;
    let cost = |phase: &Phase| {
        let batch = job.recipe.batch_size.min(job.train.len()).max(1);
        let plan = Plan::new(&job.graph, &phase.marking, batch, Purpose::Train(loss), options)
            .map_err(|e| TrainError::Exec(e.into()))?;
        let (forward, backward) = plan.flops();
        let whole = (forward + backward) as f64;
        let prefix = plan.prefix_flops() as f64;
        let views = Cached::of(job, &plan).0.map_or(0, |c| c.views);
        let images = job.train.len() as f64;
        let (n, suffix) = (batch as f64, (infer - prefix / batch as f64).max(0.0));
        let steps = job.train.len().div_ceil(batch);
        Ok(match views {
            0 => Cost {
                step: whole,
                fill: 0.0,
                validation: measured_part(job, phase) * infer * job.val.len() as f64,
                steps,
                epochs: phase.epochs,
            },
            views => Cost {
                step: whole - prefix,
                fill: (images * views as f64 + job.val.len() as f64) * prefix / n,
                validation: measured_part(job, phase) * suffix * job.val.len() as f64,
                steps,
                epochs: phase.epochs,
            },
        })
    };
    job.phases.iter().map(cost).collect()
}

/// The part of a phase's epochs after which the validation part is measured.
pub(crate) fn measured_part(job: &Job, phase: &Phase) -> f64 {
    job.recipe.validation.times(phase.epochs) as f64 / phase.epochs.max(1) as f64
}

/// Measures and foretells.
#[derive(Debug)]
pub(crate) struct Clock {
    costs: Vec<Cost>,
    /// Seconds an operation, from work that was dominated by operations.
    rate: Option<f64>,
    /// Seconds of a step in this phase.
    step: Option<f64>,
    /// Seconds that an epoch of this phase is measured for, those that are not counted in.
    validation: Option<f64>,
    /// When this part of the run began, and the seconds before it.
    began: Instant,
    before: f64,
}

impl Clock {
    pub(crate) fn new(costs: Vec<Cost>, before: f64) -> Self {
        Self { costs, rate: None, step: None, validation: None, began: Instant::now(), before }
    }

    /// Seconds of the run, those before an interruption included.
    pub(crate) fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    /// Whether a phase caches features before its first step.
    pub(crate) fn fills(&self, phase: usize) -> bool {
        self.costs.get(phase).is_some_and(|cost| cost.fill > 0.0)
    }

    pub(crate) fn phase_begins(&mut self) {
        (self.step, self.validation) = (None, None);
    }

    /// Takes in the seconds that filling the cache of `phase` took.
    pub(crate) fn filled(&mut self, phase: usize, seconds: f64) {
        if self.costs[phase].fill > 0.0 {
            self.rate = Some(seconds / self.costs[phase].fill);
        }
    }

    pub(crate) fn stepped(&mut self, phase: usize, seconds: f64) {
        // The first step also makes the plan's buffers; from the second on an average that forgets slowly.
        self.step = Some(match self.step {
            Some(average) => 0.9 * average + 0.1 * seconds,
            None => seconds,
        });
        let cost = self.costs[phase];
        if cost.fill == 0.0 && cost.step > 0.0 {
            self.rate = self.step.map(|s| s / cost.step);
        }
    }

    pub(crate) fn validated(&mut self, seconds: f64) {
        self.validation = Some(seconds);
    }

    /// Seconds to the end of the epoch and of the run, after `step` steps of `epoch` of `phase`.
    pub(crate) fn left(&self, phase: usize, epoch: usize, step: usize, steps: usize) -> (f64, f64) {
        let cost = self.costs[phase];
        let rate = self.rate.unwrap_or(0.0);
        let each = self.step.unwrap_or(cost.step * rate);
        let validation = self.validation.unwrap_or(cost.validation * rate);
        let in_epoch = steps.saturating_sub(step) as f64 * each + validation;
        let epochs = cost.epochs.saturating_sub(epoch + 1) as f64 * (steps as f64 * each + validation);
        let later: f64 = self.costs[phase + 1..].iter().map(|c| c.total() * rate).sum();
        (in_epoch, in_epoch + epochs + later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_steps_and_operations() {
        let cost = |step, fill| Cost { step, fill, validation: 10.0, steps: 10, epochs: 2 };
        let mut clock = Clock::new(vec![cost(100.0, 0.0), cost(300.0, 0.0)], 0.0);
        clock.stepped(0, 1.0);
        // Half an epoch, an epoch, and another phase of three times the work; a validation is a tenth of a step.
        let (epoch, run) = clock.left(0, 0, 5, 10);
        assert!((epoch - 5.1).abs() < 1e-9, "{epoch}");
        assert!((run - (5.1 + 10.1 + 2.0 * 30.1)).abs() < 1e-9, "{run}");
    }
}
