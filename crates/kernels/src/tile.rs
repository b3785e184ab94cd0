//! The two matrix kernels that convolutions and dense layers are made of.
//!
//! [`row_block`] computes `out[r] += Σ_t source[t][r] · weight[t]` for a block of rows whose sources are given by pointers: a
//! convolution's taps are read where they lie, so there is neither an im2col copy nor a packed left operand. (The idea
//! is the indirection buffer of M. Dukhan, "The Indirect Convolution Algorithm", 2019.) [`outer_block`] computes
//! `out += Σ_p a[p]ᵀ · b[p]` over runs of pixels: weight gradients.
//!
//! Both keep a tile of the result in registers; the tile's columns are whole vectors, its rows are broadcast.

use std::ops::Range;

use crate::pack::Panels;
use crate::simd::{Vector, dispatch, fence, prefetch, prefetch_to_write};

/// Blocks of rows are padded to a multiple of this: the least common multiple of all tiles' heights.
pub(crate) const ROW_ALIGN: usize = 24;

/// Rows of packed weights that are worked off before the next: a panel of them stays in the second-level cache.
pub(crate) const DEPTH_BLOCK: usize = 512;

/// What is done to a finished sum before it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Finish {
    /// One value a column, or null.
    pub(crate) bias: *const f32,
    /// As the output, or null.
    pub(crate) residual: *const f32,
    /// Least and largest value.
    pub(crate) bounds: (f32, f32),
    /// Whether whole vectors are stored past the caches: see [`streams`](crate::simd::streams).
    pub(crate) stream: bool,
}

/// The work of [`row_block`].
pub(crate) struct RowBlock<'a> {
    /// Where row `r` of tap `t` starts: `sources[t · stride + r]`, valid for `shift + depth` floats. Padded with readable
    /// rows to a multiple of [`ROW_ALIGN`].
    pub(crate) sources: &'a [*const f32],
    pub(crate) stride: usize,
    pub(crate) taps: usize,
    pub(crate) depth: usize,
    /// Floats between a source's pointer and the first that counts: the group's first channel.
    pub(crate) shift: usize,
    /// Packed by [`pack`](crate::pack::pack).
    pub(crate) weight: &'a [f32],
    pub(crate) panels: Panels,
    /// Which panels are computed.
    pub(crate) run: Range<usize>,
    /// Where the first column of each row lies in `out`.
    pub(crate) targets: &'a [usize],
    pub(crate) out: *mut f32,
    /// Whether to add to what is in `out`.
    pub(crate) accumulate: bool,
    pub(crate) finish: Finish,
}

