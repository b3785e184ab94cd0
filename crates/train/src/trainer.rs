//! The run: phases, what happens between epochs, saving and going on.

use std::sync::Arc;
use std::time::Instant;

use defrost_augment::Pipeline;
use defrost_data::{Loader, LoaderOptions, Sampling};
use defrost_exec::{Engine, Plan, Session};
use defrost_graph::{Graph, Loss, Marking, ParamStore};
use defrost_plan::{PlanError, Purpose};
use defrost_policy::{Controller, Metric, Phase, Start as From};

use crate::between::epoch_name;
use crate::cache::{self, Cache, Features};
use crate::checkpoint::Snapshot;
use crate::clock::{Clock, costs};
use crate::save::Unsaved;
use crate::state::{Fingerprint, State};
use crate::step::{batches_a_step, rule};
use crate::targets::{Targets, mix};
use crate::{
    About, Caching, Decision as Decided, Done, Ending, Event, GroupRate, Job, LrFind, LrSuggestion, Options,
    Outcome, PhaseStart, Place, Result, Run, StageState, Start, Stopped, Thaw, TrainError,
};

/// Trains `job` from its start, writing everything into `run`.
///
/// # Errors
/// See [`TrainError`]. Whatever went wrong, the run's files are whole, and unless it says otherwise the run can be
/// resumed from where it last saved.
pub fn fit(engine: &dyn Engine, job: &Job, run: &mut Run, options: Options<'_>) -> Result<Outcome> {
    let state = State::new(Fingerprint::of(job));
    let snapshot = Snapshot {
        params: job.params.clone(),
        optimizer: Vec::new(),
        ema: job.recipe.ema.map(|_| job.params.clone()),
    };
    Trainer::new(engine, job, run, options, snapshot, state)?.train(None)
}

/// Goes on with the run in `run` from where it last saved: the same bits as if it had never been interrupted.
///
/// # Errors
/// [`TrainError::Different`] where `job` is not the one that was interrupted, [`TrainError::Finished`], and as [`fit`].
pub fn resume(engine: &dyn Engine, job: &Job, run: &mut Run, options: Options<'_>) -> Result<Outcome> {
    // What the run is a run of is compared before its weights are: the better message.
    let before = run.folder().state()?;
    let now = Fingerprint::of(job);
    let mut differences = before.fingerprint.differences(&now);
    differences.retain(|d| d.what.flag().is_none() || !options.accept.contains(&d.what));
    if !differences.is_empty() {
        return Err(TrainError::Different(differences));
    }
    let (mut snapshot, mut state) = run.read_resume(&job.graph)?;
    if state.at.phase >= job.phases.len() && (job.val.is_empty() || run.folder().validation_path().exists()) {
        return Err(TrainError::Finished { path: run.path().to_owned(), epochs: state.global_epoch });
    }
    if job.recipe.ema.is_none() {
        snapshot.ema = None;
    } else if snapshot.ema.is_none() {
        snapshot.ema = Some(snapshot.params.clone());
    }
    run.rewind_metrics(state.metrics_len)?;
    state.fingerprint = now;
    let at = state.at;
    Trainer::new(engine, job, run, options, snapshot, state)?.train(Some(at))
}

/// What a part of a run came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flow {
    /// On to the next.
    Go,
    /// Stopped from outside; everything is in the state.
    Stop,
}

pub(crate) struct Trainer<'a> {
    pub(crate) job: &'a Job,
    pub(crate) run: &'a mut Run,
    pub(crate) options: Options<'a>,
    pub(crate) session: Box<dyn Session>,
    pub(crate) device: String,
    pub(crate) state: State,
    pub(crate) targets: Targets,
    /// Shuffled, augmented.
    pub(crate) train: Loader,
    /// In order, transformed for evaluation.
    pub(crate) val: Loader,
    pub(crate) ema: Option<ParamStore>,
    pub(crate) cache: Option<Cache>,
    /// Whether the session infers from features; known after the first try.
    pub(crate) infers_from_features: bool,
    pub(crate) clock: Clock,
    pub(crate) unsaved: Unsaved,
    pub(crate) saved: Instant,
}

