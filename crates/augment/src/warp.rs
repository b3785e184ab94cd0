//! Resampling through a projective map: rotation, affine maps, perspective.
//!
//! A [`Map`] says where the pixels of the result come from. Positions are measured in pixels with pixel centres
//! at half numbers, as in `grid_sample(align_corners=False)`.

use crate::{Fill, Image, Interpolation};

/// `(x, y)` of the result comes from `((a x + b y + c) / w, (d x + e y + f) / w)` with `w = g x + h y + 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Map(pub(crate) [f64; 8]);

impl Map {
    /// torchvision's affine map: turn by `angle` degrees counter-clockwise, shear by `shear` degrees in x and
    /// y, scale by `scale`, all around `center`, then move by `translate` pixels.
    pub(crate) fn affine(
        angle: f64,
        translate: (f64, f64),
        scale: f64,
        shear: (f64, f64),
        center: (f64, f64),
    ) -> Self {
        // torchvision counts angles clockwise in `_get_inverse_affine_matrix` and rotate() negates its own.
        let rotation = -angle.to_radians();
        let (sx, sy) = (shear.0.to_radians(), shear.1.to_radians());
        // The forward map is T C R S C^-1 with the matrix [a b; c d]; its inverse has 1 / scale in front.
        let a = (rotation - sy).cos() / sy.cos();
        let b = -(rotation - sy).cos() * sx.tan() / sy.cos() - rotation.sin();
        let c = (rotation - sy).sin() / sy.cos();
        let d = -(rotation - sy).sin() * sx.tan() / sy.cos() + rotation.cos();
        let m = [d / scale, -b / scale, -c / scale, a / scale];
        let (x, y) = (center.0 + translate.0, center.1 + translate.1);
        Self([
            m[0],
            m[1],
            center.0 - m[0] * x - m[1] * y,
            m[2],
            m[3],
            center.1 - m[2] * x - m[3] * y,
            0.0,
            0.0,
        ])
    }

    /// The map that brings the corners `from` of the source to the corners `to` of the result; `None` where
    /// three of them lie on a line.
    pub(crate) fn perspective(from: [(f64, f64); 4], to: [(f64, f64); 4]) -> Option<Self> {
        let mut rows = [[0.0; 9]; 8];
        for (i, ((sx, sy), (x, y))) in from.into_iter().zip(to).enumerate() {
            rows[2 * i] = [x, y, 1.0, 0.0, 0.0, 0.0, -sx * x, -sx * y, sx];
            rows[2 * i + 1] = [0.0, 0.0, 0.0, x, y, 1.0, -sy * x, -sy * y, sy];
        }
        solve(&mut rows).map(Self)
    }
}

/// Gauss and Jordan with pivoting; `None` for a singular system.
fn solve(rows: &mut [[f64; 9]; 8]) -> Option<[f64; 8]> {
    for column in 0..8 {
        let pivot = (column..8).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()))?;
        rows.swap(column, pivot);
        let head = rows[column][column];
        if head.abs() < 1e-9 {
            return None;
        }
        rows[column].iter_mut().for_each(|v| *v /= head);
        let current = rows[column];
        for (other, row) in rows.iter_mut().enumerate() {
            if other != column {
                let factor = row[column];
                row.iter_mut().zip(current).for_each(|(v, p)| *v -= factor * p);
            }
        }
    }
    Some(std::array::from_fn(|i| rows[i][8]))
}

/// The image seen through `map`, in its own size. Bicubic is sampled as bilinear here: nothing is made
/// smaller, and PIL and torchvision default to less.
pub(crate) fn warp(image: &Image, map: Map, interpolation: Interpolation, fill: &Fill) -> Image {
    match image.channels() {
        1 => warp_channels::<1>(image, map, interpolation, fill),
        2 => warp_channels::<2>(image, map, interpolation, fill),
        3 => warp_channels::<3>(image, map, interpolation, fill),
        _ => warp_channels::<4>(image, map, interpolation, fill),
    }
}

