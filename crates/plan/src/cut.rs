//! Where a network is cut into a prefix that never changes and a suffix that trains.

use defrost_graph::{Graph, NodeId};

/// The last fixed node through which everything after it depends on the image: its output is all that a training
/// step needs of the prefix. The input where nothing later qualifies.
pub fn cut(graph: &Graph, fixed: &[bool]) -> NodeId {
    let fixed = fixed.iter().take_while(|fixed| **fixed).count();
    let all = vec![true; graph.nodes().len()];
    necks(graph, &all).into_iter().take_while(|id| id.index() < fixed).last().unwrap_or(Graph::INPUT)
}

/// The nodes through which alone everything after them depends on what was before, in order, where the nodes of `alive` are
/// all that there is; the output is not one of them: nothing follows.
pub(crate) fn necks(graph: &Graph, alive: &[bool]) -> Vec<NodeId> {
    let mut necks = Vec::new();
    // The earliest node that anything after the current one reads.
    let mut earliest = usize::MAX;
    for id in graph.node_ids().rev().filter(|id| alive[id.index()]) {
        if id != graph.output() && earliest >= id.index() {
            necks.push(id);
        }
        let reads = graph.node(id).inputs.iter().map(|n| n.index()).min().unwrap_or(usize::MAX);
        earliest = earliest.min(reads);
    }
    necks.reverse();
    necks
}