impl<'a> Trainer<'a> {
    fn new(
        engine: &dyn Engine,
        job: &'a Job,
        run: &'a mut Run,
        options: Options<'a>,
        snapshot: Snapshot,
        state: State,
    ) -> Result<Self> {
        check(job)?;
        let mut session = engine.open(Arc::clone(&job.graph), &snapshot.params)?;
        session.set_optimizer(&snapshot.optimizer)?;
        let recipe = &job.recipe;
        let sampling = if recipe.data.balance { Sampling::Balanced } else { Sampling::Shuffled };
        let drop_last = recipe.data.drop_last && job.train.len() >= recipe.batch_size;
        let shuffled = LoaderOptions { sampling, drop_last, ..loader_options(job, &options) };
        let clock = Clock::new(costs(job, options.plan, options.feature_cache)?, state.seconds);
        let mut trainer = Self {
            train: Loader::new(Arc::clone(&job.train), recipe.augment.train.clone(), shuffled.clone())?,
            val: Loader::new(Arc::clone(&job.val), job.eval.clone(), in_order(job, &options))?,
            targets: Targets::new(&recipe.loss, &job.train)?,
            device: engine.device(),
            job,
            run,
            options,
            session,
            state,
            ema: snapshot.ema,
            cache: None,
            infers_from_features: true,
            clock,
            unsaved: Unsaved::default(),
            saved: Instant::now(),
        };
        trainer.refuse_lonely_images(shuffled)?;
        Ok(trainer)
    }

    /// Plans every phase and thaw for whole batches, so that what cannot run is refused before anything runs, and for the
    /// last batch of an epoch: one that is too small for batch statistics is left out.
    fn refuse_lonely_images(&mut self, options: LoaderOptions) -> Result<()> {
        let (images, batch) = (self.job.train.len(), self.job.recipe.batch_size);
        let rest = images % batch;
        let plan = |marking: &Marking, n: usize| {
            let purpose = Purpose::Train(Loss::CrossEntropy);
            Plan::new(&self.job.graph, marking, n, purpose, self.options.plan).map(|_| ())
        };
        let mut lonely = None;
        for phase in &self.job.phases {
            for step in 0..phase.steps() {
                let marking = phase.step(step).0;
                plan(marking, batch.min(images)).map_err(|e| TrainError::Exec(e.into()))?;
                if rest > 0 && images > batch && !options.drop_last {
                    match plan(marking, rest) {
                        Err(e @ PlanError::OneValue { .. }) => lonely = Some(e),
                        other => other.map_err(|e| TrainError::Exec(e.into()))?,
                    }
                }
            }
        }
        if let Some(e) = lonely {
            let message = format!("the last batch of each epoch, of {rest}, is left out: {e}");
            self.emit(Event::Warning { message })?;
            let options = LoaderOptions { drop_last: true, ..options };
            let pipeline = self.job.recipe.augment.train.clone();
            self.train = Loader::new(Arc::clone(&self.job.train), pipeline, options)?;
        }
        Ok(())
    }

    /// All phases from where the state stands.
    fn train(mut self, resumed: Option<Place>) -> Result<Outcome> {
        let job = self.job;
        self.emit(Event::Start(Start {
            format: crate::FORMAT,
            model: job.graph.name().to_owned(),
            device: self.device.clone(),
            seed: job.recipe.seed,
            classes: job.graph.classes(),
            train_images: job.train.len(),
            val_images: job.val.len(),
            batch: job.recipe.batch_size,
            steps: self.train.batches(),
            phases: job.phases.len(),
            epochs: job.epochs(),
            resumed,
        }))?;
        if resumed.is_none() {
            for message in job.phases.iter().flat_map(|p| &p.warnings) {
                self.emit(Event::Warning { message: message.clone() })?;
            }
            self.save()?;
        }
        while let Some(phase) = job.phases.get(self.state.at.phase) {
            if self.phase(phase)? == Flow::Stop {
                return self.stopped();
            }
        }
        self.finish()
    }

