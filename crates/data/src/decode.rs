//! From the bytes of an image file to pixels: the one place where image files are decoded.
//!
//! What a file is, its content says. Everything becomes 8 bits a channel: 16-bit images are scaled, transparent
//! ones laid on white, CMYK converted, EXIF orientation applied, the first frame of an animation taken. Colour
//! profiles are ignored, as PIL and torchvision do.

use std::io::Cursor;
use std::path::Path;

use defrost_augment::{Image, Interpolation, Size, resize};
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use serde::{Deserialize, Serialize};

use crate::jpeg;

/// The channels that every image of a data set is brought to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// One: ITU-R 601 luma, transparent parts on white.
    Grey,
    /// Three, transparent parts on white.
    #[default]
    Rgb,
    /// Four; images without transparency are opaque.
    Rgba,
}

impl Channels {
    /// 1, 3 or 4.
    pub const fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }

    /// The channels that a network with `count` input channels is given; `None` if files cannot hold that many.
    pub const fn from_count(count: usize) -> Option<Self> {
        match count {
            1 => Some(Self::Grey),
            3 => Some(Self::Rgb),
            4 => Some(Self::Rgba),
            _ => None,
        }
    }
}

/// What is wanted of a decoded image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeOptions {
    /// Channels of the result.
    pub channels: Channels,
    /// Images of more pixels are refused before anything is decoded; an upper bound on memory.
    pub max_pixels: u64,
    /// A result whose shorter side is longer than this is made smaller (averaging, shape kept). A decoder may
    /// use it to do less work.
    pub shorter_side: Option<usize>,
}

impl Default for DecodeOptions {
    /// RGB, at most 200 million pixels, full size.
    fn default() -> Self {
        Self { channels: Channels::Rgb, max_pixels: 200_000_000, shorter_side: None }
    }
}

/// Why a file gives no image.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The system does not let it be read.
    #[error("cannot be read: {0}")]
    Io(String),
    /// A link whose target does not exist.
    #[error("a link to nothing")]
    DanglingLink,
    /// A link that leads back to a folder it is in.
    #[error("a link in a circle, back to {0}")]
    CircularLink(String),
    /// A file without content.
    #[error("the file is empty")]
    EmptyFile,
    /// The content is no image of any kind that is known.
    #[error("no image: the content is none of JPEG, PNG, WebP, BMP, GIF, TIFF")]
    NotAnImage,
    /// An image of a kind that is not supported.
    #[error("{0} images are not supported; convert them to JPEG or PNG")]
    Unsupported(&'static str),
    /// More pixels than allowed.
    #[error("{width} x {height} pixels are more than the limit of {limit}")]
    TooLarge {
        /// Pixels in a row, as the file claims.
        width: u32,
        /// Rows, as the file claims.
        height: u32,
        /// The limit, in pixels.
        limit: u64,
    },
    /// The end is missing.
    #[error("the end of the file is missing")]
    Truncated,
    /// The content breaks the rules of its format.
    #[error("damaged: {0}")]
    Damaged(String),
}

/// What the first bytes of an image file tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) format: ImageFormat,
    /// Pixels in a row, after the orientation is applied.
    pub(crate) width: u32,
    /// Rows, after the orientation is applied.
    pub(crate) height: u32,
}

/// The pixels of an image file.
///
/// # Errors
/// [`DecodeError`]; also where a decoding library gives up on damaged data in its own way.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Image, DecodeError> {
    guarded(|| {
        let (mut decoder, header) = open(bytes, options.max_pixels)?;
        // Metadata that cannot be read is no reason to lose the picture.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let small = match options.shorter_side {
            Some(side) if header.format == ImageFormat::Jpeg => {
                jpeg::scaled(bytes, (header.width, header.height), side)
            }
            _ => None,
        };
        let mut picture = match small {
            Some(picture) => picture,
            None => DynamicImage::from_decoder(decoder).map_err(damaged)?,
        };
        let (width, height) = (header.width as usize, header.height as usize);
        picture.apply_orientation(orientation);
        let full = match orientation.to_exif() {
            5.. => Size { width: height, height: width },
            _ => Size { width, height },
        };
        shrink(convert(picture, options.channels), full, options.shorter_side)
    })
}

