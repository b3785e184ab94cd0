//! The interpreter: plans over any [`Kernels`], behind the object-safe [`Session`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use defrost_graph::{Graph, Instruction, NodeId, Param, ParamId, ParamStore, Value};
use defrost_plan::{Plan, Update, flops};
use defrost_tensor::{Call, HostTensor, KernelError, Kernels, call};

use crate::arena::Arena;
use crate::batch::Staged;
use crate::buffers::{Store, gather, give, load};
use crate::compiled::{Compiled, Folds, Place};
use crate::optimizer::{Optimizer, read};
use crate::profile::Profile;
use crate::stepper::Stepper;
use crate::{Clip, ExecError, Images, KernelTime, Phase, Rate, Rule, Session, StepOutput, TrainBatch};

/// Which plan: batch size, and what is wanted (`None`: the current phase's training step).
pub(crate) type Key = (usize, Option<Wanted>);

/// What an evaluation is for.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub(crate) enum Wanted {
    /// A node's value.
    Node(NodeId),
    /// What all stages put out.
    Stages,
    /// A part of a front that ends at this node.
    Front(NodeId),
    /// Not an evaluation: the phase's training step with gradients that can be read, where it uses them up otherwise.
    Gradients,
}

/// An optimizer's step, to be made while gradients are.
pub(crate) type Stepping<'a> = Option<(Rule, &'a [Rate])>;

/// Chooses a part of a plan.
type Part<B> = fn(&Compiled<B>) -> (&[Call<Place, Place>], &[Instruction]);

/// A network on the device of `K`: a [`Session`].
pub struct Interpreter<K: Kernels> {
    pub(crate) kernels: Arc<K>,
    pub(crate) graph: Arc<Graph>,
    params: Vec<Option<K::Buf>>,
    pub(crate) grads: Vec<Option<K::Buf>>,
    /// The average of the parameters; empty where there is none.
    average: Vec<Option<K::Buf>>,
    pub(crate) optimizer: Optimizer<K::Buf>,
    /// Buffers shared by all plans, large ones first.
    pub(crate) slots: Vec<Option<K::Buf>>,
    pub(crate) slot_lens: Vec<usize>,
    /// What the slots of packed plans are pieces of.
    pub(crate) arena: Arena<K::Buf>,
    pub(crate) phase: Option<Phase>,
    pub(crate) plans: HashMap<Key, Compiled<K::Buf>>,
    /// The batch that is on the device to be run next, and the plan whose loss was not read yet.
    pub(crate) staged: Option<Staged>,
    pub(crate) started: Option<Key>,
    pub(crate) folds: Folds<K::Buf>,
    /// Counts changes of any weight; `loaded` is the count at the last change from outside.
    pub(crate) version: u64,
    pub(crate) loaded: u64,
    profile: Option<Profile>,
    /// Host copies of frozen parameters that were asked for once, one a parameter: nothing changes them but a load.
    known: RefCell<Vec<Option<HostTensor>>>,
}

impl<K: Kernels> Interpreter<K> {
    /// Puts `params` on the device.
    ///
    /// # Errors
    /// No room, a lost device, weights of another network.
    pub fn new(kernels: Arc<K>, graph: Arc<Graph>, params: &ParamStore) -> Result<Self, ExecError> {
        let mut session = Self::empty(kernels, graph)?;
        session.set_params(params)?;
        Ok(session)
    }

    /// The same with `params` that nobody needs any more: what is on the device is gone from the host.
    ///
    /// # Errors
    /// As [`Interpreter::new`].
    pub fn owning(kernels: Arc<K>, graph: Arc<Graph>, params: ParamStore) -> Result<Self, ExecError> {
        let mut session = Self::empty(kernels, graph)?;
        give(&*session.kernels, &session.graph, params, &mut session.params)?;
        session.loaded_anew();
        Ok(session)
    }