    /// One phase, from where the state stands.
    fn phase(&mut self, phase: &Phase) -> Result<Flow> {
        let fresh = (self.state.at.epoch, self.state.at.step) == (0, 0);
        if fresh {
            self.start_from(phase)?;
        }
        self.mark(phase)?;
        if self.find_lr(phase)? == Flow::Stop || self.announce(phase)? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        let index = self.state.at.phase;
        while self.state.at.phase == index {
            if self.options.stopped() || self.epoch(phase)? == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::Go)
    }

    /// The weights and the optimizer's state that a phase begins with.
    fn start_from(&mut self, phase: &Phase) -> Result<()> {
        let name = match &phase.start {
            From::Last => None,
            From::Best { before: 0 } => Some("best".to_owned()),
            From::Best { before } => {
                let best = self.state.best.as_ref().map_or(0, |b| b.global_epoch);
                Some(epoch_name(best.saturating_sub(*before)))
            }
            From::Named(name) => Some(name.clone()),
            _ => return Err(unsupported("the start of a phase", "this version does not know it")),
        };
        // The weights of no epoch are worse than none: a phase that comes first starts where the run does.
        if let Some(name) = name.filter(|n| n != "best" || self.state.best.is_some()) {
            let (params, _) = self.run.folder().load(&name, &self.job.graph)?;
            self.session.set_params(&params)?;
            self.ema = self.ema.as_ref().map(|_| params);
            self.decide(format!("start from checkpoint `{name}`"), "the recipe says so".into())?;
        }
        let before = self.state.at.phase.checked_sub(1).map(|i| &self.job.phases[i].optimizer);
        if !phase.keep_state || before.is_none_or(|b| b.name() != phase.optimizer.name()) {
            self.session.set_optimizer(&[])?;
        }
        self.state.controller = Controller::default();
        self.state.thaw_best = None;
        self.state.lr_scale = None;
        self.state.smooth = Default::default();
        Ok(())
    }

    /// Tells the session what trains now.
    pub(crate) fn mark(&mut self, phase: &Phase) -> Result<()> {
        let marking = phase.step(self.state.controller.step()).0.clone();
        let several = batches_a_step(phase, self.job.recipe.batch_size) > 1;
        let options = if several { self.options.plan.accumulating() } else { self.options.plan };
        Ok(self.session.begin(defrost_exec::Phase { marking, loss: Loss::CrossEntropy, options })?)
    }

    /// The sweep that the phase asks for, once.
    fn find_lr(&mut self, phase: &Phase) -> Result<Flow> {
        if self.state.lr_scale.is_some() {
            return Ok(Flow::Go);
        }
        self.state.lr_scale = Some(1.0);
        let Some(sweep) = &phase.find_lr else { return Ok(Flow::Go) };
        let curve = crate::lr_find(&mut *self.session, self.job, phase, sweep, &self.options)?;
        if self.options.stopped() {
            self.state.lr_scale = None;
            return Ok(Flow::Stop);
        }
        let found = lr_found(self.state.at.phase, &curve, sweep);
        if let Some(reading) = sweep.apply {
            match curve.suggest(sweep, reading) {
                Some(suggested) => {
                    self.state.lr_scale = Some(suggested.lr / phase.peak_lr());
                    let what = format!("greatest rate {:.3e}", suggested.lr);
                    self.decide(what, format!("`{}` of the learning-rate finder", reading.name()))?;
                }
                None => {
                    let message = format!(
                        "the learning-rate finder's curve has no `{}`: the recipe's rates stay",
                        reading.name()
                    );
                    self.emit(Event::Warning { message })?;
                }
            }
        }
        self.emit(Event::LrFind(found))?;
        Ok(Flow::Go)
    }