/// The pixels of the image file at `path`.
///
/// # Errors
/// As [`decode`], and what the system says about reading the file.
pub fn decode_file(path: &Path, options: &DecodeOptions) -> Result<Image, DecodeError> {
    decode(&read(path, options.max_pixels)?, options)
}

/// The bytes of a file that is not larger than an image within the limit can be.
pub(crate) fn read(path: &Path, max_pixels: u64) -> Result<Vec<u8>, DecodeError> {
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        return Err(DecodeError::Io("not a file".into()));
    }
    // Eight bytes a pixel is uncompressed RGBA of 16 bits; the rest is for metadata.
    let most = max_pixels.saturating_mul(8).saturating_add(64 << 20);
    if meta.len() > most {
        return Err(DecodeError::Io(format!(
            "{} bytes are more than an image within the limit has",
            meta.len()
        )));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    if bytes.is_empty() { Err(DecodeError::EmptyFile) } else { Ok(bytes) }
}

/// What the system says about a file that cannot be read.
pub(crate) fn failed(error: std::io::Error) -> DecodeError {
    match error.kind() {
        std::io::ErrorKind::NotFound => DecodeError::Io("there is no such file".into()),
        _ => DecodeError::Io(error.to_string()),
    }
}

/// Format and size, and whether the end of the file is there; no pixel is decoded.
pub(crate) fn header(bytes: &[u8], max_pixels: u64) -> Result<Header, DecodeError> {
    guarded(|| {
        let (mut decoder, mut header) = open(bytes, max_pixels)?;
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        if let Ok(Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH) = decoder.orientation() {
            (header.width, header.height) = (header.height, header.width);
        }
        Ok(header)
    })
}

/// Whether the file has more than one frame.
pub(crate) fn animated(bytes: &[u8], header: Header) -> bool {
    let two = |frames: image::Frames<'_>| frames.take(2).filter(Result::is_ok).count() == 2;
    guarded(|| {
        Ok(match header.format {
            ImageFormat::Gif => image::codecs::gif::GifDecoder::new(Cursor::new(bytes))
                .is_ok_and(|decoder| two(decoder.into_frames())),
            ImageFormat::WebP => image::codecs::webp::WebPDecoder::new(Cursor::new(bytes))
                .is_ok_and(|decoder| decoder.has_animation()),
            ImageFormat::Png => image::codecs::png::PngDecoder::new(Cursor::new(bytes))
                .is_ok_and(|decoder| decoder.is_apng().unwrap_or(false)),
            _ => false,
        })
    })
    .unwrap_or(false)
}

/// Whether the first bytes of a file look like an image, of a supported kind or not.
pub(crate) fn looks_like_an_image(bytes: &[u8]) -> bool {
    !matches!(sniff(bytes), Err(DecodeError::NotAnImage | DecodeError::EmptyFile))
}

fn sniff(bytes: &[u8]) -> Result<ImageFormat, DecodeError> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    if bytes.is_empty() {
        return Err(DecodeError::EmptyFile);
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return match bytes.get(8..11) {
            Some(b"hei" | b"hev" | b"mif" | b"msf") => Err(DecodeError::Unsupported("HEIC")),
            Some(b"avi") => Err(DecodeError::Unsupported("AVIF")),
            _ => Err(DecodeError::NotAnImage),
        };
    }
    match image::guess_format(bytes) {
        Ok(format @ (Bmp | Gif | Jpeg | Png | Tiff | WebP)) => Ok(format),
        Ok(ImageFormat::OpenExr) => Err(DecodeError::Unsupported("OpenEXR")),
        Ok(ImageFormat::Hdr) => Err(DecodeError::Unsupported("Radiance HDR")),
        Ok(ImageFormat::Qoi) => Err(DecodeError::Unsupported("QOI")),
        Ok(ImageFormat::Dds) => Err(DecodeError::Unsupported("DDS")),
        Ok(ImageFormat::Ico) => Err(DecodeError::Unsupported("icon")),
        _ => Err(DecodeError::NotAnImage),
    }
}

