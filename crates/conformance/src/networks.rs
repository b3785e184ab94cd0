//! Small networks that have between them whatever the zoo's have: the whole-plan part of the suite.

use defrost_graph::{
    Graph, GraphBuilder, GraphError, Init, Loss, Marking, NodeId, ParamId, ParamKind, ParamMask, ParamStore,
    Statistics, op,
};
use defrost_tensor::{Activation, ConvDesc, HostTensor, NormDesc, Padding, PoolDesc, Shape4};

use crate::{det, det_f64};

/// A network with the batch it is tried on.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) name: &'static str,
    pub(crate) graph: Graph,
    /// What it is trained on.
    pub(crate) loss: Loss,
    /// Images in a batch.
    pub(crate) n: usize,
}

/// One batch, on the host.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) n: usize,
    pub(crate) images: Vec<f32>,
    pub(crate) targets: Vec<f32>,
    pub(crate) weights: Vec<f32>,
    pub(crate) keys: Vec<f32>,
}

impl Network {
    /// The weights that it starts with.
    pub(crate) fn params(&self) -> ParamStore {
        golden_params(&self.graph, self.name)
    }

    /// `n` images, other ones for every `step`. What makes up the loss weighs 1 in all: soft targets, or the weights of
    /// numbers between 0 and 1, some of which count nothing.
    pub(crate) fn batch(&self, step: usize, n: usize) -> Batch {
        let classes = self.graph.classes();
        let name = |what| format!("{}/{step}/{what}", self.name);
        let images = det(&name("input"), [n * self.graph.input_shape().len()], 0.0, 2.0).into_data();
        let mut targets = det_f64(&name("targets"), n * classes, 0.5, 0.5);
        let mut weights = det_f64(&name("weights"), n * classes, 0.4, 0.6);
        weights.iter_mut().for_each(|w| *w = w.max(0.0));
        let parts = if self.loss.of_elements().is_some() { &mut weights } else { &mut targets };
        let sum: f64 = parts.iter().sum();
        parts.iter_mut().for_each(|t| *t /= sum);
        let keys = det_f64(&name("keys"), 2 * n, 8_388_608.0, 8_388_607.0);
        let keys = keys.into_iter().map(|k| k.floor() as f32).collect();
        let [targets, weights] = [targets, weights].map(|v| v.into_iter().map(|t| t as f32).collect());
        Batch { n, images, targets, weights, keys }
    }

    /// What is tried to train: the stages of gradual unfreezing, single kinds of parameters, and every mode of batch
    /// normalisation.
    pub(crate) fn markings(&self) -> Vec<(&'static str, Marking)> {
        let graph = &self.graph;
        let kind = |id: ParamId| graph.param(id).kind;
        let stages = graph.stages().len();
        let of = |choose: &dyn Fn(ParamId) -> bool| Marking::new(graph, ParamMask::of(graph, choose));
        let norms = |mut marking: Marking, statistics| {
            let of = |id: NodeId| graph.node(id).op.norm().is_some();
            graph.node_ids().filter(|&id| of(id)).for_each(|id| marking.set_statistics(id, statistics));
            marking
        };
        let all = || of(&|_| true);
        let head = || of(&|id| graph.stage_of(id) + 1 == stages);
        let mut markings = vec![
            ("head", head()),
            ("last stage", of(&|id| graph.stage_of(id) + 2 >= stages)),
            ("everything", all()),
            ("biases", of(&|id| matches!(kind(id), ParamKind::Bias | ParamKind::NormBias))),
            ("first parameter", of(&|id| id.index() == 0)),
            ("first stage", of(&|id| graph.stage_of(id) == 0)),
            ("every other", of(&|id| id.index() % 2 == 1)),
        ];
        if graph.node_ids().any(|id| graph.node(id).op.norm().is_some()) {
            markings.extend([
                ("norms", of(&|id| kind(id).is_norm())),
                ("everything, running statistics", norms(all(), Statistics::Running)),
                ("everything, batch statistics", norms(all(), Statistics::Batch)),
                ("head, drifting statistics", norms(head(), Statistics::BatchUpdating)),
                ("first parameter, batch statistics", norms(of(&|id| id.index() == 0), Statistics::Batch)),
            ]);
        }
        markings
    }
}

