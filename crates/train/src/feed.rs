//! An epoch's batches on their way to the session: from the loader or the cache, a step's at a time, one step ahead.

use std::time::Instant;

use defrost_data::{Batch, Batches, NO_LABEL, TargetKind};
use defrost_exec::{Images, TrainBatch};
use defrost_tensor::PixelScale;

use crate::Result;
use crate::step::dropout_keys;
use crate::targets::{Rows, mix};
use crate::trainer::Trainer;

/// Where an epoch's batches come from.
enum Source {
    /// Images, and the number of the next batch.
    Pixels(Batches, usize),
    /// The cache: samples in their order, what is taken of them, and the view.
    Features { order: Vec<usize>, next: usize, batch: usize, view: usize },
}

/// An epoch's batches.
pub(crate) struct Feed {
    source: Source,
    /// The next step's, taken ahead of it, the first of them staged. What went wrong with it is that step's error.
    pub(crate) ahead: Option<Result<Parts>>,
    /// Seconds for which batches were waited for since somebody took this number.
    pub(crate) waited: f64,
}

/// The batches of a step, but empty ones.
pub(crate) struct Parts {
    pub(crate) parts: Vec<Part>,
    /// What rows of targets were divided by.
    pub(crate) divisor: f64,
}

/// A batch.
pub(crate) struct Part {
    pub(crate) n: usize,
    samples: Vec<usize>,
    pixels: Vec<u8>,
    features: Vec<f32>,
    rows: Rows,
    keys: Vec<f32>,
}

impl Part {
    /// As a session takes it.
    pub(crate) fn batch<'a>(&'a self, scale: &'a PixelScale) -> TrainBatch<'a> {
        let images = match self.features.is_empty() {
            true => Images::Pixels(&self.pixels, scale),
            false => Images::Features(&self.features),
        };
        let Rows { targets, weights, .. } = &self.rows;
        TrainBatch { n: self.n, images, targets, weights, keys: &self.keys }
    }
}

impl Trainer<'_> {
    /// The epoch's batches from the one with this number on.
    pub(crate) fn feed(&mut self, first: usize) -> Feed {
        Feed { source: self.source(first), ahead: None, waited: 0.0 }
    }

    fn source(&mut self, first: usize) -> Source {
        let epoch = self.state.global_epoch as u64;
        let early = self.early.take();
        let Some(cache) = &self.cache else {
            let early = early.and_then(|early| early.take(epoch, first));
            return Source::Pixels(early.unwrap_or_else(|| self.train.epoch_from(epoch, first)), first);
        };
        let batch = self.job.recipe.batch_size;
        let mut order = self.train.order(epoch);
        order.truncate(self.train.batches() * batch);
        let view = self.state.at.epoch % cache.views.len();
        Source::Features { order, next: first * batch, batch, view }
    }

    /// The next step's batches: `each` of them, fewer at the epoch's end.
    pub(crate) fn gather(&self, feed: &mut Feed, each: usize) -> Result<Parts> {
        let began = Instant::now();
        let (mut parts, mut divisor) = (Vec::with_capacity(each), 0.0);
        while parts.len() < each
            && let Some((part, weight)) = self.next(&mut feed.source)?
        {
            divisor += weight;
            parts.push(part);
        }
        feed.waited += began.elapsed().as_secs_f64();
        parts.retain(|part| part.n > 0);
        for part in &mut parts {
            part.rows.divide(divisor);
            part.keys = dropout_keys(self.job.recipe.seed, self.state.global_epoch, &part.samples);
        }
        Ok(Parts { parts, divisor })
    }

    /// The next batch, its rows of targets not yet divided, with what they are to be divided by.
    fn next(&self, source: &mut Source) -> Result<Option<(Part, f64)>> {
        let mut rows = Rows::default();
        let keys = Vec::new();
        Ok(Some(match source {
            Source::Pixels(batches, number) => {
                let Some(mut batch) = batches.next().transpose()? else { return Ok(None) };
                let key = (self.job.recipe.seed, self.state.global_epoch, *number);
                *number += 1;
                let divisor = self.targets.batch(&mut batch, &mix(&self.job.recipe), key, &mut rows)?;
                let Batch { n, samples, pixels, .. } = batch;
                (Part { n, samples, pixels, features: Vec::new(), rows, keys }, divisor)
            }
            Source::Features { order, next, batch, view } => {
                if *next >= order.len() {
                    return Ok(None);
                }
                let features = &self.cache.as_ref().expect("a source of features has a cache").views[*view];
                let samples = &order[*next..(*next + *batch).min(order.len())];
                *next += *batch;
                let data = &*self.job.train;
                let known =
                    |s: usize| data.kind() != TargetKind::Class || data.samples()[s].label != NO_LABEL;
                let samples: Vec<_> =
                    samples.iter().copied().filter(|&s| features.has(s) && known(s)).collect();
                let divisor = self.targets.samples(data, &samples, &mut rows);
                let features = features.gather(&samples);
                (Part { n: samples.len(), samples, pixels: Vec::new(), features, rows, keys }, divisor)
            }
        }))
    }
}
