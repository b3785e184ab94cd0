//! What a run knows beside its weights: the part of the resume file that is JSON.

use std::collections::BTreeMap;

use defrost_graph::Graph;
use defrost_policy::{Controller, Data};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Aspect, Difference};
use crate::{Epoch, FORMAT, Job, Place};

/// Where a run stands. Together with the weights and the optimizer's state it decides everything that follows.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct State {
    /// The version of this format.
    pub format: u32,
    /// What is done.
    pub at: Place,
    /// Epochs done over all phases, ended early or not: the epoch part of every random key.
    pub global_epoch: usize,
    /// Sums over the epoch so far.
    pub sums: Sums,
    /// The decisions of the phase so far.
    pub controller: Controller,
    /// The best value of what a rollback of the phase goes by, with its epoch within the phase.
    pub thaw_best: Option<(usize, f64)>,
    /// What the learning-rate finder multiplies the phase's rates by, 1 without one; absent before it was decided.
    pub lr_scale: Option<f64>,
    /// The best epoch of the run.
    pub best: Option<Best>,
    /// Updates of the average of the weights.
    pub ema_updates: u64,
    /// The phase's losses, to notice an explosion.
    pub smooth: Smooth,
    /// Seconds of training before the last interruption.
    pub seconds: f64,
    /// All epochs done.
    pub history: Vec<Epoch>,
    /// The length that `metrics.jsonl` had.
    pub metrics_len: u64,
    /// What the run is a run of.
    pub fingerprint: Fingerprint,
}

impl State {
    pub(crate) fn new(fingerprint: Fingerprint) -> Self {
        Self {
            format: FORMAT,
            at: Place::default(),
            global_epoch: 0,
            sums: Sums::default(),
            controller: Controller::default(),
            thaw_best: None,
            lr_scale: None,
            best: None,
            ema_updates: 0,
            smooth: Smooth::default(),
            seconds: 0.0,
            history: Vec::new(),
            metrics_len: 0,
            fingerprint,
        }
    }
}

/// Sums over the steps of an epoch, in their order.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Sums {
    /// Losses times what they were divided by.
    pub loss: f64,
    /// What the losses were divided by: images, or the sum of their class weights.
    pub weight: f64,
    /// Images whose most likely class was right.
    pub hits: usize,
    /// Images.
    pub images: usize,
    /// Seconds.
    pub seconds: f64,
    /// Those of them that steps waited for their images.
    #[serde(default)]
    pub waited: f64,
    /// Norms of the gradients before clipping, where something is clipped.
    #[serde(default)]
    pub norm: f64,
    /// How many norms these are.
    #[serde(default)]
    pub norms: usize,
}

impl Sums {
    /// The mean loss so far.
    pub fn mean_loss(&self) -> f64 {
        if self.weight > 0.0 { self.loss / self.weight } else { 0.0 }
    }

    /// The mean norm of the gradients before clipping.
    pub fn mean_norm(&self) -> Option<f64> {
        (self.norms > 0).then(|| self.norm / self.norms as f64)
    }

    /// Part of the images that were hits.
    pub fn accuracy(&self) -> f64 {
        self.hits as f64 / self.images.max(1) as f64
    }
}

/// The best epoch of a run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Best {
    /// The phase, from 0.
    pub phase: usize,
    /// The epoch, from 0 over all phases.
    pub global_epoch: usize,
    /// The value of the metric that is monitored.
    pub value: f64,
    /// The validation loss.
    pub loss: Option<f64>,
    /// The validation accuracy.
    pub accuracy: Option<f64>,
}

/// Losses smoothed over steps: an exponential average with decay 0.9 and its bias taken out.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Smooth {
    average: f64,
    steps: u64,
    start: Option<f64>,
}

impl Smooth {
    const DECAY: f64 = 0.9;
    /// Steps after which the average counts as the phase's start.
    const START: u64 = 10;

    /// Takes in the loss of a step.
    pub fn push(&mut self, loss: f64) {
        self.average = Self::DECAY * self.average + (1.0 - Self::DECAY) * loss;
        self.steps += 1;
        if self.steps == Self::START {
            self.start = Some(self.value());
        }
    }

    /// The smoothed loss.
    pub fn value(&self) -> f64 {
        self.average / (1.0 - Self::DECAY.powf(self.steps as f64)).max(f64::MIN_POSITIVE)
    }

    /// The smoothed loss at the phase's start, if it is now beyond what can be called a bad patch: 20 times the start
    /// or the loss of guessing (`guess`, see [`Targets::guess`](crate::Targets::guess)), whichever is greater.
    pub fn exploded(&self, guess: f64) -> Option<f64> {
        self.start.filter(|start| self.value() > 20.0 * start.max(guess).max(0.05))
    }
}