    /// With room for the weights alone.
    fn empty(kernels: Arc<K>, graph: Arc<Graph>) -> Result<Self, ExecError> {
        let alloc = |p: &defrost_graph::Param| kernels.alloc(p.layout()).map(Some);
        let params = graph.params().iter().map(alloc).collect::<Result<Vec<_>, _>>()?;
        let grads = graph.params().iter().map(|_| None).collect();
        Ok(Self {
            kernels,
            graph,
            params,
            grads,
            average: Vec::new(),
            optimizer: Optimizer::default(),
            slots: Vec::new(),
            slot_lens: Vec::new(),
            arena: Arena::default(),
            phase: None,
            plans: HashMap::new(),
            staged: None,
            started: None,
            folds: Folds::default(),
            version: 0,
            loaded: 0,
            profile: None,
            known: RefCell::default(),
        })
    }

    /// Runs one part of a plan.
    pub(crate) fn run(
        &mut self,
        key: Key,
        part: Part<K::Buf>,
        stepping: Stepping<'_>,
    ) -> Result<(), ExecError> {
        self.execute(key, part, stepping).map_err(|e| self.no_room(key, e))
    }

    /// [`Interpreter::run`] with the kernels' own errors.
    pub(crate) fn execute(
        &mut self,
        key: Key,
        part: Part<K::Buf>,
        stepping: Stepping<'_>,
    ) -> Result<(), KernelError> {
        let compiled = self.plans.get_mut(&key).expect("a plan is prepared before it runs");
        let mut own = std::mem::take(&mut compiled.own);
        let mut pieces = compiled.pieces.take().zip(self.kernels.splitter());
        let (mut in_place, mut wanted) = (Vec::new(), Vec::new());
        if let Some((pieces, _)) = &pieces {
            in_place.resize_with(pieces.ranges.len(), || None);
        }
        let mut store = Store {
            params: &mut self.params,
            grads: &mut self.grads,
            slots: if pieces.is_some() { &mut in_place } else { &mut self.slots },
            own: &mut own,
            folds: &mut self.folds.buffers,
        };
        let mut result = Ok(());
        let mut taken = Vec::new();
        let (calls, instructions) = part(compiled);
        let mut updates = stepping.map_or(&[][..], |_| &compiled.plan.updates).iter().peekable();
        for (at, (call, instruction)) in calls.iter().zip(instructions).enumerate() {
            let start = self.profile.is_some().then(Instant::now);
            let due: Vec<_> = std::iter::from_fn(|| updates.next_if(|u| u.after == at)).collect();
            if let Some((pieces, tools)) = &mut pieces {
                pieces.give_back(&mut self.arena, store.slots);
                let grads = due.iter().filter(|u| !u.fused).map(|u| compiled.place(u.grad).0);
                wanted.extend(grads.filter_map(Place::slot));
                call.map(&mut |place: Place| wanted.extend(place.slot()), &mut |_| ());
                call.map(&mut |_| (), &mut |place: Place| wanted.extend(place.slot()));
                for slot in wanted.drain(..) {
                    pieces.bring(&mut self.arena, *tools, slot, store.slots);
                }
            }
            if let (Some(stepping), Call::Gemm(gemm), [Update { param, fused: true, .. }]) =
                (stepping, call, &due[..])
            {
                let stepper =
                    Stepper { kernels: &*self.kernels, graph: &self.graph, optimizer: &mut self.optimizer };
                match stepper.fused(stepping, *param, gemm, &mut store) {
                    Ok(true) => {
                        if let (Some(profile), Some(start)) = (&mut self.profile, start) {
                            let Instruction { node, pass, .. } = *instruction;
                            profile.add(Some(node), Some(pass), call.name(), flops(call), start);
                        }
                        continue;
                    }
                    Ok(false) => {}
                    Err(e) => {
                        result = Err(e);
                        break;
                    }
                }
            }
            // What is written is taken out of the store, so that the rest of it can be read.
            call.map(&mut |_| (), &mut |place| taken.push((place, store.take(place))));
            let mut writes = taken.iter_mut();
            let write = &mut |_| &mut writes.next().expect("one buffer an operand").1;
            result = call.map(&mut |place| store.get(place), write).run(&*self.kernels);
            taken.drain(..).for_each(|(place, buf)| store.put(place, buf));
            if let (Some(profile), Some(start), Ok(())) = (&mut self.profile, start, &result) {
                result = self.kernels.synchronize();
                let Instruction { node, pass, .. } = *instruction;
                profile.add(Some(node), Some(pass), call.name(), flops(call), start);
            }
            if let (Some(stepping), Ok(())) = (stepping, &result) {
                for update in due {
                    let start = self.profile.is_some().then(Instant::now);
                    let stepper = Stepper {
                        kernels: &*self.kernels,
                        graph: &self.graph,
                        optimizer: &mut self.optimizer,
                    };
                    let grad = compiled.place(update.grad).0;
                    result = result.and_then(|()| stepper.step(stepping, update.param, grad, &mut store));
                    if let (Some(profile), Some(start)) = (&mut self.profile, start) {
                        profile.add(None, None, "optimizer", 0, start);
                    }
                }
            }
            if result.is_err() {
                break;
            }
        }
        compiled.own = own;
        if let Some((mut pieces, _)) = pieces {
            pieces.give_back(&mut self.arena, &mut in_place);
            compiled.pieces = Some(pieces);
        }
        result
    }