/// The weights of the golden files: by [`det`] from `<seed>/<name>`, in the ranges of `make_golden.py`.
///
/// | parameter | centre | bound |
/// |---|---|---|
/// | weights of convolutions and dense layers | 0 | `sqrt(6 / fan_in)` |
/// | their biases | 0 | 0.05 |
/// | scale and running variance of a normalisation | 1 | 0.1 |
/// | scale of the last normalisation of a block below `layerN` | 0.25 | 0.025 |
/// | shift and running mean | 0 | 0.1 |
pub fn golden_params(graph: &Graph, seed: &str) -> ParamStore {
    let last = if graph.params().iter().any(|p| p.name.ends_with("bn3.weight")) { "bn3" } else { "bn2" };
    let last = format!(".{last}.weight");
    let mut store = ParamStore::zeros(graph);
    for param in graph.params() {
        let fan_in = param.shape[1..].iter().product::<usize>() as f64;
        let (centre, bound) = match param.kind {
            ParamKind::ConvWeight | ParamKind::LinearWeight => (0.0, (6.0 / fan_in).sqrt()),
            ParamKind::Bias => (0.0, 0.05),
            _ if param.name.starts_with("layer") && param.name.ends_with(&last) => (0.25, 0.025),
            ParamKind::NormWeight | ParamKind::RunningVar => (1.0, 0.1),
            _ => (0.0, 0.1),
        };
        let value: HostTensor = det(&format!("{seed}/{}", param.name), param.shape.clone(), centre, bound);
        store.set(&param.name, value).expect("the names and shapes are the graph's own");
    }
    store
}

/// The suite's small residual network, for a backend's own tests: 3 channels of 16 × 13, five classes, no dropout.
pub fn residual_network() -> Graph {
    let mut builder =
        Builder { graph: GraphBuilder::new("residual", Shape4::new(1, 3, 16, 13)), at: Graph::INPUT };
    residual(&mut builder).expect("the network's shapes fit");
    builder.graph.finish()
}

pub(crate) fn networks() -> Vec<Network> {
    let build = |name, loss, n, input, body: fn(&mut Builder) -> Result<(), GraphError>| {
        let mut builder = Builder { graph: GraphBuilder::new(name, input), at: Graph::INPUT };
        body(&mut builder).expect("the networks' shapes fit");
        Network { name, loss, n, graph: builder.graph.finish() }
    };
    vec![
        build("plain", Loss::Focal { gamma: 2.0 }, 3, Shape4::new(1, 3, 11, 10), plain),
        build("residual", Loss::CrossEntropy, 2, Shape4::new(1, 3, 16, 13), residual),
        build("inverted residual", Loss::BinaryCrossEntropy, 3, Shape4::new(1, 3, 14, 12), inverted_residual),
        build("vgg", Loss::MeanSquared, 2, Shape4::new(1, 3, 9, 8), vgg),
        build("mixed", Loss::Huber { delta: 0.5 }, 5, Shape4::new(1, 2, 8, 9), mixed),
        build("concat", Loss::CrossEntropy, 4, Shape4::new(1, 3, 9, 7), concat),
    ]
}

/// A convolution with biases, normalisation, pools of both kinds, a head.
fn plain(b: &mut Builder) -> Result<(), GraphError> {
    b.graph.stage("stem", false);
    b.conv("conv1", ConvDesc::new(3, 8, 3, 2, 1), false)?;
    b.norm("bn1", NormDesc::torch(8))?;
    b.activate("relu1", Activation::Relu)?;
    b.node("pool1", op::MaxPool(PoolDesc::square(3, 2, 1)))?;
    b.graph.stage("body", false);
    b.conv("conv2", ConvDesc::new(8, 11, 3, 1, 1), true)?;
    b.norm("bn2", NormDesc::keras_mobilenet(11))?;
    b.activate("relu2", Activation::Relu6)?;
    b.node("pool2", op::AvgPool(PoolDesc::square(2, 1, 0)))?;
    b.graph.stage("head", true);
    b.node("pool", op::AvgPool(PoolDesc::GLOBAL))?;
    b.node("flatten", op::Flatten)?;
    b.linear("fc", 11, 4, true)
}

