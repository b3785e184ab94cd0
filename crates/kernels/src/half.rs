//! [`row_block`](crate::tile::row_block) and [`outer_block`](crate::tile::outer_block) with both operands rounded to
//! bfloat16 and sums in f32: twice the products a cycle.
//!
//! Weights and activations stay f32 in memory. A panel of weights is rounded once a call, pairs of rows side by side; the
//! sources of a block of rows, or pairs of pixels of both operands of a weights' gradient, are rounded just before they
//! are multiplied, into a piece that stays in the second-level cache. Needs AVX-512 with BF16; where that is missing, convolutions compute in f32.

use crate::pack::Panels;
use crate::scratch::{carve, floats_for};
use crate::threads::PtrMut;
use crate::tile::{DEPTH_BLOCK, OuterBlock, ROW_ALIGN, RowBlock};
use crate::{Isa, Threads};

/// Whether this machine multiplies pairs of bfloat16, with this instruction set.
pub(crate) fn supported(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    if isa.0 == crate::simd::Level::Avx512 {
        return is_x86_feature_detected!("avx512bf16");
    }
    let _ = isa;
    false
}

/// Floats of a thread's workspace for blocks of `rows` rows.
pub(crate) fn own_len(rows: usize) -> usize {
    floats_for::<u16>(rows.next_multiple_of(ROW_ALIGN) * DEPTH_BLOCK)
}

/// Pairs of pixels of [`outer_block`] that are rounded together: a panel of their gradients stays in the first-level cache.
const PAIRS: usize = 64;

/// Floats of a thread's workspace for [`outer_block`] of `rows` rows and all columns of `panels`.
pub(crate) fn outer_len(rows: usize, panels: Panels) -> usize {
    floats_for::<u32>(outer_pairs(rows, panels))
}

fn outer_pairs(rows: usize, panels: Panels) -> usize {
    PAIRS * (rows.next_multiple_of(16) + panels.padded())
}

/// `x` rounded to the nearest bfloat16, ties to even; NaN stays NaN.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// Rounds packed panels of `rows` rows, an even number: rows `2k` and `2k + 1` become the halves of row `k`.
pub(crate) fn pair(threads: &Threads, packed: &[f32], panels: Panels, rows: usize, out: &mut [u32]) {
    assert!(packed.len() >= rows * panels.padded() && out.len() >= rows / 2 * panels.padded());
    let out = PtrMut(out.as_mut_ptr().cast());
    let pieces = (rows * panels.padded() / 32_768).clamp(1, (rows / 32).max(1));
    threads.for_each(pieces, |_, piece| {
        let pairs = rows / 2 * piece / pieces..rows / 2 * (piece + 1) / pieces;
        for p in 0..panels.count() {
            let range = panels.range(p);
            let (first, width) = (rows * range.start, range.len());
            for k in pairs.clone() {
                let (even, odd) = packed[first + 2 * k * width..][..2 * width].split_at(width);
                // SAFETY: in bounds (asserted), and each piece has its own rows.
                let out = unsafe {
                    let at = out.get().cast::<u32>().add(first / 2 + k * width);
                    std::slice::from_raw_parts_mut(at, width)
                };
                for ((out, &even), &odd) in out.iter_mut().zip(even).zip(odd) {
                    *out = round(even) | round(odd) << 16;
                }
            }
        }
    });
}