    /// The parameter groups as they are now, with the rates that the schedule multiplies.
    pub(crate) fn group_rates(&self, phase: &Phase, factor: f64) -> Vec<GroupRate> {
        let groups = phase.step(self.state.controller.step()).1;
        groups.iter().map(|g| GroupRate { group: g.name.clone(), lr: g.lr * factor }).collect()
    }

    /// Says what the phase does, having filled its cache.
    fn announce(&mut self, phase: &Phase) -> Result<Flow> {
        self.clock.phase_begins();
        let batch = self.job.recipe.batch_size.min(self.job.train.len());
        let plan = self.session.plan(batch)?.clone();
        let marking = phase.step(self.state.controller.step()).0;
        let cached = cache::views(self.job, &plan, self.options.feature_cache);
        let len = cache::cut_len(&plan);
        let (views, cache_reason) = match cached {
            Ok((views, why)) => (views, why),
            Err(why) => (0, why),
        };
        let (forward, backward) = plan.flops();
        let prefix: u64 = plan.prefix.iter().map(|i| defrost_plan::flops(&i.call)).sum();
        let index = self.state.at.phase;
        let cache_bytes =
            if views > 0 { (views * self.job.train.len() + self.job.val.len()) * len * 4 } else { 0 };
        self.emit(Event::PhaseStart(PhaseStart {
            phase: index,
            name: phase.name.clone(),
            epochs: phase.epochs,
            first_epoch: self.state.global_epoch - self.state.at.epoch,
            stages: stages(&self.job.graph, &plan, marking),
            groups: self.group_rates(phase, self.state.lr_scale.unwrap_or(1.0)),
            optimizer: phase.optimizer.name().to_owned(),
            trained: plan.trained.iter().map(|&id| self.job.graph.param(id).len()).sum(),
            cached: views > 0,
            cache_reason,
            cut: self.job.graph.node(plan.cut).name.clone(),
            flops: forward + backward - if views > 0 { prefix } else { 0 },
            memory: plan.memory(&self.job.graph, rule(&phase.optimizer, None)?.state()).total(),
            cache_bytes,
        }))?;
        self.fill(&plan, views)
    }

    /// Makes the cache that the current marking wants, or drops it.
    pub(crate) fn fill(&mut self, plan: &Plan, views: usize) -> Result<Flow> {
        if views == 0 {
            self.cache = None;
            return Ok(Flow::Go);
        }
        let key = cache::key(self.job, plan, &self.session.params()?, views);
        if self.cache.as_ref().is_some_and(|c| c.key == key) {
            return Ok(Flow::Go);
        }
        self.cache = None; // Freed before the new one is made.
        let (job, phase, began) = (self.job, self.state.at.phase, Instant::now());
        let images = views * job.train.len() + job.val.len();
        let mut done = 0;
        let (on_event, stop) = (&mut self.options.on_event, self.options.stop);
        let mut progress = |n: usize| {
            done += n;
            let seconds = began.elapsed().as_secs_f64();
            on_event(&Event::Caching(Caching { phase, done, images, seconds }));
            !stop.is_some_and(|s| s.load(std::sync::atomic::Ordering::Relaxed))
        };
        let session = &mut *self.session;
        let mut all = Vec::new();
        let options = LoaderOptions {
            sampling: Sampling::Sequential,
            drop_last: false,
            ..self.train.options().clone()
        };
        let augmented = job.recipe.augment.train.is_random();
        for view in 0..views {
            // Of several views the first is the one that evaluation sees.
            let pipeline = if augmented && view == 0 { &job.eval } else { &job.recipe.augment.train };
            let loader = Loader::new(Arc::clone(&job.train), pipeline.clone(), options.clone())?;
            let batches = loader.epoch(view as u64);
            match Features::compute(session, &job.train, batches, &job.pixels, &mut progress)? {
                Some(features) => all.push(features),
                None => return Ok(Flow::Stop),
            }
        }
        let batches = self.val.epoch(0);
        let Some(val) = Features::compute(session, &job.val, batches, &job.pixels, &mut progress)? else {
            return Ok(Flow::Stop);
        };
        self.clock.filled(phase, began.elapsed().as_secs_f64());
        self.cache = Some(Cache { key, views: all, val });
        Ok(Flow::Go)
    }

