//! The run: phases, what happens between epochs, saving and going on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use defrost_augment::Pipeline;
use defrost_data::{Loader, LoaderOptions, Sampling, Skipped};
use defrost_exec::{Engine, Plan, Room, Session};
use defrost_graph::Marking;
use defrost_plan::{PlanError, Purpose};
use defrost_policy::{Balance, Metric};

use crate::cache::Cache;
use crate::checkpoint::Snapshot;
use crate::clock::{Clock, costs};
use crate::early::Early;
use crate::proceed::compare_by;
use crate::profile::Profiler;
use crate::retention::Retention;
use crate::save::Unsaved;
use crate::state::{Fingerprint, State};
use crate::step::{clip, device_loss, rule};
use crate::targets::{Targets, check_task, mix};
use crate::{
    About, Decision as Decided, Done, Ending, Event, Job, Options, Outcome, Outputs, Place, Result, Run,
    Start, Stopped, TrainError,
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
    Trainer::new(engine, job, run, options, &snapshot, state)?.train(Begin::Fresh(Box::new(snapshot)))
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
    snapshot.fit_average(job);
    compare_by(&mut state, job);
    run.rewind_metrics(state.metrics_len)?;
    run.write_recipe(&job.recipe.to_toml())?;
    state.fingerprint = now;
    Trainer::new(engine, job, run, options, &snapshot, state)?.train(Begin::Resume)
}

/// How a trainer comes to train.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Begin {
    /// With the state that the trainer was made with.
    Fresh(Box<Snapshot>),
    /// Where it was interrupted.
    Resume,
    /// With a phase of another recipe, by a decision of whoever trains.
    Proceed { what: String, reason: String },
}

/// What a part of a run came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flow {
    /// On to the next.
    Go,
    /// Stopped from outside; everything is in the state.
    Stop,
}

/// What the network answered to the validation part after an epoch, asked with the images themselves.
pub(crate) struct Answers {
    /// The epoch, from 0 over all phases.
    pub(crate) epoch: usize,
    /// [`Trainer::marks`] then.
    pub(crate) marks: usize,
    pub(crate) outputs: Outputs,
}

pub(crate) struct Trainer<'a> {
    pub(crate) engine: &'a dyn Engine,
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
    /// The first batches of the next epoch.
    pub(crate) early: Option<Early>,
    pub(crate) cache: Option<Cache>,
    pub(crate) retention: Option<Retention>,
    /// How often what trains was told the session: two numbers that are the same are the same network to the last bit.
    pub(crate) marks: usize,
    /// What the network answered after the epoch that is about to end, and after the best one, where that can be told
    /// without asking it again.
    pub(crate) measured: Option<Answers>,
    pub(crate) answers: Option<Answers>,
    /// Whether the session infers from features; known after the first try.
    pub(crate) infers_from_features: bool,
    pub(crate) clock: Clock,
    pub(crate) profiler: Profiler,
    pub(crate) unsaved: Unsaved,
    pub(crate) saved: Instant,
    /// Files that could not be read and of which that was said.
    unreadable: BTreeSet<PathBuf>,
}

impl<'a> Trainer<'a> {
    pub(crate) fn new(
        engine: &'a dyn Engine,
        job: &'a Job,
        run: &'a mut Run,
        options: Options<'a>,
        snapshot: &Snapshot,
        state: State,
    ) -> Result<Self> {
        check(job)?;
        let host = engine.room() == Room::Host;
        let plan = options.plan.applying(options.plan.apply || host).cutting(engine.packs());
        let plan = plan.storing(engine.activation_bytes());
        let options = Options { plan, ..options };
        let recipe = &job.recipe;
        let sampling = sampling(job)?;
        let drop_last = recipe.data.drop_last && job.train.len() >= recipe.batch_size;
        let shuffled = LoaderOptions { sampling, drop_last, ..loader_options(job, &options) };
        let clock = Clock::new(costs(job, options.plan)?, state.seconds);
        let train = Loader::new(Arc::clone(&job.train), recipe.augment.train.clone(), shuffled.clone())?;
        let early = Early::at(job, &clock, &train, &state);
        let mut session = engine.open(Arc::clone(&job.graph), &snapshot.params)?;
        session.set_optimizer(&snapshot.optimizer)?;
        session.set_average(snapshot.ema.as_ref())?;
        let mut trainer = Self {
            train,
            val: Loader::new(Arc::clone(&job.val), job.eval.clone(), in_order(job, &options))?,
            targets: Targets::new(recipe, &job.train)?,
            device: engine.device(),
            retention: Retention::new(engine, job, &options)?,
            engine,
            job,
            run,
            options,
            session,
            state,
            early,
            cache: None,
            marks: 0,
            measured: None,
            answers: None,
            infers_from_features: true,
            clock,
            profiler: Profiler::default(),
            unsaved: Unsaved::default(),
            saved: Instant::now(),
            unreadable: BTreeSet::new(),
        };
        trainer.refuse_lonely_images(shuffled)?;
        Ok(trainer)
    }

