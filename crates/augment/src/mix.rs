//! Mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019) on batches, with timm's formulas.
//!
//! Both replace each image by a mixture with its partner, the image as far from the end as it is from the start
//! (timm's `flip(0)`: batches are shuffled already), and the targets by the same mixture.

use serde::{Deserialize, Serialize};

use crate::key::purpose;
use crate::{Error, Key, Random};

/// Whether and how batches are mixed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// Mixup weights are drawn from Beta(mixup, mixup); 0 is no mixup.
    pub mixup: f64,
    /// Cutmix areas are drawn from Beta(cutmix, cutmix); 0 is no cutmix.
    pub cutmix: f64,
    /// Which part of the batches is mixed.
    pub p: f64,
    /// Where both are on: which part of the mixed batches is cut rather than blended.
    pub switch: f64,
}

impl Default for Mix {
    /// Nothing is mixed; where it is, every batch, half of them by cutmix if both are on (timm).
    fn default() -> Self {
        Self { mixup: 0.0, cutmix: 0.0, p: 1.0, switch: 0.5 }
    }
}

/// The order of values in a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layout {
    /// `[n, height, width, channels]`.
    Nhwc,
    /// `[n, channels, height, width]`.
    Nchw,
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rect {
    /// Columns left of it.
    pub left: usize,
    /// Rows above it.
    pub top: usize,
    /// Columns in it.
    pub width: usize,
    /// Rows in it.
    pub height: usize,
}

/// How one batch is mixed.
#[derive(Clone, Debug, PartialEq)]
pub struct MixPlan {
    /// Weight of an image's own target; its partner's is `1 - lambda`.
    pub lambda: f64,
    /// The image that each image is mixed with.
    pub partner: Vec<usize>,
    /// The part that is taken from the partner; `None` blends whole images by `lambda`.
    pub cut: Option<Rect>,
}

impl Mix {
    /// Whether any batch is mixed.
    pub fn is_on(&self) -> bool {
        self.p > 0.0 && (self.mixup > 0.0 || self.cutmix > 0.0)
    }

    /// Whether all parameters are in their ranges.
    ///
    /// # Errors
    /// [`Error::Parameter`].
    pub fn check(&self) -> Result<(), Error> {
        let check = crate::check::Check { index: 0, op: "mix" };
        check.not_negative("mixup", self.mixup)?;
        check.not_negative("cutmix", self.cutmix)?;
        check.chance(self.p)?;
        check.holds("switch", self.switch, (0.0..=1.0).contains(&self.switch), "a probability, 0 to 1")
    }

    /// The plan for batch number `batch` of an epoch, with `n` images of `height x width`; `None` leaves it as
    /// it is. A function of its arguments alone.
    pub fn plan(&self, seed: u64, epoch: u64, batch: u64, [n, height, width]: [usize; 3]) -> Option<MixPlan> {
        let mut random = Key::new(seed, epoch, batch).op(purpose::MIX).random();
        if !self.is_on() || !random.chance(self.p) {
            return None;
        }
        let cut = match (self.mixup > 0.0, self.cutmix > 0.0) {
            (true, true) => random.chance(self.switch),
            (_, cut) => cut,
        };
        let alpha = if cut { self.cutmix } else { self.mixup };
        let lambda = random.beta(alpha, alpha);
        let partner = (0..n).rev().collect();
        if !cut {
            return Some(MixPlan { lambda, partner, cut: None });
        }
        let rect = rectangle(height, width, lambda, &mut random);
        // The area is what remains of the rectangle inside of the image.
        let lambda = 1.0 - (rect.width * rect.height) as f64 / (width * height) as f64;
        Some(MixPlan { lambda, partner, cut: Some(rect) })
    }
}

/// timm's `rand_bbox`: sides are `sqrt(1 - lambda)` of the image's, the middle is anywhere, the rest is cut off.
fn rectangle(height: usize, width: usize, lambda: f64, random: &mut Random) -> Rect {
    let part = (1.0 - lambda).sqrt();
    let mut span = |side: usize| {
        let (length, middle) = ((side as f64 * part) as usize, random.below(side));
        let from = middle.saturating_sub(length / 2);
        (from, (middle + length / 2).min(side).saturating_sub(from))
    };
    let (top, height) = span(height);
    let (left, width) = span(width);
    Rect { left, top, width, height }
}

