//! [`row_block`](crate::tile::row_block) and [`outer_block`](crate::tile::outer_block) with both operands rounded to
//! bfloat16 and sums in f32: twice the products a cycle.
//!
//! Weights and activations stay f32 in memory. A panel of weights is rounded once a call, pairs of rows side by side; the
//! sources of a block of rows, or pairs of pixels of both operands of a weights' gradient, are rounded just before they
//! are multiplied, into a piece that stays in the second-level cache. Needs AVX-512 with BF16; where that is missing, convolutions compute in f32.

mod outer;

pub(crate) use outer::{PIXELS, outer_block, outer_len, round_gradients, tap_block};

use crate::pack::Panels;
use crate::scratch::{carve, floats_for};
use crate::threads::PtrMut;
use crate::tile::{DEPTH_BLOCK, ROW_ALIGN, RowBlock};
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

/// `x` rounded to the nearest bfloat16, ties to even; NaN stays NaN.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// Rounds packed panels of `rows` rows: rows `2k` and `2k + 1` become the halves of row `k`. A last row alone is paired with
/// zeros.
pub(crate) fn pair(threads: &Threads, packed: &[f32], panels: Panels, rows: usize, out: &mut [u32]) {
    let all = rows.div_ceil(2);
    assert!(packed.len() >= rows * panels.padded() && out.len() >= all * panels.padded());
    let out = PtrMut(out.as_mut_ptr().cast());
    let pieces = (rows * panels.padded() / 32_768).clamp(1, (rows / 32).max(1));
    threads.for_each(pieces, |_, piece| {
        let pairs = all * piece / pieces..all * (piece + 1) / pieces;
        for p in 0..panels.count() {
            let range = panels.range(p);
            let (first, width) = (rows * range.start, range.len());
            for k in pairs.clone() {
                let here = 2.min(rows - 2 * k) * width;
                let (even, odd) = packed[first + 2 * k * width..][..here].split_at(width);
                // SAFETY: in bounds (asserted), and each piece has its own rows.
                let out = unsafe {
                    let at = out.get().cast::<u32>().add(all * range.start + k * width);
                    std::slice::from_raw_parts_mut(at, width)
                };
                for (out, &even) in out.iter_mut().zip(even) {
                    *out = round(even);
                }
                for (out, &odd) in out.iter_mut().zip(odd) {
                    *out |= round(odd) << 16;
                }
            }
        }
    });
}

/// Whether [`row_block`] can sum over so many taps of so many channels: pairs may reach from a tap into the next, but not from
/// a block of terms into the next.
pub(crate) fn pairs_up(taps: usize, depth: usize) -> bool {
    depth.is_multiple_of(2) || taps * depth <= DEPTH_BLOCK
}

/// As [`row_block`](crate::tile::row_block), with weights from [`pair`].
///
/// # Panics
/// Where [`supported`] or [`pairs_up`] says no.
pub(crate) fn row_block(block: &RowBlock<'_>, weight: &[u32], own: &mut [f32]) {
    let (own, _) = carve::<u16>(own, block.stride.next_multiple_of(ROW_ALIGN) * DEPTH_BLOCK);
    #[cfg(target_arch = "x86_64")]
    {
        assert!(is_x86_feature_detected!("avx512bf16") && pairs_up(block.taps, block.depth));
        assert!(weight.len() >= (block.taps * block.depth).div_ceil(2) * block.panels.padded());
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
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;
    use std::ops::Range;

    use crate::simd::{F32x16, fence, prefetch};
    use crate::tile::{DEPTH_BLOCK, RowBlock, ask, store_tile};

    /// Rows between the one that is rounded and the one that is asked for.
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
                let at = |i: usize| {
                    if i == depth_blocks { block.depth } else { block.depth / 2 * i / depth_blocks * 2 }
                };
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
        let terms_len = terms.taps.len() * terms.depth;
        let len = terms_len.next_multiple_of(2);
        let own = own[..rows * len].as_mut_ptr();
        for r in 0..rows {
            if len > terms_len {
                // SAFETY: a row of `own` is an even number long.
                unsafe { own.add(r * len + terms_len).write(0) };
            }
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
        let panel = &weight[(block.taps * block.depth).div_ceil(2) * range.start + row * range.len()..];
        let len = (terms.taps.len() * terms.depth).next_multiple_of(2);
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
}