/// What a run is a run of: compared on resuming.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Fingerprint {
    /// The architecture's name.
    pub model: String,
    /// A hash over the names and shapes of all parameters.
    pub params: String,
    /// The classes' names.
    pub classes: Vec<String>,
    /// The training part's hash.
    pub train: String,
    /// The validation part's hash.
    pub val: String,
    /// A hash over the recipe, its name and description left out, and `recompute`, `retention` and where features are cached.
    pub recipe: String,
    /// How pixels become the network's input.
    pub preprocess: String,
}

impl Fingerprint {
    pub(crate) fn of(job: &Job) -> Self {
        let mut recipe = job.recipe.clone();
        (recipe.name, recipe.about) = (String::new(), String::new());
        // These change no bit of what is trained.
        (recipe.recompute, recipe.retention) = Default::default();
        let cache = Data::default();
        (recipe.data.cache_memory, recipe.data.cache_file) = (cache.cache_memory, cache.cache_file);
        recipe.data.cache_folder = None;
        Self {
            model: job.graph.name().to_owned(),
            params: params(&job.graph),
            classes: job.train.classes().to_vec(),
            train: job.train.fingerprint(),
            val: job.val.fingerprint(),
            recipe: hash([serde_json::to_string(&recipe).unwrap_or_default().as_bytes()]),
            preprocess: brief(format!("{} {:?} {:?}", job.preprocess, job.pixels, job.eval)),
        }
    }

    /// In what `now` differs from this, the interrupted run's.
    pub fn differences(&self, now: &Self) -> Vec<Difference> {
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        let mut all = Vec::new();
        let mut compare = |what, same: bool, before: String, now: String| {
            if !same {
                all.push(Difference { what, before, now });
            }
        };
        compare(Aspect::Model, self.model == now.model, self.model.clone(), now.model.clone());
        let same = self.params == now.params || self.model != now.model;
        let shapes = |f: &Self| format!("of parameters {}", short(&f.params));
        compare(Aspect::Model, same, shapes(self), shapes(now));
        let same = self.classes == now.classes;
        compare(
            Aspect::Classes,
            same,
            named(&self.classes, &now.classes),
            named(&now.classes, &self.classes),
        );
        let same = (&self.train, &self.val) == (&now.train, &now.val) || self.classes != now.classes;
        let data = |f: &Self| format!("{} / {}", short(&f.train), short(&f.val));
        compare(Aspect::Data, same, data(self), data(now));
        compare(Aspect::Recipe, self.recipe == now.recipe, short(&self.recipe), short(&now.recipe));
        let same = self.preprocess == now.preprocess;
        compare(Aspect::Preprocessing, same, self.preprocess.clone(), now.preprocess.clone());
        all
    }
}

/// A text that a person may be shown: of one with a mean image in it, its beginning and a hash.
fn brief(text: String) -> String {
    let start: String = text.chars().take(200).collect();
    if text.len() < 4096 { text } else { format!("{start}… ({})", hash([text.as_bytes()])) }
}

/// How many classes there are, and those that the others do not have.
fn named(these: &[String], others: &[String]) -> String {
    let mine: Vec<_> = these.iter().filter(|c| !others.contains(c)).take(5).cloned().collect();
    match mine.is_empty() {
        true => format!("{} classes ({}, …)", these.len(), these.first().map_or("", String::as_str)),
        false => format!("{} classes ({} among them)", these.len(), mine.join(", ")),
    }
}

fn params(graph: &Graph) -> String {
    let rows: Vec<_> = graph.params().iter().map(|p| format!("{} {:?}\n", p.name, p.shape)).collect();
    hash(rows.iter().map(String::as_bytes))
}

/// SHA-256 over several pieces, in hexadecimal digits.
pub(crate) fn hash<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update((piece.len() as u64).to_le_bytes());
        hash.update(piece);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Metrics by the name they have in a recipe.
pub(crate) fn by_name(metrics: &defrost_policy::Metrics) -> BTreeMap<String, f64> {
    metrics.0.iter().map(|(m, v)| (m.name().to_owned(), *v)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explosion_is_told_from_a_bad_patch() {
        let mut smooth = Smooth::default();
        (0..10).for_each(|_| smooth.push(2.0));
        assert!((smooth.value() - 2.0).abs() < 1e-12);
        (0..20).for_each(|_| smooth.push(20.0));
        assert_eq!(smooth.exploded(3.4), None, "six times chance is bad but no explosion");
        (0..20).for_each(|_| smooth.push(200.0));
        assert!(smooth.exploded(3.4).is_some());
    }

    #[test]
    fn the_state_reads_back_to_the_last_bit() {
        let mut state = State::new(Fingerprint { model: "m".into(), ..Fingerprint::default() });
        state.sums.loss = 0.1 + 0.2;
        state.seconds = 1.0 / 3.0;
        for i in 0..1000 {
            state.sums.loss += 1.0 / (f64::from(i) + 0.7);
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        }
    }
}
