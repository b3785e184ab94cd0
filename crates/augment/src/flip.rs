//! Mirror images.

use crate::Image;

/// Left becomes right.
pub(crate) fn horizontal(image: &mut Image) {
    let row = image.width() * image.channels();
    // A constant number of channels lets the compiler move whole pixels.
    match image.channels() {
        1 => image.data_mut().chunks_exact_mut(row).for_each(<[u8]>::reverse),
        2 => mirror::<2>(image.data_mut(), row),
        3 => mirror::<3>(image.data_mut(), row),
        _ => mirror::<4>(image.data_mut(), row),
    }
}

/// Top becomes bottom.
pub(crate) fn vertical(image: &mut Image) {
    let row = image.width() * image.channels();
    let half = image.height() / 2;
    let (top, rest) = image.data_mut().split_at_mut(half * row);
    for (upper, lower) in top.chunks_exact_mut(row).zip(rest.chunks_exact_mut(row).rev()) {
        upper.swap_with_slice(lower);
    }
}

fn mirror<const C: usize>(data: &mut [u8], row: usize) {
    for line in data.chunks_exact_mut(row) {
        line.as_chunks_mut::<C>().0.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_move_whole_pixels() {
        for channels in 1..=4u8 {
            // Pixel (x, y) holds 10 * (3 * y + x) + c.
            let data = (0..9 * channels).map(|i| 10 * (i / channels) + i % channels).collect();
            let image = Image::new(3, 3, usize::from(channels), data).unwrap();
            let (mut h, mut v) = (image.clone(), image.clone());
            horizontal(&mut h);
            vertical(&mut v);
            for (x, y) in [(0, 0), (1, 0), (2, 1), (0, 2), (1, 1)] {
                assert_eq!(h.pixel(2 - x, y), image.pixel(x, y));
                assert_eq!(v.pixel(x, 2 - y), image.pixel(x, y));
            }
            horizontal(&mut h);
            vertical(&mut v);
            assert_eq!((h.data(), v.data()), (image.data(), image.data()));
        }
    }
}