fn warp_channels<const C: usize>(
    image: &Image,
    Map(m): Map,
    interpolation: Interpolation,
    fill: &Fill,
) -> Image {
    let (width, height) = (image.width(), image.height());
    let source =
        Source { pixels: image.data().as_chunks::<C>().0, width: width as i64, height: height as i64, fill };
    let nearest = interpolation == Interpolation::Nearest;
    let mut result = image.clone();
    for (row, line) in result.data_mut().chunks_exact_mut(width * C).enumerate() {
        let y = row as f64 + 0.5;
        let line = line.as_chunks_mut::<C>().0;
        if m[6] == 0.0 && m[7] == 0.0 {
            // Affine: along a row both coordinates grow by a constant, exact to 2^-32 of a pixel.
            let (mut sx, dx) = (fixed(m[0] * 0.5 + m[1] * y + m[2]), fixed(m[0]));
            let (mut sy, dy) = (fixed(m[3] * 0.5 + m[4] * y + m[5]), fixed(m[3]));
            for pixel in line {
                *pixel = if nearest { source.fetch(sx >> 32, sy >> 32) } else { source.bilinear(sx, sy) };
                (sx, sy) = (sx + dx, sy + dy);
            }
        } else {
            for (column, pixel) in line.iter_mut().enumerate() {
                let x = column as f64 + 0.5;
                let w = m[6] * x + m[7] * y + 1.0;
                // Beyond the horizon of a perspective there is nothing to see.
                if w <= 1e-6 {
                    *pixel = fill.constant();
                    continue;
                }
                let inverse = 1.0 / w;
                let sx = fixed((m[0] * x + m[1] * y + m[2]) * inverse);
                let sy = fixed((m[3] * x + m[4] * y + m[5]) * inverse);
                *pixel = if nearest { source.fetch(sx >> 32, sy >> 32) } else { source.bilinear(sx, sy) };
            }
        }
    }
    result
}

/// A position with 32 bits of fraction, at most a billion pixels away.
fn fixed(v: f64) -> i64 {
    (v.clamp(-1e9, 1e9) * 4_294_967_296.0) as i64
}

/// Pixels and what lies around them.
struct Source<'a, const C: usize> {
    pixels: &'a [[u8; C]],
    width: i64,
    height: i64,
    fill: &'a Fill,
}

impl<const C: usize> Source<'_, C> {
    /// The pixel in any column and row, inside or not.
    #[inline]
    fn fetch(&self, x: i64, y: i64) -> [u8; C] {
        if x >= 0 && y >= 0 && x < self.width && y < self.height {
            self.pixels[(y * self.width + x) as usize]
        } else {
            self.outside(x, y)
        }
    }

    #[cold]
    fn outside(&self, x: i64, y: i64) -> [u8; C] {
        let (x, y) = match self.fill {
            Fill::Reflect => (reflect(x, self.width), reflect(y, self.height)),
            Fill::Edge => (x.clamp(0, self.width - 1), y.clamp(0, self.height - 1)),
            Fill::Constant(_) => return self.fill.constant(),
        };
        self.pixels[(y * self.width + x) as usize]
    }

    /// Between the four pixels around a position (32 bits of fraction), with 8 bits of weight as OpenCV.
    #[inline]
    fn bilinear(&self, sx: i64, sy: i64) -> [u8; C] {
        let (fx, fy) = ((sx - (1 << 31)) >> 24, (sy - (1 << 31)) >> 24);
        let (x, y) = (fx >> 8, fy >> 8);
        let (wx, wy) = ((fx & 255) as u32, (fy & 255) as u32);
        let four = if x >= 0 && y >= 0 && x + 1 < self.width && y + 1 < self.height {
            let at = (y * self.width + x) as usize;
            let (top, bottom) = (&self.pixels[at..at + 2], &self.pixels[at + self.width as usize..][..2]);
            [top[0], top[1], bottom[0], bottom[1]]
        } else {
            [self.fetch(x, y), self.fetch(x + 1, y), self.fetch(x, y + 1), self.fetch(x + 1, y + 1)]
        };
        let weights = [(256 - wx) * (256 - wy), wx * (256 - wy), (256 - wx) * wy, wx * wy];
        std::array::from_fn(|c| {
            let sum: u32 = four.iter().zip(weights).map(|(p, w)| u32::from(p[c]) * w).sum();
            ((sum + (1 << 15)) >> 16) as u8
        })
    }
}

