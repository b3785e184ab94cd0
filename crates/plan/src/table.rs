//! A plan by stages: what a person wants to know before a run.

use defrost_graph::{BnMode, Graph, Instruction, Marking, Origin, Pass, Value, ValueInfo};

use crate::{Plan, cost};

/// One stage of a plan.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StageRow {
    /// The stage's name.
    pub stage: String,
    /// Parameters, buffers not counted.
    pub params: usize,
    /// Those that train.
    pub trained: usize,
    /// The modes of its normalisations, without repeats.
    pub bn_modes: Vec<BnMode>,
    /// Floating-point operations forward, for the batch.
    pub forward_flops: u64,
    /// Floating-point operations backward, for the batch.
    pub backward_flops: u64,
    /// Bytes kept from the forward pass for this stage's backward pass, for the batch.
    pub saved_bytes: usize,
    /// Whether the whole stage lies before the cut.
    pub in_prefix: bool,
}

/// Bytes a run holds at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Memory {
    /// Parameters and buffers, folded copies included.
    pub weights: usize,
    /// Gradients of what trains; those that are used up as soon as they are made are among the activations.
    pub gradients: usize,
    /// The optimizer's state of what trains.
    pub optimizer: usize,
    /// The batch and everything computed from it.
    pub activations: usize,
}

impl Memory {
    /// All together.
    pub const fn total(&self) -> usize {
        self.weights + self.gradients + self.optimizer + self.activations
    }
}

impl Plan {
    /// The plan by stages, from the input to the output.
    pub fn stages(&self, graph: &Graph, marking: &Marking) -> Vec<StageRow> {
        let stage_of_block = |block: usize| graph.blocks()[block].stage;
        let mut rows: Vec<_> = graph
            .stages()
            .iter()
            .map(|stage| StageRow {
                stage: stage.name.clone(),
                params: 0,
                trained: 0,
                bn_modes: Vec::new(),
                forward_flops: 0,
                backward_flops: 0,
                saved_bytes: 0,
                in_prefix: self.cut != Graph::INPUT,
            })
            .collect();
        for id in graph.param_ids().filter(|&id| graph.param(id).kind.is_trainable()) {
            let row = &mut rows[graph.stage_of(id)];
            row.params += graph.param(id).len();
            row.trained += if self.trained.contains(&id) { graph.param(id).len() } else { 0 };
        }
        for id in graph.node_ids().skip(1) {
            let row = &mut rows[stage_of_block(graph.node(id).block)];
            row.in_prefix &= id <= self.cut;
            if let Some(mode) = marking.bn_mode(graph, id).filter(|m| !row.bn_modes.contains(m)) {
                row.bn_modes.push(mode);
            }
        }
        for (i, times) in self.counted() {
            let row = &mut rows[stage_of_block(graph.node(i.node).block)];
            match i.pass {
                Pass::Recompute | Pass::Backward => row.backward_flops += times * cost::flops(&i.call),
                _ => row.forward_flops += times * cost::flops(&i.call),
            }
        }
        // A saved value belongs to the stage that computed it if that reads it again, else to the first that does: what
        // comes out of a frozen stage is kept for the one that trains behind it.
        for value in self.saved() {
            let (Origin::Output(node) | Origin::Saved(node)) = self.values.info(value).origin else {
                continue;
            };
            let own = stage_of_block(graph.node(node).block);
            let backward = |i: &&Instruction| matches!(i.pass, Pass::Recompute | Pass::Backward);
            let readers = self.suffix.iter().filter(backward).filter(|i| i.call.reads().contains(&value));
            let mut stages: Vec<_> = readers.map(|i| stage_of_block(graph.node(i.node).block)).collect();
            stages.sort_unstable();
            let stage = if stages.contains(&own) { own } else { stages.first().copied().unwrap_or(own) };
            rows[stage].saved_bytes += self.bytes(value);
        }
        rows
    }

    /// The memory of a run with `state` optimizer values a trained parameter (SGD with momentum 1, Adam 2).
    pub fn memory(&self, graph: &Graph, state: usize) -> Memory {
        let trained: usize = self.trained.iter().map(|&id| graph.param(id).len()).sum();
        let own = |want: fn(Origin) -> bool| -> usize {
            let kept = |(v, i): &(Value, &ValueInfo)| want(i.origin) && self.slots.of[v.index()].is_none();
            self.values.iter().filter(kept).map(|(v, _)| self.bytes(v)).sum()
        };
        let folded = own(|o| matches!(o, Origin::Folded(..)));
        let batch = own(|o| {
            use Origin::{Input, Keys, Stats, TargetWeights, Targets};
            matches!(o, Input | Targets | TargetWeights | Keys | Stats)
        });
        let kept: usize = [self.cut_value, self.output]
            .iter()
            .filter(|v| self.values.info(**v).origin.is_transient())
            .map(|v| self.bytes(*v))
            .sum();
        Memory {
            weights: 4 * graph.params().iter().map(|p| p.len()).sum::<usize>() + folded,
            gradients: if self.updates.is_empty() { 4 * trained } else { 0 },
            optimizer: 4 * trained * state,
            activations: self.shared() + batch + kept,
        }
    }
}
