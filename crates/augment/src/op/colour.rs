//! Operations that change colours: jitter, grey, blur.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::{Error, Image, Random, blur, color};

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
impl ColorJitter {
    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        check.chance(self.p)?;
        check.not_negative("brightness", self.brightness)?;
        check.not_negative("contrast", self.contrast)?;
        check.not_negative("saturation", self.saturation)?;
        check.holds("hue", self.hue, (0.0..=0.5).contains(&self.hue), "0 to 0.5")
    }

    pub(crate) fn apply(&self, image: &mut Image, random: &mut Random) {
        if !random.chance(self.p) {
            return;
        }
        let order = random.permutation(4);
        let mut factor = |amount: f64| random.between((1.0 - amount).max(0.0), 1.0 + amount);
        let factors = [factor(self.brightness), factor(self.contrast), factor(self.saturation)];
        let turn = random.between(-self.hue, self.hue);
        for what in order {
            match what {
                0 if self.brightness > 0.0 => color::brightness(image, factors[0]),
                1 if self.contrast > 0.0 => color::contrast(image, factors[1]),
                2 if self.saturation > 0.0 => color::saturation(image, factors[2]),
                3 if self.hue > 0.0 => color::hue(image, turn),
                _ => {}
            }
        }
    }
}

/// Some images lose their colours; the number of channels stays (torchvision's `RandomGrayscale`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grayscale {
    /// Which part of the samples.
    pub p: f64,
}

impl Default for Grayscale {
    /// Every tenth sample (torchvision).
    fn default() -> Self {
        Self { p: 0.1 }
    }
}

impl Grayscale {
    pub(crate) fn apply(&self, image: &mut Image, random: &mut Random) {
        if random.chance(self.p) {
            color::grayscale(image);
        }
    }
}

/// Some images are blurred (torchvision's `GaussianBlur`, with a kernel as large as its sigma needs).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GaussianBlur {
    /// Least and greatest standard deviation in pixels.
    pub sigma: [f64; 2],
    /// Which part of the samples.
    pub p: f64,
}

impl Default for GaussianBlur {
    /// Sigma 0.1 to 2 (torchvision) for every second sample (SimCLR; torchvision blurs all).
    fn default() -> Self {
        Self { sigma: [0.1, 2.0], p: 0.5 }
    }
}

impl GaussianBlur {
    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        check.chance(self.p)?;
        check.ratios("sigma", self.sigma)?;
        check.holds("sigma", self.sigma, self.sigma[1] <= 100.0, "at most 100 pixels")
    }

    pub(crate) fn apply(&self, image: &mut Image, random: &mut Random) {
        if random.chance(self.p) {
            let sigma = random.between(self.sigma[0], self.sigma[1]);
            blur::gaussian(image, sigma);
        }
    }
}