/// Mirrored at the edges, the edge pixel itself repeated: -1 is 0, n is n - 1.
pub(crate) fn reflect(i: i64, n: i64) -> i64 {
    let i = i.rem_euclid(2 * n);
    if i < n { i } else { 2 * n - 1 - i }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Map = Map([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);

    fn numbered(width: usize, height: usize) -> Image {
        Image::new(width, height, 1, (0..width * height).map(|i| i as u8).collect()).unwrap()
    }

    #[test]
    fn the_identity_changes_nothing() {
        let image = numbered(7, 5);
        for interpolation in [Interpolation::Nearest, Interpolation::Bilinear] {
            for fill in [Fill::Reflect, Fill::Edge, Fill::Constant(vec![9])] {
                assert_eq!(warp(&image, IDENTITY, interpolation, &fill).data(), image.data());
            }
        }
        let still = Map::affine(0.0, (0.0, 0.0), 1.0, (0.0, 0.0), (3.5, 2.5));
        assert_eq!(warp(&image, still, Interpolation::Bilinear, &Fill::Reflect).data(), image.data());
    }

    #[test]
    fn a_quarter_turn_is_counter_clockwise() {
        // np.rot90 of [[0, 1, 2], [3, 4, 5], [6, 7, 8]].
        let turned = Map::affine(90.0, (0.0, 0.0), 1.0, (0.0, 0.0), (1.5, 1.5));
        for interpolation in [Interpolation::Nearest, Interpolation::Bilinear] {
            let result = warp(&numbered(3, 3), turned, interpolation, &Fill::Edge);
            assert_eq!(result.data(), [2, 5, 8, 1, 4, 7, 0, 3, 6]);
        }
    }

    #[test]
    fn moving_scaling_and_fills() {
        let image = numbered(4, 1);
        let moved = Map::affine(0.0, (2.0, 0.0), 1.0, (0.0, 0.0), (2.0, 0.5));
        let shown = |fill: Fill| warp(&image, moved, Interpolation::Bilinear, &fill).into_data();
        assert_eq!(shown(Fill::Constant(vec![200])), [200, 200, 0, 1]);
        assert_eq!(shown(Fill::Edge), [0, 0, 0, 1]);
        assert_eq!(shown(Fill::Reflect), [1, 0, 0, 1]);
        let doubled = Map::affine(0.0, (0.0, 0.0), 2.0, (0.0, 0.0), (2.0, 0.5));
        assert_eq!(warp(&image, doubled, Interpolation::Nearest, &Fill::Edge).data(), [1, 1, 2, 2]);
    }

    #[test]
    fn a_shear_moves_rows_by_their_height() {
        // torchvision: x_source = x + tan(45 deg) * (y - cy) for a shear of 45 degrees in x.
        let sheared = Map::affine(0.0, (0.0, 0.0), 1.0, (45.0, 0.0), (1.5, 1.5));
        let result = warp(&numbered(3, 3), sheared, Interpolation::Nearest, &Fill::Constant(vec![99]));
        assert_eq!(result.data(), [99, 0, 1, 3, 4, 5, 7, 8, 99]);
    }

    #[test]
    fn corners_go_where_they_are_sent() {
        let square = [(0.0, 0.0), (8.0, 0.0), (8.0, 8.0), (0.0, 8.0)];
        let map = Map::perspective(square, [(1.0, 0.0), (7.0, 1.0), (8.0, 8.0), (0.0, 6.0)]).unwrap();
        let at = |x: f64, y: f64| {
            let w = map.0[6] * x + map.0[7] * y + 1.0;
            ((map.0[0] * x + map.0[1] * y + map.0[2]) / w, (map.0[3] * x + map.0[4] * y + map.0[5]) / w)
        };
        let (x, y) = at(7.0, 1.0);
        assert!((x - 8.0).abs() < 1e-9 && y.abs() < 1e-9);
        assert!(Map::perspective(square, [(0.0, 0.0); 4]).is_none());
        let same = Map::perspective(square, square).unwrap();
        assert_eq!(
            warp(&numbered(8, 8), same, Interpolation::Bilinear, &Fill::Edge).data(),
            numbered(8, 8).data()
        );
    }

    #[test]
    fn reflection_repeats_for_ever() {
        let at: Vec<i64> = (-5..8).map(|i| reflect(i, 3)).collect();
        assert_eq!(at, [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]);
        assert_eq!(reflect(-9, 1), 0);
    }
}