/// As [`row_block`](crate::tile::row_block), with weights from [`pair`]. `block.depth` is even.
///
/// # Panics
/// Where [`supported`] says no.
pub(crate) fn row_block(block: &RowBlock<'_>, weight: &[u32], own: &mut [f32]) {
    let (own, _) = carve::<u16>(own, block.stride.next_multiple_of(ROW_ALIGN) * DEPTH_BLOCK);
    #[cfg(target_arch = "x86_64")]
    {
        assert!(is_x86_feature_detected!("avx512bf16") && block.depth.is_multiple_of(2));
        assert!(weight.len() >= block.taps * block.depth / 2 * block.panels.padded());
        assert!(block.sources.len() >= block.taps * block.stride && block.stride.is_multiple_of(ROW_ALIGN));
        // SAFETY: the machine has the instructions (asserted; whoever has them has the rest of AVX-512).
        unsafe { x86::row_block(block, weight, own) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (block, weight, own);
        unreachable!("no such instructions");
    }
}

/// As [`outer_block`](crate::tile::outer_block), added to the result.
///
/// # Panics
/// Where [`supported`] says no.
pub(crate) fn outer_block(block: &OuterBlock<'_>, own: &mut [f32]) {
    let (own, _) = carve::<u32>(own, outer_pairs(block.rows.len(), block.panels));
    #[cfg(target_arch = "x86_64")]
    {
        assert!(
            is_x86_feature_detected!("avx512bf16")
                && block.accumulate
                && block.b_first == 0
                && block.a_block == 16
        );
        // SAFETY: the machine has the instructions (asserted; whoever has them has the rest of AVX-512).
        unsafe { x86::outer_block(block, own) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (block, own);
        unreachable!("no such instructions");
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;
    use std::ops::Range;

    use super::PAIRS;
    use crate::simd::{F32x16, fence, prefetch};
    use crate::tile::{DEPTH_BLOCK, OuterBlock, RowBlock, ask, store_tile};

    /// Pixels between the one that is rounded and the one that is asked for.
    const AHEAD: usize = 16;
    /// The same for rows of sources.
    const ROWS_AHEAD: usize = 6;

    /// Some of the terms of a sum: taps, and some channels of them.
    struct Terms {
        taps: Range<usize>,
        from: usize,
        depth: usize,
        first: bool,
        last: bool,
    }

    /// # Safety
    /// The machine has the instructions; the block's pointers are as it promises.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    pub(super) unsafe fn row_block(block: &RowBlock<'_>, weight: &[u32], own: &mut [u16]) {
        let depth_blocks = if block.taps == 0 { 1 } else { block.depth.div_ceil(DEPTH_BLOCK).max(1) };
        let taps_a_block = if depth_blocks > 1 { 1 } else { (DEPTH_BLOCK / block.depth.max(1)).max(1) };
        let tap_blocks = block.taps.div_ceil(taps_a_block).max(1);
        for tap_block in 0..tap_blocks {
            let taps = tap_block * taps_a_block..((tap_block + 1) * taps_a_block).min(block.taps);
            for depth_block in 0..depth_blocks {
                let at = |i: usize| block.depth / 2 * i / depth_blocks * 2;
                let terms = Terms {
                    taps: taps.clone(),
                    from: at(depth_block),
                    depth: at(depth_block + 1) - at(depth_block),
                    first: tap_block == 0 && depth_block == 0,
                    last: tap_block + 1 == tap_blocks && depth_block + 1 == depth_blocks,
                };
                // SAFETY: the caller's.
                unsafe {
                    round_sources(block, &terms, own);
                    for p in block.run.clone() {
                        match block.panels.range(p).len() / 16 {
                            1 => tiles::<12, 1>(block, &terms, weight, own, p),
                            2 => tiles::<12, 2>(block, &terms, weight, own, p),
                            3 => tiles::<8, 3>(block, &terms, weight, own, p),
                            _ => tiles::<6, 4>(block, &terms, weight, own, p),
                        }
                    }
                }
            }
        }
        if block.finish.stream {
            fence();
        }
    }

    /// # Safety
    /// As [`row_block`].
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn round_sources(block: &RowBlock<'_>, terms: &Terms, own: &mut [u16]) {
        let rows = block.targets.len().next_multiple_of(24).min(block.stride);
        let len = terms.taps.len() * terms.depth;
        let own = own[..rows * len].as_mut_ptr();
        for r in 0..rows {
            for (t, tap) in terms.taps.clone().enumerate() {
                // SAFETY: a source has `shift + depth` floats, and a row of `own` all taps' terms.
                unsafe {
                    let from = block.sources[tap * block.stride + r].add(block.shift + terms.from);
                    let next = block.sources[tap * block.stride + (r + ROWS_AHEAD).min(rows - 1)];
                    let next = next.wrapping_add(block.shift + terms.from);
                    let to = own.add(r * len + t * terms.depth);
                    for k in (0..terms.depth).step_by(16) {
                        prefetch(next.wrapping_add(k));
                        let live = (terms.depth - k).min(16);
                        let mask = ((1u32 << live) - 1) as u16;
                        let rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from.add(k)));
                        let rounded: __m256i = transmute(rounded);
                        _mm256_mask_storeu_epi16(to.add(k).cast(), mask, rounded);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`row_block`].
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn tiles<const R: usize, const C: usize>(
        block: &RowBlock<'_>,
        terms: &Terms,
        weight: &[u32],
        own: &[u16],
        p: usize,
    ) {
        let range = block.panels.range(p);
        let row = (terms.taps.start * block.depth + terms.from) / 2;
        let panel = &weight[block.taps * block.depth / 2 * range.start + row * range.len()..];
        let len = terms.taps.len() * terms.depth;
        let panel = panel[..len / 2 * range.len()].as_ptr();
        for r in (0..block.targets.len()).step_by(R) {
            ask::<F32x16, R, C>(block, (terms.first, terms.last), &range, r + R);
            // SAFETY: `own` has rows up to a multiple of all tiles' heights, the panel a row of `C` vectors a pair.
            unsafe {
                let a: [*const i32; R] = std::array::from_fn(|i| own.as_ptr().add((r + i) * len).cast());
                let mut acc = [[_mm512_setzero_ps(); C]; R];
                let mut b = panel;
                for k in 0..len / 2 {
                    let bs: [__m512bh; C] =
                        std::array::from_fn(|j| transmute(_mm512_loadu_si512(b.add(16 * j).cast())));
                    for i in 0..R {
                        let x: __m512bh = transmute(_mm512_set1_epi32(a[i].add(k).read_unaligned()));
                        for j in 0..C {
                            acc[i][j] = _mm512_dpbf16_ps(acc[i][j], x, bs[j]);
                        }
                    }
                    b = b.add(16 * C);
                }
                let acc = acc.map(|row| row.map(F32x16));
                store_tile(block, (terms.first, terms.last), &range, r, &acc);
            }
        }
    }

    /// # Safety
    /// The machine has the instructions; the block's pointers are as it promises.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    pub(super) unsafe fn outer_block(block: &OuterBlock<'_>, own: &mut [u32]) {
        let (a, b) = own.split_at_mut(PAIRS * block.rows.len().next_multiple_of(16));
        assert!(b.len() >= PAIRS * block.panels.padded());
        let (a, b) = (a.as_mut_ptr(), b.as_mut_ptr());
        let mut pairs = 0;
        for run in block.runs {
            for p in (0..run.count).step_by(2) {
                // SAFETY: the run has this pixel, and the next unless it is the last; both pieces have room for all pairs.
                unsafe {
                    let both = p + 1 < run.count;
                    pair_rows(block, run.a.add(p * block.a_step), both, a.add(pairs * 8));
                    pair_columns(block, run.b.add(p * block.b_step), both, b, pairs);
                }
                pairs += 1;
                if pairs == PAIRS {
                    // SAFETY: as many pairs have been written.
                    unsafe { add_pairs(block, a, b, pairs) }
                    pairs = 0;
                }
            }
        }
        if pairs > 0 {
            // SAFETY: as above.
            unsafe { add_pairs(block, a, b, pairs) }
        }
    }

    /// Sixteen values of a pixel and of the next, rounded, side by side; those outside of the masks are 0.
    ///
    /// # Safety
    /// What the masks say can be read.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn side_by_side(even: *const f32, mask: u16, odd: *const f32, odd_mask: u16) -> __m512i {
        /// 0, 16, 1, 17, …
        const TURNS: [u16; 32] = {
            let mut turns = [0; 32];
            let mut i = 0;
            while i < 32 {
                turns[i] = (i / 2 + i % 2 * 16) as u16;
                i += 1;
            }
            turns
        };
        // SAFETY: the caller's; two vectors of as many bits.
        unsafe {
            let (even, odd) = (_mm512_maskz_loadu_ps(mask, even), _mm512_maskz_loadu_ps(odd_mask, odd));
            let both: __m512i = transmute(_mm512_cvtne2ps_pbh(odd, even));
            _mm512_permutexvar_epi16(_mm512_loadu_si512(TURNS.as_ptr().cast()), both)
        }
    }

    /// The mask of the first `live` of sixteen.
    fn mask(live: usize) -> u16 {
        ((1u32 << live.min(16)) - 1) as u16
    }

    /// The rows of a pair of pixels, eights of them `8 · PAIRS` apart.
    ///
    /// # Safety
    /// The pixel has the block's rows, and the next where `both`; `to` has room.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn pair_rows(block: &OuterBlock<'_>, from: *const f32, both: bool, to: *mut u32) {
        let rows = block.rows.len();
        for i in (0..rows).step_by(16) {
            let live = mask(rows - i);
            let even = from.wrapping_add(block.rows.start + i);
            prefetch(even.wrapping_add(AHEAD * block.a_step));
            prefetch(even.wrapping_add((AHEAD + 1) * block.a_step));
            // SAFETY: the caller's.
            unsafe {
                let pair = side_by_side(even, live, even.wrapping_add(block.a_step), live * u16::from(both));
                let (low, high) = (_mm512_castsi512_si256(pair), _mm512_extracti64x4_epi64::<1>(pair));
                _mm256_storeu_si256(to.add(i * PAIRS).cast(), low);
                _mm256_storeu_si256(to.add((i + 8) * PAIRS).cast(), high);
            }
        }
    }

    /// The columns of a pair of pixels, into place `pair` of each panel.
    ///
    /// # Safety
    /// As [`pair_rows`].
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn pair_columns(block: &OuterBlock<'_>, from: *const f32, both: bool, to: *mut u32, pair: usize) {
        for p in block.run.clone() {
            let range = block.panels.range(p);
            let to = to.wrapping_add(PAIRS * range.start + pair * range.len());
            for j in (0..range.len()).step_by(16) {
                let live = mask(block.panels.columns() - range.start - j);
                let even = from.wrapping_add(range.start + j);
                prefetch(even.wrapping_add(AHEAD * block.b_step));
                prefetch(even.wrapping_add((AHEAD + 1) * block.b_step));
                // SAFETY: the caller's.
                unsafe {
                    let odd = even.wrapping_add(block.b_step);
                    let pair = side_by_side(even, live, odd, live * u16::from(both));
                    _mm512_storeu_si512(to.add(j).cast(), pair);
                }
            }
        }
    }

    /// Adds the products of `pairs` pairs to the result.
    ///
    /// # Safety
    /// They have been written; the result is the block's.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn add_pairs(block: &OuterBlock<'_>, a: *const u32, b: *const u32, pairs: usize) {
        for p in block.run.clone() {
            let range = block.panels.range(p);
            let b = b.wrapping_add(PAIRS * range.start);
            for i in (0..block.rows.len()).step_by(8) {
                let a = a.wrapping_add(i * PAIRS);
                // SAFETY: the caller's.
                unsafe {
                    match range.len() / 16 {
                        1 => outer_tile::<8, 1>(block, a, b, pairs, &range, i),
                        2 => outer_tile::<8, 2>(block, a, b, pairs, &range, i),
                        3 => outer_tile::<8, 3>(block, a, b, pairs, &range, i),
                        _ => {
                            outer_tile::<4, 4>(block, a, b, pairs, &range, i);
                            outer_tile::<4, 4>(block, a.add(4), b, pairs, &range, i + 4);
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`add_pairs`].
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    #[allow(clippy::needless_range_loop)] // Numbers that are known keep the sums in registers.
    unsafe fn outer_tile<const R: usize, const C: usize>(
        block: &OuterBlock<'_>,
        mut a: *const u32,
        mut b: *const u32,
        pairs: usize,
        range: &Range<usize>,
        i: usize,
    ) {
        let last = mask(block.panels.columns() - range.start - 16 * (C - 1));
        for r in 0..R {
            let row =
                block.out.wrapping_add((block.rows.start + i + r).wrapping_mul(block.out_step) + range.start);
            (0..C).for_each(|j| prefetch(row.wrapping_add(16 * j)));
        }
        // SAFETY: eight rows and `C` vectors of columns of each pair; those that exist lie in the result.
        unsafe {
            let mut acc = [[_mm512_setzero_ps(); C]; R];
            for _ in 0..pairs {
                let bs: [__m512bh; C] =
                    std::array::from_fn(|j| transmute(_mm512_loadu_si512(b.add(16 * j).cast())));
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x: __m512bh = transmute(_mm512_set1_epi32(a.add(r).cast::<i32>().read()));
                    for j in 0..C {
                        acc[j] = _mm512_dpbf16_ps(acc[j], x, bs[j]);
                    }
                }
                (a, b) = (a.wrapping_add(8), b.wrapping_add(16 * C));
            }
            let rows = block.rows.len().saturating_sub(i);
            for r in 0..R {
                // Rows that do not exist take part with an empty mask.
                let there = if r < rows { u16::MAX } else { 0 };
                let row = (block.rows.start + i + r).wrapping_mul(block.out_step);
                let out = block.out.wrapping_add(row + range.start);
                for j in 0..C {
                    let out = out.wrapping_add(16 * j);
                    let live = if j + 1 == C { last & there } else { there };
                    let sum = _mm512_add_ps(acc[r][j], _mm512_maskz_loadu_ps(live, out));
                    _mm512_mask_storeu_ps(out, live, sum);
                }
            }
        }
    }
}
