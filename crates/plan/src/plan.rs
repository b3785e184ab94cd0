//! The plan: the calls of a step, where their operands live, and what they cost.

use std::collections::HashMap;
use std::fmt;

use defrost_graph::{
    Emitter, Graph, Instruction, Loss, Marking, NodeId, Origin, ParamId, Pass, Statistics, Value, ValueInfo,
    Values,
};
use defrost_tensor::{Call, Shape4};

use crate::{Front, Options, Slots, cost, cut, fold, front, fuse, need, recompute, slots};

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Purpose {
    /// Forward, loss, backward.
    Train(Loss),
    /// Forward in evaluation mode up to a node: the output for predictions, the cut for cached features.
    Infer {
        /// The node whose value is wanted.
        until: NodeId,
    },
    /// Forward in evaluation mode through the whole network, for the mean over space of what each stage puts out:
    /// [`Plan::taps`].
    Stages,
}

/// Where a parameter is stepped within the backward pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Update {
    /// The call of [`Plan::suffix`] after which it is stepped: its gradient is whole, and nothing reads the parameter any
    /// more.
    pub after: usize,
    /// Which.
    pub param: ParamId,
    /// Its gradient.
    pub grad: Value,
    /// The gradient is one large product of matrices, which may be made and used up in pieces: it has no slot, and no memory
    /// is planned for it.
    pub fused: bool,
}

/// Why there is no plan.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A batch of no images.
    #[error("a batch needs at least one image")]
    EmptyBatch,
    /// Nothing is marked to train.
    #[error("nothing trains: every parameter is frozen")]
    NothingTrains,
    /// A constant of the loss is out of its range.
    #[error("the loss has no {constant} of {value}: take {want}")]
    Loss {
        /// Which.
        constant: &'static str,
        /// As it was given.
        value: String,
        /// What it may be.
        want: &'static str,
    },
    /// Batch statistics over a single value.
    #[error(
        "node `{node}` normalises by the batch, but a batch of {batch} has one value a channel there ({shape}): \
         use a batch of 2 or more, a larger image, or freeze this normalisation"
    )]
    OneValue {
        /// The normalisation.
        node: String,
        /// Images in the batch.
        batch: usize,
        /// The shape it sees.
        shape: Shape4,
    },
}

/// The calls of a step, compiled for one graph, marking, batch size and purpose.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Images in a batch.
    pub batch: usize,
    /// The program's values.
    pub values: Values,
    /// Folding: run once whenever weights were changed.
    pub setup: Vec<Instruction>,
    /// What runs before all else in parts of the batch, where there is such a part; to be skipped with the prefix.
    pub front: Option<Front>,
    /// What never changes in this phase and is not in the front; its last value is the cut. May be skipped where the cut's
    /// value is known.
    pub prefix: Vec<Instruction>,
    /// The rest, in the order forward, loss, backward.
    pub suffix: Vec<Instruction>,
    /// The node at which the prefix ends, the input where there is no prefix.
    pub cut: NodeId,
    /// The cut's value.
    pub cut_value: Value,
    /// The value wanted: the logits, or what [`Purpose::Infer`] asked for.
    pub output: Value,
    /// For [`Purpose::Stages`], stage by stage from the input to the output: the last node, and the mean over space of
    /// what it computes, `[n, c, 1, 1]`. Those of nodes up to the cut belong to the prefix. Else empty.
    pub taps: Vec<(NodeId, Value)>,
    /// Where values live.
    pub slots: Slots,
    /// Bytes in which an element of each value is stored, see [`widths`](crate::widths).
    pub widths: Vec<usize>,
    /// The parameters that train, in the table's order.
    pub trained: Vec<ParamId>,
    /// With [`Options::apply`], where each of them is stepped, in order; else empty.
    pub updates: Vec<Update>,
    /// One line a pass: what it did.
    pub log: Vec<String>,
}

