//! The networks, and the convolutions that a step of training them runs.

use std::sync::Arc;

use anyhow::Context;
use defrost_graph::{Graph, Loss, Marking, ParamMask};
use defrost_plan::{Options, Plan, Purpose};
use defrost_tensor::{Call, ConvDesc, Shape4};
use defrost_zoo::{Arch, Head, ModelSpec};

use crate::Common;

/// The networks of the tables.
const NETS: [&str; 4] = ["resnet18", "vgg16", "resnet50", "mobilenet_v2"];

/// The networks that are asked for.
pub(crate) fn nets(common: &Common) -> Vec<String> {
    if common.nets.is_empty() { NETS.map(str::to_owned).to_vec() } else { common.nets.clone() }
}

/// Images a batch of `net`.
pub(crate) fn batch(common: &Common, net: &str) -> usize {
    match common.batch {
        0 if net == "vgg16" => 8,
        0 => 16,
        batch => batch,
    }
}

/// A network with ten classes.
pub(crate) fn graph(net: &str, size: usize) -> anyhow::Result<Arc<Graph>> {
    let arch: Arch = net.parse().with_context(|| format!("network `{net}`"))?;
    let head = if net == "vgg16" { None } else { Some(Head::Linear { dropout: 0.0 }) };
    let spec = ModelSpec::new(arch, 10).with_image_size(size);
    let spec = head.into_iter().fold(spec, ModelSpec::with_head);
    Ok(Arc::new(spec.build()?))
}

/// A convolution of a network.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) desc: ConvDesc,
    pub(crate) input: Shape4,
    /// How often a step runs it forward, and how often its input's gradient is asked for.
    pub(crate) forward: usize,
    pub(crate) grad_input: usize,
}

impl Layer {
    /// As in `64->128 3x3/2 @56`.
    pub(crate) fn name(&self) -> String {
        let ConvDesc { in_channels, out_channels, kernel, stride, groups, .. } = self.desc;
        let stride = if stride[0] == 1 { String::new() } else { format!("/{}", stride[0]) };
        let depthwise = if groups > 1 { " dw" } else { "" };
        format!(
            "{in_channels}->{out_channels} {}x{}{stride}{depthwise} @{}",
            kernel[0], kernel[1], self.input.h
        )
    }
}

/// The distinct convolutions of a step in which everything trains.
pub(crate) fn convolutions(net: &str, batch: usize, size: usize) -> anyhow::Result<Vec<Layer>> {
    let graph = graph(net, size)?;
    let marking = Marking::new(&graph, ParamMask::all(&graph));
    let plan = Plan::new(&graph, &marking, batch, Purpose::Train(Loss::CrossEntropy), Options::default())?;
    let mut layers: Vec<Layer> = Vec::new();
    for i in plan.calls() {
        let (desc, input, gradient) = match &i.call {
            Call::Conv2d(c) => (c.desc, c.input, 0),
            Call::Conv2dGradInput(c) => (c.desc, c.input, 1),
            _ => continue,
        };
        match layers.iter_mut().find(|l| (l.desc, l.input) == (desc, input)) {
            Some(layer) => {
                layer.forward += 1 - gradient;
                layer.grad_input += gradient;
            }
            None => layers.push(Layer { desc, input, forward: 1, grad_input: 0 }),
        }
    }
    Ok(layers)
}
