//! Random erasing (Zhong et al. 2017), as in timm and torchvision.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::{Error, Image, Random};

/// What an erased rectangle shows.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErasingValue {
    /// One value for all channels, or one for each.
    Constant(Vec<u8>),
    /// Another random value for each channel of each pixel (timm's mode `pixel`, but uniform).
    Noise,
}

/// A random rectangle is painted over. Belongs at the end of a pipeline.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomErasing {
    /// Which part of the samples.
    pub p: f64,
    /// Least and greatest part of the area.
    pub scale: [f64; 2],
    /// Least and greatest height / width; drawn uniformly in the logarithm.
    pub ratio: [f64; 2],
    /// What the rectangle shows.
    pub value: ErasingValue,
}

impl Default for RandomErasing {
    /// Every second sample, 2 % to a third of the area, ratio 0.3 to 3.3, in the mean colour of ImageNet: what
    /// timm's and torchvision's default of 0 is, as they erase after normalising.
    fn default() -> Self {
        Self {
            p: 0.5,
            scale: [0.02, 1.0 / 3.0],
            ratio: [0.3, 3.3],
            value: ErasingValue::Constant(vec![124, 116, 104]),
        }
    }
}

impl RandomErasing {
    pub(crate) fn check(&self, check: &Check) -> Result<(), Error> {
        check.chance(self.p)?;
        check.parts("scale", self.scale)?;
        check.ratios("ratio", self.ratio)?;
        let ok = !matches!(&self.value, ErasingValue::Constant(v) if v.is_empty() || v.len() > 4);
        check.holds("value", &self.value, ok, "\"noise\" or { constant = [value, ...] } with 1 to 4 values")
    }

    pub(crate) fn apply(&self, image: &mut Image, random: &mut Random) {
        if !random.chance(self.p) {
            return;
        }
        let (width, height, channels) = (image.width(), image.height(), image.channels());
        let area = (width * height) as f64;
        for _ in 0..10 {
            let target = area * random.between(self.scale[0], self.scale[1]);
            let ratio = random.between(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            let h = (target * ratio).sqrt().round_ties_even() as usize;
            let w = (target / ratio).sqrt().round_ties_even() as usize;
            if !(1..height).contains(&h) || !(1..width).contains(&w) {
                continue;
            }
            let top = random.below(height - h + 1);
            let left = random.below(width - w + 1);
            for y in top..top + h {
                let at = (y * width + left) * channels;
                for pixel in image.data_mut()[at..at + w * channels].chunks_exact_mut(channels) {
                    match &self.value {
                        ErasingValue::Noise => {
                            pixel.copy_from_slice(&random.bits().to_le_bytes()[..channels])
                        }
                        ErasingValue::Constant(values) => {
                            for (c, v) in pixel.iter_mut().enumerate() {
                                *v = *values.get(c).unwrap_or(&values[0]);
                            }
                        }
                    }
                }
            }
            return;
        }
    }
}
