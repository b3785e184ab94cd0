//! Keras' names and layouts of the published networks, as torchvision's.
//!
//! Names on the Keras side are `<layer>/<variable>`. Kernels turn from HWIO to OIHW, depthwise kernels from HWCM to
//! `[c * m, 1, h, w]`, dense kernels from `[in, out]` to `[out, in]`, and a dense layer behind `Flatten` reads its inputs
//! in C, H, W order instead of H, W, C. Nothing here changes a value: the geometry that Keras' weights need (padding,
//! the stride on a bottleneck's first convolution, the batch norm's epsilon) is the graph's affair.

use std::collections::HashSet;

use defrost_tensor::HostTensor;

mod head;

pub use head::{image_size, own_head};

/// The networks whose Keras names are known.
pub const MODELS: [&str; 3] = ["mobilenet_v2", "resnet50", "vgg16"];

/// Why Keras tensors are not those of the network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KerasError {
    /// No name map for this network.
    #[error("no Keras names are known for `{model}`; they are for {}", MODELS.join(", "))]
    UnknownModel {
        /// The name that was asked for.
        model: String,
    },
    /// A tensor whose shape does not fit its kind of layer.
    #[error("`{name}` of shape {shape:?} is no {kind}")]
    Shape {
        /// The name in Keras.
        name: String,
        /// The shape in Keras.
        shape: Vec<usize>,
        /// What a tensor of this name is.
        kind: &'static str,
    },
    /// Two tensors for one place.
    #[error("`{name}` is given twice, the second time as `{keras}`")]
    Twice {
        /// The name in torchvision.
        name: String,
        /// The name in Keras.
        keras: String,
    },
}

/// `tensors` of Keras' `model` under torchvision's names and in its layouts, in the order given.
///
/// A tensor that the published network does not have (an own head's `dense/kernel`, say) keeps its name and layout, so
/// that loading can report it.
///
/// # Errors
/// [`KerasError`]: the model is unknown, a shape does not fit, or two tensors would get one name.
pub fn to_torchvision(
    model: &str,
    tensors: impl IntoIterator<Item = (String, HostTensor)>,
) -> Result<Vec<(String, HostTensor)>, KerasError> {
    let map = match model {
        "mobilenet_v2" => mobilenet_v2_name,
        "resnet50" => resnet50_name,
        "vgg16" => vgg16_name,
        _ => return Err(KerasError::UnknownModel { model: model.into() }),
    };
    let mut seen = HashSet::new();
    let rename = |(keras, tensor): (String, HostTensor)| {
        let Some(name) = map(&keras) else { return Ok((keras, tensor)) };
        let tensor = if name.ends_with(".weight") { layout(&keras, tensor)? } else { tensor };
        if seen.insert(name.clone()) { Ok((name, tensor)) } else { Err(KerasError::Twice { name, keras }) }
    };
    tensors.into_iter().map(rename).collect()
}

/// A dense kernel on a flattened map of `side` x `side` x `channels` with its inputs in C, H, W order.
fn spatial(kernel: HostTensor, side: usize, channels: usize) -> Option<HostTensor> {
    let &[inputs, outputs] = kernel.shape() else { return None };
    let map = kernel.reshape([side, side, channels, outputs]).ok()?;
    map.permute(&[3, 2, 0, 1]).reshape([outputs, inputs]).ok()
}

