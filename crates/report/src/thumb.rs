//! Small pictures inside the file.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use defrost_data::{DecodeOptions, decode_file};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage, imageops};

/// What a report spends on pictures.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Characters that are left.
    left: usize,
    /// Pictures that are left.
    pictures: usize,
}

impl Budget {
    pub(crate) fn new(characters: usize, pictures: usize) -> Self {
        Self { left: characters, pictures }
    }

    /// Whether there is room for another picture.
    pub(crate) fn any(&self) -> bool {
        self.pictures > 0 && self.left > 24_000
    }

    /// A JPEG of the image file within a square of `side` pixels, as a data URI. Nothing where the file is gone or
    /// broken, or nothing is left to spend. An image is never made larger.
    pub(crate) fn picture(&mut self, file: &Path, side: u32) -> Option<String> {
        if !self.any() {
            return None;
        }
        // Twice the side keeps the last step smooth, and lets the decoder do less.
        let options = DecodeOptions { shorter_side: Some(2 * side as usize), ..DecodeOptions::default() };
        let picture = decode_file(file, &options).ok()?;
        let (width, height) = (u32::try_from(picture.width()).ok()?, u32::try_from(picture.height()).ok()?);
        let pixels = RgbImage::from_raw(width, height, picture.into_data())?;
        let small = match f64::from(side) / f64::from(width.max(height)) {
            factor if factor < 1.0 => {
                let scaled = |length: u32| ((f64::from(length) * factor).round() as u32).max(1);
                imageops::thumbnail(&pixels, scaled(width), scaled(height))
            }
            _ => pixels,
        };
        let mut jpeg = Vec::new();
        let (width, height) = small.dimensions();
        JpegEncoder::new_with_quality(&mut jpeg, 78)
            .encode(&small, width, height, ExtendedColorType::Rgb8)
            .ok()?;
        let uri = format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg));
        if uri.len() > self.left {
            return None;
        }
        self.left -= uri.len();
        self.pictures -= 1;
        Some(uri)
    }
}
