//! ResNet18 and ResNet50 (He et al. 2015, "Deep Residual Learning for Image Recognition").
//!
//! torchvision's ResNet50 is "v1.5": the stride of a bottleneck is on its 3×3. Keras' and Caffe's (which is Lasagne's) are
//! the paper's, on the first 1×1.

use defrost_tensor::{Activation, ConvDesc, NormDesc, PoolDesc, RunningVariance};

use crate::layers::{LinearInit, Net};
use crate::{Geometry, ModelSpec, ZooError, head};

/// The blocks of a ResNet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Blocks in `layer1` to `layer4`.
    blocks: [usize; 4],
    /// Whether blocks are bottlenecks (1×1, 3×3, 1×1 to four times the width) or two 3×3.
    bottleneck: bool,
}

pub(crate) const RESNET18: Config = Config { blocks: [2, 2, 2, 2], bottleneck: false };
pub(crate) const RESNET50: Config = Config { blocks: [3, 4, 6, 3], bottleneck: true };

pub(crate) fn build(spec: &ModelSpec, net: &mut Net, config: Config) -> Result<(), ZooError> {
    let style = Style(spec.geometry);
    net.stage("conv1", false);
    net.conv("conv1", ConvDesc::new(spec.in_channels, 64, 7, 2, 3), style.0 != Geometry::Torch)?;
    style.norm(net, "bn1")?;
    net.activate("relu", Activation::Relu)?;
    // Keras pads this with zeros, torch with minus infinity: the same behind a ReLU.
    let pool = match style.0 {
        Geometry::Lasagne => PoolDesc::Window { kernel: [3; 2], stride: [2; 2], padding: [0; 2], ceil: true },
        _ => PoolDesc::square(3, 2, 1),
    };
    net.max_pool("maxpool", pool)?;
    for (i, &count) in config.blocks.iter().enumerate() {
        let layer = format!("layer{}", i + 1);
        net.stage(&layer, false);
        for j in 0..count {
            let stride = if i > 0 && j == 0 { 2 } else { 1 };
            block(net, &format!("{layer}.{j}"), style, config.bottleneck, 64 << i, stride)?;
        }
    }
    let published = head::Published { node: "fc", dropout: None, init: LinearInit::FanInUniform };
    head::build(spec, net, published)
}

#[derive(Clone, Copy)]
struct Style(Geometry);

impl Style {
    fn conv(self, net: &mut Net, name: &str, desc: ConvDesc) -> Result<(), ZooError> {
        Ok(net.conv(name, desc, self.0 == Geometry::Keras)?)
    }

    fn norm(self, net: &mut Net, name: &str) -> Result<(), ZooError> {
        let channels = net.shape().c;
        let biased =
            |eps, momentum| NormDesc { channels, eps, momentum, running_variance: RunningVariance::Biased };
        let desc = match self.0 {
            Geometry::Keras => biased(1.001e-5, 0.01),
            Geometry::Lasagne => biased(1e-4, 0.1),
            _ => NormDesc::torch(channels),
        };
        Ok(net.norm(name, desc)?)
    }
}

fn block(
    net: &mut Net,
    name: &str,
    style: Style,
    bottleneck: bool,
    width: usize,
    stride: usize,
) -> Result<(), ZooError> {
    net.block(name);
    let (input, channels) = (net.at(), net.shape().c);
    let out = if bottleneck { 4 * width } else { width };
    let convs = if bottleneck {
        let (first, second) = if style.0 == Geometry::Torch { (1, stride) } else { (stride, 1) };
        vec![
            ConvDesc::new(channels, width, 1, first, 0),
            ConvDesc::new(width, width, 3, second, 1),
            ConvDesc::new(width, out, 1, 1, 0),
        ]
    } else {
        vec![ConvDesc::new(channels, width, 3, stride, 1), ConvDesc::new(width, width, 3, 1, 1)]
    };
    let last = convs.len();
    for (i, desc) in (1..).zip(convs) {
        style.conv(net, &format!("{name}.conv{i}"), desc)?;
        style.norm(net, &format!("{name}.bn{i}"))?;
        if i < last {
            net.activate(&format!("{name}.relu{i}"), Activation::Relu)?;
        }
    }
    let (main, mut shortcut) = (net.at(), input);
    if stride > 1 || channels != out {
        net.go_to(input);
        style.conv(net, &format!("{name}.downsample.0"), ConvDesc::new(channels, out, 1, stride, 0))?;
        style.norm(net, &format!("{name}.downsample.1"))?;
        shortcut = net.at();
        net.go_to(main);
    }
    net.add(&format!("{name}.add"), shortcut)?;
    net.activate(&format!("{name}.relu"), Activation::Relu)?;
    Ok(())
}