/// torchvision's name of a tensor of Keras' MobileNetV2.
pub fn mobilenet_v2_name(keras: &str) -> Option<String> {
    let (layer, variable) = keras.rsplit_once('/')?;
    let module = match layer {
        "Conv1" => "features.0.0".into(),
        "bn_Conv1" | "Conv1_bn" => "features.0.1".into(),
        "Conv_1" => "features.18.0".into(),
        "Conv_1_bn" => "features.18.1".into(),
        "predictions" | "Logits" => "classifier.1".into(),
        _ => {
            let (block, part) = match layer.strip_prefix("expanded_conv_") {
                Some(part) => (0, part),
                None => {
                    let (n, part) = layer.strip_prefix("block_")?.split_once('_')?;
                    (number(n, 1..=16)?, part)
                }
            };
            // The first block does not expand, so what follows moves up by one.
            let parts = ["expand", "expand_BN", "depthwise", "depthwise_BN", "project", "project_BN"];
            let place = match (block, parts.iter().position(|p| *p == part)?) {
                (0, 0 | 1) => return None,
                (0, i) => ["0.0", "0.1", "1", "2"][i - 2],
                (_, i) => ["0.0", "0.1", "1.0", "1.1", "2", "3"][i],
            };
            format!("features.{}.conv.{place}", block + 1)
        }
    };
    Some(format!("{module}.{}", leaf(variable)?))
}

/// torchvision's name of a tensor of Keras' VGG16.
pub fn vgg16_name(keras: &str) -> Option<String> {
    let (layer, variable) = keras.rsplit_once('/')?;
    let module = match layer {
        "fc1" => "classifier.0".into(),
        "fc2" => "classifier.3".into(),
        "predictions" => "classifier.6".into(),
        _ => {
            let (block, conv) = layer.strip_prefix("block")?.split_once("_conv")?;
            let block = number(block, 1..=5)?;
            let conv = number(conv, 1..=if block < 3 { 2 } else { 3 })?;
            // The place of a block's first convolution in `features`, where ReLU and pooling count too.
            let first = [0, 5, 10, 17, 24][block - 1];
            format!("features.{}", first + 2 * (conv - 1))
        }
    };
    Some(format!("{module}.{}", leaf(variable)?))
}

/// torchvision's name of a tensor of Keras' ResNet50, with today's layer names (`conv2_block1_1_conv`) or those before
/// 2019 (`res2a_branch2a`). Keras' convolutions have a bias, which torchvision's do not: `layer1.0.conv1.bias`.
pub fn resnet50_name(keras: &str) -> Option<String> {
    const BLOCKS: [usize; 4] = [3, 4, 6, 3];
    let (layer, variable) = keras.rsplit_once('/')?;
    let module = match layer {
        "conv1_conv" | "conv1" => "conv1".into(),
        "conv1_bn" | "bn_conv1" => "bn1".into(),
        "predictions" | "probs" | "fc1000" => "fc".into(),
        _ => {
            let early = layer.strip_prefix("res").map(|r| (r, false));
            let (stage, block, part, norm) =
                match early.or_else(|| layer.strip_prefix("bn").map(|r| (r, true))) {
                    Some((rest, norm)) => {
                        let (place, branch) = rest.split_once("_branch")?;
                        let (stage, letter) = place.split_at_checked(1)?;
                        let part = ["1", "2a", "2b", "2c"].iter().position(|b| *b == branch)?;
                        let letter = <[u8; 1]>::try_from(letter.as_bytes()).ok()?[0];
                        let block = usize::from(letter.checked_sub(b'a')?) + 1;
                        (number(stage, 2..=5)?, block, part, norm)
                    }
                    None => {
                        let (stage, rest) = layer.strip_prefix("conv")?.split_once("_block")?;
                        let mut rest = rest.split('_');
                        let (block, part, kind) = (rest.next()?, rest.next()?, rest.next()?);
                        if rest.next().is_some() || !matches!(kind, "conv" | "bn") {
                            return None;
                        }
                        (number(stage, 2..=5)?, number(block, 1..=6)?, number(part, 0..=3)?, kind == "bn")
                    }
                };
            if block > BLOCKS[stage - 2] || (part == 0 && block != 1) {
                return None;
            }
            let inside = match (part, norm) {
                (0, norm) => format!("downsample.{}", usize::from(norm)),
                (n, false) => format!("conv{n}"),
                (n, true) => format!("bn{n}"),
            };
            format!("layer{}.{}.{inside}", stage - 1, block - 1)
        }
    };
    Some(format!("{module}.{}", leaf(variable)?))
}

