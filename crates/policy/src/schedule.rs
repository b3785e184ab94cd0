//! Rates over time, as pure functions: a factor that every group's rate is multiplied by.

use std::f64::consts::PI;

use serde::{Deserialize, Deserializer, Serialize};

use crate::short::tagged;
use crate::{Metric, Mode};

/// What a schedule says of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Each group's rate is multiplied by this, so that ratios between groups stay.
    pub factor: f64,
    /// Momentum (Adam's first beta), where the schedule sets it.
    pub momentum: Option<f64>,
}

/// How rates move within a phase: `schedule = "cosine"` or `schedule = { kind = "step", every = 7, gamma = 0.1 }`.
///
/// Those that are given by epochs change between epochs; the others change with every batch.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// Factor 1 throughout.
    Constant {},
    /// `gamma^(epoch / every)`, the quotient cut to an integer (PyTorch's `StepLR`).
    Step {
        /// Epochs between steps.
        every: usize,
        /// Factor of a step.
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// `gamma` to the number of milestones reached (PyTorch's `MultiStepLR`, Goyal et al. 2017).
    MultiStep {
        /// Epochs from which the next step counts.
        at: Vec<usize>,
        /// Factor of a step.
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// `gamma^epoch` (PyTorch's `ExponentialLR`).
    Exponential {
        /// Factor from an epoch to the next.
        #[serde(default = "near_one")]
        gamma: f64,
    },
    /// `end + (1 - end) (1 - p)^power` (PyTorch's `PolynomialLR` with a floor).
    Polynomial {
        /// 1 is a straight line.
        #[serde(default = "one")]
        power: f64,
        /// Factor at the end.
        #[serde(default)]
        end: f64,
    },
    /// `end + (1 - end) (1 + cos πp) / 2` in each cycle (Loshchilov and Hutter 2017; fastai's `fit_sgdr`).
    Cosine {
        /// Factor at the end of each cycle.
        #[serde(default)]
        end: f64,
        /// Cycles in the phase; each starts at factor 1 again.
        #[serde(default = "one_cycle_only")]
        cycles: usize,
        /// Length of a cycle as a multiple of the one before.
        #[serde(default = "two")]
        mult: f64,
    },
    /// fastai's `fit_one_cycle` (after Smith 2018): cosine from `1/div` to 1 in the first `pct_start`, then cosine to
    /// `1/div_final`.
    OneCycle {
        /// What the rate is divided by at the start.
        #[serde(default = "div")]
        div: f64,
        /// What the greatest rate is divided by at the end.
        #[serde(default = "div_final")]
        div_final: f64,
        /// Part of the phase in which the rate rises.
        #[serde(default = "quarter")]
        pct_start: f64,
        /// Momentum at the start, the top and the end, cosine between them; left out: (0.95, 0.85, 0.95); `[]`: as the
        /// optimizer has it.
        #[serde(default = "moms")]
        momentum: Vec<f64>,
    },
    /// Factor 1 for the first `flat`, then cosine to `1/div_final` (fastai's `fit_flat_cos`).
    FlatCosine {
        /// Part of the phase before it falls.
        #[serde(default = "three_quarters")]
        flat: f64,
        /// What the rate is divided by at the end.
        #[serde(default = "div_final")]
        div_final: f64,
    },
    /// Falls when a metric no longer improves (Keras' `ReduceLROnPlateau`); the phase's
    /// [`Controller`](crate::Controller) decides, [`Schedule::at`] is 1.
    Plateau {
        /// What is watched.
        #[serde(default)]
        metric: Metric,
        /// Whether less or more of it is better.
        #[serde(default)]
        mode: Mode,
        /// Each fall multiplies rates by this.
        #[serde(default = "tenth")]
        factor: f64,
        /// Epochs without improvement that are waited for: rates fall after `patience` of them (Keras; PyTorch's
        /// scheduler of that name waits for one more).
        #[serde(default = "ten")]
        patience: usize,
        /// What counts as an improvement.
        #[serde(default = "keras_min_delta")]
        min_delta: f64,
        /// Epochs after a fall in which nothing is counted.
        #[serde(default)]
        cooldown: usize,
        /// The product of all falls is not less than this.
        #[serde(default)]
        min_factor: f64,
    },
    /// Factors by epoch: `[[0, 1.0], [10, 0.1], [20, 0.01]]` holds each from its epoch on (Lasagne's habit).
    Table {
        /// Epochs in rising order, each with its factor; 1 before the first.
        factors: Vec<(usize, f64)>,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant {}
    }
}

impl Schedule {
    /// One-cycle with fastai's defaults: div 25, div_final 1e5, pct_start 0.25, momentum 0.95, 0.85, 0.95.
    pub fn one_cycle() -> Self {
        Self::OneCycle { div: div(), div_final: div_final(), pct_start: quarter(), momentum: moms() }
    }

    /// One cosine to zero.
    pub const fn cosine() -> Self {
        Self::Cosine { end: 0.0, cycles: 1, mult: 2.0 }
    }

    /// The rate at `position` (0 to 1, batches done of all batches of the phase) in `epoch` (from 0, of the phase).
    pub fn at(&self, position: f64, epoch: usize) -> Rate {
        let p = position.clamp(0.0, 1.0);
        let factor = match self {
            Self::Constant {} | Self::Plateau { .. } => 1.0,
            Self::Step { every, gamma } => power(*gamma, epoch / (*every).max(1)),
            Self::MultiStep { at, gamma } => power(*gamma, at.iter().filter(|&&m| epoch >= m).count()),
            Self::Exponential { gamma } => power(*gamma, epoch),
            Self::Polynomial { power, end } => end + (1.0 - end) * (1.0 - p).powf(*power),
            Self::Cosine { end, cycles, mult } => cos(1.0, *end, within_cycle(p, *cycles, *mult)),
            Self::OneCycle { div, div_final, pct_start, momentum } => {
                let moved = |start: f64, top: f64, end: f64| combined(p, *pct_start, start, top, end);
                let momentum = match momentum[..] {
                    [start, top, end] => Some(moved(start, top, end)),
                    _ => None,
                };
                return Rate { factor: moved(1.0 / div, 1.0, 1.0 / div_final), momentum };
            }
            Self::FlatCosine { flat, div_final } => combined_from(p, *flat, 1.0, 1.0 / div_final),
            Self::Table { factors } => {
                factors.iter().rev().find(|(from, _)| epoch >= *from).map_or(1.0, |(_, factor)| *factor)
            }
        };
        Rate { factor, momentum: None }
    }
}

/// A rise in front of a schedule: the factor goes from `start` to 1 in a straight line, then the schedule begins.
///
/// Schedules given by epochs count their epochs from the phase's start; the others are spread over what is left.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Warmup {
    /// Epochs it takes; parts of epochs are allowed.
    pub epochs: f64,
    /// Factor at the start.
    pub start: f64,
}

