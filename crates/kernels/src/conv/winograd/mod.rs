//! Winograd's convolutions: 3×3 windows at stride 1 with fewer multiplications.
//!
//! A tile of m × m targets needs (m + 2)² products instead of 9 m²: 36 instead of 144 for m = 4. The targets are cut into
//! tiles of 4; what is left over (2 of 14, 3 of 7) gets smaller tiles where that is less work than letting tiles hang over
//! the edge. For each kind of tile, sources and weights are transformed ([`points`]), multiplied as one matrix product a
//! point ([`product`]), and transformed back, block by block, so that a block of tiles stays in the second-level cache.
//!
//! No result depends on how tiles are cut into blocks or weights into panels: each sum is made in one order, which the
//! shape alone decides.
//!
//! The price is rounding: F(4×4, 3×3) is a few times as far from the exact result as a direct sum (the tests of `conv` hold
//! each pass to 4·10⁻⁶ of the largest element of the result in f64, direct sums to 2·10⁻⁶), F(2×2, 3×3) is as exact. Where
//! that is too much, [`Algorithm::Direct`](super::Algorithm::Direct) takes the other path.

mod gather;
mod points;
mod product;
mod transform;
mod weight;

use std::ops::Range;

use defrost_tensor::Shape4;

use crate::Isa;
use crate::simd::{Vector, dispatch, load, prefetch};
pub(super) use gather::{run, workspace};
pub(super) use weight::{run as run_weight, workspace as weight_workspace};

use super::{Algorithm, ConvShape};
use transform::{Grid, Load};

/// Vectors of columns that a matrix product makes at once.
const COLS: usize = 2;

/// Tiles of one kind: a grid of them in each image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Class {
    /// Rows and columns of a tile's targets.
    m: [usize; 2],
    /// The first tile's place.
    first: [usize; 2],
    /// Rows and columns of tiles.
    count: [usize; 2],
}

impl Class {
    /// Points of a transformed tile: rows, columns.
    fn points(&self) -> [usize; 2] {
        self.m.map(|m| m + 2)
    }

    fn area(&self) -> usize {
        self.points()[0] * self.points()[1]
    }

    /// Tiles of an image.
    fn tiles(&self) -> usize {
        self.count[0] * self.count[1]
    }

    /// Calls `line` with the first channel of each target of the tile that comes [`AHEAD`] tiles after `t`, if it comes
    /// before `end`. Those beyond an edge are some other targets or none at all: addresses may be asked for, not read.
    #[inline(always)]
    fn ahead(&self, t: usize, end: usize, shape: Shape4, mut line: impl FnMut(usize)) {
        /// Tiles that take as long to transform as a line takes to come from memory.
        const AHEAD: usize = 2;
        if t + AHEAD < end {
            let [n, y, x] = self.place(t + AHEAD);
            for i in 0..self.m[0] {
                for j in 0..self.m[1] {
                    line((((n * shape.h + y + i) * shape.w) + x + j) * shape.c);
                }
            }
        }
    }

    /// The image and the first target of tile `t`.
    #[inline(always)]
    fn place(&self, t: usize) -> [usize; 3] {
        let (n, t) = (t / self.tiles(), t % self.tiles());
        let [y, x] = [t / self.count[1], t % self.count[1]];
        [n, self.first[0] + y * self.m[0], self.first[1] + x * self.m[1]]
    }
}

/// How the targets of a convolution are cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tiling {
    classes: [Class; 9],
    len: usize,
    /// Images.
    n: usize,
}

impl Tiling {
    fn classes(&self) -> &[Class] {
        &self.classes[..self.len]
    }

    /// Tiles of 4, hanging over the edge.
    fn whole(target: Shape4) -> Self {
        let mut classes = [Class::default(); 9];
        classes[0] = Class { m: [4; 2], first: [0; 2], count: [target.h.div_ceil(4), target.w.div_ceil(4)] };
        Self { classes, len: 1, n: target.n }
    }

    /// Tiles of 4 and of what is left.
    fn mixed(target: Shape4) -> Self {
        let (rows, columns) = (cut(target.h), cut(target.w));
        let (mut classes, mut len) = ([Class::default(); 9], 0);
        for &(my, y, ny) in rows.iter().filter(|r| r.2 > 0) {
            for &(mx, x, nx) in columns.iter().filter(|c| c.2 > 0) {
                classes[len] = Class { m: [my, mx], first: [y, x], count: [ny, nx] };
                len += 1;
            }
        }
        Self { classes, len, n: target.n }
    }

