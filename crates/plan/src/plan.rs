//! The plan: the calls of a step, where their operands live, and what they cost.

use std::fmt;

use defrost_graph::{
    Emitter, Graph, Instruction, Loss, Marking, NodeId, Origin, ParamId, Pass, Statistics, Value, Values,
};
use defrost_tensor::Shape4;

use crate::{Slots, cost, cut, fold, fuse, need, recompute, slots};

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

/// Which optional passes run. All but `accumulate` change memory and time, never a result by more than rounding; `share` and
/// `recompute` not by a bit.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// Fold frozen normalisations into convolutions.
    pub fold: bool,
    /// Fuse activations and sums.
    pub fuse: bool,
    /// Let values share buffers by lifetime.
    pub share: bool,
    /// Compute again in the backward pass what it reads, where that takes less memory than keeping it.
    pub recompute: bool,
    /// Add gradients of parameters to what is there (several small batches to one step).
    pub accumulate: bool,
}

impl Default for Options {
    /// Everything that costs no time.
    fn default() -> Self {
        Self { fold: true, fuse: true, share: true, recompute: false, accumulate: false }
    }
}

impl Options {
    /// No optional pass: each op's calls as they are, each value in a buffer of its own.
    pub fn raw() -> Self {
        Self { fold: false, fuse: false, share: false, recompute: false, accumulate: false }
    }

    /// With the least memory, at the price of up to one more forward pass.
    pub fn recomputing(self) -> Self {
        Self { recompute: true, ..self }
    }

    /// With gradients added up.
    pub fn accumulating(self) -> Self {
        Self { accumulate: true, ..self }
    }
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
    /// What never changes in this phase; its last value is the cut. May be skipped where the cut's value is known.
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
    /// The parameters that train, in the table's order.
    pub trained: Vec<ParamId>,
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
        let kept = Self::compile(graph, marking, batch, purpose, options, &[]);
        if !options.recompute || !training {
            return Ok(kept);
        }
        let ends = recompute::ends(graph, kept.cut, &ancestors(graph, graph.output()));
        let choices = recompute::choices(graph, kept.cut, &ends);
        let plans = choices.iter().map(|ends| Self::compile(graph, marking, batch, purpose, options, ends));
        // Where slots are not shared, nothing is saved by computing again: the first way is as good as any.
        let least = plans.min_by_key(|plan| plan.slots.total());
        match least {
            Some(plan) if plan.slots.total() < kept.slots.total() || !options.share => Ok(plan),
            _ => Ok(kept),
        }
    }

    /// Compiles a plan that keeps, of what the nodes up to the last of `ends` compute behind the cut, the values of `ends`
    /// and computes the rest again. Without `ends`, everything is kept.
    fn compile(
        graph: &Graph,
        marking: &Marking,
        batch: usize,
        purpose: Purpose,
        options: Options,
        ends: &[NodeId],
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
        if !ends.is_empty() {
            let again = recompute::prune(&mut instructions);
            log.push(format!("recompute: {again} calls in {} segments", ends.len()));
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
        let slots = slots::assign(&values, &instructions, &keep, options.share);
        log.push(format!("slots: {} buffers, {:.1} MB", slots.lens.len(), slots.total() as f64 * 4e-6));
        let (prefix, suffix): (Vec<_>, Vec<_>) = instructions.into_iter().partition(in_prefix);
        log.push(format!(
            "cut: after `{}`, {} calls before, {} after",
            graph.node(cut).name,
            prefix.len(),
            suffix.len()
        ));
        let trained = if training { marking.params.iter().collect() } else { Vec::new() };
        Self { batch, values, setup, prefix, suffix, cut, cut_value, output, taps, slots, trained, log }
    }

    /// Every call of a step: prefix, then suffix.
    pub fn calls(&self) -> impl Iterator<Item = &Instruction> {
        self.prefix.iter().chain(&self.suffix)
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

    /// Whether anything is computed again in the backward pass.
    pub fn recomputes(&self) -> bool {
        self.suffix.iter().any(|i| i.pass == Pass::Recompute)
    }

    /// Floating-point operations of one step, `(forward, backward)`; what is computed again belongs to the latter.
    pub fn flops(&self) -> (u64, u64) {
        self.calls().fold((0, 0), |(f, b), i| match i.pass {
            Pass::Recompute | Pass::Backward => (f, b + cost::flops(&i.call)),
            _ => (f + cost::flops(&i.call), b),
        })
    }
}

/// The calls with their operands' names and slots, one a line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.log {
            writeln!(f, "# {line}")?;
        }
        for (name, part) in [("setup", &self.setup), ("prefix", &self.prefix), ("suffix", &self.suffix)] {
            writeln!(f, "{name}:")?;
            for i in part {
                let show = |v: &Value| match self.slots.of[v.index()] {
                    Some(slot) => format!("%{}@{slot}", v.index()),
                    None => format!("{:?}", self.values.info(*v).origin),
                };
                let writes: Vec<_> = i.call.writes().iter().map(show).collect();
                let reads: Vec<_> = i.call.reads().iter().map(show).collect();
                writeln!(f, "  {} = {}({})", writes.join(", "), i.call.name(), reads.join(", "))?;
            }
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
