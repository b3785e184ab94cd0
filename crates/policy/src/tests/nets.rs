//! The four networks with torchvision's names and few channels, and with the nodes that the zoo gives them.

use defrost_graph::{Graph, GraphBuilder, Init, NodeId, ParamKind, op};
use defrost_tensor::{Activation, ConvDesc, NormDesc, PoolDesc, Shape4};

struct Net {
    b: GraphBuilder,
    at: NodeId,
}

impl Net {
    fn new(name: &str) -> Self {
        Self { b: GraphBuilder::new(name, Shape4::new(1, 3, 64, 64)), at: Graph::INPUT }
    }

    fn c(&self) -> usize {
        self.b.shape(self.at).c
    }

    fn param(
        &mut self,
        name: String,
        shape: impl Into<Vec<usize>>,
        kind: ParamKind,
    ) -> defrost_graph::ParamId {
        self.b.param(name, shape, kind, Init::Constant(0.0)).unwrap()
    }

    fn push(&mut self, name: &str, op: impl defrost_graph::Op + 'static) {
        self.at = self.b.node(name, op, &[self.at]).unwrap();
    }

    fn conv(&mut self, name: &str, desc: ConvDesc, bias: bool) {
        let weight = self.param(format!("{name}.weight"), desc.weight_shape(), ParamKind::ConvWeight);
        let bias = bias.then(|| self.param(format!("{name}.bias"), [desc.out_channels], ParamKind::Bias));
        self.push(name, op::Conv2d { desc, weight, bias });
    }

    fn norm(&mut self, name: &str) {
        let desc = NormDesc::torch(self.c());
        let mut p = |leaf: &str, kind| self.param(format!("{name}.{leaf}"), [desc.channels], kind);
        let weight = p("weight", ParamKind::NormWeight);
        let bias = p("bias", ParamKind::NormBias);
        let running_mean = p("running_mean", ParamKind::RunningMean);
        let running_var = p("running_var", ParamKind::RunningVar);
        self.push(name, op::BatchNorm { desc, weight, bias, running_mean, running_var });
    }

    fn relu(&mut self, name: &str) {
        self.push(name, op::Activate(Activation::Relu));
    }

    fn add(&mut self, name: &str, other: NodeId) {
        self.at = self.b.node(name, op::Add, &[self.at, other]).unwrap();
    }

    fn linear(&mut self, name: &str, out: usize) {
        let inner = self.c();
        let weight = self.param(format!("{name}.weight"), [out, inner], ParamKind::LinearWeight);
        let bias = self.param(format!("{name}.bias"), [out], ParamKind::Bias);
        self.push(name, op::Linear { in_features: inner, out_features: out, weight, bias: Some(bias) });
    }

    fn head(mut self, stage: &str, name: &str) -> Graph {
        self.b.stage(stage, true);
        self.push("avgpool", op::AvgPool(PoolDesc::GLOBAL));
        self.push("flatten", op::Flatten);
        self.linear(name, 5);
        self.b.finish()
    }
}

pub(super) fn resnet18() -> Graph {
    resnet("resnet18", [2, 2, 2, 2], false)
}

pub(super) fn resnet50() -> Graph {
    resnet("resnet50", [3, 4, 6, 3], true)
}