dispatch!(pub(crate) fn row_block(block: &RowBlock<'_>) = row_block_body);

#[inline(always)]
fn row_block_body<V: Vector>(block: &RowBlock<'_>) {
    assert!(block.sources.len() >= block.taps * block.stride && block.stride.is_multiple_of(ROW_ALIGN));
    assert!(block.targets.len() <= block.stride);
    assert!(block.weight.len() >= block.taps * block.depth * block.panels.padded());
    // Blocks of the sum's terms: several whole taps, or a part of one. A gather without taps (a position that a strided
    // window never meets) is one block without terms.
    let depth_blocks = if block.taps == 0 { 1 } else { block.depth.div_ceil(DEPTH_BLOCK).max(1) };
    let taps_a_block = if depth_blocks > 1 { 1 } else { (DEPTH_BLOCK / block.depth.max(1)).max(1) };
    let tap_blocks = block.taps.div_ceil(taps_a_block).max(1);
    for tap_block in 0..tap_blocks {
        let taps = tap_block * taps_a_block..((tap_block + 1) * taps_a_block).min(block.taps);
        for depth_block in 0..depth_blocks {
            let from = block.depth * depth_block / depth_blocks;
            let mut terms = Terms {
                taps: taps.clone(),
                from,
                depth: block.depth * (depth_block + 1) / depth_blocks - from,
                first: tap_block == 0 && depth_block == 0,
                last: tap_block + 1 == tap_blocks && depth_block + 1 == depth_blocks,
                ahead: false,
            };
            for p in block.run.clone() {
                terms.ahead = p == block.run.start;
                match block.panels.range(p).len() / V::LANES {
                    1 if V::COLS == 1 => row_tiles::<V, 4, 1>(block, &terms, p),
                    1 => row_tiles::<V, 12, 1>(block, &terms, p),
                    2 if V::COLS == 2 => row_tiles::<V, 6, 2>(block, &terms, p),
                    2 => row_tiles::<V, 12, 2>(block, &terms, p),
                    3 => row_tiles::<V, 8, 3>(block, &terms, p),
                    _ => row_tiles::<V, 6, 4>(block, &terms, p),
                }
            }
        }
    }
    if block.finish.stream {
        fence();
    }
}

/// Some of the terms of a sum.
struct Terms {
    taps: Range<usize>,
    /// First channel.
    from: usize,
    /// Channels.
    depth: usize,
    first: bool,
    last: bool,
    /// Whether the sources of the next rows are asked for while these are worked off: they have not been read before.
    ahead: bool,
}

#[inline(always)]
fn row_tiles<V: Vector, const R: usize, const C: usize>(block: &RowBlock<'_>, terms: &Terms, p: usize) {
    let range = block.panels.range(p);
    let packed_row = terms.taps.start * block.depth + terms.from;
    let panel = &block.weight[block.taps * block.depth * range.start + packed_row * range.len()..];
    for r in (0..block.targets.len()).step_by(R) {
        ask::<V, R, C>(block, (terms.first, terms.last), &range, r + R);
        let mut acc = [[V::splat(0.0); C]; R];
        let mut b = panel.as_ptr();
        for tap in terms.taps.clone() {
            let sources = &block.sources[tap * block.stride + r..][..R];
            let next = &block.sources[tap * block.stride + (r + R).min(block.stride - R)..][..R];
            let first = block.shift + terms.from;
            // SAFETY: every source is valid for `shift + depth` floats, the panel holds a row of `C` vectors a term
            // (both asserted or promised by the block).
            unsafe {
                let a: [*const f32; R] = std::array::from_fn(|i| sources[i].add(first));
                for k in 0..terms.depth {
                    if terms.ahead && k % 16 == 0 {
                        next.iter().for_each(|row| prefetch(row.wrapping_add(first + k)));
                    }
                    let bs: [V; C] = std::array::from_fn(|j| V::load(b.add(j * V::LANES)));
                    for i in 0..R {
                        let x = V::splat(*a[i].add(k));
                        for j in 0..C {
                            acc[i][j] = x.fma(bs[j], acc[i][j]);
                        }
                    }
                    b = b.add(C * V::LANES);
                }
            }
        }
        // SAFETY: the rows and the panel are the block's.
        unsafe { store_tile(block, (terms.first, terms.last), &range, r, &acc) }
    }
}

/// Asks for what [`store_tile`] will read for the tile whose first row is `r`: rows of few sources end before the hardware has
/// seen where they go.
#[inline(always)]
pub(crate) fn ask<V: Vector, const R: usize, const C: usize>(
    block: &RowBlock<'_>,
    (first, last): (bool, bool),
    range: &Range<usize>,
    r: usize,
) {
    let residual = if last { block.finish.residual } else { std::ptr::null() };
    let added = block.accumulate && first;
    if !added && residual.is_null() {
        return;
    }
    for &row in block.targets.iter().skip(r).take(R) {
        for at in (0..C).map(|j| row + range.start + j * V::LANES) {
            if added {
                prefetch_to_write(block.out.wrapping_add(at));
            }
            if !residual.is_null() {
                prefetch(residual.wrapping_add(at));
            }
        }
    }
}

/// More than the sums of any tile, in vectors.
const LARGEST: usize = 32;

/// Finishes the sums of a tile, whose first row is `r` and whose padded columns are `range`, and stores them: `terms` says
/// whether they hold the first terms, and the last.
///
/// # Safety
/// The tile is the block's.
#[inline(always)]
pub(crate) unsafe fn store_tile<V: Vector, const R: usize, const C: usize>(
    block: &RowBlock<'_>,
    terms: (bool, bool),
    range: &Range<usize>,
    r: usize,
    acc: &[[V; C]; R],
) {
    let last_columns = ((block.panels.columns() - range.start) - (C - 1) * V::LANES).min(V::LANES);
    let rows = R.min(block.targets.len() - r);
    let plain = terms == (true, true) && !block.accumulate && block.finish.residual.is_null();
    if plain && rows == R && last_columns == V::LANES {
        // Nothing is read but the bias, once a tile, and nothing is decided more than once.
        // SAFETY: as below.
        unsafe {
            return match block.finish.stream {
                true => store_plain::<V, R, C, true>(block, range.start, r, acc),
                false => store_plain::<V, R, C, false>(block, range.start, r, acc),
            };
        }
    }
    // What is indexed by a number lies in memory. So that this is not where the sums are added up, a copy is indexed, of
    // another size than the original, or the compiler makes one of the two: it then stores each sum after every term, and the
    // product runs at a third of its speed.
    let mut sums = [acc[0][0]; LARGEST];
    for (i, row) in acc.iter().enumerate() {
        sums[i * C..][..C].copy_from_slice(row);
    }
    for (i, sums) in sums.chunks_exact(C).enumerate().take(rows) {
        let at = block.targets[r + i] + range.start;
        for (j, &acc) in sums.iter().enumerate() {
            let count = if j + 1 == C { last_columns } else { V::LANES };
            let at = at + j * V::LANES;
            // SAFETY: `count` columns of this row lie in the output, in the residual and in the bias.
            unsafe {
                let load = |ptr: *const f32| {
                    if count == V::LANES { V::load(ptr) } else { V::load_part(ptr, count) }
                };
                let mut v = acc;
                if block.accumulate || !terms.0 {
                    v = v.add(load(block.out.add(at)));
                }
                if terms.1 {
                    if !block.finish.bias.is_null() {
                        v = v.add(load(block.finish.bias.add(range.start + j * V::LANES)));
                    }
                    if !block.finish.residual.is_null() {
                        v = v.add(load(block.finish.residual.add(at)));
                    }
                    let (low, high) = block.finish.bounds;
                    v = v.at_least(V::splat(low)).at_most(V::splat(high));
                }
                if block.finish.stream && terms.1 {
                    v.stream(block.out.add(at));
                } else if count == V::LANES {
                    v.store(block.out.add(at));
                } else {
                    v.store_part(block.out.add(at), count);
                }
            }
        }
    }
}

/// [`store_tile`] where all rows and columns exist and sums are complete, with no other summand than the bias.
///
/// # Safety
/// As [`store_tile`].
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Numbers that are known keep the sums in registers.
unsafe fn store_plain<V: Vector, const R: usize, const C: usize, const STREAM: bool>(
    block: &RowBlock<'_>,
    first: usize,
    r: usize,
    acc: &[[V; C]; R],
) {
    let (low, high) = block.finish.bounds;
    let (low, high) = (V::splat(low), V::splat(high));
    let targets = &block.targets[r..][..R];
    for j in 0..C {
        // SAFETY: the column exists in the bias and in each row of the output.
        unsafe {
            let at = first + j * V::LANES;
            let bias = block.finish.bias;
            let bias = if bias.is_null() { V::splat(0.0) } else { V::load(bias.add(at)) };
            for i in 0..R {
                let v = acc[i][j].add(bias).at_least(low).at_most(high);
                let out = block.out.add(targets[i] + at);
                if STREAM { v.stream(out) } else { v.store(out) }
            }
        }
    }
}

/// How many pixels before their turn operands of [`outer_block`] are asked for.
const AHEAD: usize = 32;

/// Consecutive pixels of both operands of [`outer_block`].
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) a: *const f32,
    pub(crate) b: *const f32,
    pub(crate) count: usize,
}

