//! Random augmentation policies: RandAugment (Cubuk et al. 2019) and TrivialAugment (Müller and Hutter 2021),
//! with the operations, ranges and bins of torchvision.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::warp::{Map, warp};
use crate::{Error, Fill, Image, Interpolation, Random, color};

/// A few random operations, one after the other, all at one strength.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// How many operations.
    pub ops: usize,
    /// The strength: a bin from 0 (nothing) to `bins - 1`.
    pub magnitude: usize,
    /// Bins that the ranges of the operations are divided into.
    pub bins: usize,
    /// How pixels are computed (bicubic counts as bilinear).
    pub interpolation: Interpolation,
    /// What appears at the edges.
    pub fill: Fill,
}

impl Default for RandAugment {
    /// 2 operations at magnitude 9 of 31 bins, nearest, on black (torchvision).
    fn default() -> Self {
        Self {
            ops: 2,
            magnitude: 9,
            bins: 31,
            interpolation: Interpolation::Nearest,
            fill: Fill::Constant(vec![0]),
        }
    }
}

impl RandAugment {
    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        check.holds("bins", self.bins, self.bins >= 2, "at least 2")?;
        check.holds("magnitude", self.magnitude, self.magnitude < self.bins, "below `bins`")?;
        check.holds("ops", self.ops, self.ops <= KINDS.len(), "at most 14")?;
        check.fill(&self.fill)
    }

    pub(crate) fn apply(&self, image: &mut Image, random: &mut Random) {
        let part = self.magnitude as f64 / (self.bins - 1) as f64;
        for _ in 0..self.ops {
            let kind = KINDS[random.below(KINDS.len())];
            let sign = sign(random);
            kind.apply(image, &RAND, part, sign, self.interpolation, &self.fill);
        }
    }
}

/// One random operation at a random strength: nothing to tune (torchvision's `TrivialAugmentWide`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrivialAugment {
    /// Bins that the ranges of the operations are divided into.
    pub bins: usize,
    /// How pixels are computed (bicubic counts as bilinear).
    pub interpolation: Interpolation,
    /// What appears at the edges.
    pub fill: Fill,
}

impl Default for TrivialAugment {
    /// 31 bins, nearest, on black (torchvision).
    fn default() -> Self {
        Self { bins: 31, interpolation: Interpolation::Nearest, fill: Fill::Constant(vec![0]) }
    }
}

