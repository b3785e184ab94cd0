//! Which gradients are of use, and which nodes never change: from the marking alone, before anything runs.

use defrost_graph::{Graph, Marking, NodeId, Statistics};

/// For each node, whether the gradient of its output is of use: something trains at it or before it.
pub fn needs_grad(graph: &Graph, marking: &Marking) -> Vec<bool> {
    let mut needs = vec![false; graph.nodes().len()];
    for id in graph.node_ids() {
        needs[id.index()] =
            trains(graph, marking, id) || graph.node(id).inputs.iter().any(|i| needs[i.index()]);
    }
    needs
}

/// For each node, whether its output in a training step depends on the image alone: nothing trains at it or before
/// it, no batch statistics are used and nothing is random. Such a node computes in training what it computes in
/// evaluation.
pub fn is_fixed(graph: &Graph, marking: &Marking) -> Vec<bool> {
    let mut fixed = vec![false; graph.nodes().len()];
    for id in graph.node_ids() {
        let node = graph.node(id);
        let batch_statistics = node.op.norm().is_some() && marking.statistics(id) != Statistics::Running;
        fixed[id.index()] = !trains(graph, marking, id)
            && !batch_statistics
            && !node.op.is_random()
            && node.inputs.iter().all(|i| fixed[i.index()]);
    }
    fixed
}

fn trains(graph: &Graph, marking: &Marking, id: NodeId) -> bool {
    graph.node(id).op.params().iter().any(|&p| marking.params.trains(p))
}
