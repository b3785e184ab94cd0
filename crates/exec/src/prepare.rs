//! Making plans, and taking the memory that they need.

use defrost_graph::Value;
use defrost_plan::{Options, Plan, Purpose};
use defrost_tensor::{KernelError, Kernels, Layout};

use crate::arena::Arena;
use crate::compiled::Compiled;
use crate::interpreter::{Interpreter, Key, Wanted};
use crate::{ExecError, Phase};

impl<K: Kernels> Interpreter<K> {
    /// Makes sure that the plan for `key` is there, and its folded weights up to date.
    pub(crate) fn prepare(&mut self, key: Key) -> Result<(), ExecError> {
        if !self.plans.contains_key(&key) {
            let plan = self.make(key)?;
            let compiled = self.reserve(plan, &[]).map_err(|e| self.no_room(key, e))?;
            self.plans.insert(key, compiled);
            self.prepare_front(key)?;
        }
        let Compiled { pieces, plan, .. } = &self.plans[&key];
        if pieces.is_some() {
            let reserved = self.arena.reserve(&*self.kernels, plan.arena() / 4);
            reserved.map_err(|e| self.no_room(key, e))?;
        }
        // Folded weights of a training plan are frozen ones, as all are before the cut: only a load changes them.
        let trains = matches!(key.1, None | Some(Wanted::Gradients));
        let setup = &self.plans[&key].plan.setup;
        let frozen = || self.cut().is_ok_and(|cut| setup.iter().all(|fold| fold.node < cut));
        let current = if trains || frozen() { self.loaded } else { self.version };
        if !self.folds.are_of(&self.plans[&key], current) {
            self.run(key, |c| (&c.setup, &c.plan.setup), None)?;
            self.folds.made(&self.plans[&key], self.version);
        }
        Ok(())
    }

    /// The plan for `key`, which the kernels can run.
    fn make(&self, (n, wanted): Key) -> Result<Plan, ExecError> {
        let (phase, width) = (self.phase.as_ref(), self.kernels.activation_bytes());
        let plan = match wanted {
            Some(wanted @ (Wanted::Node(_) | Wanted::Stages | Wanted::Front(_))) => {
                let purpose = match wanted {
                    Wanted::Node(until) | Wanted::Front(until) => Purpose::Infer { until },
                    _ => Purpose::Stages,
                };
                let marking = phase.map(|p| p.marking.clone());
                let marking = marking.unwrap_or_else(|| defrost_graph::Marking::frozen(&self.graph));
                let options = phase.map_or_else(|| Options::default().cutting(true), |p| p.options);
                let options = self.able(options).storing(width);
                Plan::new(&self.graph, &marking, n, purpose, options)?
            }
            training => {
                let Phase { marking, loss, options } = phase.ok_or(ExecError::NoPhase)?;
                let options = options.applying(options.apply && training.is_none());
                let options = self.able(options).storing(width);
                Plan::new(&self.graph, marking, n, Purpose::Train(*loss), options)?
            }
        };
        self.check_support(&plan)?;
        for (part, _) in plan.front.iter().flat_map(|front| front.parts(n)) {
            self.check_support(part)?;
        }
        Ok(plan)
    }

    /// Whether the kernels can run all of a plan's own calls.
    fn check_support(&self, plan: &Plan) -> Result<(), KernelError> {
        for i in plan.setup.iter().chain(plan.calls()) {
            let layout = |v| plan.values.info(v).layout;
            if !self.kernels.supports(&i.call.map(&mut { layout }, &mut { layout })) {
                let what = format!("{} of node `{}`", i.call.name(), self.graph.node(i.node).name);
                return Err(KernelError::Unsupported { device: self.kernels.device(), what });
            }
        }
        Ok(())
    }

    /// `options` without what this device cannot do.
    fn able(&self, options: Options) -> Options {
        let cuts = self.kernels.splitter().is_some();
        options.packing(options.pack && cuts).in_parts(options.in_parts.filter(|_| cuts))
    }

    /// Takes the memory that a plan needs, but for its values of `lent`.
    pub(crate) fn reserve(&mut self, plan: Plan, lent: &[Value]) -> Result<Compiled<K::Buf>, KernelError> {
        let compiled = Compiled::new(&*self.kernels, plan, &mut self.folds, lent)?;
        if compiled.pieces.is_some() {
            self.arena.reserve(&*self.kernels, compiled.plan.arena() / 4)?;
        }
        for (i, len) in compiled.slot_lens().into_iter().enumerate() {
            if i == self.slots.len() {
                self.slots.push(None);
                self.slot_lens.push(0);
            }
            if self.slot_lens[i] < len {
                self.slots[i] = None; // Freed before the larger one is made.
                self.slot_lens[i] = 0;
                self.slots[i] = Some(self.kernels.alloc(Layout::Plain(len))?);
                self.slot_lens[i] = len;
            }
        }
        Ok(compiled)
    }

    /// What to say where there was no room for the plan of `key`: which smaller batch there is room for is tried out. Other
    /// errors stay as they are.
    pub(crate) fn no_room(&mut self, key: Key, error: KernelError) -> ExecError {
        let KernelError::OutOfMemory { device, .. } = error else { return error.into() };
        let (n, wanted) = key;
        let wanted_mb = self.make(key).map_or(0, |p| p.memory(&self.graph, 2).total() >> 20);
        let halves = std::iter::successors(Some(n.next_power_of_two() / 2), |n| Some(n / 2));
        let fits = halves.take_while(|&n| n > 0).find(|&n| {
            self.forget();
            self.make((n, wanted)).is_ok_and(|plan| self.holds(plan, wanted.is_none()))
        });
        self.forget();
        ExecError::NoRoom { device, n, wanted_mb, fits }
    }

    /// Whether there is room for a plan, and for an optimizer's state if it has none yet and the plan is to train.
    fn holds(&mut self, plan: Plan, trains: bool) -> bool {
        let trained = self.graph.params().iter().zip(&self.grads).filter(|(_, g)| g.is_some());
        let trained: Vec<_> = trained.map(|(p, _)| p.layout()).collect();
        let times = if trains && self.optimizer.is_new() { 2 } else { 0 };
        let Ok(_held) = self.reserve(plan, &[]) else { return false };
        let mut states = trained.iter().cycle().take(times * trained.len());
        states
            .try_fold(Vec::new(), |mut all, layout| {
                self.kernels.alloc(*layout).map(|b| all.push(b)).map(|()| all)
            })
            .is_ok()
    }

    /// Gives back what plans hold; it is made anew where it is needed.
    fn forget(&mut self) {
        self.forget_plans();
        self.slots.clear();
        self.slot_lens.clear();
        self.arena = Arena::default();
    }
}
