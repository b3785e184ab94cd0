//! A list of operations, checked and applied.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::resize::{Part, center, longer_side, resize_part, shorter_side};
use crate::warp::{Map, warp};
use crate::{
    ColorJitter, Error, Fill, Image, Interpolation, Key, Op, Random, RandomInterpolation, RandomResizedCrop,
    Resize, ResizeMode, Rotate, Size, color, flip,
};

/// Operations in their order. Plain data: a TOML or JSON list of tables with one key each.
///
/// At most one operation sets the size ([`Op::sets_size`]). Where none does, the image is first resized and cut
/// in the middle to the size of the run, losing only what is outside of its shape.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Pipeline(pub Vec<Op>);

impl Pipeline {
    /// The usual augmentation for training: random resized crop, horizontal flip.
    pub fn train() -> Self {
        Self(vec![
            Op::RandomResizedCrop(RandomResizedCrop::default()),
            Op::FlipHorizontal(Default::default()),
        ])
    }

    /// The usual transform for evaluation: shorter side to `size / crop`, the middle of it.
    pub fn eval(crop: f64, interpolation: Interpolation) -> Self {
        Self(vec![Op::Resize(Resize { crop, interpolation, ..Resize::default() })])
    }

    /// Whether every parameter is in its range and at most one operation sets the size.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::TwoSizes`], the first of them.
    pub fn check(&self) -> Result<(), Error> {
        let mut sized = None;
        for (index, op) in self.0.iter().enumerate() {
            Check { index, op: op.name() }.op(op)?;
            if op.sets_size() {
                if let Some(first) = sized {
                    return Err(Error::TwoSizes { first, second: index });
                }
                sized = Some(index);
            }
        }
        Ok(())
    }

    /// Whether the result depends on the key at all. What does not can be computed once and kept.
    pub fn is_random(&self) -> bool {
        self.0.iter().any(Op::is_random)
    }

    /// The image of `size` that this pipeline makes of `image` for the sample `key` (whose `op` is ignored).
    ///
    /// Operation `i` uses the numbers of `key.op(i)` and no others.
    ///
    /// # Errors
    /// What [`Pipeline::check`] finds, and [`Error::Resize`] for a size of zero.
    pub fn apply(&self, image: &Image, size: Size, key: Key) -> Result<Image, Error> {
        self.check()?;
        let mut current = None;
        if !self.0.iter().any(Op::sets_size) {
            current = Some(Resize { crop: 1.0, ..Resize::default() }.apply(image, size)?);
        }
        for (index, op) in self.0.iter().enumerate() {
            let random = &mut key.op(index as u64).random();
            current = Some(match (op, current) {
                (Op::RandomResizedCrop(crop), before) => {
                    crop.apply(before.as_ref().unwrap_or(image), size, random)?
                }
                (Op::Resize(resize), before) => resize.apply(before.as_ref().unwrap_or(image), size)?,
                (op, before) => op.in_place(before.unwrap_or_else(|| image.clone()), random),
            });
        }
        Ok(current.expect("either an operation or the default set the size"))
    }
}

impl Op {
    /// The operations that keep the size.
    fn in_place(&self, mut image: Image, random: &mut Random) -> Image {
        match self {
            Self::FlipHorizontal(f) => {
                if random.chance(f.p) {
                    flip::horizontal(&mut image);
                }
                image
            }
            Self::FlipVertical(f) => {
                if random.chance(f.p) {
                    flip::vertical(&mut image);
                }
                image
            }
            Self::Rotate(rotate) => rotate.apply(image, random),
            Self::ColorJitter(jitter) => {
                jitter.apply(&mut image, random);
                image
            }
            Self::RandomResizedCrop(_) | Self::Resize(_) => image,
        }
    }
}

impl RandomResizedCrop {
    fn apply(&self, image: &Image, size: Size, random: &mut Random) -> Result<Image, Error> {
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

impl Resize {
    fn apply(&self, image: &Image, size: Size) -> Result<Image, Error> {
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
                resize_part(&small, center(resized, size), size, self.interpolation)
            }
            ResizeMode::Squash => {
                let small = resize_part(image, Part::whole(image), enlarged, self.interpolation)?;
                resize_part(&small, center(enlarged, size), size, self.interpolation)
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

impl Rotate {
    fn apply(&self, image: Image, random: &mut Random) -> Image {
        if !random.chance(self.p) {
            return image;
        }
        let angle = random.between(-self.degrees, self.degrees);
        let middle = (image.width() as f64 / 2.0, image.height() as f64 / 2.0);
        let map = Map::affine(angle, (0.0, 0.0), 1.0, (0.0, 0.0), middle);
        warp(&image, map, self.interpolation, &self.fill)
    }
}

impl ColorJitter {
    fn apply(&self, image: &mut Image, random: &mut Random) {
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