/// ResNet's blocks: identity shortcuts in a row, then one with a convolution.
fn residual(b: &mut Builder) -> Result<(), GraphError> {
    b.graph.stage("stem", false);
    b.conv("conv1", ConvDesc::new(3, 8, 7, 2, 3), false)?;
    b.norm("bn1", NormDesc::torch(8))?;
    b.activate("relu", Activation::Relu)?;
    b.node("maxpool", op::MaxPool(PoolDesc::square(3, 2, 1)))?;
    b.graph.stage("layer1", false);
    for name in ["layer1.0", "layer1.1"] {
        basic_block(b, name, 8, 8, 1)?;
    }
    b.graph.stage("layer2", false);
    basic_block(b, "layer2.0", 8, 12, 2)?;
    basic_block(b, "layer2.1", 12, 12, 1)?;
    b.graph.stage("fc", true);
    b.node("avgpool", op::AvgPool(PoolDesc::GLOBAL))?;
    b.node("flatten", op::Flatten)?;
    b.linear("fc", 12, 5, true)
}

fn basic_block(b: &mut Builder, name: &str, from: usize, to: usize, stride: usize) -> Result<(), GraphError> {
    b.graph.block(name);
    let x = b.at;
    b.conv(&format!("{name}.conv1"), ConvDesc::new(from, to, 3, stride, 1), false)?;
    b.norm(&format!("{name}.bn1"), NormDesc::torch(to))?;
    b.activate(&format!("{name}.relu1"), Activation::Relu)?;
    b.conv(&format!("{name}.conv2"), ConvDesc::new(to, to, 3, 1, 1), false)?;
    b.norm(&format!("{name}.bn2"), NormDesc::torch(to))?;
    let branch = b.at;
    b.at = x;
    if stride != 1 || from != to {
        b.conv(&format!("{name}.downsample.0"), ConvDesc::new(from, to, 1, stride, 0), false)?;
        b.norm(&format!("{name}.downsample.1"), NormDesc::torch(to))?;
    }
    b.add(&format!("{name}.add"), branch, b.at)?;
    b.activate(&format!("{name}.relu2"), Activation::Relu)
}

/// MobileNetV2's blocks in Keras' geometry: SAME padding, depthwise convolutions, sums without an activation, dropout.
fn inverted_residual(b: &mut Builder) -> Result<(), GraphError> {
    let same = |i, o, k, s| ConvDesc::new(i, o, k, s, 0).with_padding(Padding::Same);
    b.graph.stage("stem", false);
    b.conv("stem", same(3, 8, 3, 2), false)?;
    b.norm("stem_bn", NormDesc::keras_mobilenet(8))?;
    b.activate("stem_relu", Activation::Relu6)?;
    b.graph.stage("features", false);
    for (name, from, to, stride) in [("b0", 8, 5, 1), ("b1", 5, 5, 1), ("b2", 5, 7, 2), ("b3", 7, 7, 1)] {
        b.graph.block(name);
        let (x, wide) = (b.at, from * 3);
        b.conv(&format!("{name}.expand"), same(from, wide, 1, 1), false)?;
        b.norm(&format!("{name}.expand_bn"), NormDesc::keras_mobilenet(wide))?;
        b.activate(&format!("{name}.expand_relu"), Activation::Relu6)?;
        b.conv(&format!("{name}.depthwise"), same(wide, wide, 3, stride).with_groups(wide), false)?;
        b.norm(&format!("{name}.depthwise_bn"), NormDesc::keras_mobilenet(wide))?;
        b.activate(&format!("{name}.depthwise_relu"), Activation::Relu6)?;
        b.conv(&format!("{name}.project"), same(wide, to, 1, 1), false)?;
        b.norm(&format!("{name}.project_bn"), NormDesc::keras_mobilenet(to))?;
        if from == to {
            b.add(&format!("{name}.add"), x, b.at)?;
        }
    }
    b.graph.stage("last", false);
    b.conv("last", same(7, 19, 1, 1), false)?;
    b.norm("last_bn", NormDesc::keras_mobilenet(19))?;
    b.activate("last_relu", Activation::Relu6)?;
    b.graph.stage("head", true);
    b.node("pool", op::AvgPool(PoolDesc::GLOBAL))?;
    b.node("flatten", op::Flatten)?;
    b.node("dropout", op::Dropout { rate: 0.2, layer: 0 })?;
    b.linear("classifier", 19, 3, true)
}

