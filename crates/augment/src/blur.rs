//! Gaussian blur: two passes with one row of weights.

use crate::Image;

/// Blurs with standard deviation `sigma` in pixels. The kernel reaches 3 sigma; beyond the edges the image is
/// mirrored without repeating the edge (torchvision's padding).
pub(crate) fn gaussian(image: &mut Image, sigma: f64) {
    let weights = weights(sigma);
    if weights.len() == 1 {
        return;
    }
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let row = width * channels;
    let reach = (weights.len() / 2) as isize;
    // Eight bits of fraction are kept between the passes.
    let mut across = vec![0u16; image.data().len()];
    let mut sums = vec![0u32; row];
    // A row with its mirrored continuation, so that each weight is one pass over neighbouring bytes.
    let columns: Vec<usize> = (-reach..width as isize + reach).map(|x| mirror(x, width) * channels).collect();
    let mut wide = Vec::with_capacity(columns.len() * channels);
    for (line, out) in image.data().chunks_exact(row).zip(across.chunks_exact_mut(row)) {
        wide.clear();
        columns.iter().for_each(|&at| wide.extend_from_slice(&line[at..at + channels]));
        sums.fill(0);
        for (i, w) in weights.iter().enumerate() {
            for (sum, v) in sums.iter_mut().zip(&wide[i * channels..]) {
                *sum += w * u32::from(*v);
            }
        }
        for (out, sum) in out.iter_mut().zip(&sums) {
            *out = (sum >> 8) as u16;
        }
    }
    for (y, out) in image.data_mut().chunks_exact_mut(row).enumerate() {
        // At most 65,536 * 65,280 + 2^23, which is just below 2^32.
        sums.fill(1 << 23);
        for (i, w) in weights.iter().enumerate() {
            let from = mirror(y as isize + i as isize - reach, height) * row;
            for (sum, v) in sums.iter_mut().zip(&across[from..from + row]) {
                *sum += w * u32::from(*v);
            }
        }
        for (out, sum) in out.iter_mut().zip(&sums) {
            *out = (sum >> 24) as u8;
        }
    }
}

/// Weights with 16 bits of fraction that add up to 1 exactly.
fn weights(sigma: f64) -> Vec<u32> {
    let reach = (3.0 * sigma).ceil() as i32;
    let exact: Vec<f64> = (-reach..=reach).map(|i| (-0.5 * (f64::from(i) / sigma).powi(2)).exp()).collect();
    let total: f64 = exact.iter().sum();
    let mut weights: Vec<u32> = exact.iter().map(|w| (w / total * 65536.0).round() as u32).collect();
    let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
    let middle = &mut weights[reach as usize];
    *middle = (i64::from(*middle) + 65536 - sum) as u32;
    if *middle == 65536 { vec![65536] } else { weights }
}

/// Mirrored at the edges without repeating them: -1 is 1, n is n - 2.
fn mirror(i: isize, n: usize) -> usize {
    if n == 1 {
        return 0;
    }
    let period = 2 * (n as isize - 1);
    let i = i.rem_euclid(period);
    i.min(period - i) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_becomes_a_bell() {
        for channels in 1..=4 {
            let mut image = Image::filled(21, 21, &vec![0; channels]).unwrap();
            let at = (21 * 10 + 10) * channels;
            image.data_mut()[at..at + channels].fill(255);
            gaussian(&mut image, 1.0);
            for c in 0..channels {
                let v = |x, y| f64::from(image.pixel(x, y)[c]);
                // 255 / (2 pi) in the middle, times exp(-0.5) one pixel and exp(-1) diagonally away.
                for (value, expected) in
                    [(v(10, 10), 40.6), (v(11, 10), 24.6), (v(10, 9), 24.6), (v(9, 11), 14.9)]
                {
                    assert!((value - expected).abs() < 1.5, "{value} {expected}");
                }
                assert_eq!(v(0, 0), 0.0);
            }
        }
    }

    #[test]
    fn flat_images_stay_flat() {
        for value in [0, 1, 128, 255] {
            for sigma in [0.05, 0.4, 2.0, 9.0] {
                for (w, h) in [(1, 1), (2, 3), (16, 5)] {
                    let mut image = Image::filled(w, h, &[value; 3]).unwrap();
                    gaussian(&mut image, sigma);
                    assert!(image.data().iter().all(|&v| v == value), "{value} {sigma}: {:?}", image.data());
                }
            }
        }
    }

    #[test]
    fn edges_are_mirrored_without_repetition() {
        assert_eq!((-3..7).map(|i| mirror(i, 4)).collect::<Vec<_>>(), [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]);
        assert_eq!(weights(2.0).iter().sum::<u32>(), 65536);
    }
}