    pub(crate) fn buffer_mut(&mut self, key: Key, place: Place) -> &mut K::Buf {
        self.slot_mut(key, place).as_mut().expect("buffers are in place between calls")
    }

    /// Where the buffer of `place` is kept.
    pub(crate) fn slot_mut(&mut self, key: Key, place: Place) -> &mut Option<K::Buf> {
        match place {
            Place::Own(i) => {
                &mut self.plans.get_mut(&key).expect("a plan is prepared before it is read").own[i]
            }
            Place::Slot(i) => &mut self.slots[i],
            Place::Folded(i) => &mut self.folds.buffers[i],
            Place::Param(i) => &mut self.params[i],
            Place::Grad(i) => &mut self.grads[i],
        }
    }

    /// Runs the network in evaluation mode up to `until`.
    fn evaluate(&mut self, n: usize, images: Images<'_>, until: NodeId) -> Result<Vec<f32>, ExecError> {
        let key = (n, Some(Wanted::Node(until)));
        self.forward(key, images)?;
        self.fetch(key, self.plans[&key].plan.output)
    }

    /// Runs the plan of an evaluation. Returns whether its prefix was skipped.
    fn forward(&mut self, key: Key, images: Images<'_>) -> Result<bool, ExecError> {
        self.prepare(key)?;
        let skip = self.feed(key, images)?;
        if !skip {
            self.run_front(key)?;
            self.run(key, |c| (&c.prefix, &c.plan.prefix), None)?;
        }
        self.run(key, |c| (&c.suffix, &c.plan.suffix), None)?;
        Ok(skip)
    }

    /// A value of a plan that has run.
    fn fetch(&mut self, key: Key, value: Value) -> Result<Vec<f32>, ExecError> {
        let (place, layout) = self.plans[&key].place(value);
        let mut host = vec![0.0; layout.len()];
        let kernels = Arc::clone(&self.kernels);
        kernels.download(layout, self.buffer_mut(key, place), &mut host)?;
        Ok(host)
    }

    /// The cut of the current phase.
    pub(crate) fn cut(&self) -> Result<NodeId, ExecError> {
        let phase = self.phase.as_ref().ok_or(ExecError::NoPhase)?;
        Ok(defrost_plan::cut(&self.graph, &defrost_plan::is_fixed(&self.graph, &phase.marking)))
    }
}

