//! Instruction sets: which one runs, and the few vector operations that the kernels are written in.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

pub(crate) use portable::Array;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{F32x8, F32x16};

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
    fn mul(self, other: Self) -> Self;
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
    /// Transposes a square of `LANES × LANES` floats: rows `from_step` apart become columns of rows `to_step` apart.
    ///
    /// # Safety
    /// The square can be read at `from` and written at `to`; the two do not overlap.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the caller's.
                unsafe { *to.add(j * to_step + i) = *from.add(i * from_step + j) }
            }
        }
    }
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

/// As [`prefetch`], for a line that will be written.
#[inline(always)]
pub(crate) fn prefetch_to_write(ptr: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 takes the instruction, if only for nothing, and it changes nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(ptr.cast())
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
