//! The operations of a pipeline as plain data, with the defaults of torchvision and timm.

use serde::{Deserialize, Serialize};

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

/// How a random resized crop computes pixels: one way, or another one for each sample.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RandomInterpolation {
    /// Always bilinear (torchvision's default).
    #[default]
    Bilinear,
    /// Always bicubic.
    Bicubic,
    /// Bilinear or bicubic with equal chances (timm's default).
    Random,
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
    /// Brightness, contrast, saturation and hue in random order.
    ColorJitter(ColorJitter),
}

impl Op {
    /// The name as written in a recipe.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RandomResizedCrop(_) => "random_resized_crop",
            Self::Resize(_) => "resize",
            Self::FlipHorizontal(_) => "flip_horizontal",
            Self::FlipVertical(_) => "flip_vertical",
            Self::Rotate(_) => "rotate",
            Self::ColorJitter(_) => "color_jitter",
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
}

/// A random part of the image, stretched to the size of the run (torchvision's `RandomResizedCrop`).
///
/// Ten attempts draw an area (uniform) and an aspect ratio (uniform in the logarithm); if none fits into the
/// image, the greatest centred part with an allowed ratio is taken.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// Least and greatest part of the area, in (0, 1].
    pub scale: [f64; 2],
    /// Least and greatest width / height.
    pub ratio: [f64; 2],
    /// How pixels are computed.
    pub interpolation: RandomInterpolation,
}

impl Default for RandomResizedCrop {
    /// Scale 0.08 to 1, ratio 3/4 to 4/3, bilinear.
    fn default() -> Self {
        Self {
            scale: [0.08, 1.0],
            ratio: [3.0 / 4.0, 4.0 / 3.0],
            interpolation: RandomInterpolation::default(),
        }
    }
}

/// How an image of another shape becomes square (timm's `crop_mode`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResizeMode {
    /// The shorter side becomes `size / crop`, then the middle is cut out.
    #[default]
    Center,
    /// Both sides are stretched to `size / crop`, then the middle is cut out: with `crop = 1` nothing of the
    /// image is lost, its shape is.
    Squash,
    /// The longer side becomes `size`, the rest is filled: nothing is lost or bent.
    Border,
}

/// The transform for evaluation. What it must be belongs to the weights.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resize {
    /// Which part of the resized side remains (timm's `crop_pct`), in (0, 1]; 0.875 is 224 of 256.
    pub crop: f64,
    /// What happens to images that are not square.
    pub mode: ResizeMode,
    /// How pixels are computed.
    pub interpolation: Interpolation,
    /// What is around the image in mode `border`.
    pub fill: Fill,
}

impl Default for Resize {
    /// Crop 0.875, centre, bilinear; a black border where there is one.
    fn default() -> Self {
        Self {
            crop: 0.875,
            mode: ResizeMode::default(),
            interpolation: Interpolation::default(),
            fill: Fill::Constant(vec![0]),
        }
    }
}

/// A mirror image for some samples.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flip {
    /// Which part of the samples.
    pub p: f64,
}

impl Default for Flip {
    /// Every second sample.
    fn default() -> Self {
        Self { p: 0.5 }
    }
}

/// A turn around the middle of the image.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotate {
    /// Greatest angle in degrees to either side.
    pub degrees: f64,
    /// Which part of the samples is turned.
    pub p: f64,
    /// How pixels are computed (bicubic counts as bilinear).
    pub interpolation: Interpolation,
    /// What appears in the corners.
    pub fill: Fill,
}

impl Default for Rotate {
    /// 10 degrees for 75 % of the samples, bilinear, reflected (fastai's `aug_transforms`; torchvision has no
    /// default angle, turns all, nearest, on black).
    fn default() -> Self {
        Self { degrees: 10.0, p: 0.75, interpolation: Interpolation::default(), fill: Fill::default() }
    }
}

/// Changes of colour, in an order that is random too (torchvision's `ColorJitter`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColorJitter {
    /// Factor between `1 - brightness` (not below 0) and `1 + brightness`.
    pub brightness: f64,
    /// Factor between `1 - contrast` and `1 + contrast`.
    pub contrast: f64,
    /// Factor between `1 - saturation` and `1 + saturation`.
    pub saturation: f64,
    /// Turn of at most this part of the colour circle to either side, up to 0.5.
    pub hue: f64,
    /// Which part of the samples.
    pub p: f64,
}

impl Default for ColorJitter {
    /// 0.4 for brightness, contrast and saturation, no hue, every sample (timm).
    fn default() -> Self {
        Self { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.0, p: 1.0 }
    }
}