/// The work of [`outer_block`]: `out[i][j] += Σ_runs Σ_p a[p · a_step + i] · b[p · b_step + j]`.
#[derive(Clone)]
pub(crate) struct OuterBlock<'a> {
    pub(crate) runs: &'a [Run],
    pub(crate) a_step: usize,
    /// Floats between 16 rows of a pixel and the next 16: 16 but where they have been copied apart.
    pub(crate) a_block: usize,
    pub(crate) b_step: usize,
    /// The column of the result that a run's `b` starts with: a packed panel's first.
    pub(crate) b_first: usize,
    /// Which `i`.
    pub(crate) rows: Range<usize>,
    pub(crate) panels: Panels,
    /// Which panels of `j`.
    pub(crate) run: Range<usize>,
    /// Element `(0, 0)` of the result.
    pub(crate) out: *mut f32,
    /// Floats between rows of the result.
    pub(crate) out_step: usize,
    /// Whether to add to the result instead of overwriting it.
    pub(crate) accumulate: bool,
}

dispatch!(pub(crate) fn outer_block(block: &OuterBlock<'_>) = outer_block_body);

#[inline(always)]
fn outer_block_body<V: Vector>(block: &OuterBlock<'_>) {
    for p in block.run.clone() {
        match block.panels.range(p).len() / V::LANES {
            1 if V::COLS == 1 => outer_tiles::<V, 4, 1>(block, p),
            1 => outer_tiles::<V, 8, 1>(block, p),
            2 if V::COLS == 2 => outer_tiles::<V, 4, 2>(block, p),
            2 => outer_tiles::<V, 8, 2>(block, p),
            3 => outer_tiles::<V, 8, 3>(block, p),
            _ => outer_tiles::<V, 4, 4>(block, p),
        }
    }
}

#[inline(always)]
fn outer_tiles<V: Vector, const R: usize, const C: usize>(block: &OuterBlock<'_>, p: usize) {
    let mut i = block.rows.start;
    while i + R <= block.rows.end {
        outer_tile::<V, R, C>(block, p, i);
        i += R;
    }
    while i + 4 <= block.rows.end {
        outer_tile::<V, 4, C>(block, p, i);
        i += 4;
    }
    while i < block.rows.end {
        outer_tile::<V, 1, C>(block, p, i);
        i += 1;
    }
}

#[inline(always)]
fn outer_tile<V: Vector, const R: usize, const C: usize>(block: &OuterBlock<'_>, p: usize, i: usize) {
    let range = block.panels.range(p);
    let last = ((block.panels.columns() - range.start) - (C - 1) * V::LANES).min(V::LANES);
    let mut acc = [[V::splat(0.0); C]; R];
    // Pixels are asked for well before their turn, by the first tiles that read them.
    let ahead = |first: bool, step: usize| if first { AHEAD * step } else { 0 };
    let (a_ahead, b_ahead) = (
        ahead(
            block.a_block == 16 && p == block.run.start && (i == block.rows.start || i % 16 < R),
            block.a_step,
        ),
        ahead(block.a_block == 16 && i == block.rows.start, block.b_step),
    );
    for r in 0..R {
        let row = block.out.wrapping_add((i + r) * block.out_step + range.start);
        (0..C).for_each(|j| prefetch(row.wrapping_add(j * V::LANES)));
    }
    let first = i / 16 * block.a_block + i % 16;
    for run in block.runs {
        // SAFETY: the block's maker promises `count` pixels of both operands; the last vector reads only columns
        // that exist.
        unsafe {
            let (mut a, mut b) = (run.a.wrapping_add(first), run.b.add(range.start - block.b_first));
            for _ in 0..run.count {
                if a_ahead > 0 {
                    prefetch(a.wrapping_add(a_ahead));
                }
                if b_ahead > 0 {
                    (0..C).for_each(|j| prefetch(b.wrapping_add(b_ahead + j * V::LANES)));
                }
                let bs: [V; C] = std::array::from_fn(|j| {
                    if j + 1 == C {
                        V::load_part(b.add(j * V::LANES), last)
                    } else {
                        V::load(b.add(j * V::LANES))
                    }
                });
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = V::splat(*a.add(r));
                    for j in 0..C {
                        acc[j] = x.fma(bs[j], acc[j]);
                    }
                }
                a = a.wrapping_add(block.a_step);
                b = b.wrapping_add(block.b_step);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (j, &acc) in acc.iter().enumerate() {
            // SAFETY: the tile lies in the result.
            unsafe {
                let at = block.out.add((i + r) * block.out_step + range.start + j * V::LANES);
                if j + 1 == C {
                    let v = if block.accumulate { acc.add(V::load_part(at, last)) } else { acc };
                    v.store_part(at, last);
                } else {
                    let v = if block.accumulate { acc.add(V::load(at)) } else { acc };
                    v.store(at);
                }
            }
        }
    }
}
