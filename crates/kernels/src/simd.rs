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
    /// The larger; NaN where `self` is.
    fn at_least(self, low: Self) -> Self;
    /// The smaller; NaN where `self` is.
    fn at_most(self, high: Self) -> Self;
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

    // SAFETY (all methods): the trait's contract gives the instruction set, each method's the pointers.
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
        fn at_least(self, low: Self) -> Self {
            // SAFETY: see the trait. The instruction returns its second operand where either is NaN.
            Self(unsafe { _mm512_max_ps(low.0, self.0) })
        }
        #[inline(always)]
        fn at_most(self, high: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_min_ps(high.0, self.0) })
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct F32x8(__m256);

    /// Ones, then zeros: a mask of `count` lanes starts at `8 - count`.
    static MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    // SAFETY (all methods): as above.
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
        fn at_least(self, low: Self) -> Self {
            // SAFETY: see the trait. The instruction returns its second operand where either is NaN.
            Self(unsafe { _mm256_max_ps(low.0, self.0) })
        }
        #[inline(always)]
        fn at_most(self, high: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_min_ps(high.0, self.0) })
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
    fn at_least(self, low: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] < low.0[i] { low.0[i] } else { self.0[i] }))
    }
    #[inline(always)]
    fn at_most(self, high: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] > high.0[i] { high.0[i] } else { self.0[i] }))
    }
}