/// VGG: biases instead of normalisations, an adaptive pool, a flattened image, two dense layers with dropout.
fn vgg(b: &mut Builder) -> Result<(), GraphError> {
    b.graph.stage("features", false);
    for (name, from, to) in [("conv1", 3, 6), ("conv2", 6, 9)] {
        b.conv(name, ConvDesc::new(from, to, 3, 1, 1), true)?;
        b.activate(&format!("{name}.relu"), Activation::Relu)?;
    }
    b.node("pool1", op::MaxPool(PoolDesc::square(2, 2, 0)))?;
    b.graph.stage("features2", false);
    b.conv("conv3", ConvDesc::new(9, 10, 3, 1, 1), true)?;
    b.activate("conv3.relu", Activation::Relu)?;
    b.node("avgpool", op::AvgPool(PoolDesc::Adaptive { out: [3, 2] }))?;
    b.graph.stage("classifier", true);
    b.node("flatten", op::Flatten)?;
    b.linear("fc1", 60, 17, true)?;
    b.activate("fc1.relu", Activation::Relu)?;
    b.node("dropout1", op::Dropout { rate: 0.5, layer: 0 })?;
    b.linear("fc2", 17, 13, true)?;
    b.activate("fc2.relu", Activation::Relu)?;
    b.node("dropout2", op::Dropout { rate: 0.5, layer: 1 })?;
    b.linear("fc3", 13, 6, true)
}

/// What the planner may get wrong: a value read three times, one added to itself, a sum of sums, a normalisation without
/// a convolution before it, a convolution read by two normalisations, normalised vectors, a network of no parameters at
/// its start.
fn mixed(b: &mut Builder) -> Result<(), GraphError> {
    b.graph.stage("start", false);
    b.node("pool0", op::AvgPool(PoolDesc::square(2, 1, 0)))?;
    b.norm("bn0", NormDesc::torch(2))?;
    b.conv("conv1", ConvDesc::new(2, 8, 3, 1, 1), true)?;
    b.activate("relu1", Activation::Relu)?;
    b.graph.stage("branches", false);
    let x = b.at;
    b.conv("grouped", ConvDesc::new(8, 8, 3, 1, 1).with_groups(4), true)?;
    let grouped = b.at;
    b.norm("grouped.bn_a", NormDesc::torch(8))?;
    let left = b.at;
    b.at = grouped;
    b.norm("grouped.bn_b", NormDesc::keras_mobilenet(8))?;
    b.activate("grouped.relu", Activation::Relu)?;
    b.add("sum1", left, b.at)?;
    let sum = b.at;
    b.at = x;
    b.conv("dilated", ConvDesc::new(8, 8, 3, 1, 2).with_dilation(2), false)?;
    b.add("sum2", b.at, sum)?;
    b.activate("relu2", Activation::Relu6)?;
    b.add("twice", b.at, b.at)?;
    b.add("sum3", b.at, x)?;
    b.graph.stage("block", false);
    let x = b.at;
    b.conv("c1", ConvDesc::new(8, 8, 1, 1, 0), false)?;
    let c1 = b.at;
    b.at = x;
    b.conv("c2", ConvDesc::new(8, 8, 1, 1, 0), true)?;
    b.add("sum4", c1, b.at)?;
    b.activate("relu3", Activation::Relu)?;
    b.node(
        "maxpool",
        op::MaxPool(PoolDesc::Window { kernel: [3, 3], stride: [2, 2], padding: [0, 0], ceil: true }),
    )?;
    b.graph.stage("head", true);
    b.node("flatten", op::Flatten)?;
    b.linear("fc1", 8 * 3 * 4, 9, false)?;
    b.norm("fc1.bn", NormDesc::torch(9))?;
    b.activate("fc1.relu", Activation::Relu)?;
    b.node("dropout", op::Dropout { rate: 0.25, layer: 3 })?;
    b.linear("fc2", 9, 4, true)
}

