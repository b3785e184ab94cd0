//! Changes of colour that keep every pixel in its place.
//!
//! The formulas are torchvision's for `uint8` tensors: a blend of the image with black (brightness), with its
//! mean grey (contrast), or with its own grey version (saturation), results cut (not rounded) to 8 bits; hue
//! turns in HSV. Grey is `0.2989 R + 0.587 G + 0.114 B`. Where a pixel's new value depends on its old value
//! alone, a table of 256 values does it. An alpha channel is left as it is.

use crate::Image;

/// Multiplies by `factor`: 0 is black, 1 the image itself.
pub(crate) fn brightness(image: &mut Image, factor: f64) {
    apply_table(image, &table(|v| v * factor));
}

/// Blends with the mean grey of the image: 0 is grey, 1 the image itself.
pub(crate) fn contrast(image: &mut Image, factor: f64) {
    let mean = mean_grey(image);
    apply_table(image, &table(|v| factor * v + (1.0 - factor) * mean));
}

/// Blends with the grey version: 0 is grey, 1 the image itself. A grey image stays as it is.
pub(crate) fn saturation(image: &mut Image, factor: f64) {
    // 12 bits of fraction: exact for factors a 4096th apart, the same bits on every machine.
    let factor = (factor * 4096.0).round() as i32;
    for_rgb(image, |[r, g, b]| {
        let grey = i32::from(grey_of([*r, *g, *b])) * (4096 - factor);
        for v in [r, g, b] {
            *v = ((factor * i32::from(*v) + grey) >> 12).clamp(0, 255) as u8;
        }
    });
}

/// Turns the hue by `turn` of a full circle (-0.5 to 0.5). A grey image stays as it is.
pub(crate) fn hue(image: &mut Image, turn: f64) {
    let turn = turn.rem_euclid(1.0) as f32 * 6.0;
    for_rgb(image, |[r, g, b]| {
        let (red, green, blue) = (f32::from(*r), f32::from(*g), f32::from(*b));
        let most = red.max(green).max(blue);
        let chroma = most - red.min(green).min(blue);
        if chroma == 0.0 {
            return;
        }
        // Sixths of the circle.
        let sixth = if most == red {
            (green - blue) / chroma
        } else if most == green {
            2.0 + (blue - red) / chroma
        } else {
            4.0 + (red - green) / chroma
        };
        // Both lie within -1..11: `rem_euclid` would call the library.
        let around = |v: f32| if v >= 6.0 { v - 6.0 } else { v };
        let sixth = around(if sixth < 0.0 { sixth + 6.0 } else { sixth } + turn);
        // The channel that is `n` sixths further: Smith's HSV to RGB without its six branches.
        let channel = |n: f32| {
            let k = around(n + sixth);
            (most - chroma * k.min(4.0 - k).clamp(0.0, 1.0) + 0.5) as u8
        };
        (*r, *g, *b) = (channel(5.0), channel(3.0), channel(1.0));
    });
}

/// The grey version, with as many channels as before.
pub(crate) fn grayscale(image: &mut Image) {
    for_rgb(image, |pixel| {
        let grey = grey_of([*pixel[0], *pixel[1], *pixel[2]]);
        for v in pixel {
            *v = grey;
        }
    });
}

/// Every colour value through `f`, cut to 0..=255.
pub(crate) fn map(image: &mut Image, f: impl Fn(f64) -> f64) {
    apply_table(image, &table(f));
}

/// Stretches each channel so that its least value becomes 0 and its greatest 255; a flat channel stays.
pub(crate) fn autocontrast(image: &mut Image) {
    per_channel(image, |histogram| {
        let least = histogram.iter().position(|&n| n > 0)?;
        let most = histogram.iter().rposition(|&n| n > 0)?;
        (least < most).then(|| {
            let scale = 255.0 / (most - least) as f64;
            table(|v| (v - least as f64) * scale)
        })
    });
}

/// Evens out the histogram of each channel (PIL's `ImageOps.equalize`).
pub(crate) fn equalize(image: &mut Image) {
    per_channel(image, |histogram| {
        let last = *histogram.iter().rfind(|&&n| n > 0)?;
        let step = (histogram.iter().sum::<usize>() - last) / 255;
        (step > 0).then(|| {
            let mut sum = step / 2;
            let mut table = [0; 256];
            for (slot, n) in table.iter_mut().zip(histogram) {
                *slot = (sum / step).min(255) as u8;
                sum += n;
            }
            table
        })
    });
}

