//! [`outer_block`](crate::tile::outer_block) with both operands rounded to bfloat16: weight gradients.
//!
//! Pairs are of pixels. Where a window has several taps, the gradients of some pixels are rounded once and shared by all taps,
//! each of which brings a source for every one of these pixels, zeros where the window hangs over.

use crate::pack::Panels;
use crate::scratch::{carve, floats_for};
use crate::tile::OuterBlock;

/// Pairs of pixels of [`outer_block`] that are rounded together: a panel of their gradients stays in the first-level cache.
const PAIRS: usize = 64;

/// Floats of a thread's workspace for [`outer_block`] of `rows` rows and all columns of `panels`.
pub(crate) fn outer_len(rows: usize, panels: Panels) -> usize {
    floats_for::<u32>(outer_pairs(rows, panels))
}

fn outer_pairs(rows: usize, panels: Panels) -> usize {
    PAIRS * (rows.next_multiple_of(16) + panels.padded())
}

/// As [`outer_block`](crate::tile::outer_block), added to the result.
///
/// # Panics
/// Where [`supported`](super::supported) says no.
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

/// Most pixels that [`round_gradients`] and [`tap_block`] take.
pub(crate) const PIXELS: usize = 2 * PAIRS;

/// Rounds the gradients of `block`'s columns at `count` pixels, which lie `b_step` apart from `from` on, for [`tap_block`].
///
/// # Panics
/// Where [`supported`](super::supported) says no.
///
/// # Safety
/// The pixels can be read.
pub(crate) unsafe fn round_gradients(
    block: &OuterBlock<'_>,
    from: *const f32,
    count: usize,
    own: &mut [f32],
) {
    let (own, _) = carve::<u32>(own, outer_pairs(block.rows.len(), block.panels));
    #[cfg(target_arch = "x86_64")]
    {
        assert!(is_x86_feature_detected!("avx512bf16") && count <= PIXELS);
        // SAFETY: the machine has the instructions (asserted; whoever has them has the rest of AVX-512); the caller's.
        unsafe { x86::round_gradients(block, from, count, own) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (from, count, own);
        unreachable!("no such instructions");
    }
}

/// As [`outer_block`](crate::tile::outer_block), added to the result, of one source a pixel (null for zeros) and of gradients
/// that [`round_gradients`] has left in `own` for a block of as many rows. The block has no runs.
///
/// # Panics
/// Where [`supported`](super::supported) says no.
///
/// # Safety
/// What is not null can be read from the block's first row to its last.
pub(crate) unsafe fn tap_block(block: &OuterBlock<'_>, sources: &[*const f32], own: &mut [f32]) {
    let (own, _) = carve::<u32>(own, outer_pairs(block.rows.len(), block.panels));
    #[cfg(target_arch = "x86_64")]
    {
        assert!(is_x86_feature_detected!("avx512bf16") && block.accumulate && sources.len() <= PIXELS);
        // SAFETY: the machine has the instructions (asserted; whoever has them has the rest of AVX-512); the caller's.
        unsafe { x86::tap_block(block, sources, own) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (sources, own);
        unreachable!("no such instructions");
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;
    use std::ops::Range;
    use std::ptr::null;

    use super::PAIRS;
    use crate::simd::prefetch;
    use crate::tile::OuterBlock;

    /// Pixels between the one that is rounded and the one that is asked for.
    const AHEAD: usize = 16;

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
                    let even = run.a.add(p * block.a_step);
                    let odd = if both { even.add(block.a_step) } else { null() };
                    let next = even.wrapping_add(AHEAD * block.a_step);
                    let next = [next, next.wrapping_add(block.a_step)];
                    pair_rows(block, [even, odd], next, a.add(pairs * 8));
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

    /// # Safety
    /// As [`outer_block`]; the pixels can be read.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    pub(super) unsafe fn round_gradients(
        block: &OuterBlock<'_>,
        from: *const f32,
        count: usize,
        own: &mut [u32],
    ) {
        let b = own[PAIRS * block.rows.len().next_multiple_of(16)..].as_mut_ptr();
        for p in (0..count).step_by(2) {
            // SAFETY: the caller's; the piece has room for all pairs.
            unsafe { pair_columns(block, from.add(p * block.b_step), p + 1 < count, b, p / 2) }
        }
    }

    /// # Safety
    /// As [`outer_block`]; sources that are not null have the block's rows.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    pub(super) unsafe fn tap_block(block: &OuterBlock<'_>, sources: &[*const f32], own: &mut [u32]) {
        let (a, b) = own.split_at_mut(PAIRS * block.rows.len().next_multiple_of(16));
        let a = a.as_mut_ptr();
        let source = |p: usize| sources.get(p).copied().unwrap_or(null());
        let pairs = sources.len().div_ceil(2);
        for p in 0..pairs {
            let next = [source(2 * p + AHEAD), source(2 * p + 1 + AHEAD)];
            // SAFETY: the caller's; the piece has room for all pairs.
            unsafe { pair_rows(block, [source(2 * p), source(2 * p + 1)], next, a.add(p * 8)) }
        }
        // SAFETY: as many pairs have been written, here and before.
        unsafe { add_pairs(block, a, b.as_ptr(), pairs) }
    }

    /// The rows of a pair of pixels (zeros for null), eights of them `8 · PAIRS` apart; asks for those of `next`.
    ///
    /// # Safety
    /// What is not null has the block's rows; `to` has room.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn pair_rows(
        block: &OuterBlock<'_>,
        [even, odd]: [*const f32; 2],
        next: [*const f32; 2],
        to: *mut u32,
    ) {
        let rows = block.rows.len();
        let there = [even, odd].map(|p| if p.is_null() { 0 } else { u16::MAX });
        for i in (0..rows).step_by(16) {
            let (live, at) = (mask(rows - i), block.rows.start + i);
            next.iter().for_each(|next| prefetch(next.wrapping_add(at)));
            // SAFETY: the caller's.
            unsafe {
                let pair = side_by_side(
                    even.wrapping_add(at),
                    live & there[0],
                    odd.wrapping_add(at),
                    live & there[1],
                );
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