/// Concatenated branches, one of them twice, a second time in a sum; fastai's head, which pools both ways.
fn concat(b: &mut Builder) -> Result<(), GraphError> {
    b.graph.stage("stem", false);
    b.conv("conv1", ConvDesc::new(3, 8, 3, 2, 1), false)?;
    b.norm("bn1", NormDesc::torch(8))?;
    b.activate("relu1", Activation::Relu)?;
    b.graph.stage("branches", false);
    let x = b.at;
    b.conv("wide", ConvDesc::new(8, 11, 3, 1, 1), true)?;
    let wide = b.at;
    b.at = x;
    b.conv("narrow", ConvDesc::new(8, 5, 1, 1, 0), false)?;
    b.norm("narrow.bn", NormDesc::torch(5))?;
    b.activate("narrow.relu", Activation::Relu)?;
    let narrow = b.at;
    b.concat("cat1", &[narrow, wide, narrow, x])?;
    b.conv("merge", ConvDesc::new(29, 5, 1, 1, 0), true)?;
    b.add("sum", b.at, narrow)?;
    b.activate("relu2", Activation::Relu6)?;
    b.graph.stage("head", true);
    let x = b.at;
    b.node("maxpool", op::MaxPool(PoolDesc::GLOBAL))?;
    let max = b.at;
    b.at = x;
    b.node("avgpool", op::AvgPool(PoolDesc::GLOBAL))?;
    b.concat("cat2", &[max, b.at])?;
    b.node("flatten", op::Flatten)?;
    b.norm("head.bn1", NormDesc::torch(10))?;
    b.node("dropout", op::Dropout { rate: 0.25, layer: 0 })?;
    b.linear("fc1", 10, 9, false)?;
    b.activate("fc1.relu", Activation::Relu)?;
    b.linear("fc2", 9, 4, false)
}

/// A network while it is built: the graph and the node that the next one follows.
struct Builder {
    graph: GraphBuilder,
    at: NodeId,
}

impl Builder {
    fn node(&mut self, name: &str, op: impl defrost_graph::Op + 'static) -> Result<(), GraphError> {
        self.at = self.graph.node(name, op, &[self.at])?;
        Ok(())
    }

    fn add(&mut self, name: &str, a: NodeId, b: NodeId) -> Result<(), GraphError> {
        self.at = self.graph.node(name, op::Add, &[a, b])?;
        Ok(())
    }

    fn concat(&mut self, name: &str, inputs: &[NodeId]) -> Result<(), GraphError> {
        self.at = self.graph.node(name, op::Concat, inputs)?;
        Ok(())
    }

    fn activate(&mut self, name: &str, activation: Activation) -> Result<(), GraphError> {
        self.node(name, op::Activate(activation))
    }

    fn param(&mut self, name: String, shape: &[usize], kind: ParamKind) -> Result<ParamId, GraphError> {
        self.graph.param(name, shape, kind, Init::Constant(0.0))
    }

    fn conv(&mut self, name: &str, desc: ConvDesc, bias: bool) -> Result<(), GraphError> {
        let weight = self.param(format!("{name}.weight"), &desc.weight_shape(), ParamKind::ConvWeight)?;
        let bias = if bias {
            Some(self.param(format!("{name}.bias"), &[desc.out_channels], ParamKind::Bias)?)
        } else {
            None
        };
        self.node(name, op::Conv2d { desc, weight, bias })
    }

    fn norm(&mut self, name: &str, desc: NormDesc) -> Result<(), GraphError> {
        let mut param = |leaf: &str, kind| self.param(format!("{name}.{leaf}"), &[desc.channels], kind);
        let bn = op::BatchNorm {
            desc,
            weight: param("weight", ParamKind::NormWeight)?,
            bias: param("bias", ParamKind::NormBias)?,
            running_mean: param("running_mean", ParamKind::RunningMean)?,
            running_var: param("running_var", ParamKind::RunningVar)?,
        };
        self.node(name, bn)
    }

    fn linear(&mut self, name: &str, from: usize, to: usize, bias: bool) -> Result<(), GraphError> {
        let weight = self.param(format!("{name}.weight"), &[to, from], ParamKind::LinearWeight)?;
        let bias =
            if bias { Some(self.param(format!("{name}.bias"), &[to], ParamKind::Bias)?) } else { None };
        self.node(name, op::Linear { in_features: from, out_features: to, weight, bias })
    }
}
