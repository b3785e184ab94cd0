//! The matrix products between transformed tiles: one a point, small enough to live in the caches.

use super::COLS;
use crate::simd::{Vector, dispatch};

/// `c[t][n] (+)= Σ_k a[t][k] · b[k][n]`: tiles by channels.
pub(super) struct Tiles {
    /// Chunks of a vector's length of channels: chunk `q` of tile `t` at `a + (q · tiles_step + t) · LANES`.
    pub(super) a: *const f32,
    pub(super) tiles_step: usize,
    pub(super) chunks: usize,
    /// Rows of `COLS` vectors.
    pub(super) b: *const f32,
    /// Rows of `COLS` vectors, one a tile.
    pub(super) c: *mut f32,
    pub(super) tiles: usize,
    /// Whether to add to `c`.
    pub(super) accumulate: bool,
}

dispatch!(pub(super) fn tiles(work: &Tiles) = tiles_body);

/// Rows of tiles in the widest block of registers: two vectors of columns each, and room for a row of `b`.
#[inline(always)]
const fn most<V: Vector>() -> usize {
    match V::COLS {
        4 => 14,
        2 => 6,
        _ => 2,
    }
}

#[inline(always)]
fn tiles_body<V: Vector>(work: &Tiles) {
    let blocks = work.tiles.div_ceil(most::<V>());
    let mut first = 0;
    for i in 0..blocks {
        // Blocks of nearly the same height.
        let rows = (work.tiles - first).div_ceil(blocks - i);
        macro_rules! heights {
            ($($height:literal),*) => {
                match rows {
                    $($height if $height <= most::<V>() => rows_of::<V, $height>(work, first),)*
                    _ => rows_of::<V, 1>(work, first),
                }
            };
        }
        heights!(14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2);
        first += rows;
    }
}

#[inline(always)]
fn rows_of<V: Vector, const R: usize>(work: &Tiles, first: usize) {
    let step = work.tiles_step * V::LANES;
    let width = COLS * V::LANES;
    // SAFETY: the maker of `work` promises `chunks` of `tiles` rows, as many rows of `b`, and `tiles` rows of `c`.
    unsafe {
        let c = work.c.add(first * width);
        let mut acc = [[V::splat(0.0); COLS]; R];
        if work.accumulate {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = V::load(c.add(r * width + j * V::LANES));
                }
            }
        }
        let (mut a, mut b) = (work.a.add(first * V::LANES), work.b);
        for _ in 0..work.chunks {
            for k in 0..V::LANES {
                let bs = [V::load(b), V::load(b.add(V::LANES))];
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = V::splat(*a.add(r * V::LANES + k));
                    for j in 0..COLS {
                        acc[j] = x.fma(bs[j], acc[j]);
                    }
                }
                b = b.add(width);
            }
            a = a.wrapping_add(step);
        }
        for (r, acc) in acc.iter().enumerate() {
            for (j, v) in acc.iter().enumerate() {
                v.store(c.add(r * width + j * V::LANES));
            }
        }
    }
}

/// `c[m][n] (+)= Σ_t a[t][m] · b[t][n]`: channels by channels, summed over tiles; `LANES` rows of `c`.
pub(super) struct Outer {
    /// A vector of channels a tile.
    pub(super) a: *const f32,
    /// `COLS` vectors of channels a tile.
    pub(super) b: *const f32,
    /// `LANES` rows of `COLS` vectors.
    pub(super) c: *mut f32,
    pub(super) tiles: usize,
    /// Rows that count.
    pub(super) rows: usize,
    pub(super) accumulate: bool,
}

dispatch!(pub(super) fn outer(work: &Outer) = outer_body);

#[inline(always)]
fn outer_body<V: Vector>(work: &Outer) {
    if V::COLS == 4 {
        (0..work.rows).step_by(8).for_each(|first| outer_rows::<V, 8>(work, first));
    } else {
        (0..work.rows).step_by(4).for_each(|first| outer_rows::<V, 4>(work, first));
    }
}

#[inline(always)]
fn outer_rows<V: Vector, const R: usize>(work: &Outer, first: usize) {
    let width = COLS * V::LANES;
    // SAFETY: the maker of `work` promises `tiles` vectors of `a`, as many rows of `b`, `LANES` rows of `c`.
    unsafe {
        let c = work.c.add(first * width);
        let mut acc = [[V::splat(0.0); COLS]; R];
        if work.accumulate {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = V::load(c.add(r * width + j * V::LANES));
                }
            }
        }
        let (mut a, mut b) = (work.a.add(first), work.b);
        for _ in 0..work.tiles {
            let bs = [V::load(b), V::load(b.add(V::LANES))];
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = V::splat(*a.add(r));
                for j in 0..COLS {
                    acc[j] = x.fma(bs[j], acc[j]);
                }
            }
            (a, b) = (a.wrapping_add(V::LANES), b.wrapping_add(width));
        }
        for (r, acc) in acc.iter().enumerate() {
            for (j, v) in acc.iter().enumerate() {
                v.store(c.add(r * width + j * V::LANES));
            }
        }
    }
}