    /// Takes what trains now into the session and says so.
    pub(crate) fn thaw(&mut self, phase: &Phase) -> Result<()> {
        self.mark(phase)?;
        let batch = self.job.recipe.batch_size.min(self.job.train.len());
        let plan = self.session.plan(batch)?.clone();
        let marking = phase.step(self.state.controller.step()).0;
        self.emit(Event::Thaw(Thaw {
            phase: self.state.at.phase,
            epoch: self.state.at.epoch,
            global_epoch: self.state.global_epoch,
            stages: stages(&self.job.graph, &plan, marking),
            groups: self.group_rates(phase, self.state.lr_scale.unwrap_or(1.0)),
        }))?;
        let views = cache::views(self.job, &plan, self.options.feature_cache).map_or(0, |(views, _)| views);
        // A stop while the cache is made is noticed before the next step.
        self.fill(&plan, views).map(|_| ())
    }

    fn stopped(mut self) -> Result<Outcome> {
        let stopped = Stopped {
            reason: "stopped from outside".into(),
            at: self.state.at,
            resume: self.run.path().display().to_string(),
        };
        self.emit(Event::Stopped(stopped.clone()))?;
        self.save()?;
        Ok(Outcome { ending: Ending::Stopped(stopped), history: self.state.history, validation: None })
    }

    /// Measures the best weights once more, image by image, and ends the run.
    fn finish(mut self) -> Result<Outcome> {
        let mut validation = None;
        if !self.job.val.is_empty() {
            let (params, about) = match self.run.folder().load("best", &self.job.graph) {
                Ok(found) => found,
                Err(TrainError::NoCheckpoint { .. }) => (self.session.params()?, About::default()),
                Err(e) => return Err(e),
            };
            // These are the weights to be measured: no average of others, no features of others.
            (self.ema, self.cache) = (None, None);
            self.session.set_params(&params)?;
            match self.measure()? {
                Some(outputs) => {
                    let found = outputs.validation(&self.job.val, "best", about.epoch);
                    self.run.write_validation(&found)?;
                    validation = Some(found);
                }
                None => return self.stopped_at_end(),
            }
        }
        let best = self.state.best.as_ref();
        let done = Done {
            best_epoch: best.map(|b| b.global_epoch),
            best_phase: best.map(|b| b.phase),
            loss: best.and_then(|b| b.loss),
            accuracy: best.and_then(|b| b.accuracy),
            metric: self.job.recipe.monitor.name().to_owned(),
            epochs: self.state.global_epoch,
            seconds: self.clock.seconds(),
        };
        self.emit(Event::Done(done.clone()))?;
        Ok(Outcome { ending: Ending::Done(done), history: self.state.history, validation })
    }

    /// Stopped while the best weights were measured: the resume file is from the last epoch's end and stays.
    fn stopped_at_end(mut self) -> Result<Outcome> {
        let resume = self.run.path().display().to_string();
        let stopped = Stopped { reason: "stopped from outside".into(), at: self.state.at, resume };
        self.emit(Event::Stopped(stopped.clone()))?;
        Ok(Outcome { ending: Ending::Stopped(stopped), history: self.state.history, validation: None })
    }

    /// Tells the callback, and `metrics.jsonl` where the event belongs there.
    pub(crate) fn emit(&mut self, event: Event) -> Result<()> {
        if !matches!(event, Event::Step(_) | Event::Caching(_) | Event::Validating(_)) {
            self.run.log(&event)?;
        }
        (self.options.on_event)(&event);
        Ok(())
    }