impl Default for Warmup {
    /// One epoch from a hundredth.
    fn default() -> Self {
        Self { epochs: 1.0, start: 0.01 }
    }
}

impl Warmup {
    /// The rate of `schedule` with this in front, in a phase of `epochs` epochs.
    pub fn at(&self, schedule: &Schedule, position: f64, epoch: usize, epochs: usize) -> Rate {
        let part = self.epochs / epochs.max(1) as f64;
        if position < part {
            let first = schedule.at(0.0, epoch);
            let rise = self.start + (1.0 - self.start) * position / part;
            return Rate { factor: first.factor * rise, ..first };
        }
        schedule.at((position - part) / (1.0 - part).max(f64::EPSILON), epoch)
    }
}

pub(crate) fn schedule<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Schedule, D::Error> {
    tagged(deserializer, "constant")
}

/// fastai's `sched_cos`.
fn cos(start: f64, end: f64, p: f64) -> f64 {
    start + (1.0 + (PI * (1.0 - p)).cos()) * (end - start) / 2.0
}

/// fastai's `combined_cos`: cosine from `start` to `top` in the first `pct`, then to `end`.
fn combined(p: f64, pct: f64, start: f64, top: f64, end: f64) -> f64 {
    if p < pct { cos(start, top, p / pct) } else { combined_from(p, pct, top, end) }
}

fn combined_from(p: f64, pct: f64, top: f64, end: f64) -> f64 {
    if p < pct || pct >= 1.0 { top } else { cos(top, end, (p - pct) / (1.0 - pct)) }
}

/// Where in its cycle `p` is, for cycles each `mult` times as long as the one before.
fn within_cycle(p: f64, cycles: usize, mult: f64) -> f64 {
    let length = |i: usize| mult.powf(i as f64);
    let total: f64 = (0..cycles).map(length).sum();
    let mut left = p * total;
    for i in 0..cycles {
        // The phase's last moment is the end of the last cycle, every other boundary the start of the next.
        if left < length(i) || i + 1 == cycles {
            return (left / length(i)).min(1.0);
        }
        left -= length(i);
    }
    1.0
}

fn power(gamma: f64, times: usize) -> f64 {
    gamma.powf(times as f64)
}

const fn one() -> f64 {
    1.0
}

const fn two() -> f64 {
    2.0
}

const fn one_cycle_only() -> usize {
    1
}

const fn ten() -> usize {
    10
}

const fn tenth() -> f64 {
    0.1
}

const fn near_one() -> f64 {
    0.95
}

const fn quarter() -> f64 {
    0.25
}

const fn three_quarters() -> f64 {
    0.75
}

const fn div() -> f64 {
    25.0
}

const fn div_final() -> f64 {
    1e5
}

const fn keras_min_delta() -> f64 {
    1e-4
}

fn moms() -> Vec<f64> {
    vec![0.95, 0.85, 0.95]
}
