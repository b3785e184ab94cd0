//! What is known of published weights: where they are called what, what belongs to them, how good they are.

use std::sync::LazyLock;

use crate::{Arch, Geometry, Interpolation, Preprocess, ZooError, error::nearest};

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
    /// A repository of the model hub that timm uses; the file there is `model.safetensors`.
    Hub {
        /// The repository, `owner/name`.
        id: &'static str,
    },
    /// A file of Keras applications' storage, with Keras' names: see [`crate::keras`].
    Keras {
        /// Its name.
        file: &'static str,
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

    /// Those of one architecture, its default first.
    pub fn of(arch: Arch) -> impl Iterator<Item = &'static Self> {
        Self::all().iter().filter(move |w| w.arch == arch)
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
    use Arch::{MobilenetV2, Resnet18, Resnet50, Vgg16};
    let v1 = Preprocess::torch();
    let v2 = || Preprocess::torch().with_size(232, 224);
    let torchvision = |arch, name, file, preprocess, top1| Weights {
        arch,
        name,
        source: Source::Torchvision { file },
        preprocess,
        geometry: Geometry::Torch,
        classes: Some(1000),
        top1: Some(top1),
        licence: "BSD-3-Clause",
    };
    let timm = |arch, name, id, preprocess| Weights {
        arch,
        name,
        source: Source::Hub { id },
        preprocess,
        geometry: Geometry::Torch,
        classes: Some(1000),
        top1: None,
        licence: "Apache-2.0",
    };
    let keras = |arch, name, file, preprocess, top1, licence| Weights {
        arch,
        name,
        source: Source::Keras { file },
        preprocess,
        geometry: Geometry::Keras,
        classes: Some(1000),
        top1: Some(top1),
        licence,
    };
    // Trained at 224, tested best at 288 without a border (timm's `a1` recipe).
    let a1 = || Preprocess::torch().with_size(288, 288).with_interpolation(Interpolation::Bicubic);
    vec![
        Weights {
            arch: MobilenetV2,
            name: "keras",
            source: Source::Embedded,
            preprocess: Preprocess::tf().with_size(160, 160),
            geometry: Geometry::Keras,
            classes: None,
            top1: None,
            licence: "MIT AND Apache-2.0",
        },
        torchvision(MobilenetV2, "imagenet1k_v2", "mobilenet_v2-7ebf99e0.pth", v2(), 72.154),
        torchvision(MobilenetV2, "imagenet1k_v1", "mobilenet_v2-b0353104.pth", v1.clone(), 71.878),
        keras(
            MobilenetV2,
            "keras_224",
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
            Preprocess::tf(),
            71.3,
            "Apache-2.0",
        ),
        torchvision(Resnet18, "imagenet1k_v1", "resnet18-f37072fd.pth", v1.clone(), 69.758),
        timm(Resnet18, "a1_in1k", "timm/resnet18.a1_in1k", a1()),
        torchvision(Resnet50, "imagenet1k_v2", "resnet50-11ad3fa6.pth", v2(), 80.858),
        torchvision(Resnet50, "imagenet1k_v1", "resnet50-0676ba61.pth", v1.clone(), 76.13),
        timm(Resnet50, "a1_in1k", "timm/resnet50.a1_in1k", a1()),
        keras(
            Resnet50,
            "keras",
            "resnet50_weights_tf_dim_ordering_tf_kernels.h5",
            Preprocess::caffe(),
            74.9,
            "MIT",
        ),
        torchvision(Vgg16, "imagenet1k_v1", "vgg16-397923af.pth", v1, 71.592),
        keras(
            Vgg16,
            "keras",
            "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            Preprocess::caffe(),
            71.3,
            "CC-BY-4.0",
        ),
    ]
}