    pub(crate) fn decide(&mut self, what: String, reason: String) -> Result<()> {
        let Place { phase, epoch, .. } = self.state.at;
        self.emit(Event::Decision(Decided { phase, epoch, what, reason }))
    }
}

pub(crate) fn unsupported(what: &str, why: &str) -> TrainError {
    TrainError::Unsupported { what: what.into(), why: why.into() }
}

fn loader_options(job: &Job, options: &Options<'_>) -> LoaderOptions {
    let default = LoaderOptions::train();
    LoaderOptions {
        batch: job.recipe.batch_size,
        size: job.size(),
        seed: job.recipe.seed,
        threads: options.loader_threads.unwrap_or(default.threads),
        cache_bytes: options.image_cache,
        strict: job.recipe.data.strict,
        ..default
    }
}

fn in_order(job: &Job, options: &Options<'_>) -> LoaderOptions {
    LoaderOptions { sampling: Sampling::Sequential, drop_last: false, ..loader_options(job, options) }
}

/// What can be refused before a device is asked.
fn check(job: &Job) -> Result<()> {
    let misfit = |what, network: String, data: String| Err(TrainError::DataMisfit { what, network, data });
    if job.train.is_empty() {
        return Err(TrainError::NoImages { purpose: "train on" });
    }
    let (outputs, classes) = (job.graph.classes(), job.train.classes().len());
    if outputs != classes {
        return misfit("number of classes", format!("{outputs} outputs"), format!("{classes} classes"));
    }
    if !job.val.is_empty() && job.val.classes() != job.train.classes() {
        let names = |c: &[String]| {
            format!("{} ({})", c.len(), c.iter().take(3).cloned().collect::<Vec<_>>().join(", "))
        };
        return misfit(
            "classes of the validation part",
            names(job.train.classes()),
            names(job.val.classes()),
        );
    }
    let (want, got) = (job.graph.input_shape().c, job.train.channels());
    if want != got {
        return misfit("channels of the images", want.to_string(), got.to_string());
    }
    mix(&job.recipe).check().map_err(defrost_data::Error::from)?;
    if !measurable(job.recipe.monitor) {
        let what = format!("choosing the best epoch by `{}`", job.recipe.monitor);
        return Err(unsupported(
            &what,
            "it is not measured for one class an image; `accuracy` and `loss` are",
        ));
    }
    for phase in &job.phases {
        rule(&phase.optimizer, None)?;
        if phase.clip.is_some() {
            return Err(unsupported("clipping gradients", "sessions cannot scale gradients yet"));
        }
    }
    job.recipe.augment.train.check().map_err(defrost_data::Error::from)?;
    Pipeline::check(&job.eval).map_err(defrost_data::Error::from)?;
    Ok(())
}

/// The curve as an event.
fn lr_found(phase: usize, curve: &defrost_policy::Curve, sweep: &defrost_policy::Sweep) -> LrFind {
    let suggest = |r: defrost_policy::Suggestion| {
        let found = curve.suggest(sweep, r)?;
        let (at_lr, at_loss) = (found.at.lr, found.at.loss);
        Some(LrSuggestion { reading: r.name().to_owned(), lr: found.lr, at_lr, at_loss })
    };
    LrFind {
        phase,
        points: curve.points().iter().copied().filter(|p| p.loss.is_finite()).collect(),
        suggestions: defrost_policy::Suggestion::ALL.into_iter().filter_map(suggest).collect(),
        applied: sweep.apply.map(|r| r.name().to_owned()),
    }
}

/// Whether a classification measures it.
const fn measurable(metric: Metric) -> bool {
    !matches!(metric, Metric::Mae | Metric::R2)
}

fn stages(graph: &Graph, plan: &Plan, marking: &Marking) -> Vec<StageState> {
    let row = |r: defrost_plan::StageRow| StageState {
        stage: r.stage,
        params: r.params,
        trained: r.trained,
        norm: r.bn_modes.iter().map(ToString::to_string).collect(),
    };
    plan.stages(graph, marking).into_iter().map(row).collect()
}