/// Blends with a smoothed version: 0 is smooth, 1 the image itself, more is sharper. The outermost pixels stay
/// (PIL's `ImageFilter.SMOOTH`: a 3 x 3 mean in which the middle counts five times).
pub(crate) fn sharpness(image: &mut Image, factor: f64) {
    let (width, height, channels, colours) =
        (image.width(), image.height(), image.channels(), image.colours());
    if width < 3 || height < 3 {
        return;
    }
    let factor = (factor * 4096.0).round() as i32;
    let source = image.data().to_vec();
    let row = width * channels;
    for y in 1..height - 1 {
        for x in 1..width - 1 {
            for c in 0..colours {
                let at = y * row + x * channels + c;
                let sum: i32 = [at - row, at, at + row]
                    .iter()
                    .flat_map(|&line| [line - channels, line, line + channels])
                    .map(|i| i32::from(source[i]))
                    .sum();
                let middle = i32::from(source[at]);
                let smooth = (sum + 4 * middle + 6) / 13;
                let blend = (factor * middle + (4096 - factor) * smooth) >> 12;
                image.data_mut()[at] = blend.clamp(0, 255) as u8;
            }
        }
    }
}

/// 16 bits of fraction; the weights add up to 65,530 like torchvision's to 0.9999.
pub(crate) fn grey_of([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19_589 + u32::from(g) * 38_470 + u32::from(b) * 7_471) >> 16) as u8
}

fn mean_grey(image: &Image) -> f64 {
    let channels = image.channels();
    let pixels = image.data().chunks_exact(channels);
    let sum: u64 = if image.colours() == 1 {
        pixels.map(|p| u64::from(p[0])).sum()
    } else {
        pixels.map(|p| u64::from(grey_of([p[0], p[1], p[2]]))).sum()
    };
    sum as f64 / (image.width() * image.height()) as f64
}

fn table(f: impl Fn(f64) -> f64) -> [u8; 256] {
    std::array::from_fn(|v| f(v as f64).clamp(0.0, 255.0) as u8)
}

fn apply_table(image: &mut Image, table: &[u8; 256]) {
    if image.colours() == image.channels() {
        image.data_mut().iter_mut().for_each(|v| *v = table[usize::from(*v)]);
    } else {
        let (channels, colours) = (image.channels(), image.colours());
        for pixel in image.data_mut().chunks_exact_mut(channels) {
            pixel[..colours].iter_mut().for_each(|v| *v = table[usize::from(*v)]);
        }
    }
}

/// A table for each colour channel, made from its histogram; `None` leaves the channel.
fn per_channel(image: &mut Image, make: impl Fn(&[usize; 256]) -> Option<[u8; 256]>) {
    let channels = image.channels();
    for c in 0..image.colours() {
        let mut histogram = [0; 256];
        image.data().iter().skip(c).step_by(channels).for_each(|&v| histogram[usize::from(v)] += 1);
        if let Some(table) = make(&histogram) {
            image.data_mut().iter_mut().skip(c).step_by(channels).for_each(|v| *v = table[usize::from(*v)]);
        }
    }
}