/// torchvision's name of a layer's variable.
fn leaf(variable: &str) -> Option<&'static str> {
    Some(match variable {
        "kernel" | "depthwise_kernel" | "gamma" => "weight",
        "bias" | "beta" => "bias",
        "moving_mean" => "running_mean",
        "moving_variance" => "running_var",
        _ => return None,
    })
}

/// A whole number as a name has it, without sign or leading zeros.
fn number(text: &str, within: std::ops::RangeInclusive<usize>) -> Option<usize> {
    let n: usize = text.parse().ok()?;
    (within.contains(&n) && n.to_string() == text).then_some(n)
}

/// A weight in torchvision's layout.
fn layout(name: &str, tensor: HostTensor) -> Result<HostTensor, KerasError> {
    let shape = tensor.shape().to_vec();
    let depthwise = name.contains("depthwise");
    let wrong = |kind| KerasError::Shape { name: name.into(), shape: shape.clone(), kind };
    match shape[..] {
        [_] if name.ends_with("/gamma") => Ok(tensor),
        _ if name.ends_with("/gamma") => Err(wrong("batch-norm scale")),
        [h, w, c, m] if depthwise => {
            let out = tensor.permute(&[2, 3, 0, 1]).reshape([c * m, 1, h, w]);
            out.map_err(|_| wrong("depthwise kernel"))
        }
        [_, _, _, _] => Ok(tensor.permute(&[3, 2, 0, 1])),
        [inputs, _] => {
            // VGG16's first dense layer flattens h x w x 512; its weights depend on the image size they were trained for.
            let side = if name == "fc1/kernel" { (inputs / 512).isqrt() } else { 1 };
            if side < 2 || side * side * 512 != inputs {
                return Ok(tensor.permute(&[1, 0]));
            }
            spatial(tensor, side, 512).ok_or_else(|| wrong("dense kernel"))
        }
        _ => Err(wrong("convolution or dense kernel")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(map: fn(&str) -> Option<String>, pairs: &[(&str, &str)]) {
        for (keras, torch) in pairs {
            assert_eq!(map(keras).as_deref(), Some(*torch), "{keras}");
        }
    }

    #[test]
    fn mobilenet_v2_names() {
        check(
            mobilenet_v2_name,
            &[
                ("Conv1/kernel", "features.0.0.weight"),
                ("bn_Conv1/gamma", "features.0.1.weight"),
                ("expanded_conv_depthwise/depthwise_kernel", "features.1.conv.0.0.weight"),
                ("expanded_conv_depthwise_BN/beta", "features.1.conv.0.1.bias"),
                ("expanded_conv_project/kernel", "features.1.conv.1.weight"),
                ("expanded_conv_project_BN/moving_variance", "features.1.conv.2.running_var"),
                ("block_1_expand/kernel", "features.2.conv.0.0.weight"),
                ("block_16_depthwise_BN/moving_mean", "features.17.conv.1.1.running_mean"),
                ("block_16_project/kernel", "features.17.conv.2.weight"),
                ("block_3_project_BN/gamma", "features.4.conv.3.weight"),
                ("Conv_1_bn/beta", "features.18.1.bias"),
                ("predictions/bias", "classifier.1.bias"),
            ],
        );
        for other in
            ["block_17_expand/kernel", "block_0_expand/kernel", "dense/kernel", "block_01_expand/kernel"]
        {
            assert_eq!(mobilenet_v2_name(other), None, "{other}");
        }
    }

    #[test]
    fn vgg16_names() {
        check(
            vgg16_name,
            &[
                ("block1_conv1/kernel", "features.0.weight"),
                ("block2_conv2/bias", "features.7.bias"),
                ("block3_conv3/kernel", "features.14.weight"),
                ("block5_conv3/bias", "features.28.bias"),
                ("fc2/kernel", "classifier.3.weight"),
                ("predictions/kernel", "classifier.6.weight"),
            ],
        );
        assert_eq!(vgg16_name("block1_conv3/kernel"), None);
    }

    #[test]
    fn resnet50_names_of_both_ages() {
        check(
            resnet50_name,
            &[
                ("conv1_conv/bias", "conv1.bias"),
                ("conv2_block1_0_conv/kernel", "layer1.0.downsample.0.weight"),
                ("conv2_block1_0_bn/moving_mean", "layer1.0.downsample.1.running_mean"),
                ("conv4_block6_3_bn/gamma", "layer3.5.bn3.weight"),
                ("conv5_block3_2_conv/bias", "layer4.2.conv2.bias"),
                ("res2a_branch1/kernel", "layer1.0.downsample.0.weight"),
                ("bn4f_branch2c/gamma", "layer3.5.bn3.weight"),
                ("bn_conv1/beta", "bn1.bias"),
                ("fc1000/kernel", "fc.weight"),
                ("predictions/kernel", "fc.weight"),
            ],
        );
        for other in [
            "conv2_block4_1_conv/kernel",
            "conv2_block2_0_conv/kernel",
            "res5d_branch2a/kernel",
            "conv2_block1_out",
        ] {
            assert_eq!(resnet50_name(other), None, "{other}");
        }
    }

    #[test]
    fn layouts_turn() {
        let count = |shape: &[usize]| {
            HostTensor::new(shape, (0..shape.iter().product()).map(|v| v as f32).collect::<Vec<_>>()).unwrap()
        };
        let one = |name: &str, shape: &[usize]| {
            to_torchvision("vgg16", [(name.to_owned(), count(shape))]).unwrap().pop().unwrap().1
        };
        let conv = one("block1_conv1/kernel", &[3, 3, 2, 4]);
        assert_eq!(conv.shape(), [4, 2, 3, 3]);
        // Element (o, i, h, w) = (1, 1, 0, 2) was (0, 2, 1, 1).
        assert_eq!(conv.view()[[1, 1, 0, 2]], ((2 * 2 + 1) * 4 + 1) as f32);
        let dense = one("fc2/kernel", &[2, 3]);
        assert_eq!((dense.shape(), dense.data()), (&[3, 2][..], &[0., 3., 1., 4., 2., 5.][..]));
        let flat = one("fc1/kernel", &[2 * 2 * 512, 3]);
        // Input (c, h, w) = (5, 1, 0) was row (h * 2 + w) * 512 + c.
        assert_eq!(flat.view()[[2, (5 * 2 + 1) * 2]], ((2 * 512 + 5) * 3 + 2) as f32);

        let all = [
            ("block_1_depthwise/kernel".to_owned(), count(&[3, 3, 4, 1])),
            ("dense/bias".to_owned(), count(&[2])),
        ];
        let all = to_torchvision("mobilenet_v2", all).unwrap();
        assert_eq!(all[0].1.shape(), [4, 1, 3, 3]);
        assert_eq!(all[0].1.view()[[2, 0, 1, 1]], (4 * 4 + 2) as f32);
        assert_eq!(all[1].0, "dense/bias");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let zeros = |name: &str, shape: &[usize]| (name.to_owned(), HostTensor::zeros(shape));
        let error = |model, tensors: Vec<_>| to_torchvision(model, tensors).unwrap_err();
        assert!(matches!(error("alexnet", vec![]), KerasError::UnknownModel { .. }));
        assert!(matches!(error("vgg16", vec![zeros("fc1/kernel", &[3])]), KerasError::Shape { .. }));
        let twice = vec![zeros("conv1/bias", &[1]), zeros("conv1_conv/bias", &[1])];
        assert!(matches!(error("resnet50", twice), KerasError::Twice { .. }));
    }
}
