//! What a model is made from: the few choices that decide a graph.

use std::{fmt, str::FromStr};

use defrost_graph::Graph;
use defrost_tensor::Shape4;
use serde::{Deserialize, Serialize};

use crate::error::nearest;
use crate::layers::Net;
use crate::{Arch, Head, HeadInit, ZooError, efficientnet_lite0, mobilenet_v2, resnet, vgg};

/// Whose arithmetic a network follows where frameworks differ. Weights only fit the geometry they were trained in,
/// though names and shapes agree.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Geometry {
    /// torchvision and timm: symmetric padding, ResNet v1.5 (stride on the 3×3), batch norm `eps` 1e-5 and momentum 0.1.
    #[default]
    Torch,
    /// Keras applications: "same" padding at stride 2, ResNet50 v1 (stride on the first 1×1, biased convolutions,
    /// `eps` 1.001e-5, momentum 0.01), MobileNetV2 with `eps` 1e-3 and momentum 0.001 (new batch's weight).
    ///
    /// VGG16 is the same network in both; Keras flattens in `h, w, c` order, which an importer undoes in `classifier.0`.
    Keras,
    /// TensorFlow's EfficientNet-Lite0: "same" padding, batch norm with `eps` 1e-3 and momentum 0.01.
    Tensorflow,
    /// Lasagne's recipes. ResNet50 in Caffe's layout: stride on the first 1×1, a bias on `conv1` alone, max-pooling without
    /// padding that counts a last, partial window; batch norm `eps` 1e-4 and momentum 0.1. VGG16 is torchvision's network.
    Lasagne,
}

impl Geometry {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Torch, Self::Keras, Self::Tensorflow, Self::Lasagne];

    /// As in `keras`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Torch => "torch",
            Self::Keras => "keras",
            Self::Tensorflow => "tensorflow",
            Self::Lasagne => "lasagne",
        }
    }
}

impl FromStr for Geometry {
    type Err = ZooError;

    fn from_str(name: &str) -> Result<Self, ZooError> {
        Self::ALL.into_iter().find(|g| g.name() == name).ok_or_else(|| ZooError::Unknown {
            what: "geometry",
            name: name.into(),
            nearest: nearest(name, Self::ALL.map(Self::name)),
            choices: Self::ALL.map(|g| g.name().into()).into(),
        })
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Everything that decides a network's graph. Equal specifications build equal graphs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelSpec {
    /// The architecture.
    pub arch: Arch,
    /// Classes, from 1 up.
    pub classes: usize,
    /// Channels of an image, from 1 up; 3 is RGB.
    pub in_channels: usize,
    /// Rows and columns of an image, from [`Arch::least_size`] up.
    pub image_size: [usize; 2],
    /// MobileNetV2's width multiplier; 1 for the others.
    pub width: f32,
    /// Whose arithmetic the network follows.
    pub geometry: Geometry,
    /// How much a new batch counts in the running statistics of batch norm, in (0, 1]; where absent, as the geometry's framework
    /// has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_momentum: Option<f32>,
    /// The classifier.
    pub head: Head,
    /// How the classifier's last layer starts.
    pub head_init: HeadInit,
}

impl Default for ModelSpec {
    /// `mobilenet_v2` for ImageNet.
    fn default() -> Self {
        Self::new(Arch::MobilenetV2, 1000)
    }
}

impl ModelSpec {
    /// `arch` for `classes` classes as it was first published: 224×224 RGB, the published head,
    /// [`Arch::default_geometry`].
    pub fn new(arch: Arch, classes: usize) -> Self {
        Self {
            arch,
            classes,
            in_channels: 3,
            image_size: [224; 2],
            width: 1.0,
            geometry: arch.default_geometry(),
            norm_momentum: None,
            head: Head::Original,
            head_init: HeadInit::Published,
        }
    }

    /// The same for square images of `size` rows.
    pub fn with_image_size(self, size: usize) -> Self {
        Self { image_size: [size; 2], ..self }
    }

    /// The same for images of `in_channels` channels.
    pub fn with_in_channels(self, in_channels: usize) -> Self {
        Self { in_channels, ..self }
    }

    /// The same in another framework's arithmetic.
    pub fn with_geometry(self, geometry: Geometry) -> Self {
        Self { geometry, ..self }
    }

    /// The same with another momentum of the running statistics of batch norm.
    pub fn with_norm_momentum(self, momentum: f32) -> Self {
        Self { norm_momentum: Some(momentum), ..self }
    }

    /// The same with another classifier.
    pub fn with_head(self, head: Head) -> Self {
        Self { head, ..self }
    }

    /// The same with another start of the classifier's last layer.
    pub fn with_head_init(self, head_init: HeadInit) -> Self {
        Self { head_init, ..self }
    }

    /// The same, `width` times as wide.
    pub fn with_width(self, width: f32) -> Self {
        Self { width, ..self }
    }

    /// The graph: the published parameter names, shapes and order.
    ///
    /// # Errors
    /// A size, count, width, geometry or head that this architecture does not have, with what it does have.
    pub fn build(&self) -> Result<Graph, ZooError> {
        self.check()?;
        let input = Shape4::new(1, self.in_channels, self.image_size[0], self.image_size[1]);
        let mut net = Net::new(self.arch.name(), input, self.norm_momentum);
        match self.arch {
            Arch::EfficientnetLite0 => efficientnet_lite0::build(self, &mut net)?,
            Arch::MobilenetV2 => mobilenet_v2::build(self, &mut net)?,
            Arch::Resnet18 => resnet::build(self, &mut net, resnet::RESNET18)?,
            Arch::Resnet50 => resnet::build(self, &mut net, resnet::RESNET50)?,
            Arch::Vgg16 => vgg::build(self, &mut net)?,
        }
        Ok(net.finish())
    }

    fn check(&self) -> Result<(), ZooError> {
        let &Self { arch, image_size: size, width, geometry, .. } = self;
        at_least_one("the number of classes", self.classes)?;
        at_least_one("the number of input channels", self.in_channels)?;
        let least = arch.least_size();
        if size[0] < least || size[1] < least {
            return Err(ZooError::ImageTooSmall { arch, size, least });
        }
        if !arch.has_width() && width != 1.0 {
            return Err(ZooError::NoWidth { arch, width });
        }
        if !(0.05..=16.0).contains(&width) {
            let (what, rule) = ("the width multiplier", "between 0.05 and 16");
            return Err(ZooError::OutOfRange { what, rule, got: width.to_string() });
        }
        if let Some(momentum) = self.norm_momentum
            && !(momentum > 0.0 && momentum <= 1.0)
        {
            let (what, rule) = ("the momentum of batch norm", "above 0 and at most 1");
            return Err(ZooError::OutOfRange { what, rule, got: momentum.to_string() });
        }
        if !arch.has_geometry(geometry) {
            return Err(ZooError::NoGeometry { arch, geometry });
        }
        self.head.check()
    }
}

/// An error where `got` is 0.
pub(crate) fn at_least_one(what: &'static str, got: usize) -> Result<(), ZooError> {
    if got > 0 {
        return Ok(());
    }
    Err(ZooError::OutOfRange { what, rule: "at least 1", got: got.to_string() })
}