/// Every RGB pixel through `f`; nothing for a grey image.
fn for_rgb(image: &mut Image, f: impl Fn([&mut u8; 3])) {
    match image.channels() {
        3 => image.data_mut().as_chunks_mut::<3>().0.iter_mut().for_each(|[r, g, b]| f([r, g, b])),
        4 => image.data_mut().as_chunks_mut::<4>().0.iter_mut().for_each(|[r, g, b, _]| f([r, g, b])),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(data: &[u8]) -> Image {
        Image::new(data.len() / 3, 1, 3, data.to_vec()).unwrap()
    }

    fn after(data: &[u8], f: impl Fn(&mut Image)) -> Vec<u8> {
        let mut image = pixels(data);
        f(&mut image);
        image.into_data()
    }

    const COLOURS: [u8; 12] = [200, 100, 50, 0, 255, 30, 10, 20, 240, 128, 128, 128];

    #[test]
    fn factors_of_zero_and_one() {
        for f in [brightness, contrast, saturation, sharpness] {
            assert_eq!(after(&COLOURS, |i| f(i, 1.0)), COLOURS);
        }
        assert_eq!(after(&COLOURS, |i| hue(i, 0.0)), COLOURS);
        assert_eq!(after(&COLOURS, |i| brightness(i, 0.0)), [0; 12]);
        let flat = after(&COLOURS, |i| contrast(i, 0.0));
        assert!(flat.iter().all(|&v| v == flat[0]));
        assert_eq!(after(&COLOURS[..3], |i| saturation(i, 0.0)), [124; 3]);
        assert_eq!(after(&COLOURS[..3], grayscale), [124; 3]);
    }

    #[test]
    fn values_agree_with_torchvision() {
        // adjust_brightness, adjust_contrast, adjust_saturation of the uint8 image COLOURS by 1.3, by the
        // formulas in the module's comment (mean grey 103.75).
        let expected = |f: &dyn Fn(f64) -> f64| COLOURS.map(|v| f(f64::from(v)).clamp(0.0, 255.0) as u8);
        assert_eq!(after(&COLOURS, |i| brightness(i, 1.3)), expected(&|v| 1.3 * v));
        let greys = COLOURS
            .chunks(3)
            .map(|p| (0.2989 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2])).floor());
        let mean = greys.clone().sum::<f64>() / 4.0;
        assert_eq!(after(&COLOURS, |i| contrast(i, 1.3)), expected(&|v| 1.3 * v - 0.3 * mean));
        let saturated = after(&COLOURS, |i| saturation(i, 1.3));
        for ((got, old), grey) in saturated.chunks(3).zip(COLOURS.chunks(3)).zip(greys) {
            for (got, old) in got.iter().zip(old) {
                let value = (1.3 * f64::from(*old) - 0.3 * grey).clamp(0.0, 255.0);
                assert!((f64::from(*got) - value).abs() <= 1.0, "{got} {value}");
            }
        }
    }

    #[test]
    fn hue_turns_the_circle() {
        assert_eq!(after(&[255, 0, 0], |i| hue(i, 1.0 / 3.0)), [0, 255, 0]);
        assert_eq!(after(&[255, 0, 0], |i| hue(i, -1.0 / 3.0)), [0, 0, 255]);
        assert_eq!(after(&[10, 200, 30], |i| hue(i, 0.5)), [200, 10, 180]);
        let there = after(&COLOURS, |i| hue(i, 0.2));
        let back = after(&there, |i| hue(i, -0.2));
        assert!(back.iter().zip(COLOURS).all(|(a, b)| a.abs_diff(b) <= 2), "{back:?}");
    }

    #[test]
    fn histograms_are_stretched_and_evened_out() {
        let ramp: Vec<u8> = (0..1024).flat_map(|i| [(100 + i % 64) as u8; 3]).collect();
        let stretched = after(&ramp, autocontrast);
        assert_eq!((stretched.iter().min(), stretched.iter().max()), (Some(&0), Some(&255)));
        let even = after(&ramp, equalize);
        assert!(even.iter().max().unwrap() - even.iter().min().unwrap() > 240);
        assert_eq!(after(&[7; 30], autocontrast), [7; 30]);
        assert_eq!(after(&[7; 30], equalize), [7; 30]);
    }

    #[test]
    fn sharpness_changes_edges_only() {
        let mut image = Image::filled(8, 8, &[50]).unwrap();
        sharpness(&mut image, 2.0);
        assert!(image.data().iter().all(|&v| v == 50));
        image.data_mut()[8 * 4 + 4] = 100;
        sharpness(&mut image, 2.0);
        assert!(image.pixel(4, 4)[0] > 100 && image.pixel(3, 4)[0] < 50);
        sharpness(&mut image, 0.0);
        assert!(image.pixel(4, 4)[0] < 100);
    }

    #[test]
    fn alpha_and_grey_images() {
        for f in [grayscale, autocontrast, equalize, |i: &mut Image| {
            brightness(i, 0.5);
            contrast(i, 0.5);
            saturation(i, 0.5);
            sharpness(i, 0.5);
            hue(i, 0.3);
        }] {
            let mut image = Image::filled(4, 4, &[200, 100, 50, 77]).unwrap();
            f(&mut image);
            assert!(image.data().chunks(4).all(|p| p[3] == 77));
            let mut grey = Image::filled(4, 4, &[200]).unwrap();
            f(&mut grey);
            assert_eq!(grey.channels(), 1);
        }
    }
}
