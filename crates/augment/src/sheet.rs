//! Contact sheets: what a pipeline does to an image, as a picture.

use crate::{Error, Image, Interpolation, Key, Pipeline, Size, resize};

/// Pixels between the pictures of a sheet.
const GAP: usize = 8;

/// A sheet of `n` views of one image on white, near square: the views that the sample 0 gets in the epochs 0 to
/// `n - 1` of a run with this seed, rows first. The first of the `n + 1` cells shows the image itself.
///
/// # Errors
/// As [`Pipeline::apply`].
pub fn contact_sheet(
    image: &Image,
    pipeline: &Pipeline,
    size: Size,
    seed: u64,
    n: usize,
) -> Result<Image, Error> {
    let columns = ((n + 1) as f64).sqrt().ceil() as usize;
    let rows = (n + 1).div_ceil(columns);
    let cell = |count: usize, side: usize| count * (side + GAP) + GAP;
    let (width, height) = (cell(columns, size.width), cell(rows, size.height));
    let mut sheet = Image::filled(width, height, &vec![255; image.channels()])?;
    let scale = (size.width as f64 / image.width() as f64).min(size.height as f64 / image.height() as f64);
    let side = |v: usize| ((v as f64 * scale).round() as usize).max(1);
    let whole = Size { width: side(image.width()), height: side(image.height()) };
    paste(&mut sheet, &resize(image, whole, Interpolation::Bilinear)?, GAP, GAP);
    for i in 0..n {
        let view = pipeline.apply(image, size, Key::new(seed, i as u64, 0))?;
        let (column, row) = ((i + 1) % columns, (i + 1) / columns);
        paste(&mut sheet, &view, cell(column, size.width), cell(row, size.height));
    }
    Ok(sheet)
}

fn paste(onto: &mut Image, picture: &Image, left: usize, top: usize) {
    let (channels, wide) = (onto.channels(), onto.width());
    let row = picture.width() * channels;
    for (y, line) in picture.data().chunks_exact(row).enumerate() {
        let at = ((top + y) * wide + left) * channels;
        onto.data_mut()[at..at + row].copy_from_slice(line);
    }
}
