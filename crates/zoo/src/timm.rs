//! timm's names of the published networks, as torchvision's.
//!
//! ResNets have the same names in both. timm's MobileNetV2 is an EfficientNet by its names, as is EfficientNet-Lite0, and its VGG16 has convolutions
//! in place of the two wide dense layers; their values are in the same order. timm computes as torchvision does.

use defrost_tensor::HostTensor;
use serde::Deserialize;

use crate::{Arch, Geometry, Interpolation, Preprocess};

/// What timm's `config.json`, which lies beside `model.safetensors`, says of the weights.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// timm's name of the architecture, as in `tf_efficientnet_lite0`.
    pub architecture: String,
    /// How pictures are prepared.
    pub preprocess: Preprocess,
    /// Whose arithmetic it is.
    pub geometry: Geometry,
}

impl Config {
    /// Reads a `config.json`; `None` where it is not one of timm's.
    pub fn parse(json: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct File {
            architecture: String,
            pretrained_cfg: Published,
        }
        #[derive(Deserialize)]
        struct Published {
            mean: Vec<f64>,
            std: Vec<f64>,
            #[serde(default)]
            interpolation: String,
            input_size: [usize; 3],
            test_input_size: Option<[usize; 3]>,
            crop_pct: Option<f64>,
            test_crop_pct: Option<f64>,
        }
        let File { architecture, pretrained_cfg: published } = serde_json::from_str(json).ok()?;
        let [_, crop, _] = published.test_input_size.unwrap_or(published.input_size);
        let share =
            published.test_crop_pct.or(published.crop_pct).filter(|s| *s > 0.0 && *s <= 1.0).unwrap_or(0.875);
        let positive = |values: &[f64]| values.iter().all(|v| v.is_finite() && *v > 0.0);
        if crop == 0 || published.mean.len() != published.std.len() || !positive(&published.std) {
            return None;
        }
        let interpolation = match published.interpolation.as_str() {
            "bicubic" => Interpolation::Bicubic,
            _ => Interpolation::Bilinear,
        };
        // timm's rule: the shorter side is the crop by its share, rounded down.
        let resize = (crop as f64 / share).floor() as usize;
        let preprocess = Preprocess { mean: published.mean, std: published.std, ..Preprocess::torch() };
        let preprocess = preprocess.with_size(resize, crop).with_interpolation(interpolation);
        let is_tensorflows = architecture == "tf_efficientnet_lite0";
        let geometry = if is_tensorflows { Geometry::Tensorflow } else { Geometry::Torch };
        Some(Self { architecture, preprocess, geometry })
    }
}

/// `tensors` of timm's `arch` under torchvision's names and shapes, in the order given.
///
/// What has no timm name of this network stays as it is, so that torchvision's own files pass unchanged.
pub fn to_torchvision(
    arch: Arch,
    tensors: impl IntoIterator<Item = (String, HostTensor)>,
) -> Vec<(String, HostTensor)> {
    let rename = |(timm, tensor): (String, HostTensor)| {
        let name = match arch {
            Arch::EfficientnetLite0 => efficientnet_lite0_name(&timm),
            Arch::MobilenetV2 => mobilenet_v2_name(&timm),
            Arch::Vgg16 => vgg16_name(&timm),
            Arch::Resnet18 | Arch::Resnet50 => None,
        };
        let Some(name) = name else { return (timm, tensor) };
        // Only a wide layer of VGG16 has four axes under a dense layer's name.
        let tensor = match *tensor.shape() {
            [out, i, h, w] if name.starts_with("classifier.") => {
                tensor.clone().reshape([out, i * h * w]).unwrap_or(tensor)
            }
            _ => tensor,
        };
        (name, tensor)
    };
    tensors.into_iter().map(rename).collect()
}

