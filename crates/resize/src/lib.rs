//! Antialiased resizing of 8-bit pixels as PIL and `torchvision.transforms.v2` do it.
//!
//! **The key decision: nothing generic leaves this crate.** The library below it is generic over pixels and kernels, and
//! what is generic is compiled where it is used, a minute and a half of it. So it is used here alone, in a crate that never
//! changes, and only for the four types of pixels that there are.

use std::cell::RefCell;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{InnerPixel, U8, U8x2, U8x3, U8x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

/// The kernel that pixels are weighted with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kernel {
    /// The nearest pixel alone.
    Nearest,
    /// A triangle, as wide as a pixel of the smaller image.
    Triangle,
    /// Catmull and Rom's cubic, the one with a = -0.5: PIL's and torch's antialiased bicubic.
    CatmullRom,
}

/// Pixels in rows without gaps, `height * width * channels` values.
#[derive(Clone, Copy, Debug)]
pub struct Pixels<'p> {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Values of a pixel, 1 to 4. A fourth is resized like the others: it need not be an alpha channel, and PIL and torch do
    /// not premultiply either.
    pub channels: usize,
    /// The values.
    pub data: &'p [u8],
}

/// The part of `from` with its upper left corner at `[left, top]` and of `[width, height]`, stretched to `to` pixels (width
/// and height). Made smaller, pixels beside the part weigh in where the kernel reaches them, as in PIL's `resize(box=…)`.
///
/// # Errors
/// In words: a part that is not inside, a side beyond 32 bits, a number of channels out of 1 to 4, data of another length.
pub fn stretch(
    from: Pixels<'_>,
    [left, top]: [usize; 2],
    [width, height]: [usize; 2],
    to: [usize; 2],
    kernel: Kernel,
) -> Result<Vec<u8>, String> {
    let algorithm = match kernel {
        Kernel::Nearest => ResizeAlg::Nearest,
        Kernel::Triangle => ResizeAlg::Convolution(FilterType::Bilinear),
        Kernel::CatmullRom => ResizeAlg::Convolution(FilterType::CatmullRom),
    };
    let options = ResizeOptions::new().resize_alg(algorithm).use_alpha(false).crop(
        left as f64,
        top as f64,
        width as f64,
        height as f64,
    );
    match from.channels {
        1 => typed::<U8>(from, to, &options),
        2 => typed::<U8x2>(from, to, &options),
        3 => typed::<U8x3>(from, to, &options),
        4 => typed::<U8x4>(from, to, &options),
        n => Err(format!("a pixel has 1 to 4 values, not {n}")),
    }
}

/// Of one type of pixels. The library's own choice by a run-time type would compile all of its fourteen.
fn typed<P: PixelTrait + InnerPixel>(
    from: Pixels<'_>,
    [to_width, to_height]: [usize; 2],
    options: &ResizeOptions,
) -> Result<Vec<u8>, String> {
    thread_local! {
        static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
    }
    let side = |value: usize| u32::try_from(value).map_err(|e| e.to_string());
    let source = TypedImageRef::<P>::from_buffer(side(from.width)?, side(from.height)?, from.data);
    let source = source.map_err(|e| e.to_string())?;
    let mut data = vec![0; to_width * to_height * from.channels];
    let target = TypedImage::<P>::from_buffer(side(to_width)?, side(to_height)?, &mut data);
    let mut target = target.map_err(|e| e.to_string())?;
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, options))
        .map_err(|e| e.to_string())?;
    drop(target);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_stretched_and_what_is_no_part_is_refused() {
        let data: Vec<u8> = (0..4 * 4).map(|i| (i % 4 * 60) as u8).collect();
        let from = |channels| Pixels { width: 4, height: 4, channels, data: &data };
        // PIL's answer: 120 and 180 weigh three quarters each, 60 beside them one quarter.
        let right = stretch(from(1), [2, 0], [2, 2], [1, 1], Kernel::Triangle).unwrap();
        assert_eq!(right, [137]);
        assert_eq!(stretch(from(1), [0, 0], [4, 4], [2, 1], Kernel::Nearest).unwrap(), [60, 180]);
        assert!(stretch(from(1), [3, 0], [2, 2], [1, 1], Kernel::CatmullRom).is_err());
        assert!(stretch(from(3), [0, 0], [4, 4], [1, 1], Kernel::Triangle).is_err());
        assert!(stretch(from(5), [0, 0], [4, 4], [1, 1], Kernel::Triangle).is_err());
    }
}
