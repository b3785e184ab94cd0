//! What a network is, in numbers: the rows of `defrost models`.

use defrost_graph::Graph;

/// A stage in numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct StageSummary {
    /// As in `layer1`.
    pub name: String,
    /// Whether it is the head.
    pub head: bool,
    /// Elements of its trainable parameters.
    pub parameters: usize,
    /// Multiply-accumulates for one image.
    pub macs: u64,
}

/// A network in numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The architecture's name.
    pub name: String,
    /// Elements of all trainable parameters.
    pub parameters: usize,
    /// Elements of all running statistics.
    pub buffers: usize,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// From the input to the output.
    pub stages: Vec<StageSummary>,
}

/// The numbers of `graph`.
pub fn summary(graph: &Graph) -> Summary {
    let mut stages: Vec<_> = graph
        .stages()
        .iter()
        .map(|s| StageSummary { name: s.name.clone(), head: s.head, parameters: 0, macs: 0 })
        .collect();
    let mut buffers = 0;
    for id in graph.param_ids() {
        let param = graph.param(id);
        if param.kind.is_trainable() {
            stages[graph.stage_of(id)].parameters += param.len();
        } else {
            buffers += param.len();
        }
    }
    // The first node is the input, which is in no stage.
    for id in graph.node_ids().skip(1) {
        let node = graph.node(id);
        stages[graph.blocks()[node.block].stage].macs += node.op.macs(&graph.input_shapes(id, 1));
    }
    Summary {
        name: graph.name().into(),
        parameters: stages.iter().map(|s| s.parameters).sum(),
        buffers,
        macs: graph.macs(),
        stages,
    }
}