impl MixPlan {
    /// Mixes a batch of bytes, `[n, height, width, channels]`.
    ///
    /// # Errors
    /// [`Error::Batch`] if the buffer has another length or the plan is for another `n`.
    pub fn mix_bytes(&self, pixels: &mut [u8], shape: [usize; 4]) -> Result<(), Error> {
        // 16 bits of fraction.
        let own = (self.lambda * 65536.0).round() as u32;
        self.mix(pixels, shape, Layout::Nhwc, |a, b| {
            ((u32::from(a) * own + u32::from(b) * (65536 - own) + (1 << 15)) >> 16) as u8
        })
    }

    /// Mixes a batch of numbers (pixels or features), `[n, height, width, channels]` in this order or with the
    /// channels first. Features without a place are `[n, 1, 1, channels]`.
    ///
    /// # Errors
    /// [`Error::Batch`] if the buffer has another length or the plan is for another `n`.
    pub fn mix_floats(&self, values: &mut [f32], shape: [usize; 4], layout: Layout) -> Result<(), Error> {
        let own = self.lambda as f32;
        self.mix(values, shape, layout, |a, b| a * own + b * (1.0 - own))
    }

    /// Targets that are numbers already, `[n, width]`, mixed.
    ///
    /// # Errors
    /// [`Error::Batch`] if the length is not that.
    pub fn mix_targets(&self, targets: &mut [f32], width: usize) -> Result<(), Error> {
        Self { cut: None, ..self.clone() }.mix_floats(
            targets,
            [self.partner.len(), 1, 1, width],
            Layout::Nhwc,
        )
    }

    fn mix<T: Copy>(
        &self,
        values: &mut [T],
        [n, height, width, channels]: [usize; 4],
        layout: Layout,
        blend: impl Fn(T, T) -> T,
    ) -> Result<(), Error> {
        if values.len() != n * height * width * channels || self.partner.len() != n {
            return Err(Error::Batch { n, height, width, channels, len: values.len() });
        }
        // An image is planes of rows of pixels of neighbouring values.
        let (planes, each) = match layout {
            Layout::Nhwc => (1, channels),
            Layout::Nchw => (channels, 1),
        };
        let before = values.to_vec();
        let image = height * width * channels;
        for (i, (out, &partner)) in values.chunks_exact_mut(image.max(1)).zip(&self.partner).enumerate() {
            if i == partner {
                continue;
            }
            let other = &before[partner * image..(partner + 1) * image];
            let Some(rect) = self.cut else {
                out.iter_mut().zip(other).for_each(|(a, &b)| *a = blend(*a, b));
                continue;
            };
            for plane in 0..planes {
                for y in rect.top..rect.top + rect.height {
                    let at = ((plane * height + y) * width + rect.left) * each;
                    let row = at..at + rect.width * each;
                    out[row.clone()].copy_from_slice(&other[row]);
                }
            }
        }
        Ok(())
    }
}