fn open(bytes: &[u8], max_pixels: u64) -> Result<(impl ImageDecoder + '_, Header), DecodeError> {
    let format = sniff(bytes)?;
    whole(bytes, format)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(max_pixels.saturating_mul(8).saturating_add(16 << 20));
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(DecodeError::Damaged("it has no pixels".into()));
    }
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(DecodeError::TooLarge { width, height, limit: max_pixels });
    }
    Ok((decoder, Header { format, width, height }))
}

/// Whether the end of the file is there. The JPEG decoder fills what is missing with grey and says nothing, and
/// in the quick check nothing is decoded.
fn whole(bytes: &[u8], format: ImageFormat) -> Result<(), DecodeError> {
    let complete = match format {
        ImageFormat::Jpeg => jpeg_has_an_end(bytes),
        ImageFormat::Png => bytes.windows(4).rev().take(1 << 20).any(|w| w == b"IEND"),
        _ => true,
    };
    if complete { Ok(()) } else { Err(DecodeError::Truncated) }
}

/// Whether an end-of-image marker follows the first scan. Thumbnails have one too, but in segments before it.
fn jpeg_has_an_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        match bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) {
            None => return false,
            Some([0xff, 0xff, ..]) => at += 1,
            Some([0xff, 0x01 | 0xd0..=0xd8, ..]) => at += 2,
            Some([0xff, 0xda, ..]) => return bytes[at..].windows(2).rev().any(|w| w == [0xff, 0xd9]),
            Some(&[0xff, _, high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
            // Some oddity between the segments: leave it to the decoder.
            Some(_) => return true,
        }
    }
}

fn convert(picture: DynamicImage, channels: Channels) -> Image {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let color = picture.color();
    let rgb = |picture: DynamicImage| {
        if color.has_alpha() { on_white(&picture.into_rgba8()) } else { picture.into_rgb8().into_raw() }
    };
    let data = match channels {
        Channels::Rgba => picture.into_rgba8().into_raw(),
        Channels::Rgb => rgb(picture),
        Channels::Grey if !color.has_alpha() && !color.has_color() => picture.into_luma8().into_raw(),
        Channels::Grey => grey(&rgb(picture)),
    };
    Image::new(width, height, channels.count(), data).expect("a decoded picture has all of its pixels")
}

fn on_white(rgba: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgba.as_chunks::<4>();
    pixels
        .iter()
        .flat_map(|&[r, g, b, a]| {
            let a = u32::from(a);
            [r, g, b].map(|v| ((u32::from(v) * a + 255 * (255 - a) + 127) / 255) as u8)
        })
        .collect()
}

/// ITU-R 601-2 luma, rounded, as PIL's `convert("L")`.
fn grey(rgb: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgb.as_chunks::<3>();
    pixels
        .iter()
        .map(|&[r, g, b]| {
            ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
        })
        .collect()
}

/// `image`, which had `full` pixels in its file, with no longer shorter side than asked for.
fn shrink(image: Image, full: Size, shorter_side: Option<usize>) -> Result<Image, DecodeError> {
    let short = full.width.min(full.height);
    match shorter_side {
        Some(limit) if limit > 0 && short > limit => {
            let side = |v: usize| (v as f64 * limit as f64 / short as f64).round() as usize;
            let size = Size { width: side(full.width), height: side(full.height) };
            resize(&image, size, Interpolation::Bilinear).map_err(|e| DecodeError::Damaged(e.to_string()))
        }
        _ => Ok(image),
    }
}

fn damaged(error: image::ImageError) -> DecodeError {
    use image::ImageError;
    match error {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => DecodeError::Truncated,
        other => DecodeError::Damaged(other.to_string().trim().to_owned()),
    }
}

/// A panic in a decoding library is the file's fault, and must cost that file only.
fn guarded<T>(f: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(DecodeError::Damaged("the decoder gave up on it".into())))
}
