//! A phase: what it starts from, what trains in it, and the features that it caches.

use std::sync::Arc;
use std::time::Instant;

use defrost_data::{Loader, LoaderOptions, Sampling};
use defrost_exec::Plan;
use defrost_graph::{Graph, Marking};
use defrost_policy::{Controller, Curve, Group, Phase, Recompute, Start as From, Suggestion, Sweep};

use crate::between::epoch_name;
use crate::cache::{self, Cache, Cached, Features};
use crate::retention::Retention;
use crate::step::{device_loss, passes, rule};
use crate::store::Storage;
use crate::trainer::{Flow, Trainer, unsupported};
use crate::{Caching, Event, GroupRate, LrFind, LrSuggestion, Options, PhaseStart, Result, StageState, Thaw};

impl Trainer<'_> {
    /// One phase, from where the state stands.
    pub(crate) fn phase(&mut self, phase: &Phase) -> Result<Flow> {
        let fresh = (self.state.at.epoch, self.state.at.step) == (0, 0);
        if fresh {
            self.start_from(phase)?;
        }
        self.mark(phase)?;
        if self.find_lr(phase)? == Flow::Stop || self.announce(phase)? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        let index = self.state.at.phase;
        let mut flow = Flow::Go;
        while self.state.at.phase == index && flow == Flow::Go {
            flow = if self.options.stopped() { Flow::Stop } else { self.epoch(phase)? };
        }
        if let Some(profile) = std::mem::take(&mut self.profiler).finish(index, &self.job.graph) {
            self.emit(Event::Profile(profile))?;
        }
        Ok(flow)
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
            self.written()?;
            let (params, _) = self.run.folder().load(&name, &self.job.graph)?;
            self.session.set_params(&params)?;
            if self.job.recipe.ema.is_some() {
                self.session.set_average(Some(&params))?;
            }
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
        self.retention.iter_mut().for_each(Retention::forget);
        self.marks += 1;
        let marking = phase.step(self.state.controller.step()).0.clone();
        let recipe = &self.job.recipe;
        let batch = recipe.batch_size.min(self.job.train.len());
        let Options { plan, memory, .. } = self.options;
        let options = passes(recipe, &self.job.graph, (phase, &marking), batch, plan, memory)?;
        let loss = device_loss(&recipe.loss)?;
        Ok(self.session.begin(defrost_exec::Phase { marking, loss, options })?)
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

    /// The parameter groups in which something trains now, with their rates times `factor`.
    pub(crate) fn group_rates(&self, phase: &Phase, factor: f64) -> Vec<GroupRate> {
        let (marking, groups) = phase.step(self.state.controller.step());
        let trains = |g: &&Group| g.params.iter().any(|&p| marking.params.trains(p));
        groups.iter().filter(trains).map(|g| GroupRate { group: g.name.clone(), lr: g.lr * factor }).collect()
    }

    /// Says what the phase does, having filled its cache.
    fn announce(&mut self, phase: &Phase) -> Result<Flow> {
        self.clock.phase_begins();
        let batch = self.job.recipe.batch_size.min(self.job.train.len());
        let plan = self.session.plan(batch)?.clone();
        let marking = phase.step(self.state.controller.step()).0;
        let (cached, cache_reason) = Cached::of(self.job, &plan);
        let (forward, backward) = plan.flops();
        let prefix = plan.prefix_flops();
        let index = self.state.at.phase;
        self.emit(Event::PhaseStart(PhaseStart {
            phase: index,
            name: phase.name.clone(),
            epochs: phase.epochs,
            first_epoch: self.state.global_epoch - self.state.at.epoch,
            stages: stages(&self.job.graph, &plan, marking),
            groups: self.group_rates(phase, self.state.lr_scale.unwrap_or(1.0)),
            optimizer: phase.optimizer.name().to_owned(),
            trained: plan.trained.iter().map(|&id| self.job.graph.param(id).len()).sum(),
            cached: cached.is_some(),
            cache_reason,
            cut: self.job.graph.node(plan.cut).name.clone(),
            flops: forward + backward - if cached.is_some() { prefix } else { 0 },
            memory: plan.memory(&self.job.graph, rule(&phase.optimizer, None)?.state()).total(),
            cache_bytes: cached.map_or(0, |c| c.bytes as usize),
        }))?;
        if plan.recomputes() && self.job.recipe.recompute == Recompute::Auto {
            let room = self.options.memory.unwrap_or_default() >> 20;
            let reason = format!("kept, they would take more than the {room} MB that there are");
            self.decide("activations are computed again in the backward pass".into(), reason)?;
        }
        self.fill(&plan, cached)
    }

    /// Makes the cache that the current marking wants, or drops it.
    pub(crate) fn fill(&mut self, plan: &Plan, cached: Option<Cached>) -> Result<Flow> {
        let Some(Cached { views, in_file, .. }) = cached else {
            self.cache = None;
            return Ok(Flow::Go);
        };
        let key = cache::key(self.job, plan, &self.session.params()?, views);
        if self.cache.as_ref().is_some_and(|c| c.key == key) {
            return Ok(Flow::Go);
        }
        self.cache = None; // Freed before the new one is made.
        let (job, phase, began) = (self.job, self.state.at.phase, Instant::now());
        let images = views * job.train.len() + job.val.len();
        let mut done = 0;
        let storage = match in_file {
            true => Storage::File(match &job.recipe.data.cache_folder {
                Some(folder) => folder.into(),
                None => self.run.path().to_owned(),
            }),
            false => Storage::Memory,
        };
        let (on_event, stop) = (&mut self.options.on_event, self.options.stop);
        let mut progress = |n: usize| {
            done += n;
            let seconds = began.elapsed().as_secs_f64();
            on_event(&Event::Caching(Caching { phase, done, images, seconds }));
            !stop.is_some_and(|s| s.load(std::sync::atomic::Ordering::Relaxed))
        };
        let session = &mut *self.session;
        let (mut all, mut unreadable) = (Vec::new(), Vec::new());
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
            match Features::compute(session, &job.train, batches, &job.pixels, &storage, &mut progress)? {
                Some(features) => all.push(features),
                None => return Ok(Flow::Stop),
            }
            unreadable.append(&mut loader.failures());
        }
        let batches = self.val.epoch(0);
        let Some(val) = Features::compute(session, &job.val, batches, &job.pixels, &storage, &mut progress)?
        else {
            return Ok(Flow::Stop);
        };
        self.clock.filled(phase, began.elapsed().as_secs_f64());
        unreadable.append(&mut self.val.failures());
        self.tell_unreadable(unreadable)?;
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
        let (cached, _) = Cached::of(self.job, &plan);
        // A stop while the cache is made is noticed before the next step.
        self.fill(&plan, cached).map(|_| ())
    }
}

/// A finder's curve for a phase (from 0) as an event, with what every reading suggests.
pub fn lr_found(phase: usize, curve: &Curve, sweep: &Sweep) -> LrFind {
    let suggest = |r: Suggestion| {
        let found = curve.suggest(sweep, r)?;
        let (at_lr, at_loss) = (found.at.lr, found.at.loss);
        Some(LrSuggestion { reading: r.name().to_owned(), lr: found.lr, at_lr, at_loss })
    };
    LrFind {
        phase,
        points: curve.points().iter().copied().filter(|p| p.loss.is_finite()).collect(),
        suggestions: Suggestion::ALL.into_iter().filter_map(suggest).collect(),
        applied: sweep.apply.map(|r| r.name().to_owned()),
    }
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
