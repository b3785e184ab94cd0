//! Whole folders, files and epochs; every test makes its own images.

mod decode;
mod folder;
mod loader;
mod table;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat, RgbImage};

/// An image of one colour with a little structure, so that it compresses like a picture.
fn picture(width: u32, height: u32, colour: [u8; 3]) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb(colour.map(|v| v.wrapping_add((x * 3 + y * 5) as u8 % 16)))
    })
}

fn bytes(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn png(seed: usize) -> Vec<u8> {
    let colour = [seed as u8, (seed / 256) as u8, 7];
    bytes(picture(8 + (seed % 5) as u32, 6, colour), ImageFormat::Png)
}

/// `folder/class/0.png ...` with different images.
fn class(folder: &Path, class: &str, images: usize) {
    let salt: usize = class.bytes().map(usize::from).sum::<usize>() * 40;
    for i in 0..images {
        write(&folder.join(class).join(format!("{i}.png")), &png(salt + i));
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}
