//! Where a network is cut into a prefix that never changes and a suffix that trains.

use defrost_graph::{Graph, NodeId};

/// The last fixed node through which everything after it depends on the image: its output is all that a training
/// step needs of the prefix. The input where nothing later qualifies.
pub fn cut(graph: &Graph, fixed: &[bool]) -> NodeId {
    // The first node past `id` that reads something before `id` makes `id` no cut.
    let mut earliest_read_after = vec![usize::MAX; graph.nodes().len() + 1];
    for id in graph.node_ids().rev() {
        let i = id.index();
        let reads = graph.node(id).inputs.iter().map(|n| n.index()).min().unwrap_or(usize::MAX);
        earliest_read_after[i] = earliest_read_after[i + 1].min(reads);
    }
    let mut best = Graph::INPUT;
    for id in graph.node_ids() {
        let i = id.index();
        if !fixed[i] {
            break;
        }
        if id != graph.output() && earliest_read_after[i + 1] >= i {
            best = id;
        }
    }
    best
}
