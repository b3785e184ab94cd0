//! The architectures by name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Geometry, ZooError, error::nearest};

/// An architecture, under its published name: torchvision's where it has one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum Arch {
    /// `efficientnet_lite0` (Tan and Le 2019 without squeeze-and-excitation and with ReLU6; Google's `lite` release 2020).
    EfficientnetLite0,
    /// `mobilenet_v2` (Sandler et al. 2018).
    MobilenetV2,
    /// `resnet18` (He et al. 2015).
    Resnet18,
    /// `resnet50` (He et al. 2015).
    Resnet50,
    /// `vgg16`, without batch normalisation (Simonyan and Zisserman 2014).
    Vgg16,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::EfficientnetLite0, Self::MobilenetV2, Self::Resnet18, Self::Resnet50, Self::Vgg16];

    /// torchvision's name, or timm's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EfficientnetLite0 => "efficientnet_lite0",
            Self::MobilenetV2 => "mobilenet_v2",
            Self::Resnet18 => "resnet18",
            Self::Resnet50 => "resnet50",
            Self::Vgg16 => "vgg16",
        }
    }

    /// The module that holds the classifier, as in `fc`: parameters of a head are below this name.
    pub const fn head_root(self) -> &'static str {
        match self {
            Self::EfficientnetLite0 => "_fc",
            Self::Resnet18 | Self::Resnet50 => "fc",
            Self::MobilenetV2 | Self::Vgg16 => "classifier",
        }
    }

    /// The fewest rows and columns of an image. All of these networks halve an image five times.
    pub const fn least_size(self) -> usize {
        32
    }

    /// Channels of the feature map in front of the head's pooling, at width 1 (of a MobileNetV2 that is wider, more).
    pub const fn features(self) -> usize {
        match self {
            Self::EfficientnetLite0 | Self::MobilenetV2 => 1280,
            Self::Resnet18 | Self::Vgg16 => 512,
            Self::Resnet50 => 2048,
        }
    }

    /// Whether there are variants of other widths.
    pub const fn has_width(self) -> bool {
        matches!(self, Self::MobilenetV2)
    }

    /// The geometry that the architecture's first weights were published in.
    pub const fn default_geometry(self) -> Geometry {
        match self {
            Self::EfficientnetLite0 => Geometry::Tensorflow,
            _ => Geometry::Torch,
        }
    }

    /// Whether a framework publishes weights of this architecture in its own geometry.
    pub const fn has_geometry(self, geometry: Geometry) -> bool {
        match geometry {
            Geometry::Torch => true,
            Geometry::Keras => matches!(self, Self::MobilenetV2 | Self::Resnet50 | Self::Vgg16),
            Geometry::Tensorflow => matches!(self, Self::EfficientnetLite0),
            Geometry::Lasagne => matches!(self, Self::Resnet50 | Self::Vgg16),
        }
    }

    /// The geometries there are weights in, the default first.
    pub fn geometries(self) -> impl Iterator<Item = Geometry> {
        let first = self.default_geometry();
        let others = Geometry::ALL.into_iter().filter(move |&g| g != first && self.has_geometry(g));
        std::iter::once(first).chain(others)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Arch {
    type Err = ZooError;

    fn from_str(name: &str) -> Result<Self, ZooError> {
        Self::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| ZooError::Unknown {
            what: "model",
            name: name.into(),
            nearest: nearest(name, Self::ALL.map(Self::name)),
            choices: Self::ALL.map(|a| a.name().into()).into(),
        })
    }
}

impl From<Arch> for String {
    fn from(arch: Arch) -> Self {
        arch.name().into()
    }
}

impl TryFrom<String> for Arch {
    type Error = ZooError;

    fn try_from(name: String) -> Result<Self, ZooError> {
        name.parse()
    }
}
