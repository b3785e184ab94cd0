//! Recomputation: what the backward pass reads is computed once more instead of being kept (gradient checkpointing; Chen
//! et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
//!
//! Behind the cut the network is a chain of segments: each ends where all that follows depends on one value. That value is
//! kept; what lies between two of them is computed again right before the segment goes backward. A finer kind computes what
//! normalisations put out ([`norms`]) again right before it is read, call by call.

use std::collections::HashSet;

use defrost_graph::{Graph, Instruction, Marking, NodeId, Pass, Statistics};

/// Ways to choose among `ends`, from few segments to many; in each, segments compute about the same number of values. What
/// follows the last chosen end goes backward at once: it is kept.
pub(crate) fn choices(graph: &Graph, cut: NodeId, ends: &[NodeId]) -> Vec<Vec<NodeId>> {
    let Some(&last) = ends.last() else { return Vec::new() };
    let computed = |after: NodeId, until: NodeId| -> usize {
        let ids = graph.node_ids().filter(|&id| id > after && id <= until);
        ids.map(|id| graph.node(id).shape.image_len()).sum()
    };
    let total = computed(cut, last);
    let mut all: Vec<Vec<NodeId>> = Vec::new();
    for segments in [2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32] {
        let (mut chosen, mut from) = (Vec::new(), cut);
        for &end in ends.iter().filter(|&&end| end != last) {
            if computed(from, end) >= total.div_ceil(segments) {
                chosen.push(end);
                from = end;
            }
        }
        if !chosen.is_empty() && !all.contains(&chosen) {
            all.push(chosen);
        }
    }
    all
}

/// Normalisations and their activations that are worth computing again before a convolution's or a pooling's gradient reads
/// them, large values first: what a normalisation reads is kept in any case, so one value in two is.
///
/// It costs time that depends on the memory's speed alone: a value is read twice, written, and read into the cache to be
/// written. At some 12 operations of convolutions a byte of memory's traffic, as processors have it, [`SHARE`] of a step's
/// operations are the limit.
pub(crate) fn norms(graph: &Graph, marking: &Marking, batch: usize, needs: &[bool]) -> Vec<bool> {
    /// Bytes of values computed again for each operation of a step: 3 % of 1/12 of them, at four bytes of traffic each.
    const SHARE: f64 = 0.03 / 12.0 / 4.0;
    let mut readers: Vec<Vec<NodeId>> = vec![Vec::new(); graph.nodes().len()];
    let mut operations = 0.0;
    for id in graph.node_ids().skip(1) {
        let node = graph.node(id);
        node.inputs.iter().for_each(|input| readers[input.index()].push(id));
        let passes = if needs[id.index()] { 3.0 } else { 1.0 };
        operations += 2.0 * passes * node.op.macs(&graph.input_shapes(id, batch)) as f64;
    }
    let kind = |id: NodeId| graph.node(id).op.kind();
    let mut found: Vec<(usize, NodeId, NodeId)> = Vec::new();
    for norm in graph.node_ids().skip(1) {
        let normalises = graph.node(norm).op.norm().is_some() && needs[norm.index()];
        if !normalises || marking.statistics(norm) == Statistics::Running {
            continue;
        }
        // With its activation, where that is all that reads it.
        let last = match readers[norm.index()][..] {
            [only] if kind(only) == "activate" => only,
            _ => continue,
        };
        if readers[last.index()].iter().any(|&r| matches!(kind(r), "conv2d" | "max_pool")) {
            found.push((4 * batch * graph.node(last).shape.image_len(), norm, last));
        }
    }
    found.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
    let mut lazy = vec![false; graph.nodes().len()];
    let mut left = SHARE * operations;
    for (bytes, norm, last) in found {
        if bytes as f64 > left {
            continue;
        }
        left -= bytes as f64;
        (lazy[norm.index()], lazy[last.index()]) = (true, true);
    }
    lazy
}

/// Takes out what was emitted once more and nobody reads. Returns how many calls are left of what was emitted again.
pub(crate) fn prune(instructions: &mut Vec<Instruction>) -> usize {
    let mut read = HashSet::new();
    let mut left = 0;
    let mut keep: Vec<_> = (instructions.iter().rev())
        .map(|i| {
            let again = i.pass == Pass::Recompute;
            let wanted = !again || i.call.writes().iter().any(|v| read.contains(v));
            if wanted {
                read.extend(i.call.reads());
                left += usize::from(again);
            }
            wanted
        })
        .collect();
    instructions.retain(|_| keep.pop().unwrap_or(true));
    left
}