fn resnet(name: &str, blocks: [usize; 4], bottleneck: bool) -> Graph {
    let mut net = Net::new(name);
    net.b.stage("conv1", false);
    net.conv("conv1", ConvDesc::new(3, 4, 7, 2, 3), false);
    net.norm("bn1");
    net.relu("relu");
    net.push("maxpool", op::MaxPool(PoolDesc::square(3, 2, 1)));
    for (i, count) in blocks.into_iter().enumerate() {
        net.b.stage(format!("layer{}", i + 1), false);
        for j in 0..count {
            let name = format!("layer{}.{j}", i + 1);
            net.b.block(&name);
            let (input, c, width) = (net.at, net.c(), 4 << i);
            let out = if bottleneck { 2 * width } else { width };
            let s = if i > 0 && j == 0 { 2 } else { 1 };
            let convs = if bottleneck {
                vec![
                    ConvDesc::new(c, width, 1, 1, 0),
                    ConvDesc::new(width, width, 3, s, 1),
                    ConvDesc::new(width, out, 1, 1, 0),
                ]
            } else {
                vec![ConvDesc::new(c, width, 3, s, 1), ConvDesc::new(width, width, 3, 1, 1)]
            };
            let last = convs.len();
            for (k, desc) in (1..).zip(convs) {
                net.conv(&format!("{name}.conv{k}"), desc, false);
                net.norm(&format!("{name}.bn{k}"));
                if k < last {
                    net.relu(&format!("{name}.relu{k}"));
                }
            }
            let (main, mut shortcut) = (net.at, input);
            if s > 1 || c != out {
                net.at = input;
                net.conv(&format!("{name}.downsample.0"), ConvDesc::new(c, out, 1, s, 0), false);
                net.norm(&format!("{name}.downsample.1"));
                shortcut = net.at;
                net.at = main;
            }
            net.add(&format!("{name}.add"), shortcut);
            net.relu(&format!("{name}.relu"));
        }
    }
    net.head("fc", "fc")
}

pub(super) fn mobilenet_v2() -> Graph {
    let mut net = Net::new("mobilenet_v2");
    let cnr = |net: &mut Net, name: &str, desc| {
        net.conv(&format!("{name}.0"), desc, false);
        net.norm(&format!("{name}.1"));
        net.relu(&format!("{name}.2"));
    };
    net.b.stage("features.0", false);
    cnr(&mut net, "features.0", ConvDesc::new(3, 8, 3, 2, 1));
    let rows = [
        (1, 4, 1, 1),
        (6, 6, 2, 2),
        (6, 8, 3, 2),
        (6, 10, 4, 2),
        (6, 12, 3, 1),
        (6, 14, 3, 2),
        (6, 16, 1, 1),
    ];
    let mut index = 1;
    for (expansion, out, repeats, first) in rows {
        for i in 0..repeats {
            let stride = if i == 0 { first } else { 1 };
            let name = format!("features.{index}");
            net.b.stage(&name, false);
            let (input, c) = (net.at, net.c());
            let hidden = c * expansion;
            let mut part = 0;
            if expansion > 1 {
                cnr(&mut net, &format!("{name}.conv.0"), ConvDesc::new(c, hidden, 1, 1, 0));
                part = 1;
            }
            let depthwise = ConvDesc::new(hidden, hidden, 3, stride, 1).with_groups(hidden);
            cnr(&mut net, &format!("{name}.conv.{part}"), depthwise);
            net.conv(&format!("{name}.conv.{}", part + 1), ConvDesc::new(hidden, out, 1, 1, 0), false);
            net.norm(&format!("{name}.conv.{}", part + 2));
            if stride == 1 && c == out {
                net.add(&format!("{name}.add"), input);
            }
            index += 1;
        }
    }
    net.b.stage("features.18", false);
    let c = net.c();
    cnr(&mut net, "features.18", ConvDesc::new(c, 20, 1, 1, 0));
    net.head("classifier", "classifier.1")
}

pub(super) fn vgg16() -> Graph {
    let mut net = Net::new("vgg16");
    let mut index = 0;
    for (count, channels) in [(2, 4), (2, 5), (3, 6), (3, 7), (3, 8)] {
        net.b.stage(format!("features.{index}"), false);
        for _ in 0..count {
            let name = format!("features.{index}");
            net.b.block(&name);
            let c = net.c();
            net.conv(&name, ConvDesc::new(c, channels, 3, 1, 1), true);
            net.relu(&format!("features.{}", index + 1));
            index += 2;
        }
        net.push(&format!("features.{index}"), op::MaxPool(PoolDesc::square(2, 2, 0)));
        index += 1;
    }
    // The two wide layers are published and no head.
    net.b.stage("classifier.0", false);
    net.push("avgpool", op::AvgPool(PoolDesc::GLOBAL));
    net.push("flatten", op::Flatten);
    net.linear("classifier.0", 9);
    net.relu("classifier.1");
    net.b.stage("classifier.3", false);
    net.linear("classifier.3", 9);
    net.relu("classifier.4");
    net.b.stage("classifier.6", true);
    net.linear("classifier.6", 5);
    net.b.finish()
}