/// torchvision's name of a tensor of timm's `mobilenetv2_*`.
pub fn mobilenet_v2_name(timm: &str) -> Option<String> {
    let (module, leaf) = timm.rsplit_once('.')?;
    let module = match module {
        "conv_stem" => "features.0.0".into(),
        "bn1" => "features.0.1".into(),
        "conv_head" => "features.18.0".into(),
        "bn2" => "features.18.1".into(),
        "classifier" => "classifier.1".into(),
        _ => {
            let (index, part) = block(module, &[0, 1, 3, 6, 10, 13, 16, 17])?;
            let place = ["0.0", "0.1", "1.0", "1.1", "2", "3"][part];
            // The first block does not expand, so what follows moves up by one.
            let place = if index == 0 { ["", "", "0.0", "0.1", "1", "2"][part] } else { place };
            format!("features.{}.conv.{place}", index + 1)
        }
    };
    Some(format!("{module}.{leaf}"))
}

/// The published name of a tensor of timm's `efficientnet_lite0` and `tf_efficientnet_lite0`.
pub fn efficientnet_lite0_name(timm: &str) -> Option<String> {
    let (module, leaf) = timm.rsplit_once('.')?;
    let module = match module {
        "conv_stem" => "_conv_stem".into(),
        "bn1" => "_bn0".into(),
        "conv_head" => "_conv_head".into(),
        "bn2" => "_bn1".into(),
        "classifier" => "_fc".into(),
        _ => {
            let (index, part) = block(module, &[0, 1, 3, 5, 8, 11, 15, 16])?;
            let place = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"][part];
            format!("_blocks.{index}.{place}")
        }
    };
    Some(format!("{module}.{leaf}"))
}

/// The number of a module's inverted residual and the module's place in it: expanding, depthwise and projecting convolution,
/// each with its normalisation. `before` are the blocks before each of timm's stages; the first block does not expand.
fn block(module: &str, before: &[usize; 8]) -> Option<(usize, usize)> {
    let mut parts = module.strip_prefix("blocks.")?.split('.');
    let (stage, block, part) = (parts.next()?, parts.next()?, parts.next()?);
    let (stage, block): (usize, usize) = (stage.parse().ok()?, block.parse().ok()?);
    let index = before.get(stage)?.checked_add(block)?;
    if parts.next().is_some() || index >= *before.get(stage + 1)? {
        return None;
    }
    let names: &[_] = match index {
        0 => &["", "", "conv_dw", "bn1", "conv_pw", "bn2"],
        _ => &["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"],
    };
    Some((index, names.iter().position(|n| *n == part)?))
}

