//! One epoch: its steps, its validation, and what ends it before its time.

use std::time::Instant;

use defrost_data::{Batch, Batches, NO_LABEL, TargetKind};
use defrost_exec::{Images, TrainBatch};
use defrost_policy::{Metric, Metrics, Phase, Task};

use crate::cache;
use crate::checkpoint::Snapshot;
use crate::evaluate::{cached_outputs, outputs};
use crate::state::by_name;
use crate::step::{batches_a_step, clip, dropout_keys, rates, rule, uses_up};
use crate::targets::{Rows, mix};
use crate::trainer::{Flow, Trainer};
use crate::{Epoch, Event, Outputs, Place, Result, Step, Stopped, TrainError, Validating};

/// Where an epoch's batches come from.
enum Source {
    /// Images, and the number of the next batch.
    Pixels(Batches, usize),
    /// The cache: samples in their order, what is taken of them, and the view.
    Features { order: Vec<usize>, next: usize, batch: usize, view: usize },
}

/// A batch on its way to the session.
struct Part {
    n: usize,
    samples: Vec<usize>,
    pixels: Vec<u8>,
    features: Vec<f32>,
    rows: Rows,
}

impl Trainer<'_> {
    /// What is left of the epoch that the state stands in.
    pub(crate) fn epoch(&mut self, phase: &Phase) -> Result<Flow> {
        let each = batches_a_step(phase, self.job.recipe.batch_size);
        let steps = self.train.batches().div_ceil(each);
        if self.state.at.step < steps {
            let mut source = self.source(self.state.at.step * each);
            self.session.set_profiling(self.options.profile);
            while self.state.at.step < steps {
                self.step(phase, &mut source, each, steps)?;
                if self.options.stopped() {
                    self.collect();
                    return Ok(Flow::Stop);
                }
                if self.options.save_every.is_some_and(|every| self.saved.elapsed() >= every) {
                    self.save()?;
                }
            }
            self.collect();
        }
        let began = Instant::now();
        let outputs = if self.job.val.is_empty() { None } else { self.measure()? };
        if outputs.is_none() && !self.job.val.is_empty() {
            return Ok(Flow::Stop);
        }
        let val_seconds = began.elapsed().as_secs_f64();
        self.tell_unreadable([self.train.failures(), self.val.failures()].concat())?;
        let (loss, wanted) = (&self.job.recipe.loss, self.wanted(phase));
        let mut metrics = outputs.as_ref().map(|o| o.metrics(loss, &wanted)).unwrap_or_default();
        let (place, sums) = (self.state.at, self.state.sums);
        if let Some(loss) = metrics.get(Metric::Loss).filter(|l| !l.is_finite()) {
            return Err(self.not_finite(phase, "the validation loss", loss));
        }
        metrics.0.insert(Metric::TrainLoss, sums.mean_loss());
        let began = Instant::now();
        let Some(retained) = self.retained()? else { return Ok(Flow::Stop) };
        let retention_seconds = began.elapsed().as_secs_f64();
        self.clock.validated(val_seconds + retention_seconds);
        let told = Metrics(metrics.0.clone().into_iter().filter(|(m, _)| !in_its_own_field(*m)).collect());
        let last = self.factor(phase, place.epoch, steps.saturating_sub(1), steps);
        let epoch = Epoch {
            phase: place.phase,
            epoch: place.epoch,
            global_epoch: self.state.global_epoch,
            train_loss: sums.mean_loss(),
            train_accuracy: (loss.task() != Task::Regression).then(|| sums.accuracy()),
            val_loss: metrics.get(Metric::Loss),
            val_accuracy: metrics.get(Metric::Accuracy),
            metrics: by_name(&told).into_iter().chain(retained).collect(),
            grad_norm: sums.mean_norm(),
            rates: self.group_rates(phase, last.0),
            seconds: sums.seconds + val_seconds + retention_seconds,
            val_seconds,
            retention_seconds,
            wait_seconds: sums.waited,
            images_per_second: sums.images as f64 / sums.seconds.max(1e-9),
            best: false,
        };
        self.after_epoch(phase, epoch, &metrics)?;
        Ok(Flow::Go)
    }

    /// The epoch's batches from the one with this number on.
    fn source(&self, first: usize) -> Source {
        let epoch = self.state.global_epoch as u64;
        let Some(cache) = &self.cache else {
            return Source::Pixels(self.train.epoch_from(epoch, first), first);
        };
        let batch = self.job.recipe.batch_size;
        let mut order = self.train.order(epoch);
        order.truncate(self.train.batches() * batch);
        let view = self.state.at.epoch % cache.views.len();
        Source::Features { order, next: first * batch, batch, view }
    }

    /// The next batch, its rows of targets not yet divided, with what they are to be divided by.
    fn next(&self, source: &mut Source) -> Result<Option<(Part, f64)>> {
        let mut rows = Rows::default();
        Ok(Some(match source {
            Source::Pixels(batches, number) => {
                let Some(mut batch) = batches.next().transpose()? else { return Ok(None) };
                let key = (self.job.recipe.seed, self.state.global_epoch, *number);
                *number += 1;
                let divisor = self.targets.batch(&mut batch, &mix(&self.job.recipe), key, &mut rows)?;
                let Batch { n, samples, pixels, .. } = batch;
                (Part { n, samples, pixels, features: Vec::new(), rows }, divisor)
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
                (Part { n: samples.len(), samples, pixels: Vec::new(), features, rows }, divisor)
            }
        }))
    }

    /// One step of `each` batches.
    fn step(&mut self, phase: &Phase, source: &mut Source, each: usize, steps: usize) -> Result<()> {
        let began = Instant::now();
        let place = self.state.at;
        let (mut parts, mut divisor) = (Vec::with_capacity(each), 0.0);
        while parts.len() < each
            && let Some((part, weight)) = self.next(source)?
        {
            divisor += weight;
            parts.push(part);
        }
        let waited = began.elapsed().as_secs_f64();
        let (mut loss, mut hits, mut images) = (0.0, 0, 0);
        let (factor, momentum) = self.factor(phase, place.epoch, place.step, steps);
        let (marking, groups) = phase.step(self.state.controller.step());
        let (rule, rates) = (rule(&phase.optimizer, momentum)?, rates(marking, groups, factor));
        let uses_up = uses_up(phase, self.job.recipe.batch_size)?;
        for mut part in parts.into_iter().filter(|p| p.n > 0) {
            part.rows.divide(divisor);
            let keys = dropout_keys(self.job.recipe.seed, self.state.global_epoch, &part.samples);
            let input = match part.features.is_empty() {
                true => Images::Pixels(&part.pixels, &self.job.pixels),
                false => Images::Features(&part.features),
            };
            let (targets, weights) = (&part.rows.targets, &part.rows.weights);
            let batch = TrainBatch { n: part.n, images: input, targets, weights, keys: &keys };
            let out = match uses_up {
                true => self.session.step(&batch, rule, &rates)?,
                false => self.session.forward_backward(&batch)?,
            };
            loss += out.loss;
            hits += out.hits;
            images += part.n;
        }
        if !loss.is_finite() {
            return Err(self.not_finite(phase, "the loss", loss));
        }
        let mut grad_norm = None;
        if images > 0 && uses_up {
            self.average(steps)?;
        } else if images > 0 {
            self.session.reduce()?;
            if let Some(limit) = phase.clip {
                let norm = self.session.clip(clip(limit)?)?;
                if !norm.is_finite() {
                    return Err(self.not_finite(phase, "the norm of the gradients", norm));
                }
                grad_norm = Some(norm);
            }
            self.session.apply(rule, &rates)?;
            self.average(steps)?;
        }

        let seconds = began.elapsed().as_secs_f64();
        if self.options.profile {
            self.profiler.step(images, seconds, waited);
        }
        let sums = &mut self.state.sums;
        sums.loss += loss * divisor;
        sums.weight += divisor;
        sums.hits += hits;
        sums.images += images;
        sums.seconds += seconds;
        sums.waited += waited;
        if let Some(norm) = grad_norm {
            (sums.norm, sums.norms) = (sums.norm + norm, sums.norms + 1);
        }
        let sums = *sums;
        self.state.smooth.push(loss);
        self.clock.stepped(place.phase, seconds);
        self.state.at.step += 1;
        let (epoch_left, run_left) = self.clock.left(place.phase, place.epoch, self.state.at.step, steps);
        self.emit(Event::Step(Step {
            phase: place.phase,
            epoch: place.epoch,
            global_epoch: self.state.global_epoch,
            step: self.state.at.step,
            steps,
            loss,
            mean_loss: sums.mean_loss(),
            hits: sums.hits,
            images: sums.images,
            seconds,
            waited,
            images_per_second: sums.images as f64 / sums.seconds.max(1e-9),
            grad_norm,
            epoch_left,
            run_left,
        }))?;
        match self.state.smooth.exploded(self.targets.guess()) {
            Some(before) => Err(self.exploded(phase, before, place)),
            None => Ok(()),
        }
    }

    /// Takes what kernels took into the phase's profile.
    fn collect(&mut self) {
        if self.options.profile {
            self.profiler.collect(&mut *self.session);
        }
    }

    /// What rates are multiplied by in a step, and the momentum where the schedule sets one.
    fn factor(&self, phase: &Phase, epoch: usize, step: usize, steps: usize) -> (f64, Option<f64>) {
        let position = (epoch * steps + step) as f64 / (phase.epochs * steps).max(1) as f64;
        let rate = phase.rate(position, epoch);
        (rate.factor * self.state.controller.factor() * self.state.lr_scale.unwrap_or(1.0), rate.momentum)
    }

    /// Takes the weights into their average.
    fn average(&mut self, steps: usize) -> Result<()> {
        let Some(rule) = self.job.recipe.ema else { return Ok(()) };
        let step = self.state.at.epoch * steps + self.state.at.step + 1;
        if step.is_multiple_of(rule.every.max(1)) {
            let new = (1.0 - rule.decay_at(self.state.ema_updates)) as f32;
            self.state.ema_updates += 1;
            self.session.average(new)?;
        }
        Ok(())
    }

    /// The network's answers to the validation part, from the average of the weights where there is one; `None` where
    /// it was stopped from outside.
    pub(crate) fn measure(&mut self) -> Result<Option<Outputs>> {
        self.session.swap_average();
        let outputs = self.measure_held();
        self.session.swap_average();
        outputs
    }

    /// The answers from the weights that the session holds now.
    fn measure_held(&mut self) -> Result<Option<Outputs>> {
        let batch = self.job.recipe.batch_size;
        if let Some(cache) = &self.cache
            && self.infers_from_features
        {
            // An average may differ from the frozen weights that the features were made with.
            let fits = self.job.recipe.ema.is_none() || {
                let params = self.session.params()?;
                let plan = self.session.plan(batch.min(self.job.train.len()))?;
                cache::key(self.job, plan, &params, cache.views.len()) == cache.key
            };
            if fits {
                match cached_outputs(&mut *self.session, &self.job.val, &cache.val, batch)? {
                    Some(outputs) => return Ok(Some(self.scaled(outputs))),
                    None => self.infers_from_features = false,
                }
            }
        }
        let (images, on_event, stop) = (self.job.val.len(), &mut self.options.on_event, self.options.stop);
        let mut progress = |done| {
            on_event(&Event::Validating(Validating { done, images }));
            !stop.is_some_and(|s| s.load(std::sync::atomic::Ordering::Relaxed))
        };
        let batches = self.val.epoch(0);
        let all = outputs(&mut *self.session, &self.job.val, batches, &self.job.pixels, &mut progress)?;
        Ok(all.map(|outputs| self.scaled(outputs)))
    }

    fn scaled(&self, outputs: Outputs) -> Outputs {
        Outputs { scale: self.targets.scale().cloned(), ..outputs }
    }

    /// The metrics that something watches.
    fn wanted(&self, phase: &Phase) -> Vec<Metric> {
        let thaw = phase.thaw.as_ref();
        let mut wanted = vec![self.job.recipe.monitor];
        wanted.extend(phase.early_stopping.as_ref().map(|r| r.metric));
        wanted.extend(thaw.and_then(|t| t.plateau.as_ref()).map(|p| p.metric));
        wanted.extend(thaw.and_then(|t| t.rollback.as_ref()).map(|r| r.metric));
        if let defrost_policy::Schedule::Plateau { metric, .. } = &phase.schedule {
            wanted.push(*metric);
        }
        wanted
    }

    /// An error for weights with a value that is no number, before they overwrite good ones.
    pub(crate) fn refuse_broken(&mut self, phase: &Phase, snapshot: &Snapshot) -> Result<()> {
        match snapshot.broken() {
            Some((name, value)) => Err(self.not_finite(phase, &format!("a value of `{name}`"), value)),
            None => Ok(()),
        }
    }

    fn not_finite(&mut self, phase: &Phase, what: &str, value: f64) -> TrainError {
        let (cause, kept) = (self.cause(phase), self.kept());
        let error = TrainError::NotFinite { what: what.into(), value, at: self.state.at, cause, kept };
        self.log_end(&error);
        error
    }

    fn exploded(&mut self, phase: &Phase, before: f64, at: Place) -> TrainError {
        let (now, cause, kept) = (self.state.smooth.value(), self.cause(phase), self.kept());
        let error = TrainError::Exploded { before, now, at, cause, kept };
        self.log_end(&error);
        error
    }

    /// A last line for whoever reads the metrics later; resuming takes it out again.
    fn log_end(&mut self, error: &TrainError) {
        let resume = self.run.path().display().to_string();
        let stopped = Stopped { reason: error.to_string(), at: self.state.at, resume };
        // The error itself is what matters: one while writing must not hide it.
        let _ = self.write_weights();
        let _ = self.emit(Event::Stopped(stopped));
    }

    /// What most likely broke the loss: from when it broke and from what the weights look like.
    fn cause(&self, phase: &Phase) -> String {
        let groups = phase.step(self.state.controller.step()).1;
        let highest = groups.iter().max_by(|a, b| a.lr.total_cmp(&b.lr));
        let rate = highest
            .map_or(0.0, |g| g.lr * self.state.controller.factor() * self.state.lr_scale.unwrap_or(1.0));
        let key = format!("phase.{}.lr", self.state.at.phase + 1);
        let first = (self.state.at, self.state.global_epoch) == (Place::default(), 0);
        let params = self.session.params();
        let broken = params.as_ref().ok().and_then(|p| p.iter().find(|(_, t)| !t.is_finite()));
        match broken {
            Some((name, _)) if first => {
                format!(
                    "`{name}` of the starting weights holds a value that is no number: take other weights"
                )
            }
            None if first => {
                "it was so before the first update, so it is not the rate: look at the preprocessing (does \
                              it belong to these weights?) and at the weights"
                    .into()
            }
            Some((name, _)) => format!(
                "`{name}` left the range of f32, most likely because the rate is too high (group `{}` has {rate:e}): \
                 lower it by `--set {key}={:e}`, or put a warm-up in front of it",
                highest.map_or("", |g| &g.name),
                rate / 10.0
            ),
            None => format!(
                "most likely the rate is too high (group `{}` has {rate:e}): lower it by `--set {key}={:e}`; or this batch \
                 has images unlike all others",
                highest.map_or("", |g| &g.name),
                rate / 10.0
            ),
        }
    }

    fn kept(&self) -> String {
        match &self.state.best {
            Some(best) => format!(
                "`best` (epoch {}) and everything to resume from are whole, in {}",
                best.global_epoch + 1,
                self.run.path().display()
            ),
            None => format!("nothing was overwritten in {}", self.run.path().display()),
        }
    }
}

/// Metrics that an epoch has fields of its own for.
const fn in_its_own_field(metric: Metric) -> bool {
    matches!(metric, Metric::Loss | Metric::Accuracy | Metric::TrainLoss)
}
