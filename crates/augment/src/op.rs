//! The operations of a pipeline as plain data, with the defaults of torchvision and timm.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::{Error, Image, Random, Size};

mod auto;
mod colour;
mod crop;
mod erase;
mod geometry;

pub use auto::{RandAugment, TrivialAugment};
pub use colour::{ColorJitter, GaussianBlur, Grayscale};
pub use crop::{Anchor, RandomInterpolation, RandomResizedCrop, Resize, ResizeMode};
pub use erase::{ErasingValue, RandomErasing};
pub use geometry::{Affine, Flip, Perspective, Rotate};

/// How pixels between pixels are computed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// Linear in both directions, averaging where the image gets smaller.
    #[default]
    Bilinear,
    /// Cubic in both directions with a = -0.5 (PIL, antialiased torch), averaging where the image gets smaller.
    Bicubic,
}

/// What lies outside of an image that was turned or moved.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fill {
    /// The image mirrored at its edges (fastai's default): no artificial border for the network to learn.
    #[default]
    Reflect,
    /// The nearest pixel of the edge.
    Edge,
    /// One value for all channels, or one for each (torchvision's default is black: `[0]`).
    Constant(Vec<u8>),
}

impl Fill {
    /// The colour for `C` channels; black where nothing was given.
    pub(crate) fn constant<const C: usize>(&self) -> [u8; C] {
        match self {
            Self::Constant(values) if !values.is_empty() => {
                std::array::from_fn(|c| *values.get(c).unwrap_or(&values[0]))
            }
            _ => [0; C],
        }
    }
}

/// One step of a [`Pipeline`](crate::Pipeline). In a recipe: `{ flip_horizontal = { p = 0.5 } }`.
///
/// Every parameter has a default, so `{ rotate = {} }` is enough. Angles are degrees.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Op {
    /// A random part of the image at a random aspect ratio, stretched to the size of the run.
    RandomResizedCrop(RandomResizedCrop),
    /// The transform for evaluation: resize, then cut the middle. Not random.
    Resize(Resize),
    /// Left becomes right.
    FlipHorizontal(Flip),
    /// Top becomes bottom.
    FlipVertical(Flip),
    /// Turn around the middle.
    Rotate(Rotate),
    /// Turn, move, scale and shear in one step.
    Affine(Affine),
    /// The image as seen from an angle.
    Perspective(Perspective),
    /// Brightness, contrast, saturation and hue in random order.
    ColorJitter(ColorJitter),
    /// Some images without their colours.
    Grayscale(Grayscale),
    /// Some images out of focus.
    GaussianBlur(GaussianBlur),
    /// A few random operations at one strength.
    RandAugment(RandAugment),
    /// One random operation at a random strength.
    TrivialAugment(TrivialAugment),
    /// A random rectangle is painted over.
    RandomErasing(RandomErasing),
}

impl Op {
    /// All operations with their defaults, those that decide the size first.
    pub fn all() -> Vec<Self> {
        vec![
            Self::RandomResizedCrop(RandomResizedCrop::default()),
            Self::Resize(Resize::default()),
            Self::FlipHorizontal(Flip::default()),
            Self::FlipVertical(Flip::default()),
            Self::Rotate(Rotate::default()),
            Self::Affine(Affine::default()),
            Self::Perspective(Perspective::default()),
            Self::ColorJitter(ColorJitter::default()),
            Self::Grayscale(Grayscale::default()),
            Self::GaussianBlur(GaussianBlur::default()),
            Self::RandAugment(RandAugment::default()),
            Self::TrivialAugment(TrivialAugment::default()),
            Self::RandomErasing(RandomErasing::default()),
        ]
    }

    /// The same for every sample, not only for some of them: `p` is 1 where there is one.
    #[must_use]
    pub fn always(mut self) -> Self {
        match &mut self {
            Self::FlipHorizontal(o) | Self::FlipVertical(o) => o.p = 1.0,
            Self::Rotate(o) => o.p = 1.0,
            Self::Affine(o) => o.p = 1.0,
            Self::Perspective(o) => o.p = 1.0,
            Self::ColorJitter(o) => o.p = 1.0,
            Self::Grayscale(o) => o.p = 1.0,
            Self::GaussianBlur(o) => o.p = 1.0,
            Self::RandomErasing(o) => o.p = 1.0,
            Self::RandomResizedCrop(_) | Self::Resize(_) | Self::RandAugment(_) | Self::TrivialAugment(_) => {
            }
        }
        self
    }

    /// The name as written in a recipe.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RandomResizedCrop(_) => "random_resized_crop",
            Self::Resize(_) => "resize",
            Self::FlipHorizontal(_) => "flip_horizontal",
            Self::FlipVertical(_) => "flip_vertical",
            Self::Rotate(_) => "rotate",
            Self::Affine(_) => "affine",
            Self::Perspective(_) => "perspective",
            Self::ColorJitter(_) => "color_jitter",
            Self::Grayscale(_) => "grayscale",
            Self::GaussianBlur(_) => "gaussian_blur",
            Self::RandAugment(_) => "rand_augment",
            Self::TrivialAugment(_) => "trivial_augment",
            Self::RandomErasing(_) => "random_erasing",
        }
    }

    /// Whether the result has the size of the run whatever went in.
    pub const fn sets_size(&self) -> bool {
        matches!(self, Self::RandomResizedCrop(_) | Self::Resize(_))
    }

    /// Whether two samples (or two epochs) may get different treatment.
    pub const fn is_random(&self) -> bool {
        !matches!(self, Self::Resize(_))
    }

    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        match self {
            Self::RandomResizedCrop(o) => o.check(check),
            Self::Resize(o) => o.check(check),
            Self::FlipHorizontal(o) | Self::FlipVertical(o) => check.chance(o.p),
            Self::Rotate(o) => o.check(check),
            Self::Affine(o) => o.check(check),
            Self::Perspective(o) => o.check(check),
            Self::ColorJitter(o) => o.check(check),
            Self::Grayscale(o) => check.chance(o.p),
            Self::GaussianBlur(o) => o.check(check),
            Self::RandAugment(o) => o.check(check),
            Self::TrivialAugment(o) => o.check(check),
            Self::RandomErasing(o) => o.check(check),
        }
    }

    /// The result for `image`, with the numbers of `random`. `size` matters to operations that set it.
    pub(crate) fn apply(&self, image: &Image, size: Size, random: &mut Random) -> Result<Image, Error> {
        match self {
            Self::RandomResizedCrop(o) => o.apply(image, size, random),
            Self::Resize(o) => o.apply(image, size),
            _ => {
                let mut image = image.clone();
                self.change(&mut image, random);
                Ok(image)
            }
        }
    }

    /// The operations that keep the size; nothing for the others.
    pub(crate) fn change(&self, image: &mut Image, random: &mut Random) {
        match self {
            Self::RandomResizedCrop(_) | Self::Resize(_) => {}
            Self::FlipHorizontal(o) => o.horizontal(image, random),
            Self::FlipVertical(o) => o.vertical(image, random),
            Self::Rotate(o) => o.apply(image, random),
            Self::Affine(o) => o.apply(image, random),
            Self::Perspective(o) => o.apply(image, random),
            Self::ColorJitter(o) => o.apply(image, random),
            Self::Grayscale(o) => o.apply(image, random),
            Self::GaussianBlur(o) => o.apply(image, random),
            Self::RandAugment(o) => o.apply(image, random),
            Self::TrivialAugment(o) => o.apply(image, random),
            Self::RandomErasing(o) => o.apply(image, random),
        }
    }
}