    /// Plans every phase and thaw for whole batches, so that what cannot run is refused before anything runs, and for the
    /// last batch of an epoch: one that is too small for batch statistics is left out.
    fn refuse_lonely_images(&mut self, options: LoaderOptions) -> Result<()> {
        let (images, batch) = (self.job.train.len(), self.job.recipe.batch_size);
        let rest = images % batch;
        let loss = device_loss(&self.job.recipe.loss)?;
        let plan = |marking: &Marking, n: usize| {
            let purpose = Purpose::Train(loss);
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
            self.early = None;
            self.train = Loader::new(Arc::clone(&self.job.train), pipeline, options)?;
        }
        Ok(())
    }

    /// All phases from where the state stands.
    pub(crate) fn train(mut self, begin: Begin) -> Result<Outcome> {
        let job = self.job;
        let resumed = (!matches!(begin, Begin::Fresh(_))).then_some(self.state.at);
        self.emit(Event::Start(Start {
            format: crate::FORMAT,
            model: job.graph.name().to_owned(),
            device: self.device.clone(),
            seed: job.recipe.seed,
            task: job.recipe.loss.task(),
            classes: job.graph.classes(),
            train_images: job.train.len(),
            val_images: job.val.len(),
            batch: job.recipe.batch_size,
            steps: self.train.batches(),
            phases: job.phases.len(),
            epochs: job.epochs(),
            resumed,
        }))?;
        if resumed.is_some() && self.source_is_new()? {
            self.retention_starts()?;
        }
        match begin {
            Begin::Fresh(snapshot) => {
                for message in job.phases.iter().flat_map(|p| &p.warnings) {
                    self.emit(Event::Warning { message: message.clone() })?;
                }
                self.retention_starts()?;
                self.save_start(*snapshot)?;
            }
            Begin::Proceed { what, reason } => {
                self.decide(what, reason)?;
                self.save()?;
            }
            Begin::Resume => {}
        }
        while let Some(phase) = job.phases.get(self.state.at.phase) {
            if self.phase(phase)? == Flow::Stop {
                return self.stopped();
            }
        }
        self.finish()
    }

    fn stopped(mut self) -> Result<Outcome> {
        let stopped = Stopped {
            reason: "stopped from outside".into(),
            at: self.state.at,
            resume: self.run.path().display().to_string(),
        };
        self.emit(Event::Stopped(stopped.clone()))?;
        self.save()?;
        self.written()?;
        Ok(Outcome { ending: Ending::Stopped(stopped), history: self.state.history, validation: None })
    }

    /// Tells what the best weights answer image by image, and ends the run.
    fn finish(mut self) -> Result<Outcome> {
        let mut validation = None;
        if !self.job.val.is_empty() {
            let best = self.state.best.as_ref().map(|b| b.global_epoch);
            let known = self.answers.take().filter(|a| a.marks == self.marks && Some(a.epoch) == best);
            let found = match known {
                Some(Answers { outputs, .. }) => Some((outputs, best)),
                None => self.ask_best()?,
            };
            let Some((outputs, epoch)) = found else { return self.stopped_at_end() };
            let found = outputs.validation(&self.job.val, &self.job.recipe.loss, "best", epoch);
            self.written()?;
            self.run.write_validation(&found)?;
            validation = Some(found);
        }
        self.written()?;
        let measured = !self.job.val.is_empty() || self.job.recipe.monitor == Metric::TrainLoss;
        let best = self.state.best.as_ref();
        let done = Done {
            best_epoch: best.map(|b| b.global_epoch),
            best_phase: best.map(|b| b.phase),
            loss: best.and_then(|b| b.loss),
            accuracy: best.and_then(|b| b.accuracy),
            metric: self.job.recipe.monitor.name().to_owned(),
            value: best.filter(|_| measured).map(|b| b.value),
            epochs: self.state.global_epoch,
            seconds: self.clock.seconds(),
        };
        self.emit(Event::Done(done.clone()))?;
        Ok(Outcome { ending: Ending::Done(done), history: self.state.history, validation })
    }

