//! Instruction sets: which one runs, and the few vector operations that the kernels are written in.

use std::sync::OnceLock;

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Isa(pub(crate) Level);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) enum Level {
    /// 512-bit vectors (F, VL, BW, DQ) and fused multiply-add.
    Avx512,
    /// 256-bit vectors and fused multiply-add.
    Avx2,
    /// What the compiler's target has: SSE2 on x86-64, NEON on AArch64.
    Portable,
}

impl Isa {
    /// The compiler's target, without anything found at run time.
    pub const PORTABLE: Self = Self(Level::Portable);

    /// The fastest that this machine has.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// All that this machine has, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut out = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            if avx2 && wide {
                out.push(Self(Level::Avx512));
            }
            if avx2 {
                out.push(Self(Level::Avx2));
            }
        }
        out.push(Self::PORTABLE);
        out
    }

    /// The name in words, as in "AVX-512".
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Avx512 => "AVX-512",
            Level::Avx2 => "AVX2",
            Level::Portable if cfg!(target_arch = "aarch64") => "NEON",
            Level::Portable => "portable",
        }
    }
}

/// Defines a function that runs `$body::<V>` compiled for the given [`Isa`].
macro_rules! dispatch {
    ($vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn wide($($arg: $ty),*) $(-> $ret)? {
                    $body::<$crate::simd::F32x16>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<$crate::simd::F32x8>($($arg),*)
                }
                match isa.0 {
                    // SAFETY: an `Isa` is only made where the machine has it.
                    $crate::simd::Level::Avx512 => return unsafe { wide($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::Level::Portable => {}
                }
            }
            let _ = isa;
            $body::<$crate::simd::Array>($($arg),*)
        }
    };
}
pub(crate) use dispatch;

/// A vector of floats. Everything is `inline(always)`, so that it takes on the instruction set of its caller.
///
/// # Safety
/// An implementation's methods may be called only in functions compiled for its instruction set: those made by
/// [`dispatch!`].
pub(crate) unsafe trait Vector: Copy {
    /// Floats in a vector.
    const LANES: usize;
    /// Vectors of columns in the widest matrix tile.
    const COLS: usize;
    /// Whether a fused multiply-add is one instruction.
    const FMA: bool;

    fn splat(value: f32) -> Self;
    /// # Safety
    /// `LANES` floats can be read.
    unsafe fn load(ptr: *const f32) -> Self;
    /// # Safety
    /// `LANES` floats can be written.
    unsafe fn store(self, ptr: *mut f32);
    /// Stores past the caches, where there is such an instruction; [`fence`] must follow before another thread reads.
    ///
    /// # Safety
    /// `LANES` floats can be written; the pointer is on a boundary of 64 bytes.
    #[inline(always)]
    unsafe fn stream(self, ptr: *mut f32) {
        // SAFETY: the caller's.
        unsafe { self.store(ptr) }
    }
    /// The first `count` floats, then zeros.
    ///
    /// # Safety
    /// `count` floats can be read.
    unsafe fn load_part(ptr: *const f32, count: usize) -> Self;
    /// # Safety
    /// `count` floats can be written.
    unsafe fn store_part(self, ptr: *mut f32, count: usize);
    /// `self · b + c`.
    fn fma(self, b: Self, c: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    /// The larger; NaN where `self` is.
    fn at_least(self, low: Self) -> Self;
    /// The smaller; NaN where `self` is.
    fn at_most(self, high: Self) -> Self;
    /// `self` where `value` is above 0 and not at or above `high` (NaN: no such bound), else 0.
    fn passed(self, value: Self, high: Self) -> Self;
    /// The larger of `self` and `value` (NaN is largest, and the first of equals stays), and of `place` and `other` the one
    /// that belongs to it.
    fn larger(self, place: Self, value: Self, other: Self) -> (Self, Self);
    /// `self` where `place` is `other`, else 0.
    fn at_place(self, place: Self, other: Self) -> Self;
    /// Adds the first `count` lanes to double-precision sums.
    ///
    /// # Safety
    /// `count` doubles can be read and written.
    unsafe fn add_to(self, sums: *mut f64, count: usize);
}

/// Whether a result of `len` floats is better stored past the caches: it would not stay in them until it is read, and
/// a plain store reads each line first. Only for rows of whole cache lines on a boundary of 64 bytes.
pub(crate) fn streams(out: &[f32], row: usize) -> bool {
    /// Floats; 16 MiB, about what a core may call its own of a third-level cache. Tests stream small results, too.
    const FAR: usize = if cfg!(test) { 512 } else { 4 << 20 };
    out.len() >= FAR && row.is_multiple_of(16) && out.as_ptr().addr().is_multiple_of(64)
}

/// Orders streamed stores before what follows.
#[inline(always)]
pub(crate) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    }
}

