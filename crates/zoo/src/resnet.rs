//! ResNet18 and ResNet50 (He et al. 2015, "Deep Residual Learning for Image Recognition").
//!
//! torchvision's ResNet50 is "v1.5": the stride of a bottleneck is on its 3×3. Keras' is the paper's, on the first 1×1.

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
    let style = Style { keras: spec.geometry == Geometry::Keras };
    net.stage("conv1", false);
    style.conv(net, "conv1", ConvDesc::new(spec.in_channels, 64, 7, 2, 3))?;
    style.norm(net, "bn1")?;
    net.activate("relu", Activation::Relu)?;
    // Keras pads this with zeros, torch with minus infinity: the same behind a ReLU.
    net.max_pool("maxpool", PoolDesc::square(3, 2, 1))?;
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
struct Style {
    keras: bool,
}

impl Style {
    fn conv(self, net: &mut Net, name: &str, desc: ConvDesc) -> Result<(), ZooError> {
        Ok(net.conv(name, desc, self.keras)?)
    }

    fn norm(self, net: &mut Net, name: &str) -> Result<(), ZooError> {
        let channels = net.shape().c;
        let desc = if self.keras {
            NormDesc { channels, eps: 1.001e-5, momentum: 0.01, running_variance: RunningVariance::Biased }
        } else {
            NormDesc::torch(channels)
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
        let (first, second) = if style.keras { (stride, 1) } else { (1, stride) };
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