    /// Products a pair of channels, and as many more as transforming the weights of a class takes time.
    fn cost(&self) -> usize {
        /// As many tiles' products as transforming a weight takes the time of (12 to 25 where it was measured).
        const TRANSFORM: usize = 16;
        self.classes().iter().map(|c| c.area() * (self.n * c.tiles() + TRANSFORM)).sum()
    }

    /// Tiles of the class that has most.
    fn most(&self) -> usize {
        self.n * self.classes().iter().map(Class::tiles).max().unwrap_or(0)
    }

    /// Points of a tile, at most.
    fn area(&self) -> usize {
        self.classes().iter().map(Class::area).max().unwrap_or(0)
    }

    /// The tiles of `class` in part `part` of `parts`.
    fn part(&self, class: &Class, part: usize, parts: usize) -> Range<usize> {
        let tiles = self.n * class.tiles();
        tiles * part / parts..tiles * (part + 1) / parts
    }

    /// Points of all tiles.
    fn points(&self) -> usize {
        self.classes().iter().map(|c| c.area() * self.n * c.tiles()).sum()
    }

    /// The tiling of `target` that takes the least work, if it takes less than nine products a target.
    fn of(target: Shape4, source_channels: usize) -> Option<Self> {
        let (whole, mixed) = (Self::whole(target), Self::mixed(target));
        let best = if mixed.cost() < whole.cost() { mixed } else { whole };
        // Transforming a point takes about as long as three products, once a channel of source and target.
        let channels = source_channels * target.c;
        let transforms = 3 * best.points() * (source_channels + target.c);
        let direct = 9 * target.rows() * channels;
        (best.cost() * channels + transforms < direct * 3 / 4).then_some(best)
    }
}

/// Cuts `len` targets into runs of tiles: `(m, first, count)`.
fn cut(len: usize) -> [(usize, usize, usize); 3] {
    let fours = len / 4;
    match len % 4 {
        0 => [(4, 0, fours), (3, 0, 0), (2, 0, 0)],
        1 if fours > 0 => [(4, 0, fours - 1), (3, len - 5, 1), (2, len - 2, 1)],
        3 => [(4, 0, fours), (3, len - 3, 1), (2, 0, 0)],
        rest => [(4, 0, fours), (3, 0, 0), (2, len - rest, 1)],
    }
}

/// A convolution's forward pass or input gradient, whose weights are then rotated and their channels exchanged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plane {
    source: Shape4,
    target: Shape4,
    /// Rows and columns of padding before the first source.
    pad: [usize; 2],
    /// Whether the weights are rotated and read as `[tap, target, source]`.
    backward: bool,
    tiling: Tiling,
}

/// Channels below which vectors are not full and transforms cost as much as they save.
const LEAST_CHANNELS: usize = 16;

fn fits(shape: &ConvShape) -> bool {
    let desc = &shape.desc;
    if shape.algorithm == Algorithm::Direct {
        return false;
    }
    let window = (desc.kernel, desc.stride, desc.dilation, desc.groups) == ([3; 2], [1; 2], [1; 2], 1);
    let pads = shape.pads.top <= 2 && shape.pads.left <= 2 && shape.pads.bottom <= 2 && shape.pads.right <= 2;
    window && pads && desc.in_channels >= LEAST_CHANNELS && desc.out_channels >= LEAST_CHANNELS
}

impl Plane {
    /// The forward pass, where Winograd's way is open and shorter.
    pub(super) fn forward(shape: &ConvShape) -> Option<Self> {
        let ConvShape { input: source, output: target, pads, .. } = *shape;
        let tiling = Tiling::of(target, source.c).filter(|_| fits(shape))?;
        Some(Self { source, target, pad: [pads.top, pads.left], backward: false, tiling })
    }

    /// The input gradient, where Winograd's way is open and shorter.
    pub(super) fn grad_input(shape: &ConvShape) -> Option<Self> {
        let ConvShape { input: target, output: source, pads, .. } = *shape;
        let tiling = Tiling::of(target, source.c).filter(|_| fits(shape))?;
        Some(Self { source, target, pad: [2 - pads.top, 2 - pads.left], backward: true, tiling })
    }
}

