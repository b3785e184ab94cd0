//! Vectors as arrays.

use super::{Vector, madd};

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
    fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i]))
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
