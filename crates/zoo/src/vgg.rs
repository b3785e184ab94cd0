//! VGG16 without batch normalisation (Simonyan and Zisserman 2014, configuration D).

use defrost_tensor::{Activation, ConvDesc, PoolDesc};

use crate::layers::{LinearInit, Net};
use crate::{Head, ModelSpec, ZooError, head};

/// Convolutions and channels of each of the five stages.
const STAGES: [(usize, usize); 5] = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)];

pub(crate) fn build(spec: &ModelSpec, net: &mut Net) -> Result<(), ZooError> {
    let mut index = 0;
    for (count, channels) in STAGES {
        net.stage(&format!("features.{index}"), false);
        for _ in 0..count {
            let name = format!("features.{index}");
            net.block(&name);
            net.conv(&name, ConvDesc::new(net.shape().c, channels, 3, 1, 1), true)?;
            net.activate(&format!("features.{}", index + 1), Activation::Relu)?;
            index += 2;
        }
        net.max_pool(&format!("features.{index}"), PoolDesc::square(2, 2, 0))?;
        index += 1;
    }
    let init = LinearInit::Normal(0.01);
    let dropout = match spec.head {
        Head::Original => 0.5,
        Head::Linear { dropout } => dropout,
        _ => return head::build(spec, net, head::Published { node: "classifier.6", dropout: None, init }),
    };
    // The two wide layers are published and stay; only the last is new for new classes.
    net.stage("classifier.0", false);
    net.avg_pool("avgpool", PoolDesc::Adaptive { out: [7, 7] })?;
    net.flatten("flatten")?;
    for first in [0, 3] {
        if first > 0 {
            net.stage("classifier.3", false);
        }
        net.linear(&format!("classifier.{first}"), 4096, init)?;
        net.activate(&format!("classifier.{}", first + 1), Activation::Relu)?;
        net.dropout(&format!("classifier.{}", first + 2), dropout)?;
    }
    net.stage("classifier.6", true);
    net.linear("classifier.6", spec.classes, head::last_init(spec, init))?;
    Ok(())
}
