//! Operations that set the size: the random resized crop for training, resize and cut for evaluation.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::resize::{Part, center, longer_side, resize_part, shorter_side};
use crate::{Error, Fill, Image, Interpolation, Random, Size};

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

impl RandomResizedCrop {
    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        check.parts("scale", self.scale)?;
        check.ratios("ratio", self.ratio)
    }

    pub(crate) fn apply(&self, image: &Image, size: Size, random: &mut Random) -> Result<Image, Error> {
        let part = self.part(image.size(), random);
        let interpolation = match self.interpolation {
            RandomInterpolation::Bilinear => Interpolation::Bilinear,
            RandomInterpolation::Bicubic => Interpolation::Bicubic,
            RandomInterpolation::Random if random.chance(0.5) => Interpolation::Bilinear,
            RandomInterpolation::Random => Interpolation::Bicubic,
        };
        resize_part(image, part, size, interpolation)
    }

    fn part(&self, of: Size, random: &mut Random) -> Part {
        let area = (of.width * of.height) as f64;
        let [low, high] = self.ratio;
        for _ in 0..10 {
            let target = area * random.between(self.scale[0], self.scale[1]);
            let ratio = random.between(low.ln(), high.ln()).exp();
            let width = (target * ratio).sqrt().round_ties_even() as usize;
            let height = (target / ratio).sqrt().round_ties_even() as usize;
            if (1..=of.width).contains(&width) && (1..=of.height).contains(&height) {
                let top = random.below(of.height - height + 1);
                let left = random.below(of.width - width + 1);
                return Part { left, top, width, height };
            }
        }
        let ratio = of.width as f64 / of.height as f64;
        let side = |v: f64| v.round_ties_even() as usize;
        if ratio < low {
            center(of, Size { width: of.width, height: side(of.width as f64 / low) })
        } else if ratio > high {
            center(of, Size { width: side(of.height as f64 * high), height: of.height })
        } else {
            center(of, of)
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

/// Which part of a resized image is cut out. The corners are for test-time augmentation.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// The middle.
    #[default]
    Center,
    /// The upper left corner.
    TopLeft,
    /// The upper right corner.
    TopRight,
    /// The lower left corner.
    BottomLeft,
    /// The lower right corner.
    BottomRight,
}

impl Anchor {
    fn part(self, of: Size, size: Size) -> Part {
        let middle = center(of, size);
        let (right, bottom) = (of.width - middle.width, of.height - middle.height);
        let (left, top) = match self {
            Self::Center => (middle.left, middle.top),
            Self::TopLeft => (0, 0),
            Self::TopRight => (right, 0),
            Self::BottomLeft => (0, bottom),
            Self::BottomRight => (right, bottom),
        };
        Part { left, top, ..middle }
    }
}

/// The transform for evaluation. What it must be belongs to the weights.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resize {
    /// Which part of the resized side remains (timm's `crop_pct`), in (0, 1]; 0.875 is 224 of 256.
    pub crop: f64,
    /// What happens to images that are not square.
    pub mode: ResizeMode,
    /// Which part is cut out.
    pub anchor: Anchor,
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
            anchor: Anchor::default(),
            interpolation: Interpolation::default(),
            fill: Fill::Constant(vec![0]),
        }
    }
}

impl Resize {
    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        check.holds("crop", self.crop, self.crop > 0.0 && self.crop <= 1.0, "above 0 and at most 1")?;
        check.fill(&self.fill)
    }

    pub(crate) fn apply(&self, image: &Image, size: Size) -> Result<Image, Error> {
        // timm: floor(size / crop_pct).
        let before = |side: usize| (side as f64 / self.crop).floor() as usize;
        let enlarged = Size { width: before(size.width), height: before(size.height) };
        match self.mode {
            ResizeMode::Center => {
                let of = image.size();
                let resized = if size.width == size.height {
                    shorter_side(of, enlarged.width)
                } else {
                    // The least size of the image's shape that covers the rectangle.
                    let scale = (enlarged.width as f64 / of.width as f64)
                        .max(enlarged.height as f64 / of.height as f64);
                    let side = |v: usize, least: usize| ((v as f64 * scale).round() as usize).max(least);
                    Size { width: side(of.width, enlarged.width), height: side(of.height, enlarged.height) }
                };
                let small = resize_part(image, Part::whole(image), resized, self.interpolation)?;
                resize_part(&small, self.anchor.part(resized, size), size, self.interpolation)
            }
            ResizeMode::Squash => {
                let small = resize_part(image, Part::whole(image), enlarged, self.interpolation)?;
                resize_part(&small, self.anchor.part(enlarged, size), size, self.interpolation)
            }
            ResizeMode::Border => {
                let inner = longer_side(image.size(), size);
                let small = resize_part(image, Part::whole(image), inner, self.interpolation)?;
                Ok(border(&small, size, &self.fill))
            }
        }
    }
}

/// The image in the middle of a larger one.
fn border(image: &Image, size: Size, fill: &Fill) -> Image {
    let part = center(size, image.size());
    let (from, channels) = (image.size(), image.channels());
    let colour = &fill.constant::<4>()[..channels];
    let mut data = Vec::with_capacity(size.width * size.height * channels);
    let place = |at: usize, first: usize, n: usize| {
        let i = at as i64 - first as i64;
        match fill {
            _ if (0..n as i64).contains(&i) => Some(i as usize),
            Fill::Constant(_) => None,
            Fill::Edge => Some(i.clamp(0, n as i64 - 1) as usize),
            Fill::Reflect => Some(crate::warp::reflect(i, n as i64) as usize),
        }
    };
    for y in 0..size.height {
        for x in 0..size.width {
            match (place(x, part.left, from.width), place(y, part.top, from.height)) {
                (Some(x), Some(y)) => data.extend_from_slice(image.pixel(x, y)),
                _ => data.extend_from_slice(colour),
            }
        }
    }
    Image::new(size.width, size.height, channels, data).expect("one pixel was written for each")
}