impl Plan {
    /// Compiles a plan.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn new(
        graph: &Graph,
        marking: &Marking,
        batch: usize,
        purpose: Purpose,
        options: Options,
    ) -> Result<Self, PlanError> {
        let training = matches!(purpose, Purpose::Train(_));
        check(graph, marking, batch, training)?;
        if let Purpose::Train(loss) = purpose {
            check_loss(loss)?;
        }
        let compile = |way: (&[NodeId], Option<Vec<bool>>)| {
            let plan = Self::compile(graph, marking, batch, purpose, options, way);
            front::split(graph, marking, plan, purpose, options)
        };
        let mut kept = compile((&[], None));
        if options.renorm && options.share && training {
            let lazy = recompute::norms(graph, marking, batch, &need::needs_grad(graph, marking));
            if lazy.contains(&true) {
                let again = compile((&[], Some(lazy)));
                if again.shared() < kept.shared() {
                    kept = again;
                }
            }
        }
        if !options.recompute || !training {
            return Ok(kept);
        }
        let necks = cut::necks(graph, &ancestors(graph, graph.output()));
        let ends: Vec<_> = necks.into_iter().filter(|&id| id > kept.cut).collect();
        let choices = recompute::choices(graph, kept.cut, &ends);
        let plans = choices.iter().map(|ends| compile((ends, None)));
        // Where slots are not shared, nothing is saved by computing again: the first way is as good as any.
        let least = plans.min_by_key(Self::shared);
        match least {
            Some(plan) if plan.shared() < kept.shared() || !options.share => Ok(plan),
            _ => Ok(kept),
        }
    }

    /// Compiles a plan that keeps, of what the nodes up to the last of `ends` compute behind the cut, the values of `ends`
    /// and computes the rest again. Without `ends`, everything is kept but what is `lazy`.
    pub(crate) fn compile(
        graph: &Graph,
        marking: &Marking,
        batch: usize,
        purpose: Purpose,
        options: Options,
        (ends, lazy): (&[NodeId], Option<Vec<bool>>),
    ) -> Self {
        let training = matches!(purpose, Purpose::Train(_));
        let mut log = Vec::new();
        let cut = cut::cut(graph, &need::is_fixed(graph, marking));
        let (needs, cut, until) = match purpose {
            Purpose::Train(_) => (need::needs_grad(graph, marking), cut, graph.output()),
            // Predictions may start from the cut's value as well as a training step.
            Purpose::Infer { until } => {
                let cut = if cut < until { cut } else { Graph::INPUT };
                (vec![false; graph.nodes().len()], cut, until)
            }
            Purpose::Stages => (vec![false; graph.nodes().len()], cut, graph.output()),
        };
        let wanted = needs.iter().filter(|n| **n).count();
        log.push(format!("need-backward: {wanted} of {} nodes pass a gradient", needs.len()));

        let mut emitter = Emitter::new(graph, marking, batch, training, needs.clone(), options.accumulate);
        let alive = ancestors(graph, until);
        let (mut taps, stage_ends) = (Vec::new(), stage_ends(graph));
        for id in graph.node_ids().filter(|id| alive[id.index()]) {
            emitter.forward(id);
            if purpose == Purpose::Stages && stage_ends.contains(&id) {
                taps.push((id, emitter.mean(id)));
            }
        }
        let (cut_value, output) = (emitter.output(cut), emitter.output(until));
        if let Purpose::Train(loss) = purpose {
            emitter.loss(loss);
            if let Some(lazy) = &lazy {
                emitter.recompute_lazily(lazy.clone());
            }
            for id in graph.node_ids().rev() {
                if let Some(at) = ends.iter().position(|&end| end == id) {
                    let before = if at == 0 { cut } else { ends[at - 1] };
                    // What needs no gradient is kept where it is read at all: little of it is behind the cut.
                    let again = |n: &NodeId| *n > before && *n < id && alive[n.index()] && needs[n.index()];
                    emitter.recompute(graph.node_ids().filter(again));
                }
                emitter.backward(id);
            }
        }
        let (mut values, mut instructions) = emitter.finish();
        log.push(format!("emit: {} calls over {} values", instructions.len(), values.len()));
        if !ends.is_empty() || lazy.is_some() {
            let again = recompute::prune(&mut instructions);
            let how = if ends.is_empty() { "of norms".into() } else { format!("in {} segments", ends.len()) };
            log.push(format!("recompute: {again} calls {how}"));
        }

        let mut keep = vec![cut_value, output];
        keep.extend(taps.iter().map(|(_, value)| value));
        let mut setup = Vec::new();
        if options.fold {
            let trains = |values: &Values, value| match values.info(value).origin {
                Origin::Param(id) => training && marking.params.trains(id),
                _ => false,
            };
            setup = fold::fold(&mut values, &mut instructions, &trains, &keep);
            log.push(format!("fold: {} normalisations into convolutions", setup.len()));
        }
        if options.fuse {
            let fused = fuse::fuse(&mut instructions, &keep);
            log.push(format!(
                "fuse: {} activations, {} of their gradients, {} sums",
                fused.activations, fused.gradients, fused.residuals
            ));
        }
        // Calls of the prefix belong to nodes up to the cut. Fusion keeps the order of nodes by where a call stands.
        let in_prefix = |i: &Instruction| cut != Graph::INPUT && i.pass == Pass::Forward && i.node <= cut;
        let apply = options.apply && !options.accumulate && training;
        let mut updates = if apply { updates(&values, &instructions) } else { Vec::new() };
        let widths = slots::widths(&values, &instructions, options.activation_bytes);
        let slots = slots::assign(&values, &widths, &instructions, &keep, &updates, options.sharing());
        let what = if slots.starts.is_empty() { "buffers" } else { "pieces of one buffer" };
        log.push(format!("slots: {} {what}, {:.1} MB", slots.bytes.len(), slots.total() as f64 * 1e-6));
        if apply {
            let fused = updates.iter().filter(|u| u.fused).count();
            log.push(format!("apply: {} steps as gradients are made, {fused} in pieces", updates.len()));
            for update in &mut updates {
                update.after -= instructions[..update.after].iter().filter(|i| in_prefix(i)).count();
            }
        }
        let (prefix, suffix): (Vec<_>, Vec<_>) = instructions.into_iter().partition(in_prefix);
        log.push(format!(
            "cut: after `{}`, {} calls before, {} after",
            graph.node(cut).name,
            prefix.len(),
            suffix.len()
        ));
        let trained = if training { marking.params.iter().collect() } else { Vec::new() };
        Self {
            batch,
            values,
            setup,
            front: None,
            prefix,
            suffix,
            cut,
            cut_value,
            output,
            taps,
            slots,
            widths,
            trained,
            updates,
            log,
        }
    }

    /// Bytes in which `value` is stored.
    pub fn bytes(&self, value: Value) -> usize {
        self.widths[value.index()] * self.values.info(value).layout.len()
    }

    /// The calls that run once a step: prefix, then suffix. Those of [`Plan::front`] come before them.
    pub fn calls(&self) -> impl Iterator<Item = &Instruction> {
        self.prefix.iter().chain(&self.suffix)
    }

    /// All calls of a step, each with how often it runs.
    pub fn counted(&self) -> impl Iterator<Item = (&Instruction, u64)> {
        let parts = self.front.iter().flat_map(|front| front.parts(self.batch));
        let front = parts.flat_map(|(plan, times)| plan.calls().map(move |i| (i, times as u64)));
        front.chain(self.calls().map(|i| (i, 1)))
    }

    /// Bytes of the memory that values share by lifetime: what the slots take, or those of the front's parts, whichever is
    /// more, and the value between the two.
    pub fn shared(&self) -> usize {
        let Some(front) = &self.front else { return self.slots.total() };
        let own = if front.value == self.cut_value || front.value == self.output {
            0
        } else {
            self.bytes(front.value)
        };
        self.arena() + own
    }

    /// Bytes of the memory that is shared by lifetime and, with a front, by the front and what follows.
    pub fn arena(&self) -> usize {
        self.slots.total().max(self.front.as_ref().map_or(0, |front| front.plan.slots.total()))
    }

    /// Values written forward and read backward: what training costs in memory beyond inference. The cut's value, which
    /// is the input of what trains, is not among them.
    pub fn saved(&self) -> Vec<Value> {
        let mut written = vec![false; self.values.len()];
        let mut saved = vec![false; self.values.len()];
        for i in &self.suffix {
            if matches!(i.pass, Pass::Recompute | Pass::Backward) {
                for v in i.call.reads() {
                    saved[v.index()] |= written[v.index()] && self.values.info(v).origin.is_transient();
                }
            } else if i.pass == Pass::Forward {
                i.call.writes().into_iter().for_each(|v| written[v.index()] = true);
            }
        }
        self.values.iter().map(|(v, _)| v).filter(|v| saved[v.index()]).collect()
    }

    /// Whether anything but normalisations is computed again in the backward pass.
    pub fn recomputes(&self) -> bool {
        let again = |i: &&Instruction| i.pass == Pass::Recompute;
        self.suffix.iter().filter(again).any(|i| !matches!(i.call, Call::NormTrain(_) | Call::Activate(_)))
    }

    /// Floating-point operations of one step, `(forward, backward)`; what is computed again belongs to the latter.
    pub fn flops(&self) -> (u64, u64) {
        self.counted().fold((0, 0), |(f, b), (i, times)| match i.pass {
            Pass::Recompute | Pass::Backward => (f, b + times * cost::flops(&i.call)),
            _ => (f + times * cost::flops(&i.call), b),
        })
    }

    /// Floating-point operations of what may be skipped where the cut's value is known: front and prefix.
    pub fn prefix_flops(&self) -> u64 {
        if self.cut == Graph::INPUT {
            return 0;
        }
        let behind: u64 = self.suffix.iter().map(|i| cost::flops(&i.call)).sum();
        let (forward, backward) = self.flops();
        forward + backward - behind
    }
}

