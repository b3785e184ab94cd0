//! Operations that move pixels: flip, rotation, affine maps, perspective.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::warp::{Map, warp};
use crate::{Error, Fill, Image, Interpolation, Random, flip};

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

impl Flip {
    pub(crate) fn horizontal(&self, image: &mut Image, random: &mut Random) {
        if random.chance(self.p) {
            flip::horizontal(image);
        }
    }

    pub(crate) fn vertical(&self, image: &mut Image, random: &mut Random) {
        if random.chance(self.p) {
            flip::vertical(image);
        }
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

impl Rotate {
    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        check.chance(self.p)?;
        check.angle("degrees", self.degrees, 180.0, "0 to 180")?;
        check.fill(&self.fill)
    }

    pub(crate) fn apply(&self, image: &mut Image, random: &mut Random) {
        if random.chance(self.p) {
            let angle = random.between(-self.degrees, self.degrees);
            let map = Map::affine(angle, (0.0, 0.0), 1.0, (0.0, 0.0), middle(image));
            *image = warp(image, map, self.interpolation, &self.fill);
        }
    }
}

/// Turn, scale and shear around the middle, and a move, resampled once (torchvision's `RandomAffine`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Affine {
    /// Greatest angle in degrees to either side.
    pub degrees: f64,
    /// Greatest move to either side in x and y, as parts of width and height.
    pub translate: [f64; 2],
    /// Least and greatest factor; above 1 shows a part of the image enlarged.
    pub scale: [f64; 2],
    /// Greatest shear in degrees to either side in x and y.
    pub shear: [f64; 2],
    /// Which part of the samples.
    pub p: f64,
    /// How pixels are computed (bicubic counts as bilinear).
    pub interpolation: Interpolation,
    /// What appears at the edges.
    pub fill: Fill,
}

impl Default for Affine {
    /// 10 degrees and a zoom of up to 1.1 for 75 % of the samples, bilinear, reflected: fastai's
    /// `aug_transforms`. torchvision has no default angle; its others are no move, scale or shear.
    fn default() -> Self {
        Self {
            degrees: 10.0,
            translate: [0.0; 2],
            scale: [1.0, 1.1],
            shear: [0.0; 2],
            p: 0.75,
            interpolation: Interpolation::default(),
            fill: Fill::default(),
        }
    }
}

impl Affine {
    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        check.chance(self.p)?;
        check.angle("degrees", self.degrees, 180.0, "0 to 180")?;
        let inside = self.translate.iter().all(|t| (0.0..=1.0).contains(t));
        check.holds("translate", self.translate, inside, "[x, y], each 0 to 1")?;
        check.ratios("scale", self.scale)?;
        let below = self.shear.iter().all(|s| (0.0..90.0).contains(s));
        check.holds("shear", self.shear, below, "[x, y], each 0 or more and below 90")?;
        check.fill(&self.fill)
    }

    pub(crate) fn apply(&self, image: &mut Image, random: &mut Random) {
        if !random.chance(self.p) {
            return;
        }
        let mut either = |most: f64| random.between(-most, most);
        let angle = either(self.degrees);
        // Whole pixels, as torchvision.
        let moved = (
            either(self.translate[0] * image.width() as f64).round(),
            either(self.translate[1] * image.height() as f64).round(),
        );
        let shear = (either(self.shear[0]), either(self.shear[1]));
        let scale = random.between(self.scale[0], self.scale[1]);
        let map = Map::affine(angle, moved, scale, shear, middle(image));
        *image = warp(image, map, self.interpolation, &self.fill);
    }
}

/// The image as seen from an angle: each corner moves inwards (torchvision's `RandomPerspective`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Perspective {
    /// How far a corner may move, as part of the way to the middle, 0 to 1.
    pub distortion: f64,
    /// Which part of the samples.
    pub p: f64,
    /// How pixels are computed (bicubic counts as bilinear).
    pub interpolation: Interpolation,
    /// What appears at the edges.
    pub fill: Fill,
}

impl Default for Perspective {
    /// Half of the way for every second sample, bilinear (torchvision), reflected (torchvision: black; a
    /// reflection leaves no border for the network to learn).
    fn default() -> Self {
        Self { distortion: 0.5, p: 0.5, interpolation: Interpolation::default(), fill: Fill::default() }
    }
}

impl Perspective {
    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        check.chance(self.p)?;
        check.holds("distortion", self.distortion, (0.0..=1.0).contains(&self.distortion), "0 to 1")?;
        check.fill(&self.fill)
    }

    pub(crate) fn apply(&self, image: &mut Image, random: &mut Random) {
        if !random.chance(self.p) {
            return;
        }
        let (w, h) = (image.width(), image.height());
        let mut inwards = |side: usize| {
            let most = (self.distortion * (side / 2) as f64) as usize;
            random.below(most + 1).min(side - 1)
        };
        // Corners are counted in pixels but used as positions, half a pixel aside: torchvision's convention.
        let near = |v: usize| v as f64;
        let mut corner = |right: bool, bottom: bool| {
            let (x, y) = (inwards(w), inwards(h));
            (near(if right { w - 1 - x } else { x }), near(if bottom { h - 1 - y } else { y }))
        };
        let to = [corner(false, false), corner(true, false), corner(true, true), corner(false, true)];
        let (right, bottom) = (near(w - 1), near(h - 1));
        let from = [(0.0, 0.0), (right, 0.0), (right, bottom), (0.0, bottom)];
        // Corners on one line (images of one pixel in a direction) leave the image as it is.
        if let Some(map) = Map::perspective(from, to) {
            *image = warp(image, map, self.interpolation, &self.fill);
        }
    }
}

fn middle(image: &Image) -> (f64, f64) {
    (image.width() as f64 / 2.0, image.height() as f64 / 2.0)
}