impl<K: Kernels> Session for Interpreter<K> {
    fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    fn begin(&mut self, phase: Phase) -> Result<(), ExecError> {
        self.forget_plans();
        for (i, grad) in self.grads.iter_mut().enumerate() {
            let id = self.graph.param_ids().nth(i).expect("one gradient a parameter");
            if !phase.marking.params.trains(id) || (phase.options.apply && !phase.options.accumulate) {
                *grad = None;
            } else if grad.is_none() {
                *grad = Some(self.kernels.alloc(self.graph.param(id).layout())?);
            }
        }
        let mut known = self.known.borrow_mut();
        for (id, known) in self.graph.param_ids().zip(&mut *known) {
            if phase.marking.params.trains(id) {
                *known = None;
            }
        }
        drop(known);
        self.phase = Some(phase);
        self.zero_grads()
    }

    fn plan(&mut self, n: usize) -> Result<&Plan, ExecError> {
        self.prepare((n, None))?;
        Ok(&self.plans[&(n, None)].plan)
    }

    fn stage(&mut self, batch: &TrainBatch<'_>) -> Result<(), ExecError> {
        self.put((batch.n, None), batch)
    }

    fn start(&mut self, rule: Rule, rates: &[Rate]) -> Result<(), ExecError> {
        let stepping = self.applies().then_some((rule, rates));
        self.go(stepping)
    }

    fn finish(&mut self) -> Result<StepOutput, ExecError> {
        self.output()
    }

    fn forward_backward(&mut self, batch: &TrainBatch<'_>) -> Result<StepOutput, ExecError> {
        let wanted = self.applies().then_some(Wanted::Gradients);
        if wanted.is_some() {
            self.keep_gradients()?;
        }
        self.put((batch.n, wanted), batch)?;
        self.go(None)?;
        self.output()
    }

    fn step(&mut self, batch: &TrainBatch<'_>, rule: Rule, rates: &[Rate]) -> Result<StepOutput, ExecError> {
        self.stage(batch)?;
        self.start(rule, rates)?;
        let output = self.finish()?;
        if !self.applies() {
            self.reduce()?;
            self.apply(rule, rates)?;
        }
        Ok(output)
    }

    fn grad_norm(&mut self) -> Result<f64, ExecError> {
        self.optimizer.norm(&*self.kernels, &self.graph, &self.grads)
    }

    fn clip(&mut self, clip: Clip) -> Result<f64, ExecError> {
        self.optimizer.clip(&*self.kernels, &self.graph, &mut self.grads, clip)
    }

    fn apply(&mut self, rule: Rule, rates: &[Rate]) -> Result<(), ExecError> {
        let start = self.profile.is_some().then(Instant::now);
        let buffers = (&mut *self.params, &mut *self.grads);
        self.optimizer.apply(&*self.kernels, &self.graph, rule, rates, buffers)?;
        if let (Some(profile), Some(start)) = (&mut self.profile, start) {
            self.kernels.synchronize()?;
            profile.add(None, None, "optimizer", 0, start);
        }
        self.version += 1;
        if self.phase.as_ref().is_some_and(|p| p.options.accumulate) { self.zero_grads() } else { Ok(()) }
    }

    fn infer(&mut self, n: usize, images: Images<'_>) -> Result<Vec<f32>, ExecError> {
        self.evaluate(n, images, self.graph.output())
    }

    fn features(&mut self, n: usize, images: Images<'_>) -> Result<Vec<f32>, ExecError> {
        let cut = self.cut()?;
        self.evaluate(n, images, cut)
    }

    fn stages(&mut self, n: usize, images: Images<'_>) -> Result<Vec<Vec<f32>>, ExecError> {
        let key = (n, Some(Wanted::Stages));
        let skipped = self.forward(key, images)?;
        let Plan { taps, cut, .. } = &self.plans[&key].plan;
        let (taps, cut) = (taps.clone(), *cut);
        let fetch = |(node, value)| {
            if skipped && node <= cut { Ok(Vec::new()) } else { self.fetch(key, value) }
        };
        taps.into_iter().map(fetch).collect()
    }

