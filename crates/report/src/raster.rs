//! Drawings and contact sheets as pixels.
//!
//! Text needs a font, and a server may have none: the program carries one (`fonts/`), so that a picture is the same
//! everywhere.

use std::fmt::Write as _;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use defrost_augment::Image;
use defrost_augment::sheet::{Caption, Sheet};
use image::{ExtendedColorType, ImageEncoder, ImageFormat};
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg;

use crate::theme::{self, Ink};
use crate::{Error, Result};

/// DejaVu Sans, Latin and Greek.
const FONT: &[u8] = include_bytes!("../fonts/DejaVuSans-Latin.ttf");

/// The quality of a JPEG, of 100.
const QUALITY: u8 = 88;

/// An SVG of this crate as a PNG on the ground of light pages, `scale` pixels for each of the drawing's.
///
/// # Errors
/// [`Error::Draw`] for what is no SVG, or one of no size.
pub fn png(svg: &str, scale: f32) -> Result<Vec<u8>> {
    let paper = theme::PAPER.rgb();
    let pixels = render(svg, scale, Color::from_rgba8(paper.0, paper.1, paper.2, 255))?;
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    // On an opaque ground nothing is transparent, so that nothing is premultiplied either.
    let rgb = pixels.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    encode(&Image::new(width, height, 3, rgb).map_err(failed)?, ImageFormat::Png)
}

/// A contact sheet with its words.
///
/// # Errors
/// As [`png`].
pub fn with_captions(sheet: &Sheet) -> Result<Image> {
    let mut image = sheet.image.clone();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\">",
        image.width(),
        image.height()
    );
    sheet.captions.iter().for_each(|c| caption(&mut svg, c));
    svg += "</svg>";
    let words = render(&svg, 1.0, Color::TRANSPARENT)?;
    for (out, word) in image.data_mut().chunks_exact_mut(3).zip(words.data().chunks_exact(4)) {
        // Premultiplied.
        let rest = 255 - u16::from(word[3]);
        for (o, w) in out.iter_mut().zip(word) {
            *o = (u16::from(*w) + (u16::from(*o) * rest + 127) / 255).min(255) as u8;
        }
    }
    Ok(image)
}

/// Writes a picture, whole or not at all, as the ending of `path` says: `png`, `jpg` or `jpeg`.
///
/// # Errors
/// [`Error::Draw`] for another ending, [`Error::Write`].
pub fn save(path: &Path, image: &Image) -> Result<()> {
    let format = match path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).as_deref() {
        Some("png") => ImageFormat::Png,
        Some("jpg" | "jpeg") => ImageFormat::Jpeg,
        _ => {
            let what = format!("{}: the name of a picture ends in .png or .jpg", path.display());
            return Err(Error::Draw(what));
        }
    };
    Ok(defrost_weights::atomic::write_bytes(path, &encode(image, format)?)?)
}

fn encode(image: &Image, format: ImageFormat) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let (width, height) = (image.width() as u32, image.height() as u32);
    let colour = match image.channels() {
        1 => ExtendedColorType::L8,
        2 => ExtendedColorType::La8,
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::Rgba8,
    };
    match format {
        ImageFormat::Jpeg => image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, QUALITY)
            .write_image(image.data(), width, height, colour),
        _ => image::write_buffer_with_format(&mut bytes, image.data(), width, height, colour, format),
    }
    .map_err(failed)?;
    Ok(bytes.into_inner())
}

/// A line of words as SVG, cut to its width.
fn caption(svg: &mut String, caption: &Caption) {
    let (size, ink): (f64, Ink) = if caption.title { (12.5, theme::TEXT) } else { (10.0, theme::MUTED) };
    // DejaVu's lower-case letters are 0.6 of its size wide; a word too many would run into the next picture's.
    let room = (caption.width as f64 / (0.58 * size)) as usize;
    let text: String = match caption.text.chars().count() > room {
        true => caption.text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
        false => caption.text.clone(),
    };
    let mut escaped = String::new();
    // Writing to a string cannot fail.
    let _ = maud::Escaper::new(&mut escaped).write_str(&text);
    let rgb = ink.rgb();
    let baseline = caption.top as f64 + 0.72 * caption.height as f64;
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{baseline}\" font-size=\"{size}\" fill=\"#{:02x}{:02x}{:02x}\">{escaped}</text>",
        caption.left, rgb.0, rgb.1, rgb.2
    );
}

