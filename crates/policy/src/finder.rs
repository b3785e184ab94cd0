//! The learning-rate finder: a sweep of rates, and four readings of its curve.
//!
//! Everything here is a pure function or a small state machine; who trains restores weights, optimizer, statistics and
//! random state afterwards, so that a sweep leaves no trace.

use serde::{Deserialize, Serialize};

/// A sweep: rates that grow by the same factor at every step, over batches of the training part (Smith 2017; fastai's
/// `lr_find`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Sweep {
    /// Rate of the first step.
    pub start: f64,
    /// Rate that the last step comes near to.
    pub end: f64,
    /// Steps, at least 6.
    pub steps: usize,
    /// Whether the sweep ends where the smoothed loss is more than [`Sweep::DIVERGED`] times its best.
    pub stop_div: bool,
    /// Which reading sets the phase's rates; left out: the curve is only drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply: Option<Suggestion>,
}

impl Default for Sweep {
    /// 1e-7 to 10 in 100 steps, stopped where the loss diverges, nothing applied (fastai).
    fn default() -> Self {
        Self { start: 1e-7, end: 10.0, steps: 100, stop_div: true, apply: None }
    }
}

impl Sweep {
    /// A smoothed loss of so many times the best one has diverged.
    pub const DIVERGED: f64 = 4.0;
    /// Smoothing of the loss.
    pub const BETA: f64 = 0.98;

    /// The rate of step `i` (from 0): `start (end/start)^(i/steps)` (fastai's `SchedExp`).
    ///
    /// It is the greatest group's rate. Others keep their ratio to it: group `g` runs at
    /// `lr(i) * g.lr / greatest.lr`.
    pub fn lr(&self, i: usize) -> f64 {
        self.start * (self.end / self.start).powf(i as f64 / self.steps.max(1) as f64)
    }
}

/// A point of a sweep.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Point {
    /// The greatest group's rate in the step.
    pub lr: f64,
    /// The loss after it, smoothed.
    pub loss: f64,
}

/// The curve of a sweep while it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    points: Vec<Point>,
    average: f64,
    best: f64,
}

impl Curve {
    /// All points so far.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The rate of the next step; `None` where the sweep is over.
    pub fn next_lr(&self, sweep: &Sweep) -> Option<f64> {
        let diverged = self.points.last().is_some_and(|p| !p.loss.is_finite())
            || (sweep.stop_div && self.points.last().is_some_and(|p| p.loss > Sweep::DIVERGED * self.best));
        (self.points.len() < sweep.steps.max(6) && !diverged).then(|| sweep.lr(self.points.len()))
    }

    /// Takes in the loss of the step that ran at [`Curve::next_lr`]: a debiased exponential mean (fastai's
    /// `AvgSmoothLoss`).
    pub fn push(&mut self, sweep: &Sweep, loss: f64) {
        let lr = sweep.lr(self.points.len());
        self.average = loss + Sweep::BETA * (self.average - loss);
        let n = self.points.len() as i32 + 1;
        let loss = self.average / (1.0 - Sweep::BETA.powi(n));
        if self.points.is_empty() || loss < self.best {
            self.best = loss;
        }
        self.points.push(Point { lr, loss });
    }

    /// What a reading suggests, from the points without the first tenth of the sweep's steps and the last five, up to the
    /// first that is no number (fastai). `None` where fewer than two are left or the reading finds nothing.
    pub fn suggest(&self, sweep: &Sweep, reading: Suggestion) -> Option<Suggested> {
        let end = self.points.len().saturating_sub(5);
        let points = self.points.get(sweep.steps.max(6) / 10..end)?;
        let finite = points.iter().position(|p| !p.loss.is_finite()).unwrap_or(points.len());
        reading.of(&points[..finite])
    }
}

