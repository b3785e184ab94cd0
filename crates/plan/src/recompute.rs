//! Recomputation: what the backward pass reads is computed once more instead of being kept (gradient checkpointing; Chen
//! et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
//!
//! Behind the cut the network is a chain of segments: each ends where all that follows depends on one value. That value is
//! kept; what lies between two of them is computed again right before the segment goes backward.

use std::collections::HashSet;

use defrost_graph::{Graph, Instruction, NodeId, Pass};

/// Nodes after `cut` through which alone what follows depends on what was before, in order. The output is not one of them:
/// nothing follows.
pub(crate) fn ends(graph: &Graph, cut: NodeId, alive: &[bool]) -> Vec<NodeId> {
    let mut ends = Vec::new();
    // The earliest node that anything after the current one reads.
    let mut earliest = usize::MAX;
    for id in graph.node_ids().rev().filter(|id| alive[id.index()]) {
        if id <= cut {
            break;
        }
        if earliest == id.index() {
            ends.push(id);
        }
        let reads = graph.node(id).inputs.iter().map(|i| i.index()).min().unwrap_or(usize::MAX);
        earliest = earliest.min(reads);
    }
    ends.reverse();
    ends
}

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
