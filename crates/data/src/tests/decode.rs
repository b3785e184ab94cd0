//! Every format and oddity of single files.

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageEncoder, ImageFormat, Luma, LumaA, Rgb, Rgba, RgbaImage};

use super::{bytes, fixture, picture, png};
use crate::decode::{animated, header};
use crate::{Channels, DecodeError, DecodeOptions, decode, decode_file};

fn rgb() -> DecodeOptions {
    DecodeOptions::default()
}

fn close(a: &[u8], b: &[u8], tolerance: u8) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= tolerance)
}

#[test]
fn all_formats_by_content() {
    let original = picture(20, 10, [120, 60, 30]);
    for (format, tolerance) in [
        (ImageFormat::Png, 0),
        (ImageFormat::Bmp, 0),
        (ImageFormat::Tiff, 0),
        (ImageFormat::WebP, 0),
        (ImageFormat::Jpeg, 12),
        (ImageFormat::Gif, 24),
    ] {
        let file = bytes(original.clone(), format);
        let image = decode(&file, &rgb()).unwrap();
        assert_eq!((image.width(), image.height(), image.channels()), (20, 10, 3), "{format:?}");
        assert!(close(image.data(), &original, tolerance), "{format:?}");
        let header = header(&file, 1000).unwrap();
        assert_eq!((header.format, header.width, header.height), (format, 20, 10));
        assert!(!animated(&file, header));
    }
}

#[test]
fn grey_alpha_and_16_bits_become_what_was_asked_for() {
    let one = |image: DynamicImage, channels| {
        let options = DecodeOptions { channels, ..rgb() };
        decode(&bytes(image, ImageFormat::Png), &options).unwrap().into_data()
    };
    let grey = || GrayImage::from_pixel(1, 1, Luma([90])).into();
    assert_eq!(one(grey(), Channels::Rgb), [90, 90, 90]);
    assert_eq!(one(grey(), Channels::Grey), [90]);
    assert_eq!(one(grey(), Channels::Rgba), [90, 90, 90, 255]);
    // Half transparent: half of the colour, half of white.
    let clear = || RgbaImage::from_pixel(1, 1, Rgba([200, 0, 100, 128])).into();
    assert_eq!(one(clear(), Channels::Rgb), [227, 127, 177]);
    assert_eq!(one(clear(), Channels::Rgba), [200, 0, 100, 128]);
    let grey_clear = || DynamicImage::from(image::GrayAlphaImage::from_pixel(1, 1, LumaA([0, 0])));
    assert_eq!(one(grey_clear(), Channels::Rgb), [255; 3]);
    assert_eq!(one(grey_clear(), Channels::Grey), [255]);
    // 16 bits are scaled, not cut: 0x80ff is 128.5 of 255.
    let deep = || DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(1, 1, Rgb([0x80ff, 0, 0xffff])));
    assert!(close(&one(deep(), Channels::Rgb), &[128, 0, 255], 1));
    let deep = || DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(1, 1, Luma([0x4000])));
    assert!(close(&one(deep(), Channels::Rgb), &[64; 3], 1));
    // PIL: Image.new("RGB", (1, 1), (200, 100, 50)).convert("L") is 124.
    let colour = || image::RgbImage::from_pixel(1, 1, Rgb([200, 100, 50])).into();
    assert_eq!(one(colour(), Channels::Grey), [124]);
    assert_eq!([1, 3, 4].map(|n| Channels::from_count(n).unwrap().count()), [1, 3, 4]);
    assert_eq!(Channels::from_count(2), None);
}

#[test]
fn cmyk_becomes_what_pil_makes_of_it() {
    let image = decode_file(&fixture("cmyk.jpg"), &rgb()).unwrap();
    let expected = [[255, 255, 255], [0, 255, 255], [255, 0, 255], [255, 255, 0], [127, 127, 127]];
    for (i, colour) in expected.iter().enumerate() {
        assert!(close(image.pixel(8 * i + 4, 4), colour, 3), "{i}: {:?}", image.pixel(8 * i + 4, 4));
    }
}

#[test]
fn the_first_frame_of_an_animation() {
    for name in ["animated.gif", "animated.webp"] {
        let file = std::fs::read(fixture(name)).unwrap();
        let header = header(&file, 1000).unwrap();
        assert!(animated(&file, header), "{name}");
        let image = decode(&file, &rgb()).unwrap();
        assert_eq!((image.width(), image.height()), (6, 4));
        assert!(close(image.pixel(3, 2), &[255, 0, 0], 2), "{name}: {:?}", image.pixel(3, 2));
    }
}

