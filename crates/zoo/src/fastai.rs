//! fastai's names of the published networks, as torchvision's.
//!
//! `vision_learner` makes a `Sequential` of a body, the published network's children up to its pooling, and a head
//! (`create_head`), so `learn.save` writes numbers for names: `0.4.1.conv2.weight` is `layer1.1.conv2.weight` of a
//! ResNet, `0.0.5.weight` is `features.5.weight` of VGG16 and MobileNetV2 (`cut=-1`). A body of timm keeps its names below
//! `0.model.`. The head's places are the head's below the network's own classifier: `1.8.weight` is `fc.8.weight`.

use defrost_tensor::HostTensor;

use crate::{Arch, Head, timm};

/// Whether all names are those of a body and a head, and a body is there.
pub fn is_fastai<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let mut body = false;
    let numbered = |rest: &str| {
        rest.split_once('.')
            .is_some_and(|(first, _)| !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit()))
    };
    names.into_iter().all(|name| match name.split_once('.') {
        Some(("0", rest)) => {
            body = true;
            numbered(rest) || rest.starts_with("model.")
        }
        Some(("1", rest)) => numbered(rest),
        _ => false,
    }) && body
}

/// `tensors` of fastai's `arch` under torchvision's names, in the order given. What has no fastai name of this network
/// stays as it is.
pub fn to_torchvision(
    arch: Arch,
    tensors: impl IntoIterator<Item = (String, HostTensor)>,
) -> Vec<(String, HostTensor)> {
    let rename = |(fastai, tensor): (String, HostTensor)| match fastai.strip_prefix("0.model.") {
        Some(inner) => timm::to_torchvision(arch, [(inner.to_owned(), tensor)]).remove(0),
        None => (name(arch, &fastai).unwrap_or(fastai), tensor),
    };
    tensors.into_iter().map(rename).collect()
}

/// torchvision's name of a tensor of a body that was cut from torchvision's `arch`, or of a head.
pub fn name(arch: Arch, fastai: &str) -> Option<String> {
    if let Some(rest) = fastai.strip_prefix("1.") {
        return Some(format!("{}.{rest}", arch.head_root()));
    }
    let (child, rest) = fastai.strip_prefix("0.")?.split_once('.')?;
    let module = match (arch, child) {
        (Arch::Resnet18 | Arch::Resnet50, "0") => "conv1",
        (Arch::Resnet18 | Arch::Resnet50, "1") => "bn1",
        (Arch::Resnet18 | Arch::Resnet50, "4") => "layer1",
        (Arch::Resnet18 | Arch::Resnet50, "5") => "layer2",
        (Arch::Resnet18 | Arch::Resnet50, "6") => "layer3",
        (Arch::Resnet18 | Arch::Resnet50, "7") => "layer4",
        (Arch::MobilenetV2 | Arch::Vgg16, "0") => "features",
        _ => return None,
    };
    Some(format!("{module}.{rest}"))
}

/// The head of a file with fastai's names, where it is one that `create_head` makes for a body of `features` channels.
///
/// Dropout leaves no tensors: its rate is fastai's default, 0.5, where a place is left for it, else 0.
pub fn head<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>, features: usize) -> Option<Head> {
    let mut dense: Vec<(usize, [usize; 2])> = Vec::new();
    for (name, shape) in tensors {
        let Some((place, "weight")) = name.strip_prefix("1.").and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        if let &[out, inputs] = shape {
            dense.push((place.parse().ok()?, [out, inputs]));
        }
    }
    dense.sort_unstable();
    let (&(first, [_, inputs]), rest) = dense.split_first()?;
    let concat_pool = match inputs {
        n if n == 2 * features => true,
        n if n == features => false,
        _ => return None,
    };
    // Pooling, flattening, normalisation, perhaps dropout, dense.
    let dropout = match first {
        4 => 0.5,
        3 => 0.0,
        _ => return None,
    };
    let hidden = dense[..rest.len()].iter().map(|(_, [out, _])| *out).collect();
    Some(Head::Fastai { hidden, dropout, concat_pool })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_the_published_networks_children() {
        for (arch, fastai, torch) in [
            (Arch::Resnet18, "0.0.weight", "conv1.weight"),
            (Arch::Resnet18, "0.1.running_var", "bn1.running_var"),
            (Arch::Resnet50, "0.4.0.downsample.1.bias", "layer1.0.downsample.1.bias"),
            (Arch::Resnet50, "0.7.2.conv3.weight", "layer4.2.conv3.weight"),
            (Arch::Vgg16, "0.0.28.bias", "features.28.bias"),
            (Arch::MobilenetV2, "0.0.1.conv.0.0.weight", "features.1.conv.0.0.weight"),
            (Arch::MobilenetV2, "1.8.weight", "classifier.8.weight"),
            (Arch::EfficientnetLite0, "1.2.bias", "_fc.2.bias"),
        ] {
            assert_eq!(name(arch, fastai).as_deref(), Some(torch), "{arch}");
        }
        assert_eq!(name(Arch::Resnet18, "0.2.weight"), None);
        assert_eq!(name(Arch::Vgg16, "0.1.weight"), None);
        let timm = [("0.model.blocks.1.0.conv_pw.weight".to_owned(), HostTensor::zeros([1]))];
        assert_eq!(to_torchvision(Arch::MobilenetV2, timm)[0].0, "features.2.conv.0.0.weight");
    }

    #[test]
    fn files_of_fastai_are_known_by_their_numbers() {
        assert!(is_fastai(["0.0.weight", "1.2.weight"]) && is_fastai(["0.model.conv1.weight"]));
        for other in
            [&["conv1.weight"][..], &["0.weight", "1.weight"], &["1.2.weight"], &["0.0.weight", "fc.bias"]]
        {
            assert!(!is_fastai(other.iter().copied()), "{other:?}");
        }
    }

    #[test]
    fn heads_are_told_by_their_dense_layers() {
        let head = |names: &[(&'static str, &'static [usize])]| super::head(names.iter().copied(), 512);
        let usual: &[(_, &[usize])] = &[
            ("1.2.weight", &[1024]),
            ("1.4.weight", &[512, 1024]),
            ("1.6.bias", &[512]),
            ("1.8.weight", &[37, 512]),
        ];
        let want = Head::Fastai { hidden: vec![512], dropout: 0.5, concat_pool: true };
        assert_eq!(head(usual), Some(want));
        let plain = Head::Fastai { hidden: vec![], dropout: 0.0, concat_pool: false };
        assert_eq!(head(&[("1.2.weight", &[512]), ("1.3.weight", &[37, 512])]), Some(plain));
        assert_eq!(head(&[("1.2.weight", &[37, 512])]), None);
        assert_eq!(head(&[("1.4.weight", &[37, 511])]), None);
        assert_eq!(head(&[]), None);
    }
}
