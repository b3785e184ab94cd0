//! One epoch: its steps, its validation, and what ends it before its time.

use std::time::Instant;

use defrost_policy::{Decision, Metric, Metrics, Phase, Task};

use crate::cache;
use crate::checkpoint::Snapshot;
use crate::clock::measured_part;
use crate::evaluate::{cached_outputs, outputs};
use crate::feed::{Feed, Parts};
use crate::retention::Retained;
use crate::state::by_name;
use crate::step::{batches_a_step, clip, rates, rule, uses_up};
use crate::trainer::{Answers, Flow, Trainer};
use crate::{Epoch, Event, Outputs, Place, Result, Step, Stopped, TrainError, Validating};

impl Trainer<'_> {
    /// What is left of the epoch that the state stands in.
    pub(crate) fn epoch(&mut self, phase: &Phase) -> Result<Flow> {
        let each = batches_a_step(phase, self.job.recipe.batch_size);
        let steps = self.train.batches().div_ceil(each);
        if self.state.at.step < steps {
            let mut feed = self.feed(self.state.at.step * each);
            self.session.set_profiling(self.options.profile);
            while self.state.at.step < steps {
                self.step(phase, &mut feed, each, steps)?;
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
        // What is said of this epoch does not depend on how far the next one has come.
        let unreadable = self.train.failures();
        if !self.job.val.is_empty() {
            self.begin_next_early(phase);
        }
        let began = Instant::now();
        let due = self.is_due(phase);
        let outputs = if due && !self.job.val.is_empty() { self.measure()? } else { None };
        if outputs.is_none() && due && !self.job.val.is_empty() {
            return Ok(Flow::Stop);
        }
        let val_seconds = outputs.as_ref().map_or(0.0, |_| began.elapsed().as_secs_f64());
        self.tell_unreadable([unreadable, self.val.failures()].concat())?;
        let (loss, wanted) = (&self.job.recipe.loss, self.wanted(phase));
        let mut metrics = outputs.as_ref().map(|o| o.metrics(loss, &wanted)).unwrap_or_default();
        let (place, sums) = (self.state.at, self.state.sums);
        if let Some(loss) = metrics.get(Metric::Loss).filter(|l| !l.is_finite()) {
            return Err(self.not_finite(phase, "the validation loss", loss));
        }
        metrics.0.insert(Metric::TrainLoss, sums.mean_loss());
        let (epoch, marks) = (self.state.global_epoch, self.marks);
        let from_images = self.cache.is_none() || !self.infers_from_features;
        self.measured = outputs.filter(|_| from_images).map(|outputs| Answers { epoch, marks, outputs });
        let began = Instant::now();
        let Some(Retained { metrics: retained, params }) = self.retained()? else { return Ok(Flow::Stop) };
        let retention_seconds = began.elapsed().as_secs_f64();
        if due {
            let part = measured_part(self.job, phase);
            self.clock.validated(part * val_seconds + retention_seconds);
        }
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
        self.after_epoch(phase, epoch, (&metrics, due), params)?;
        Ok(Flow::Go)
    }

    /// One step of `each` batches.
    fn step(&mut self, phase: &Phase, feed: &mut Feed, each: usize, steps: usize) -> Result<()> {
        let began = Instant::now();
        let (place, pixels) = (self.state.at, &self.job.pixels);
        let ahead = feed.ahead.take();
        let staged = ahead.is_some();
        let Parts { parts, divisor } = ahead.unwrap_or_else(|| self.gather(feed, each))?;
        if let (false, Some(first)) = (staged, parts.first()) {
            self.session.stage(&first.batch(pixels))?;
        }
        let (mut loss, mut hits, mut images) = (0.0, 0, 0);
        let (factor, momentum) = self.factor(phase, place.epoch, place.step, steps);
        let (marking, groups) = phase.step(self.state.controller.step());
        let (rule, rates) = (rule(&phase.optimizer, momentum)?, rates(marking, groups, factor));
        // Whether the session steps parameters in the backward pass.
        let applies = self.options.plan.apply && uses_up(phase, self.job.recipe.batch_size)?;
        for (i, part) in parts.iter().enumerate() {
            self.session.start(rule, &rates)?;
            // What comes next goes to the device while it is at this.
            match parts.get(i + 1) {
                Some(next) => self.session.stage(&next.batch(pixels))?,
                None if place.step + 1 < steps => {
                    let next = self.gather(feed, each);
                    if let Some(first) = next.as_ref().ok().and_then(|next| next.parts.first()) {
                        self.session.stage(&first.batch(pixels))?;
                    }
                    feed.ahead = Some(next);
                }
                None => {}
            }
            let out = self.session.finish()?;
            loss += out.loss;
            hits += out.hits;
            images += part.n;
        }
        if !loss.is_finite() {
            return Err(self.not_finite(phase, "the loss", loss));
        }
        let mut grad_norm = None;
        if images > 0 && applies {
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

        let (seconds, waited) = (began.elapsed().as_secs_f64(), std::mem::take(&mut feed.waited));
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

    /// Whether the epoch is one after which the validation part is measured: by the recipe, or because it ends the phase.
    fn is_due(&self, phase: &Phase) -> bool {
        let epoch = self.state.at.epoch;
        let ends = || {
            let known = Metrics::from([(Metric::TrainLoss, self.state.sums.mean_loss())]);
            let decisions = self.state.controller.clone().after_epoch(phase, epoch, &known);
            decisions.iter().any(|d| matches!(d, Decision::Stop { .. }))
        };
        self.job.val.is_empty() || self.job.recipe.validation.is_due(epoch, phase.epochs) || ends()
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
