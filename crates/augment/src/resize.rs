//! Cutting and resizing, antialiased as PIL and `torchvision.transforms.v2` (antialias on) do it.

use defrost_resize::{Kernel, Pixels, stretch};

use crate::{Error, Image, Interpolation, Size};

/// A part of an image: left, top, width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Part {
    pub(crate) const fn whole(image: &Image) -> Self {
        Self { left: 0, top: 0, width: image.width(), height: image.height() }
    }
}

/// The image stretched to `size`. Making it smaller averages over all pixels (antialiasing), as PIL does.
///
/// # Errors
/// [`Error::Resize`] for a side of zero or one beyond 32 bits.
pub fn resize(image: &Image, size: Size, interpolation: Interpolation) -> Result<Image, Error> {
    resize_part(image, Part::whole(image), size, interpolation)
}

/// A part of the image, cut out and then stretched to `size`: as torchvision does, and unlike PIL's `resize(box=…)`, no pixel
/// beside the part weighs in.
pub(crate) fn resize_part(
    image: &Image,
    part: Part,
    size: Size,
    interpolation: Interpolation,
) -> Result<Image, Error> {
    let refused = |reason: String| Error::Resize {
        from_width: part.width,
        from_height: part.height,
        to_width: size.width,
        to_height: size.height,
        reason,
    };
    if size.width == 0 || size.height == 0 {
        return Err(refused("no side may be zero".into()));
    }
    if part.width == size.width && part.height == size.height {
        return Ok(crop_part(image, part));
    }
    if part != Part::whole(image) {
        let cut = crop_part(image, part);
        return resize_part(&cut, Part::whole(&cut), size, interpolation);
    }
    let kernel = match interpolation {
        Interpolation::Nearest => Kernel::Nearest,
        Interpolation::Bilinear => Kernel::Triangle,
        Interpolation::Bicubic => Kernel::CatmullRom,
    };
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let from = Pixels { width, height, channels, data: image.data() };
    let data = stretch(from, [0, 0], [width, height], [size.width, size.height], kernel).map_err(refused)?;
    Image::new(size.width, size.height, channels, data)
}

/// The part of `size` whose upper left corner is at (`left`, `top`), cut down to what lies inside of the image
/// (at least one pixel of it).
pub fn crop(image: &Image, left: usize, top: usize, size: Size) -> Image {
    let (left, top) = (left.min(image.width() - 1), top.min(image.height() - 1));
    let width = size.width.clamp(1, image.width() - left);
    let height = size.height.clamp(1, image.height() - top);
    crop_part(image, Part { left, top, width, height })
}

/// The middle of the image, cut down to `size`; an odd pixel too many is dropped as torchvision does (its
/// offset is rounded half to even). A side that is shorter than asked for stays as it is.
pub fn center_crop(image: &Image, size: Size) -> Image {
    crop_part(image, center(image.size(), size))
}

/// The centred part of an image of size `of`, not larger than it.
pub(crate) fn center(of: Size, size: Size) -> Part {
    let width = size.width.clamp(1, of.width);
    let height = size.height.clamp(1, of.height);
    let offset = |rest: usize| (rest as f64 / 2.0).round_ties_even() as usize;
    Part { left: offset(of.width - width), top: offset(of.height - height), width, height }
}

fn crop_part(image: &Image, part: Part) -> Image {
    if part == Part::whole(image) {
        return image.clone();
    }
    let channels = image.channels();
    let row = part.width * channels;
    let mut data = Vec::with_capacity(row * part.height);
    for y in part.top..part.top + part.height {
        let at = (y * image.width() + part.left) * channels;
        data.extend_from_slice(&image.data()[at..at + row]);
    }
    Image::new(part.width, part.height, channels, data).expect("a part lies inside of its image")
}

/// The size after the shorter side became `short`, the longer one `short * long / short_side` cut to an integer
/// (torchvision's `Resize(int)`).
pub(crate) fn shorter_side(of: Size, short: usize) -> Size {
    let scale = |long: usize, side: usize| (short * long / side).max(1);
    if of.width <= of.height {
        Size { width: short, height: scale(of.height, of.width) }
    } else {
        Size { width: scale(of.width, of.height), height: short }
    }
}

