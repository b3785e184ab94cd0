//! Layers as Keras counts them.

use std::cmp::Reverse;

use defrost_graph::{Graph, NodeId, ParamId};
use defrost_tensor::Shape4;

/// A layer of a Keras application without its top.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KerasLayer {
    /// The node that does its work; for a padding layer the name of the node that it pads for, and `_pad`.
    pub name: String,
    /// Its parameters and buffers; none for activations, paddings, additions and pools.
    pub params: Vec<ParamId>,
}

/// The layers of `graph` without its head in the order of Keras' `model.layers`: what `layers[-N:]` counts.
///
/// Keras counts the input, every activation that follows a normalisation or an addition (one that follows a convolution
/// is part of it), every addition and pool, and a padding layer before each strided depthwise convolution, each strided
/// convolution with a kernel above 3, and each padded max-pool: 19, 175 and 154 layers for VGG16, ResNet50 and
/// MobileNetV2. They stand in the order of their longest way to the output.
pub fn layers(graph: &Graph) -> Vec<KerasLayer> {
    // The top starts with the head or with flattening, and with the pool in front of that.
    let is = |id: &NodeId, kind: &str| graph.node(*id).op.kind() == kind;
    let head = |id: &NodeId| graph.stages().get(stage(graph, *id)).is_some_and(|s| s.head);
    let top = graph.node_ids().find(|id| head(id) || is(id, "flatten")).unwrap_or(graph.output());
    let end = graph.node_ids().rev().find(|id| *id < top && !is(id, "avg_pool") && !is(id, "dropout"));
    let Some(end) = end else { return Vec::new() };
    let ids: Vec<_> = graph.node_ids().filter(|id| *id <= end).collect();

    let mut to_output = vec![0usize; graph.nodes().len()];
    for &id in ids.iter().rev() {
        let own = to_output[id.index()] + usize::from(counts(graph, id)) + usize::from(padded(graph, id));
        for input in &graph.node(id).inputs {
            to_output[input.index()] = to_output[input.index()].max(own);
        }
    }
    let mut found = Vec::new();
    for &id in &ids {
        let node = graph.node(id);
        let depth = to_output[id.index()];
        if padded(graph, id) {
            found.push((
                Reverse(depth + 1),
                KerasLayer { name: format!("{}_pad", node.name), params: Vec::new() },
            ));
        }
        if counts(graph, id) {
            found.push((Reverse(depth), KerasLayer { name: node.name.clone(), params: node.op.params() }));
        }
    }
    // Stable: of two layers at one depth the one nearer to the input (the shortcut's) has to come first.
    let mut from_input = vec![0usize; graph.nodes().len()];
    for &id in &ids {
        let before = graph.node(id).inputs.iter().map(|i| from_input[i.index()] + 1).max();
        from_input[id.index()] = before.unwrap_or(0);
    }
    let near = |name: &str| {
        let node = graph.node_ids().find(|id| graph.node(*id).name == name);
        node.map_or(0, |id| from_input[id.index()])
    };
    found.sort_by_cached_key(|(depth, layer)| (*depth, near(&layer.name)));
    found.into_iter().map(|(_, layer)| layer).collect()
}

fn stage(graph: &Graph, id: NodeId) -> usize {
    graph.blocks().get(graph.node(id).block).map_or(0, |b| b.stage)
}

/// Whether a node is a layer of its own.
fn counts(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    match node.op.kind() {
        "activate" => node.inputs.first().is_none_or(|i| graph.node(*i).op.kind() != "conv2d"),
        "flatten" | "dropout" => false,
        _ => true,
    }
}

/// Whether Keras has a padding layer in front of a node.
fn padded(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let Some(input) = node.inputs.first().map(|i| graph.node(*i).shape) else { return false };
    match node.op.kind() {
        "conv2d" => {
            let Some(&weight) = node.op.params().first() else { return false };
            let [out, inner, kernel, _] = graph.param(weight).shape[..] else { return false };
            let strided = node.shape.h < input.h;
            let depthwise = inner == 1 && out == input.c && out > 1;
            strided && (depthwise || kernel > 3)
        }
        // A pool that takes a single pixel is a padded one.
        "max_pool" => node.op.output(&[Shape4::new(1, input.c, 1, 1)]).is_ok(),
        _ => false,
    }
}