/// The calls with their operands' names and slots, one a line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.log {
            writeln!(f, "# {line}")?;
        }
        self.show(f, "setup", &self.setup)?;
        for (plan, times) in self.front.iter().flat_map(|front| front.parts(self.batch)) {
            plan.show(f, &format!("front, {} pictures, {times} times", plan.batch), &plan.suffix)?;
        }
        self.show(f, "prefix", &self.prefix)?;
        self.show(f, "suffix", &self.suffix)
    }
}

impl Plan {
    /// Calls by what they work on, one a line.
    fn show(&self, f: &mut fmt::Formatter<'_>, name: &str, calls: &[Instruction]) -> fmt::Result {
        writeln!(f, "{name}:")?;
        for i in calls {
            let show = |v: &Value| match self.slots.of[v.index()] {
                Some(slot) => format!("%{}@{slot}", v.index()),
                None => format!("{:?}", self.values.info(*v).origin),
            };
            let writes: Vec<_> = i.call.writes().iter().map(show).collect();
            let reads: Vec<_> = i.call.reads().iter().map(show).collect();
            writeln!(f, "  {} = {}({})", writes.join(", "), i.call.name(), reads.join(", "))?;
        }
        Ok(())
    }
}

/// What can be refused before anything is emitted.
fn check(graph: &Graph, marking: &Marking, batch: usize, training: bool) -> Result<(), PlanError> {
    if batch == 0 {
        return Err(PlanError::EmptyBatch);
    }
    if !training {
        return Ok(());
    }
    if marking.params.count() == 0 {
        return Err(PlanError::NothingTrains);
    }
    for id in graph.node_ids() {
        let node = graph.node(id);
        let shape = node.shape.with_batch(batch);
        if node.op.norm().is_some() && marking.statistics(id) != Statistics::Running && shape.rows() == 1 {
            return Err(PlanError::OneValue { node: node.name.clone(), batch, shape });
        }
    }
    Ok(())
}