    /// What the best weights answer, measured once more, and the epoch they are of; `None` where it was stopped from outside.
    fn ask_best(&mut self) -> Result<Option<(Outputs, Option<usize>)>> {
        self.written()?;
        let (params, about) = match self.run.folder().load("best", &self.job.graph) {
            Ok(found) => found,
            Err(TrainError::NoCheckpoint { .. }) => (self.session.params()?, About::default()),
            Err(e) => return Err(e),
        };
        if let (0, Some(phase)) = (self.marks, self.job.phases.last()) {
            // The network is compiled as it was in an uninterrupted run.
            self.mark(phase)?;
        }
        // These are the weights to be measured: no average of others, no features of others.
        self.cache = None;
        self.session.set_average(None)?;
        self.session.set_optimizer(&[])?;
        self.session.set_params(&params)?;
        Ok(self.measure()?.map(|outputs| (outputs, about.epoch)))
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
        let passing =
            matches!(event, Event::Step(_) | Event::Caching(_) | Event::Validating(_) | Event::Profile(_));
        if !passing {
            self.run.log(&event)?;
        }
        (self.options.on_event)(&event);
        Ok(())
    }

    /// Says which images could not be read, each once, and adds them to the run's list.
    pub(crate) fn tell_unreadable(&mut self, failures: Vec<Skipped>) -> Result<()> {
        let new: Vec<_> = failures.into_iter().filter(|f| self.unreadable.insert(f.path.clone())).collect();
        let Some(first) = new.first() else { return Ok(()) };
        self.run.add_skipped(&new)?;
        let message = format!(
            "{} of the images cannot be read; they are left out, in training for another of their class, and listed in \
             {}. The first: {first}",
            new.len(),
            self.run.folder().skipped_path().display(),
        );
        self.emit(Event::Warning { message })
    }

    pub(crate) fn decide(&mut self, what: String, reason: String) -> Result<()> {
        let Place { phase, epoch, .. } = self.state.at;
        self.emit(Event::Decision(Decided { phase, epoch, what, reason }))
    }
}

pub(crate) fn unsupported(what: &str, why: &str) -> TrainError {
    TrainError::Unsupported { what: what.into(), why: why.into() }
}

/// How an epoch chooses its samples.
pub(crate) fn sampling(job: &Job) -> Result<Sampling> {
    let classes = job.train.classes();
    Ok(match &job.recipe.data.balance {
        Balance::Natural => Sampling::Shuffled,
        Balance::Even => Sampling::Balanced,
        table => {
            let unknown = |unknown| TrainError::UnknownClasses { unknown, known: classes.to_vec() };
            Sampling::ClassWeights(table.weights(classes).map_err(unknown)?.unwrap_or_default())
        }
    })
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
    let options = loader_options(job, options);
    // Measured once an epoch, and most often fewer.
    let cache_bytes = options.cache_bytes / 4;
    LoaderOptions { sampling: Sampling::Sequential, drop_last: false, cache_bytes, ..options }
}

/// What can be refused before a device is asked.
fn check(job: &Job) -> Result<()> {
    let misfit = |what, network: String, data: String| Err(TrainError::DataMisfit { what, network, data });
    if job.train.is_empty() {
        return Err(TrainError::NoImages { purpose: "train on" });
    }
    check_task(&job.recipe.loss, &job.train)?;
    if !job.val.is_empty() {
        check_task(&job.recipe.loss, &job.val)?;
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
    for phase in &job.phases {
        rule(&phase.optimizer, None)?;
        phase.clip.map(clip).transpose()?;
    }
    job.recipe.augment.train.check().map_err(defrost_data::Error::from)?;
    Pipeline::check(&job.eval).map_err(defrost_data::Error::from)?;
    Ok(())
}