    fn params(&self) -> Result<ParamStore, ExecError> {
        let frozen = |param: ParamId| {
            // Buffers follow the batches of frozen normalisations too.
            let weight = self.graph.param(param).kind.is_trainable();
            weight && self.phase.as_ref().is_some_and(|p| !p.marking.params.trains(param))
        };
        let mut known = self.known.borrow_mut();
        known.resize(self.params.len(), None);
        let mut known = known.iter_mut().zip(self.graph.param_ids());
        gather(&self.graph, &self.params, |param, buffer| match known.next() {
            Some((known, id)) if frozen(id) => Ok(match known {
                Some(value) => value.clone(),
                None => known.insert(self.read(param, buffer)?).clone(),
            }),
            _ => self.read(param, buffer),
        })
    }

    fn set_params(&mut self, params: &ParamStore) -> Result<(), ExecError> {
        load(&*self.kernels, &self.graph, params, &mut self.params)?;
        self.loaded_anew();
        Ok(())
    }

    fn set_average(&mut self, start: Option<&ParamStore>) -> Result<(), ExecError> {
        let Some(start) = start else {
            self.average.clear();
            return Ok(());
        };
        if self.average.is_empty() {
            let alloc = |p: &defrost_graph::Param| self.kernels.alloc(p.layout()).map(Some);
            self.average = self.graph.params().iter().map(alloc).collect::<Result<_, _>>()?;
        }
        load(&*self.kernels, &self.graph, start, &mut self.average)
    }

    fn average(&mut self, new: f32) -> Result<(), ExecError> {
        let pairs = self.params.iter().zip(&mut self.average).zip(self.graph.params());
        for ((now, mean), param) in pairs {
            if let (Some(x), Some(out)) = (now, mean) {
                self.kernels.lerp(call::Lerp { len: param.len(), weight: new, x, out })?;
            }
        }
        Ok(())
    }

    fn averaged(&self) -> Result<Option<ParamStore>, ExecError> {
        if self.average.is_empty() {
            return Ok(None);
        }
        gather(&self.graph, &self.average, |param, buffer| self.read(param, buffer)).map(Some)
    }

    fn swap_average(&mut self) {
        if !self.average.is_empty() {
            std::mem::swap(&mut self.params, &mut self.average);
            self.loaded_anew();
        }
    }

    fn grads(&self) -> Result<Vec<(String, HostTensor)>, ExecError> {
        let trained = self.graph.params().iter().zip(&self.grads).filter(|(_, g)| g.is_some());
        trained.map(|(p, g)| Ok((p.name.clone(), self.read(p, g)?))).collect()
    }

    fn optimizer(&self) -> Result<Vec<(String, HostTensor)>, ExecError> {
        self.optimizer.export(&*self.kernels, &self.graph)
    }

    fn set_optimizer(&mut self, state: &[(String, HostTensor)]) -> Result<(), ExecError> {
        self.optimizer.import(&*self.kernels, &self.graph, state)
    }

    fn release(&mut self) {
        self.arena = Arena::default();
    }

    fn set_profiling(&mut self, on: bool) {
        self.profile = on.then(Profile::default);
    }

    fn profile(&self) -> Vec<KernelTime> {
        self.profile.as_ref().map(Profile::rows).unwrap_or_default()
    }
}

impl<K: Kernels> Interpreter<K> {
    /// Counts a change of any weight, frozen or not.
    fn loaded_anew(&mut self) {
        self.known.get_mut().clear();
        self.version += 1;
        self.loaded = self.version;
    }

    fn zero_grads(&mut self) -> Result<(), ExecError> {
        for (grad, param) in self.grads.iter_mut().zip(self.graph.params()) {
            if let Some(grad) = grad {
                self.kernels.fill(param.len(), 0.0, grad)?;
            }
        }
        Ok(())
    }

    fn read(&self, param: &Param, buffer: &Option<K::Buf>) -> Result<HostTensor, ExecError> {
        let buffer = buffer.as_ref().expect("buffers are in place between calls");
        read(&*self.kernels, param, buffer)
    }
}