/// Asks for the cache line of any address, valid or not.
#[inline(always)]
pub(crate) fn prefetch(ptr: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and it changes nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(ptr.cast())
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}

/// # Safety
/// `lanes` floats can be read.
#[inline(always)]
pub(crate) unsafe fn load<V: Vector>(ptr: *const f32, lanes: usize) -> V {
    // SAFETY: the caller's.
    unsafe { if lanes == V::LANES { V::load(ptr) } else { V::load_part(ptr, lanes) } }
}

/// # Safety
/// `lanes` floats can be written.
#[inline(always)]
pub(crate) unsafe fn store<V: Vector>(v: V, ptr: *mut f32, lanes: usize) {
    // SAFETY: the caller's.
    unsafe { if lanes == V::LANES { v.store(ptr) } else { v.store_part(ptr, lanes) } }
}

/// `a · b + c`, fused where that is one instruction for `V`.
#[inline(always)]
pub(crate) fn madd<V: Vector>(a: f32, b: f32, c: f32) -> f32 {
    if V::FMA { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{F32x8, F32x16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    #[derive(Clone, Copy)]
    pub(crate) struct F32x16(__m512);

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
}

/// Eight floats that the compiler maps to what its target has.
#[derive(Clone, Copy)]
pub(crate) struct Array([f32; 8]);

// SAFETY: needs no instruction set.
unsafe impl Vector for Array {
    const LANES: usize = 8;
    const COLS: usize = if cfg!(target_arch = "aarch64") { 2 } else { 1 };
    const FMA: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { ptr.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: the caller's.
        unsafe { ptr.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_part(ptr: *const f32, count: usize) -> Self {
        let mut out = [0.0; 8];
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(ptr, out.as_mut_ptr(), count.min(8)) };
        Self(out)
    }
    #[inline(always)]
    unsafe fn store_part(self, ptr: *mut f32, count: usize) {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), ptr, count.min(8)) }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| madd::<Self>(self.0[i], b.0[i], c.0[i])))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] < low.0[i] { low.0[i] } else { self.0[i] }))
    }
    #[inline(always)]
    fn at_most(self, high: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] > high.0[i] { high.0[i] } else { self.0[i] }))
    }
    #[inline(always)]
    fn passed(self, value: Self, high: Self) -> Self {
        // A comparison with NaN is false, so that NaN bounds nothing.
        let stopped = |i: usize| value.0[i] >= high.0[i];
        Self(std::array::from_fn(|i| if value.0[i] > 0.0 && !stopped(i) { self.0[i] } else { 0.0 }))
    }
    #[inline(always)]
    fn larger(self, place: Self, value: Self, other: Self) -> (Self, Self) {
        let take = |i: usize| {
            let (old, new) = (self.0[i], value.0[i]);
            (new > old) | (new.is_nan() & !old.is_nan())
        };
        let pick =
            |old: Self, new: Self| Self(std::array::from_fn(|i| if take(i) { new.0[i] } else { old.0[i] }));
        (pick(self, value), pick(place, other))
    }
    #[inline(always)]
    fn at_place(self, place: Self, other: Self) -> Self {
        Self(std::array::from_fn(|i| if place.0[i] == other.0[i] { self.0[i] } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn add_to(self, sums: *mut f64, count: usize) {
        for (i, &v) in self.0.iter().take(count).enumerate() {
            // SAFETY: the caller's.
            unsafe { *sums.add(i) += f64::from(v) };
        }
    }
}
