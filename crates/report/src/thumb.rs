//! Small pictures inside the file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

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
    fn any(&self) -> bool {
        self.pictures > 0 && self.left > 24_000
    }

    /// What can be shown of image files, each within a square of so many pixels, in their order: those that come first have
    /// the room. They are made on all cores.
    pub(crate) fn pictures(&mut self, wanted: &[(Option<PathBuf>, u32)]) -> Vec<Shown> {
        let mut all = Vec::with_capacity(wanted.len());
        for some in wanted.chunks(AT_ONCE) {
            let made = if self.any() { together(some) } else { vec![None; some.len()] };
            all.extend(made.into_iter().map(|uri| self.take(uri)));
        }
        all
    }

    fn take(&mut self, uri: Option<String>) -> Shown {
        if !self.any() {
            return Shown::default();
        }
        let picture = uri.filter(|uri| uri.len() <= self.left);
        if let Some(uri) = &picture {
            self.left -= uri.len();
            self.pictures -= 1;
        }
        Shown { missing: picture.is_none(), picture }
    }
}

/// Pictures that are made before it is looked whether there is room for them.
const AT_ONCE: usize = 32;

/// A picture on the page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// As a data URI; none where it could not be read or there was no room.
    pub(crate) picture: Option<String>,
    /// Whether there was room and no picture.
    pub(crate) missing: bool,
}

/// [`picture`] of each, on all cores.
fn together(wanted: &[(Option<PathBuf>, u32)]) -> Vec<Option<String>> {
    let (next, made) = (AtomicUsize::new(0), Mutex::new(vec![None; wanted.len()]));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((file, side)) = wanted.get(at) else { return };
            let uri = file.as_deref().and_then(|file| picture(file, *side));
            made.lock().unwrap_or_else(PoisonError::into_inner)[at] = uri;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 1..threads.min(wanted.len()) {
            scope.spawn(work);
        }
        work();
    });
    made.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A JPEG of the image file within a square of `side` pixels, as a data URI. Nothing where the file is gone or broken. An
/// image is never made larger.
fn picture(file: &Path, side: u32) -> Option<String> {
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
    Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}