/// torchvision's name of a tensor of timm's `vgg16`, where it differs.
pub fn vgg16_name(timm: &str) -> Option<String> {
    let (module, leaf) = timm.rsplit_once('.')?;
    let module = match module {
        "pre_logits.fc1" => "classifier.0",
        "pre_logits.fc2" => "classifier.3",
        "head.fc" => "classifier.6",
        _ => return None,
    };
    Some(format!("{module}.{leaf}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeadLoading, ModelSpec, match_weights};

    /// timm's own listing of an EfficientNet of these blocks in each stage.
    fn timm_names(blocks: [usize; 7]) -> Vec<String> {
        let mut modules = vec!["conv_stem".to_owned(), "bn1".into()];
        for (stage, blocks) in blocks.into_iter().enumerate() {
            for block in 0..blocks {
                let parts: &[_] = match stage {
                    0 => &["conv_dw", "bn1", "conv_pw", "bn2"],
                    _ => &["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"],
                };
                modules.extend(parts.iter().map(|p| format!("blocks.{stage}.{block}.{p}")));
            }
        }
        modules.extend(["conv_head".to_owned(), "bn2".into()]);
        let leaves = |module: &str| match module.rsplit('.').next() {
            Some(last) if last.starts_with("bn") => {
                &["weight", "bias", "running_mean", "running_var", "num_batches_tracked"][..]
            }
            _ => &["weight"],
        };
        let all = modules.iter().flat_map(|m| leaves(m).iter().map(move |l| format!("{m}.{l}")));
        all.chain(["classifier.weight".into(), "classifier.bias".into()]).collect()
    }

    #[test]
    fn every_name_of_the_efficientnets_is_found_in_order() {
        type Map = fn(&str) -> Option<String>;
        for (arch, blocks, map) in [
            (Arch::MobilenetV2, [1, 2, 3, 4, 3, 3, 1], mobilenet_v2_name as Map),
            (Arch::EfficientnetLite0, [1, 2, 2, 3, 3, 4, 1], efficientnet_lite0_name),
        ] {
            let graph = ModelSpec::new(arch, 1000).build().unwrap();
            let names = timm_names(blocks).into_iter().map(|n| map(&n).unwrap_or_else(|| panic!("{n}")));
            let names: Vec<_> = names.filter(|n| !n.ends_with("tracked")).collect();
            assert!(names.iter().eq(graph.params().iter().map(|p| &p.name)), "{arch}");
            for other in
                ["blocks.7.0.bn1.weight", "blocks.6.1.bn1.weight", "features.0.0.weight", "bn3.weight"]
            {
                assert_eq!(map(other), None, "{other}");
            }
        }
    }

    #[test]
    fn a_config_says_how_pictures_are_prepared() {
        // As the hub has it for resnet18.a1_in1k, shortened.
        let json = r#"{"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": {"tag": "a1_in1k",
            "input_size": [3, 224, 224], "test_input_size": [3, 288, 288], "interpolation": "bicubic", "crop_pct": 0.95,
            "test_crop_pct": 1.0, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}"#;
        let config = Config::parse(json).unwrap();
        assert_eq!(config.geometry, Geometry::Torch);
        let a1 = crate::Weights::find(Arch::Resnet18, "a1_in1k").unwrap();
        assert_eq!(config.preprocess, a1.preprocess);
        let lite = r#"{"architecture": "tf_efficientnet_lite0", "pretrained_cfg": {"input_size": [3, 224, 224],
            "interpolation": "bicubic", "crop_pct": 0.875, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}"#;
        let config = Config::parse(lite).unwrap();
        let tf = crate::Weights::find(Arch::EfficientnetLite0, "tf_in1k").unwrap();
        assert_eq!((config.preprocess, config.geometry), (tf.preprocess.clone(), tf.geometry));
        for other in ["", "{}", r#"{"architecture": "resnet18"}"#, &json.replace("0.229", "0.0")] {
            assert_eq!(Config::parse(other), None, "{other}");
        }
    }

    #[test]
    fn vgg16s_convolutions_become_dense() {
        let tensors = [
            ("features.0.bias", vec![64]),
            ("pre_logits.fc1.weight", vec![3, 2, 7, 7]),
            ("head.fc.bias", vec![5]),
        ];
        let tensors = tensors.map(|(n, shape)| (n.to_owned(), HostTensor::zeros(shape)));
        let got = to_torchvision(Arch::Vgg16, tensors.clone());
        let got: Vec<_> = got.iter().map(|(n, t)| (n.as_str(), t.shape())).collect();
        assert_eq!(
            got,
            [("features.0.bias", &[64][..]), ("classifier.0.weight", &[3, 98]), ("classifier.6.bias", &[5])]
        );
        let counter = [("bn1.num_batches_tracked".to_owned(), HostTensor::zeros([]))];
        assert_eq!(to_torchvision(Arch::MobilenetV2, counter)[0].0, "features.0.1.num_batches_tracked");
        assert_eq!(to_torchvision(Arch::Resnet18, tensors.clone()), tensors);
        let graph = ModelSpec::new(Arch::Vgg16, 5).build().unwrap();
        let report = match_weights(&graph, got, HeadLoading::IfFits);
        assert_eq!(report.surplus, [""; 0]);
    }
}