fn render(svg: &str, scale: f32, ground: Color) -> Result<Pixmap> {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    let options =
        usvg::Options { fontdb: Arc::new(fonts), font_family: "DejaVu Sans".into(), ..Default::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(failed)?;
    let side = |v: f32| (v * scale).round() as u32;
    let size = tree.size();
    let pixels = Pixmap::new(side(size.width()), side(size.height()));
    let mut pixels = pixels.ok_or_else(|| Error::Draw(format!("a picture of {size:?} times {scale}")))?;
    pixels.fill(ground);
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    Ok(pixels)
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::Draw(e.to_string())
}

#[cfg(test)]
mod tests {
    use defrost_augment::Size;
    use defrost_augment::sheet::{Cell, Row, contact_sheet};

    use super::*;

    #[test]
    fn a_drawing_becomes_pixels_with_its_words() {
        let points: Vec<_> = (0..40).map(|i| (1e-6 * 1.4f64.powi(i), 2.0 - f64::from(i) / 40.0)).collect();
        let plain = crate::lr_find_svg(&points, &[]).unwrap();
        let named = crate::lr_find_svg(&points, &[("valley", 1e-3)]).unwrap();
        let decode = |svg: &str| image::load_from_memory(&png(svg, 2.0).unwrap()).unwrap().into_rgb8();
        let (plain, named) = (decode(&plain), decode(&named));
        assert_eq!(plain.dimensions(), (1280, 680));
        let paper = theme::PAPER.rgb();
        assert_eq!(plain.get_pixel(0, 679).0, [paper.0, paper.1, paper.2]);
        let coloured = |picture: &image::RgbImage, ink: Ink| {
            let rgb = ink.rgb();
            picture.pixels().filter(|p| p.0 == [rgb.0, rgb.1, rgb.2]).count()
        };
        // The curve; words, which need the font; the mark of a suggestion with its name.
        assert!(coloured(&plain, theme::GOOD) > 500 && coloured(&plain, theme::TEXT) > 50);
        assert_eq!(coloured(&plain, theme::THAW), 0);
        assert!(coloured(&named, theme::THAW) > 100);
        assert!(matches!(png("no drawing", 1.0), Err(Error::Draw(_))));
    }

    #[test]
    fn a_sheet_gets_its_words_and_is_saved() {
        let image = Image::filled(40, 30, &[10, 200, 30]).unwrap();
        let cell = |label: &str| Cell { label: label.into(), image: image.clone() };
        let row = Row { title: "rotate & <more>".into(), cells: vec![cell("epoch 1"), cell("epoch 2")] };
        let sheet = contact_sheet(&[row], 4).unwrap();
        let drawn = with_captions(&sheet).unwrap();
        for c in &sheet.captions {
            let dark = |image: &Image| {
                let inside =
                    (c.top..c.top + c.height).flat_map(|y| (c.left..c.left + c.width).map(move |x| (x, y)));
                inside.filter(|(x, y)| image.pixel(*x, *y).iter().all(|v| *v < 160)).count()
            };
            assert!(dark(&sheet.image) == 0 && dark(&drawn) > 20, "{}", c.text);
        }
        // Pictures are as they were.
        assert_eq!(drawn.pixel(8 + 20, 8 + 18 + 15), [10, 200, 30]);
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "a.JPG"] {
            save(&folder.path().join(name), &drawn).unwrap();
            let read = image::open(folder.path().join(name)).unwrap().into_rgb8();
            let size = Size { width: read.width() as usize, height: read.height() as usize };
            assert_eq!(size, drawn.size(), "{name}");
        }
        let error = save(&folder.path().join("a.txt"), &drawn).unwrap_err().to_string();
        assert!(error.contains(".png or .jpg"), "{error}");
    }
}
