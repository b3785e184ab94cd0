//! Vectors of AVX-512 and AVX2.

use std::arch::x86_64::*;

use super::Vector;

#[derive(Clone, Copy)]
pub(crate) struct F32x16(pub(crate) __m512);

// SAFETY: each method needs the instruction set alone, which the trait's contract gives.
unsafe impl Vector for F32x16 {
    const LANES: usize = 16;
    const COLS: usize = 4;
    const FMA: bool = true;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm512_loadu_ps(ptr) })
    }
    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: see the trait.
        unsafe { _mm512_storeu_ps(ptr, self.0) }
    }
    #[inline(always)]
    unsafe fn stream(self, ptr: *mut f32) {
        // SAFETY: see the trait.
        unsafe { _mm512_stream_ps(ptr, self.0) }
    }
    #[inline(always)]
    unsafe fn load_part(ptr: *const f32, count: usize) -> Self {
        // SAFETY: see the trait; masked lanes are not touched.
        Self(unsafe { _mm512_maskz_loadu_ps(((1u32 << count) - 1) as u16, ptr) })
    }
    #[inline(always)]
    unsafe fn store_part(self, ptr: *mut f32, count: usize) {
        // SAFETY: see the trait; masked lanes are not touched.
        unsafe { _mm512_mask_storeu_ps(ptr, ((1u32 << count) - 1) as u16, self.0) }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        // SAFETY: see the trait. The instruction returns its second operand where either is NaN.
        Self(unsafe { _mm512_max_ps(low.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, high: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_min_ps(high.0, self.0) })
    }
    #[inline(always)]
    fn passed(self, value: Self, high: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(value.0, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(_mm512_mask_cmp_ps_mask::<_CMP_NGE_UQ>(above, value.0, high.0), self.0)
        })
    }
    #[inline(always)]
    fn larger(self, place: Self, value: Self, other: Self) -> (Self, Self) {
        // SAFETY: see the trait.
        unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(value.0, self.0);
            let ordered = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(self.0, self.0);
            let take = above | (ordered & _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value.0, value.0));
            let pick = |old: Self, new: Self| Self(_mm512_mask_mov_ps(old.0, take, new.0));
            (pick(self, value), pick(place, other))
        }
    }
    #[inline(always)]
    fn at_place(self, place: Self, other: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(place.0, other.0), self.0) })
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: see the trait. Pairs of rows are interleaved, then pairs of pairs, then quarters of vectors.
        unsafe {
            let row = |i: usize| _mm512_loadu_ps(from.add(i * from_step));
            let mut a = [_mm512_setzero_ps(); 16];
            for i in 0..8 {
                let (r0, r1) = (row(2 * i), row(2 * i + 1));
                a[2 * i] = _mm512_unpacklo_ps(r0, r1);
                a[2 * i + 1] = _mm512_unpackhi_ps(r0, r1);
            }
            let low = |x, y| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
            let high = |x, y| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
            let mut b = [_mm512_setzero_ps(); 16];
            for g in 0..4 {
                b[4 * g] = low(a[4 * g], a[4 * g + 2]);
                b[4 * g + 1] = high(a[4 * g], a[4 * g + 2]);
                b[4 * g + 2] = low(a[4 * g + 1], a[4 * g + 3]);
                b[4 * g + 3] = high(a[4 * g + 1], a[4 * g + 3]);
            }
            for j in 0..4 {
                let even = |p, q| _mm512_shuffle_f32x4::<0x88>(p, q);
                let odd = |p, q| _mm512_shuffle_f32x4::<0xdd>(p, q);
                let (x, z) = (even(b[j], b[4 + j]), even(b[8 + j], b[12 + j]));
                let (y, w) = (odd(b[j], b[4 + j]), odd(b[8 + j], b[12 + j]));
                _mm512_storeu_ps(to.add(j * to_step), even(x, z));
                _mm512_storeu_ps(to.add((4 + j) * to_step), even(y, w));
                _mm512_storeu_ps(to.add((8 + j) * to_step), odd(x, z));
                _mm512_storeu_ps(to.add((12 + j) * to_step), odd(y, w));
            }
        }
    }
    #[inline(always)]
    unsafe fn add_to(self, sums: *mut f64, count: usize) {
        // SAFETY: see the trait; masked lanes are not touched.
        unsafe {
            let halves = [_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)];
            for (i, half) in halves.into_iter().enumerate() {
                let live = ((1u32 << count.saturating_sub(8 * i).min(8)) - 1) as u8;
                let at = sums.wrapping_add(8 * i);
                let sum = _mm512_add_pd(_mm512_maskz_loadu_pd(live, at), _mm512_cvtps_pd(half));
                _mm512_mask_storeu_pd(at, live, sum);
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

/// Ones, then zeros: a mask of `count` lanes starts at `8 - count`.
static MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

// SAFETY: as above.
unsafe impl Vector for F32x8 {
    const LANES: usize = 8;
    const COLS: usize = 2;
    const FMA: bool = true;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm256_loadu_ps(ptr) })
    }
    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: see the trait.
        unsafe { _mm256_storeu_ps(ptr, self.0) }
    }
    #[inline(always)]
    unsafe fn stream(self, ptr: *mut f32) {
        // SAFETY: see the trait.
        unsafe { _mm256_stream_ps(ptr, self.0) }
    }
    #[inline(always)]
    unsafe fn load_part(ptr: *const f32, count: usize) -> Self {
        // SAFETY: see the trait; masked lanes are not touched, and the mask lies in the table as `count <= 8`.
        unsafe {
            let mask = _mm256_loadu_si256(MASK.as_ptr().add(8 - count).cast());
            Self(_mm256_maskload_ps(ptr, mask))
        }
    }
    #[inline(always)]
    unsafe fn store_part(self, ptr: *mut f32, count: usize) {
        // SAFETY: as above.
        unsafe {
            let mask = _mm256_loadu_si256(MASK.as_ptr().add(8 - count).cast());
            _mm256_maskstore_ps(ptr, mask, self.0);
        }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        // SAFETY: see the trait. The instruction returns its second operand where either is NaN.
        Self(unsafe { _mm256_max_ps(low.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, high: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_min_ps(high.0, self.0) })
    }
    #[inline(always)]
    fn passed(self, value: Self, high: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe {
            let above = _mm256_cmp_ps::<_CMP_GT_OQ>(value.0, _mm256_setzero_ps());
            let below = _mm256_cmp_ps::<_CMP_NGE_UQ>(value.0, high.0);
            _mm256_and_ps(_mm256_and_ps(above, below), self.0)
        })
    }
    #[inline(always)]
    fn larger(self, place: Self, value: Self, other: Self) -> (Self, Self) {
        // SAFETY: see the trait.
        unsafe {
            let above = _mm256_cmp_ps::<_CMP_GT_OQ>(value.0, self.0);
            let ordered = _mm256_cmp_ps::<_CMP_ORD_Q>(self.0, self.0);
            let nan = _mm256_and_ps(ordered, _mm256_cmp_ps::<_CMP_UNORD_Q>(value.0, value.0));
            let take = _mm256_or_ps(above, nan);
            let pick = |old: Self, new: Self| Self(_mm256_blendv_ps(old.0, new.0, take));
            (pick(self, value), pick(place, other))
        }
    }
    #[inline(always)]
    fn at_place(self, place: Self, other: Self) -> Self {
        // SAFETY: see the trait.
        Self(unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(place.0, other.0), self.0) })
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: as above.
        unsafe {
            let row = |i: usize| _mm256_loadu_ps(from.add(i * from_step));
            let mut a = [_mm256_setzero_ps(); 8];
            for i in 0..4 {
                let (r0, r1) = (row(2 * i), row(2 * i + 1));
                a[2 * i] = _mm256_unpacklo_ps(r0, r1);
                a[2 * i + 1] = _mm256_unpackhi_ps(r0, r1);
            }
            let low = |x, y| _mm256_shuffle_ps::<0x44>(x, y);
            let high = |x, y| _mm256_shuffle_ps::<0xee>(x, y);
            for j in 0..4 {
                let take = |x, y| if j % 2 == 0 { low(x, y) } else { high(x, y) };
                let (x, y) = (take(a[j / 2], a[j / 2 + 2]), take(a[4 + j / 2], a[6 + j / 2]));
                _mm256_storeu_ps(to.add(j * to_step), _mm256_permute2f128_ps::<0x20>(x, y));
                _mm256_storeu_ps(to.add((4 + j) * to_step), _mm256_permute2f128_ps::<0x31>(x, y));
            }
        }
    }
    #[inline(always)]
    unsafe fn add_to(self, sums: *mut f64, count: usize) {
        // SAFETY: see the trait.
        unsafe {
            if count == 8 {
                let halves = [_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0)];
                for (i, half) in halves.into_iter().enumerate() {
                    let at = sums.add(4 * i);
                    _mm256_storeu_pd(at, _mm256_add_pd(_mm256_loadu_pd(at), _mm256_cvtps_pd(half)));
                }
            } else {
                let mut lanes = [0.0f32; 8];
                self.store(lanes.as_mut_ptr());
                lanes.iter().take(count).enumerate().for_each(|(i, &v)| *sums.add(i) += f64::from(v));
            }
        }
    }
}