/// Elements from which a gradient that is a product of matrices is made in pieces.
const FUSED: usize = 1 << 20;

/// Where each parameter with a gradient is stepped, by places in `instructions`, in their order.
fn updates(values: &Values, instructions: &[Instruction]) -> Vec<Update> {
    let (mut first, mut last) = (vec![usize::MAX; values.len()], vec![0; values.len()]);
    for (at, i) in instructions.iter().enumerate() {
        for value in i.call.reads().into_iter().chain(i.call.writes()) {
            let v = value.index();
            (first[v], last[v]) = (first[v].min(at), at);
        }
    }
    let weights: HashMap<_, _> = values
        .iter()
        .filter_map(|(v, info)| if let Origin::Param(id) = info.origin { Some((id, v)) } else { None })
        .collect();
    let update = |(grad, info): (Value, &ValueInfo)| {
        let Origin::ParamGrad(param) = info.origin else { return None };
        let own = last[grad.index()];
        let after = weights.get(&param).map_or(own, |w| own.max(last[w.index()]));
        let product = match instructions[after].call {
            Call::Gemm(c) => c.c == grad && !c.accumulate && c.transpose_a && c.bias.is_none(),
            _ => false,
        };
        let fused = product && first[grad.index()] == after && info.layout.len() >= FUSED;
        Some(Update { after, param, grad, fused })
    };
    let mut updates: Vec<_> = values.iter().filter_map(update).collect();
    updates.sort_by_key(|u| u.after);
    updates
}

/// The last node of each stage that has any.
fn stage_ends(graph: &Graph) -> Vec<NodeId> {
    let stage = |id: NodeId| graph.blocks().get(graph.node(id).block).map(|b| b.stage);
    let last = |s: usize| graph.node_ids().skip(1).rfind(|&id| stage(id) == Some(s));
    (0..graph.stages().len()).filter_map(last).collect()
}

fn check_loss(loss: Loss) -> Result<(), PlanError> {
    let (constant, value, fine, want) = match loss {
        Loss::Focal { gamma } => ("gamma", gamma, gamma >= 0.0, "0 or more"),
        Loss::Huber { delta } => ("delta", delta, delta > 0.0, "more than 0"),
        _ => return Ok(()),
    };
    if fine && value.is_finite() {
        return Ok(());
    }
    Err(PlanError::Loss { constant, value: value.to_string(), want })
}

/// For each node, whether `until` depends on it.
fn ancestors(graph: &Graph, until: NodeId) -> Vec<bool> {
    let mut alive = vec![false; graph.nodes().len()];
    alive[until.index()] = true;
    for id in graph.node_ids().rev() {
        if alive[id.index()] {
            graph.node(id).inputs.iter().for_each(|i| alive[i.index()] = true);
        }
    }
    alive
}