/// A reading of the curve (fastai's `SuggestionMethod`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Suggestion {
    /// Two thirds down the longest valley: the longest falling subsequence of the losses.
    #[default]
    Valley,
    /// Where the loss falls fastest against the logarithm of the rate.
    Steep,
    /// A tenth of the rate with the least loss.
    Minimum,
    /// Left of the last stretch where the slope changes: a window slides from the end as long as the slopes at its two ends
    /// differ.
    Slide,
}

/// A rate that a reading suggests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suggested {
    /// The rate for the greatest group.
    pub lr: f64,
    /// The point of the curve that it was read from, to be marked in a plot.
    pub at: Point,
}

impl Suggestion {
    /// All readings.
    pub const ALL: [Self; 4] = [Self::Valley, Self::Steep, Self::Minimum, Self::Slide];

    /// The name as written in a recipe.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valley => "valley",
            Self::Steep => "steep",
            Self::Minimum => "minimum",
            Self::Slide => "slide",
        }
    }

    /// What it reads from these points, which are all of finite loss and rising rate.
    pub fn of(self, points: &[Point]) -> Option<Suggested> {
        if points.len() < 2 {
            return None;
        }
        match self {
            Self::Valley => valley(points),
            Self::Steep => steep(points),
            Self::Minimum => minimum(points),
            Self::Slide => slide(points),
        }
    }
}

fn at(point: Point) -> Option<Suggested> {
    Some(Suggested { lr: point.lr, at: point })
}

/// fastai's `valley`. Quadratic in the points, of which there are about a hundred.
fn valley(points: &[Point]) -> Option<Suggested> {
    let mut lengths = vec![1usize; points.len()];
    let (mut start, mut end) = (0i64, 0);
    for i in 1..points.len() {
        for j in 0..i {
            if points[i].loss < points[j].loss && lengths[i] < lengths[j] + 1 {
                lengths[i] = lengths[j] + 1;
            }
            if lengths[end] < lengths[i] {
                end = i;
                // -1 for a curve that falls from its first point on.
                start = end as i64 - lengths[end] as i64;
            }
        }
    }
    let section = (end as i64 - start) as f64 / 3.0;
    let index = start + section as i64 + (section / 2.0) as i64;
    // Python's negative index: two or three points that only fall.
    at(points[index.rem_euclid(points.len() as i64) as usize])
}

/// fastai's `steep`.
fn steep(points: &[Point]) -> Option<Suggested> {
    let slope = |p: &[Point]| (p[1].loss - p[0].loss) / (p[1].lr.ln() - p[0].lr.ln());
    at(points[first_least(points.windows(2).map(slope))?])
}

/// fastai's `minimum`.
fn minimum(points: &[Point]) -> Option<Suggested> {
    let least = points[first_least(points.iter().map(|p| p.loss))?];
    Some(Suggested { lr: least.lr / 10.0, at: least })
}

/// fastai's `slide`, with its window of 15 points and threshold of 0.005.
fn slide(points: &[Point]) -> Option<Suggested> {
    const WINDOW: usize = 15;
    const THRESHOLD: f64 = 0.005;
    let slope = gradient(points);
    let mut right = points.len() - 1;
    let mut left = right.checked_sub(WINDOW)?;
    let mut found = points[left];
    while (slope[right] - slope[left]).abs() > THRESHOLD {
        found = points[left];
        let Some(next) = left.checked_sub(1) else { break };
        left = next;
        right -= 1;
    }
    at(found)
}

/// `numpy.gradient` with unit spacing.
fn gradient(points: &[Point]) -> Vec<f64> {
    let last = points.len() - 1;
    let loss = |i: usize| points[i].loss;
    let slope = |i: usize| match i {
        0 => loss(1) - loss(0),
        i if i == last => loss(last) - loss(last - 1),
        i => (loss(i + 1) - loss(i - 1)) / 2.0,
    };
    (0..points.len()).map(slope).collect()
}

fn first_least(values: impl Iterator<Item = f64>) -> Option<usize> {
    let least = values.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
    least.map(|(i, _)| i)
}
