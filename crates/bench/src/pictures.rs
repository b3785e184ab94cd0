//! Pictures to train on: JPEG files that are the same everywhere, in folders of ten classes.
//!
//! A class is a pattern (stripes, checks, rings, …) of random size, angle, place and colour before a random background:
//! something to learn, and with its noise as hard to decode as a photograph.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};

/// Classes.
const CLASSES: usize = 10;

/// A folder of `train` and `val` pictures of about `size` pixels (width and height), made where it is not there yet.
pub(crate) fn folder(root: &Path, train: usize, val: usize, size: [u32; 2]) -> anyhow::Result<PathBuf> {
    let path = root.join(format!("pictures-{}x{}-{train}-{val}", size[0], size[1]));
    let done = path.join(".done");
    if done.is_file() {
        return Ok(path);
    }
    for (part, n) in [("train", train), ("val", val)] {
        for i in 0..n {
            let folder = path.join(part).join(format!("class_{}", i % CLASSES));
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            let mut random = Random(0x9E37_79B9 ^ (i as u64) << 8 ^ u64::from(part == "val"));
            let file = folder.join(format!("{i:05}.jpg"));
            fs::write(&file, jpeg(&mut random, i % CLASSES, size)?)?;
        }
    }
    fs::write(done, "")?;
    Ok(path)
}

fn jpeg(random: &mut Random, class: usize, [w, h]: [u32; 2]) -> anyhow::Result<Vec<u8>> {
    let side = |random: &mut Random, v: u32| ((f64::from(v) * random.between(0.9, 1.1)) as u32).max(8);
    let (w, h) = (side(random, w), side(random, h));
    let rough = RgbImage::from_fn(5, 4, |_, _| Rgb([0; 3].map(|_: u8| random.between(40.0, 216.0) as u8)));
    let mut picture = resize(&rough, w, h, FilterType::CatmullRom);
    let short = f64::from(w.min(h));
    let radius = short * random.between(0.22, 0.42);
    let [cx, cy] = [w, h].map(|side| random.between(radius, f64::from(side) - radius));
    let (sin, cos) = random.between(0.0, std::f64::consts::TAU).sin_cos();
    let period = short * random.between(0.03, 0.07);
    let colours = [0; 2].map(|_| [0; 3].map(|_: u8| random.between(0.0, 255.0)));
    let noise = random.between(2.0, 12.0);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let (dx, dy) = (f64::from(x) - cx, f64::from(y) - cy);
        let (u, v) = (dx * cos - dy * sin, dx * sin + dy * cos);
        let shade = match pattern(class, u / period, v / period) {
            _ if dx.abs().max(dy.abs()) > radius => None,
            inside => Some(colours[usize::from(inside)]),
        };
        for (c, value) in pixel.0.iter_mut().enumerate() {
            let under = shade.map_or(f64::from(*value), |s| s[c]);
            // The sum of two is near enough to a normal distribution.
            *value = (under + noise * (random.between(-1.2, 1.2) + random.between(-1.2, 1.2))) as u8;
        }
    }
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 85).encode_image(&picture)?;
    Ok(bytes)
}

/// Whether a place, in periods, is in the foreground of a class's pattern.
fn pattern(class: usize, u: f64, v: f64) -> bool {
    let odd = |x: f64| x.rem_euclid(2.0) < 1.0;
    let near = |x: f64| x.rem_euclid(1.6) - 0.8;
    match class {
        0 => odd(u),
        1 => odd(u) == odd(v),
        2 => near(u).hypot(near(v)) < 0.5,
        3 => odd(v + 0.6 * (2.0 * u).sin()),
        4 => odd(u.hypot(v)),
        5 => u.hypot(v) < 4.0,
        6 => u.abs().max(v.abs()) < 3.5,
        7 => u.abs().min(v.abs()) < 1.0,
        8 => v > -3.0 && v < 5.0 - 2.0 * u.abs(),
        _ => odd(v.atan2(u) * 5.0 / std::f64::consts::PI),
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let unit = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low) * unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_the_same_everywhere_and_made_once() {
        let root = std::env::temp_dir().join(format!("defrost-bench-{}", std::process::id()));
        let path = folder(&root, 20, 10, [64, 48]).unwrap();
        let one = fs::read(path.join("train/class_3/00013.jpg")).unwrap();
        assert_eq!(one, jpeg(&mut Random(0x9E37_79B9 ^ 13 << 8), 3, [64, 48]).unwrap());
        assert_ne!(one, fs::read(path.join("train/class_3/00003.jpg")).unwrap());
        assert_eq!(fs::read_dir(path.join("val")).unwrap().count(), 10);
        fs::remove_file(path.join("train/class_3/00013.jpg")).unwrap();
        assert_eq!(folder(&root, 20, 10, [64, 48]).unwrap(), path);
        assert!(!path.join("train/class_3/00013.jpg").exists());
        fs::remove_dir_all(root).unwrap();
    }
}