impl TrivialAugment {
    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        check.holds("bins", self.bins, self.bins >= 2, "at least 2")?;
        check.fill(&self.fill)
    }

    pub(crate) fn apply(&self, image: &mut Image, random: &mut Random) {
        let kind = KINDS[random.below(KINDS.len())];
        let part = random.below(self.bins) as f64 / (self.bins - 1) as f64;
        let sign = sign(random);
        kind.apply(image, &TRIVIAL, part, sign, self.interpolation, &self.fill);
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

const KINDS: [Kind; 14] = [
    Kind::Identity,
    Kind::ShearX,
    Kind::ShearY,
    Kind::TranslateX,
    Kind::TranslateY,
    Kind::Rotate,
    Kind::Brightness,
    Kind::Color,
    Kind::Contrast,
    Kind::Sharpness,
    Kind::Posterize,
    Kind::Solarize,
    Kind::AutoContrast,
    Kind::Equalize,
];

/// The greatest strengths.
struct Ranges {
    shear: f64,
    /// A part of the side, or pixels.
    translate: Translate,
    degrees: f64,
    /// Distance of a colour factor from 1.
    colour: f64,
    /// Bits that posterizing takes away.
    bits: f64,
}

enum Translate {
    Part(f64),
    Pixels(f64),
}

const RAND: Ranges =
    Ranges { shear: 0.3, translate: Translate::Part(150.0 / 331.0), degrees: 30.0, colour: 0.9, bits: 4.0 };

const TRIVIAL: Ranges =
    Ranges { shear: 0.99, translate: Translate::Pixels(32.0), degrees: 135.0, colour: 0.99, bits: 6.0 };

impl Kind {
    /// `part` is the strength from 0 to 1, `sign` 1 or -1 for operations that have two directions.
    fn apply(
        self,
        image: &mut Image,
        ranges: &Ranges,
        part: f64,
        sign: f64,
        interpolation: Interpolation,
        fill: &Fill,
    ) {
        let angle = |shear: f64| (part * sign * shear).atan().to_degrees();
        // Whole pixels, cut, as torchvision.
        let pixels = |side: usize| match ranges.translate {
            Translate::Part(most) => (part * most * side as f64 * sign).trunc(),
            Translate::Pixels(most) => (part * most * sign).trunc(),
        };
        let factor = 1.0 + part * ranges.colour * sign;
        let (w, h) = (image.width(), image.height());
        let middle = (w as f64 / 2.0, h as f64 / 2.0);
        let map = match self {
            // The corner stays, as in the original.
            Self::ShearX => Map::affine(0.0, (0.0, 0.0), 1.0, (angle(ranges.shear), 0.0), (0.0, 0.0)),
            Self::ShearY => Map::affine(0.0, (0.0, 0.0), 1.0, (0.0, angle(ranges.shear)), (0.0, 0.0)),
            Self::TranslateX => Map::affine(0.0, (pixels(w), 0.0), 1.0, (0.0, 0.0), middle),
            Self::TranslateY => Map::affine(0.0, (0.0, pixels(h)), 1.0, (0.0, 0.0), middle),
            Self::Rotate => Map::affine(part * sign * ranges.degrees, (0.0, 0.0), 1.0, (0.0, 0.0), middle),
            Self::Identity => return,
            Self::Brightness => return color::brightness(image, factor),
            Self::Color => return color::saturation(image, factor),
            Self::Contrast => return color::contrast(image, factor),
            Self::Sharpness => return color::sharpness(image, factor),
            Self::Posterize => {
                let lost = (part * ranges.bits).round_ties_even() as u32;
                return color::map(image, |v| f64::from(v as u32 >> lost << lost));
            }
            Self::Solarize => {
                let threshold = 255.0 * (1.0 - part);
                return color::map(image, |v| if v >= threshold { 255.0 - v } else { v });
            }
            Self::AutoContrast => return color::autocontrast(image),
            Self::Equalize => return color::equalize(image),
        };
        *image = warp(image, map, interpolation, fill);
    }
}

fn sign(random: &mut Random) -> f64 {
    if random.chance(0.5) { -1.0 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let data = (0..48 * 40).flat_map(|i| [(i % 48 * 5) as u8, (i / 48 * 6) as u8, (i % 251) as u8]);
        Image::new(48, 40, 3, data.collect()).unwrap()
    }

    fn shown(kind: Kind, ranges: &Ranges, part: f64, sign: f64) -> Image {
        let mut image = image();
        kind.apply(&mut image, ranges, part, sign, Interpolation::Nearest, &Fill::Constant(vec![0]));
        image
    }

    #[test]
    fn no_strength_changes_nothing_and_full_strength_does() {
        for ranges in [&RAND, &TRIVIAL] {
            for kind in KINDS {
                for sign in [1.0, -1.0] {
                    let weak = shown(kind, ranges, 0.0, sign);
                    let strong = shown(kind, ranges, 1.0, sign);
                    let always = matches!(kind, Kind::AutoContrast | Kind::Equalize);
                    // Solarizing from 255 on turns white alone; there is none here.
                    assert_eq!(weak == image(), !always, "{kind:?}");
                    assert_eq!(strong == image(), matches!(kind, Kind::Identity), "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn strengths_are_torchvisions() {
        // RandAugment at magnitude 9 of 31: 9 / 30 of each range.
        let part = 0.3;
        let moved = shown(Kind::TranslateX, &RAND, part, 1.0);
        // int(0.3 * 150 / 331 * 48) == 6.
        assert_eq!(moved.pixel(6, 3), image().pixel(0, 3));
        assert_eq!(moved.pixel(5, 3), [0; 3]);
        let up = shown(Kind::TranslateY, &TRIVIAL, part, -1.0);
        // int(-0.3 * 32) == -9.
        assert_eq!(up.pixel(7, 0), image().pixel(7, 9));
        let bright = shown(Kind::Brightness, &RAND, part, 1.0);
        assert_eq!(
            bright.pixel(20, 20),
            image().pixel(20, 20).iter().map(|&v| (f64::from(v) * 1.27).min(255.0) as u8).collect::<Vec<_>>()
        );
        // 8 - round(9 / 7.5) == 7 bits.
        let poster = shown(Kind::Posterize, &RAND, part, 1.0);
        assert!(poster.data().iter().zip(image().data()).all(|(p, v)| *p == v & 0xfe));
        let solar = shown(Kind::Solarize, &RAND, part, 1.0);
        assert!(
            solar.data().iter().zip(image().data()).all(|(s, v)| *s == if *v >= 179 { 255 - v } else { *v })
        );
        // A shear of 0.09 moves row 20 by 0.09 * 20.5 pixels to the right of its source.
        let sheared = shown(Kind::ShearX, &RAND, part, 1.0);
        assert_eq!(sheared.pixel(10, 20), image().pixel(12, 20));
    }
}