/// Floats of a vector.
fn lanes(isa: Isa) -> usize {
    fn of<V: Vector>() -> usize {
        V::LANES
    }
    dispatch!(fn get() -> usize = of);
    get(isa)
}

/// Transforms the sources of `tiles`, chunks of a vector's length of channels at a time: point `p` of chunk `q` of tile `t`
/// goes to `out + p · point + (q · step + t) · LANES`, all counted from the first.
///
/// # Safety
/// That is memory, and nobody else's.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn sources<V: Vector>(
    shape: Shape4,
    pad: [usize; 2],
    class: &Class,
    tiles: Range<usize>,
    chunks: Range<usize>,
    step: usize,
    point: usize,
    source: &[f32],
    out: *mut f32,
) {
    let points = class.points();
    assert!(tiles.len() <= step && chunks.len() * step * V::LANES <= point && source.len() == shape.len());
    let (first, end) = (tiles.start, tiles.end);
    for t in tiles {
        // Where targets lie, sources do, but for the padding; what else a tile reads, earlier ones have read.
        class.ahead(t, end, shape, |at| {
            for chunk in chunks.clone() {
                prefetch(source.as_ptr().wrapping_add(at + chunk * V::LANES));
            }
        });
        let [n, y, x] = class.place(t);
        let (y, x) = (y.wrapping_sub(pad[0]), x.wrapping_sub(pad[1]));
        let inside = y < shape.h && y + points[0] <= shape.h && x < shape.w && x + points[1] <= shape.w;
        let corner =
            (n * shape.h).wrapping_add(y).wrapping_mul(shape.w).wrapping_add(x).wrapping_mul(shape.c);
        for (q, chunk) in chunks.clone().enumerate() {
            let c = chunk * V::LANES;
            let lanes = V::LANES.min(shape.c - c);
            let from = source.as_ptr().wrapping_add(corner.wrapping_add(c));
            let to = out.wrapping_add((q * step + t - first) * V::LANES);
            let from = Sources { at: from, shape, corner: [y, x], lanes };
            // SAFETY: positions that are read lie in the source; each point has room for all chunks (asserted; the caller's).
            unsafe {
                let to = Grid { at: to, row: points[1] * point, column: point };
                if inside && lanes == V::LANES {
                    let from = Grid::read(from.at, shape.w * shape.c, shape.c);
                    transform::source::<V>(class.m, &from, &to);
                } else {
                    transform::source::<V>(class.m, &from, &to);
                }
            }
        }
    }
}

/// Sources of a tile at an edge; padding is 0.
struct Sources {
    at: *const f32,
    shape: Shape4,
    /// The first one's row and column, which may wrap.
    corner: [usize; 2],
    lanes: usize,
}

impl<V: Vector> Load<V> for Sources {
    #[inline(always)]
    unsafe fn load(&self, i: usize, j: usize) -> V {
        let Shape4 { c, h, w, .. } = self.shape;
        if self.corner[0].wrapping_add(i) >= h || self.corner[1].wrapping_add(j) >= w {
            return V::splat(0.0);
        }
        // SAFETY: the position lies in the source, with as many channels.
        unsafe { load::<V>(self.at.wrapping_add((i * w + j) * c), self.lanes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_target_once() {
        for (h, w) in (1..20).flat_map(|h| (1..20).map(move |w| (h, w))) {
            let target = Shape4::new(2, 1, h, w);
            let tiling = Tiling::mixed(target);
            let mut seen = vec![0; target.len()];
            for class in tiling.classes() {
                for t in 0..2 * class.tiles() {
                    let [n, y, x] = class.place(t);
                    for (y, x) in (y..y + class.m[0]).flat_map(|y| (x..x + class.m[1]).map(move |x| (y, x))) {
                        if y < h && x < w {
                            seen[(n * h + y) * w + x] += 1;
                        }
                    }
                }
            }
            assert!(seen.iter().all(|&s| s == 1), "{h} {w}");
        }
    }

    #[test]
    fn fourteen_is_mixed_and_seven_hangs_over_in_small_batches() {
        let classes = |n, size| Tiling::of(Shape4::new(n, 256, size, size), 256).unwrap().len;
        assert_eq!((classes(16, 56), classes(16, 14), classes(16, 7), classes(64, 7)), (1, 4, 1, 4));
        // One image of four positions is better off without.
        assert_eq!(Tiling::of(Shape4::new(1, 512, 2, 2), 512), None);
    }
}