/// The size after the longer side became `long`, the shorter one rounded (timm's "border").
pub(crate) fn longer_side(of: Size, inside: Size) -> Size {
    let ratio = (inside.width as f64 / of.width as f64).min(inside.height as f64 / of.height as f64);
    let scale = |side: usize, limit: usize| ((side as f64 * ratio).round() as usize).clamp(1, limit);
    Size { width: scale(of.width, inside.width), height: scale(of.height, inside.height) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One channel, `v = 16 * y + 4 * x` and so linear in both directions.
    fn ramp(width: usize, height: usize) -> Image {
        let data = (0..width * height).map(|i| (16 * (i / width) + 4 * (i % width)) as u8).collect();
        Image::new(width, height, 1, data).unwrap()
    }

    #[test]
    fn shrinking_averages_over_all_pixels() {
        // A checkerboard has no grey pixel; an antialiased resize must give grey, a sampled one cannot.
        let data = (0..64 * 64).map(|i| if (i / 64 + i % 64) % 2 == 0 { 0 } else { 255 }).collect();
        let board = Image::new(64, 64, 1, data).unwrap();
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let small = resize(&board, Size::square(8), interpolation).unwrap();
            assert!(small.data().iter().all(|&v| v.abs_diff(127) < 12), "{:?}", small.data());
        }
    }

    #[test]
    fn values_agree_with_pil() {
        // Pillow 13.0: Image.fromarray(ramp).resize((2, 2), BILINEAR | BICUBIC) and resize((7, 3), ...).
        let ramp = ramp(5, 4);
        // Both round once between the two passes but in different orders, hence one level of difference.
        let small = Size::square(2);
        let large = Size { width: 7, height: 3 };
        let cases: [(Size, Interpolation, &[u8]); 4] = [
            (small, Interpolation::Bilinear, &[15, 23, 41, 49]),
            (small, Interpolation::Bicubic, &[12, 22, 42, 52]),
            (
                large,
                Interpolation::Bilinear,
                &[5, 7, 10, 13, 16, 19, 21, 24, 26, 29, 32, 35, 38, 40, 43, 45, 48, 51, 54, 57, 59],
            ),
            (
                large,
                Interpolation::Bicubic,
                &[3, 5, 8, 11, 14, 17, 19, 24, 26, 29, 32, 35, 38, 40, 45, 47, 50, 53, 56, 59, 61],
            ),
        ];
        for (size, interpolation, expected) in cases {
            let got = resize(&ramp, size, interpolation).unwrap();
            let off = got.data().iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(off <= Some(1), "{size:?} {interpolation:?}: {:?}", got.data());
        }
    }

    #[test]
    fn every_number_of_channels_is_resized_alike_and_alpha_is_no_weight() {
        let grey = ramp(8, 8);
        let expected = resize(&grey, Size::square(3), Interpolation::Bilinear).unwrap();
        for channels in 2..=4 {
            let data = grey.data().iter().flat_map(|&v| vec![v; channels]).collect();
            let image = Image::new(8, 8, channels, data).unwrap();
            let small = resize(&image, Size::square(3), Interpolation::Bilinear).unwrap();
            for c in 0..channels {
                let plane: Vec<u8> = small.data().iter().skip(c).step_by(channels).copied().collect();
                assert_eq!(plane, expected.data());
            }
        }
    }

    #[test]
    fn what_is_beside_a_part_weighs_nothing() {
        let edge = Image::new(4, 4, 1, (0..16).map(|i| if i % 4 < 2 { 0 } else { 200 }).collect()).unwrap();
        let part = Part { left: 2, top: 0, width: 2, height: 4 };
        for (size, kind) in
            [(Size::square(1), Interpolation::Bilinear), (Size::square(7), Interpolation::Bicubic)]
        {
            assert!(resize_part(&edge, part, size, kind).unwrap().data().iter().all(|v| *v == 200));
        }
    }

    #[test]
    fn crops_stay_inside() {
        let image = ramp(4, 4);
        assert_eq!(crop(&image, 1, 2, Size { width: 2, height: 1 }).data(), [36, 40]);
        assert_eq!(crop(&image, 3, 3, Size::square(10)).data(), [60]);
        assert_eq!(crop(&image, 9, 9, Size::square(1)).data(), [60]);
        assert_eq!(center_crop(&image, Size::square(2)).data(), [20, 24, 36, 40]);
        // torchvision: int(round((4 - 1) / 2.0)) == 2, int(round((4 - 3) / 2.0)) == 0.
        assert_eq!(
            center(Size::square(4), Size { width: 1, height: 3 }),
            Part { left: 2, top: 0, width: 1, height: 3 }
        );
        assert_eq!(center_crop(&image, Size { width: 9, height: 2 }).width(), 4);
    }

    #[test]
    fn sides_follow_torchvision_and_timm() {
        // torchvision.transforms.Resize(256) of 500 x 333: int(256 * 500 / 333) == 384.
        assert_eq!(shorter_side(Size { width: 500, height: 333 }, 256), Size { width: 384, height: 256 });
        assert_eq!(shorter_side(Size { width: 333, height: 500 }, 256), Size { width: 256, height: 384 });
        assert_eq!(
            longer_side(Size { width: 500, height: 333 }, Size::square(224)),
            Size { width: 224, height: 149 }
        );
        assert_eq!(
            longer_side(Size { width: 1, height: 900 }, Size::square(224)),
            Size { width: 1, height: 224 }
        );
        assert!(resize(&ramp(2, 2), Size { width: 0, height: 2 }, Interpolation::Bilinear).is_err());
    }
}
