//! JPEG files at a part of their size: each block of 8 x 8 pixels is transformed back into 4 x 4, 2 x 2 or 1 pixel (scaled
//! DCT, as in libjpeg), so that most of the work of decoding a large photograph is never done.

use image::{DynamicImage, GrayImage, RgbImage};
use jpeg_decoder::{Decoder, PixelFormat};

/// The picture at the least of ½, ¼ and ⅛ of its size whose shorter side is at least `shorter_side`; `None` where it is
/// no grey or colour image, where none of these will do, and where something is wrong with it: the usual decoder finds
/// the words for that.
pub(crate) fn scaled(bytes: &[u8], (width, height): (u32, u32), shorter_side: usize) -> Option<DynamicImage> {
    if (width.min(height) as usize) < 2 * shorter_side {
        return None;
    }
    let side = u16::try_from(shorter_side).ok()?;
    let mut decoder = Decoder::new(bytes);
    // The scale is the first at which one side is long enough: that must be the shorter one.
    let (w, h) = if width < height { (side, u16::MAX) } else { (u16::MAX, side) };
    let (w, h) = decoder.scale(w, h).ok()?;
    // 16 bits are scaled elsewhere, and of four inks this decoder does not know whether they are inverted.
    let format = decoder.info()?.pixel_format;
    if !matches!(format, PixelFormat::L8 | PixelFormat::RGB24) {
        return None;
    }
    let pixels = decoder.decode().ok()?;
    let (w, h) = (u32::from(w), u32::from(h));
    match format {
        PixelFormat::L8 => GrayImage::from_raw(w, h, pixels).map(Into::into),
        _ => RgbImage::from_raw(w, h, pixels).map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::metadata::Orientation;

    use super::*;
    use crate::{DecodeOptions, decode};

    fn photo(width: u32, height: u32) -> (Vec<u8>, RgbImage) {
        let wave = |v: u32, period: f64| (127.0 + 100.0 * (f64::from(v) / period).sin()) as u8;
        let picture = RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([wave(x, 31.0), wave(y, 43.0), wave(x + y, 57.0)])
        });
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 92).encode_image(&picture).unwrap();
        (bytes, picture)
    }

    #[test]
    fn a_large_photograph_is_decoded_small_and_looks_the_same() {
        let (bytes, picture) = photo(1040, 650);
        let small = scaled(&bytes, (1040, 650), 150).unwrap();
        assert_eq!((small.width(), small.height()), (260, 163));
        assert!(scaled(&bytes, (1040, 650), 326).is_none(), "half of it would be too small");
        let (upright, _) = photo(650, 1040);
        assert_eq!(scaled(&upright, (650, 1040), 300).unwrap().width(), 325);

        let options = DecodeOptions { shorter_side: Some(150), ..DecodeOptions::default() };
        let found = decode(&bytes, &options).unwrap();
        assert_eq!((found.width(), found.height()), (240, 150));
        let exact = DynamicImage::from(picture).resize_exact(240, 150, image::imageops::FilterType::Triangle);
        let off = found.data().iter().zip(exact.as_bytes()).map(|(a, b)| f64::from(a.abs_diff(*b)));
        let mean = off.sum::<f64>() / found.data().len() as f64;
        assert!(mean < 1.5, "{mean}");
    }

    #[test]
    fn grey_stays_grey_and_orientation_is_applied() {
        let grey = GrayImage::from_fn(800, 600, |x, _| image::Luma([(x / 4) as u8]));
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 90);
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        exif[18] = Orientation::Rotate90.to_exif();
        image::ImageEncoder::set_exif_metadata(&mut encoder, exif).unwrap();
        encoder.encode_image(&grey).unwrap();
        assert!(matches!(scaled(&bytes, (800, 600), 100), Some(DynamicImage::ImageLuma8(_))));
        let options = DecodeOptions { shorter_side: Some(100), ..DecodeOptions::default() };
        let found = decode(&bytes, &options).unwrap();
        assert_eq!((found.width(), found.height()), (100, 133));
        assert!(found.pixel(50, 5)[0] < 20 && found.pixel(50, 128)[0] > 180);
    }

    #[test]
    fn what_is_damaged_is_left_to_the_other_decoder() {
        let (mut bytes, _) = photo(800, 600);
        let middle = bytes.len() / 2;
        bytes.truncate(middle);
        assert!(scaled(&bytes, (800, 600), 100).is_none());
        assert!(scaled(b"no image at all", (800, 600), 100).is_none());
    }
}