#[test]
fn exif_orientation_is_applied() {
    // Left half dark, right half light, 32 x 16.
    let picture = GrayImage::from_fn(32, 16, |x, _| Luma([if x < 16 { 20 } else { 220 }]));
    for (orientation, size, corner_is_dark) in
        [(1, (32, 16), true), (3, (32, 16), false), (6, (16, 32), true), (8, (16, 32), false)]
    {
        // A little-endian TIFF header and one entry: tag 0x112, SHORT, 1 value.
        let exif =
            [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[orientation, 0, 0, 0], &[0; 4]]
                .concat();
        let mut file = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut file, 95);
        encoder.set_exif_metadata(exif).unwrap();
        encoder.write_image(&picture, 32, 16, image::ExtendedColorType::L8).unwrap();
        let image = decode(&file, &rgb()).unwrap();
        assert_eq!((image.width(), image.height()), size, "orientation {orientation}");
        assert_eq!(image.pixel(2, 2)[0] < 100, corner_is_dark, "orientation {orientation}");
        let header = header(&file, 1000).unwrap();
        assert_eq!((header.width as usize, header.height as usize), size);
    }
}

#[test]
fn broken_files_are_named_for_what_they_are() {
    let jpeg = bytes(picture(64, 64, [10, 200, 90]), ImageFormat::Jpeg);
    let fail = |bytes: &[u8]| decode(bytes, &rgb()).unwrap_err();
    assert_eq!(fail(&[]), DecodeError::EmptyFile);
    assert_eq!(fail(b"no image, just text"), DecodeError::NotAnImage);
    assert_eq!(fail(b"\0\0\0\x18ftypheic\0\0\0\0"), DecodeError::Unsupported("HEIC"));
    assert_eq!(fail(b"\0\0\0\x18ftypavif\0\0\0\0"), DecodeError::Unsupported("AVIF"));
    for part in [jpeg.len() / 2, jpeg.len() - 40] {
        assert_eq!(fail(&jpeg[..part]), DecodeError::Truncated, "{part}");
        assert_eq!(
            header(&jpeg[..part], 1 << 20),
            Err(DecodeError::Truncated),
            "the quick check sees it too"
        );
    }
    for format in [ImageFormat::Png, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP]
    {
        let file = bytes(picture(64, 64, [10, 200, 90]), format);
        for part in [1, 10, file.len() / 2] {
            assert!(decode(&file[..part], &rgb()).is_err(), "{format:?} cut at {part}");
        }
    }
    let mut flipped = png(3);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    assert!(matches!(fail(&flipped), DecodeError::Damaged(_)));
}

#[test]
fn a_thumbnail_does_not_hide_a_missing_end() {
    let jpeg = bytes(picture(64, 64, [10, 200, 90]), ImageFormat::Jpeg);
    let thumbnail = bytes(picture(8, 8, [0; 3]), ImageFormat::Jpeg);
    // An APP15 segment with a whole JPEG in it, after the start marker.
    let length = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
    let file = [&jpeg[..2], &[0xff, 0xef], &length, &thumbnail, &jpeg[2..jpeg.len() / 2]].concat();
    assert_eq!(decode(&file, &rgb()), Err(DecodeError::Truncated));
    let whole = [&jpeg[..2], &[0xff, 0xef], &length, &thumbnail, &jpeg[2..], b"trailing"].concat();
    assert!(decode(&whole, &rgb()).is_ok());
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    // The header of a 60,000 x 60,000 PNG; its pixels would take 10.8 GB.
    let mut bomb = png(0);
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = {
        let mut crc = !0u32;
        for &byte in &bomb[12..29] {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        !crc
    };
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = decode(&bomb, &rgb()).unwrap_err();
    assert_eq!(error, DecodeError::TooLarge { width: 60_000, height: 60_000, limit: 200_000_000 });
    // The logical screen of a GIF, 65,535 x 65,535.
    let mut gif = bytes(picture(8, 8, [1, 2, 3]), ImageFormat::Gif);
    gif[6..10].fill(0xff);
    assert!(decode(&gif, &rgb()).is_err());
    // The limit can be set.
    let small = DecodeOptions { max_pixels: 40, ..rgb() };
    assert!(matches!(decode(&png(0), &small), Err(DecodeError::TooLarge { limit: 40, .. })));
}

#[test]
fn a_working_size_shrinks_and_never_enlarges() {
    let file = bytes(picture(300, 100, [50, 100, 150]), ImageFormat::Png);
    let sized = |side| {
        let image = decode(&file, &DecodeOptions { shorter_side: Some(side), ..rgb() }).unwrap();
        (image.width(), image.height())
    };
    assert_eq!(sized(50), (150, 50));
    assert_eq!(sized(100), (300, 100));
    assert_eq!(sized(5000), (300, 100));
}