/// Labels as smoothed targets, `[n, classes]`: `1 - smoothing + smoothing / classes` for the class of the label,
/// `smoothing / classes` for the others. A label that is no class has the latter everywhere.
pub fn one_hot(labels: &[u32], classes: usize, smoothing: f32) -> Vec<f32> {
    let off = smoothing / classes as f32;
    let mut targets = vec![off; labels.len() * classes];
    for (row, &label) in targets.chunks_exact_mut(classes.max(1)).zip(labels) {
        if let Some(target) = row.get_mut(label as usize) {
            *target = 1.0 - smoothing + off;
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixup_blends_with_the_partner() {
        let plan = MixPlan { lambda: 0.75, partner: vec![2, 1, 0], cut: None };
        let mut pixels = vec![0, 100, 50, 50, 200, 0];
        plan.mix_bytes(&mut pixels, [3, 1, 1, 2]).unwrap();
        assert_eq!(pixels, [50, 75, 50, 50, 150, 25]);
        let mut targets = one_hot(&[0, 1, 2], 3, 0.0);
        plan.mix_targets(&mut targets, 3).unwrap();
        assert_eq!(targets, [0.75, 0.0, 0.25, 0.0, 1.0, 0.0, 0.25, 0.0, 0.75]);
        assert!(plan.mix_bytes(&mut pixels, [3, 1, 1, 3]).is_err());
        assert!(plan.mix_bytes(&mut pixels, [2, 1, 1, 3]).is_err());
    }

    #[test]
    fn cutmix_takes_a_rectangle_in_both_layouts() {
        let cut = Rect { left: 1, top: 0, width: 1, height: 2 };
        let plan = MixPlan { lambda: 2.0 / 3.0, partner: vec![1, 0], cut: Some(cut) };
        // Two images of 2 x 3 with two channels; value 100 i + 10 (3 y + x) + c.
        let value = |i: usize, y: usize, x: usize, c: usize| (100 * i + 10 * (3 * y + x) + c) as f32;
        let each = |f: &dyn Fn(usize, usize, usize, usize) -> f32, first: bool| -> Vec<f32> {
            let mut out = Vec::new();
            for at in 0..24 {
                let (i, r) = (at / 12, at % 12);
                let (y, x, c) = if first { (r % 6 / 3, r % 3, r / 6) } else { (r / 6, r / 2 % 3, r % 2) };
                out.push(f(i, y, x, c));
            }
            out
        };
        let mixed = |i: usize, y: usize, x: usize, c: usize| value(if x == 1 { 1 - i } else { i }, y, x, c);
        for (layout, first) in [(Layout::Nhwc, false), (Layout::Nchw, true)] {
            let mut values = each(&value, first);
            plan.mix_floats(&mut values, [2, 2, 3, 2], layout).unwrap();
            assert_eq!(values, each(&mixed, first), "{layout:?}");
        }
    }

    #[test]
    fn plans_are_keyed_and_follow_their_parameters() {
        let both = Mix { mixup: 0.8, cutmix: 1.0, p: 0.5, switch: 0.25 };
        let plans: Vec<_> = (0..2000).map(|b| both.plan(1, 2, b, [8, 32, 48])).collect();
        assert_eq!(plans[7], both.plan(1, 2, 7, [8, 32, 48]));
        let mixed: Vec<_> = plans.iter().flatten().collect();
        let cut = mixed.iter().filter(|p| p.cut.is_some()).count();
        assert!((900..1100).contains(&mixed.len()) && (200..300).contains(&cut), "{} {cut}", mixed.len());
        for plan in &mixed {
            assert!((0.0..=1.0).contains(&plan.lambda));
            assert_eq!(plan.partner, [7, 6, 5, 4, 3, 2, 1, 0]);
            if let Some(r) = plan.cut {
                assert!(r.left + r.width <= 48 && r.top + r.height <= 32);
                let area = (r.width * r.height) as f64 / (48.0 * 32.0);
                assert!((1.0 - area - plan.lambda).abs() < 1e-12);
            }
        }
        let blended: Vec<f64> = mixed.iter().filter(|p| p.cut.is_none()).map(|p| p.lambda).collect();
        let mean = blended.iter().sum::<f64>() / blended.len() as f64;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
        assert_eq!(Mix::default().plan(0, 0, 0, [8, 32, 32]), None);
        assert!(Mix { mixup: 0.2, ..Mix::default() }.plan(0, 0, 0, [8, 32, 32]).unwrap().cut.is_none());
        assert!(Mix { cutmix: 1.0, ..Mix::default() }.plan(0, 0, 0, [8, 32, 32]).unwrap().cut.is_some());
        assert!(Mix { mixup: -1.0, ..Mix::default() }.check().is_err() && both.check().is_ok());
    }

    #[test]
    fn smoothing_is_timms() {
        // off = s / C, on = 1 - s + off.
        assert_eq!(one_hot(&[1], 4, 0.25), [0.0625, 0.8125, 0.0625, 0.0625]);
        assert_eq!(one_hot(&[9], 2, 0.0), [0.0, 0.0]);
    }
}
