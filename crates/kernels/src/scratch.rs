//! Cutting a workspace of floats into pieces of other types.

/// Plain data for which any bits will do.
///
/// # Safety
/// Any initialised bytes are a value.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: every bit pattern is a number.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f64 {}
// SAFETY: as above.
unsafe impl Plain for usize {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: any bits are a raw pointer, if not one that may be read through.
unsafe impl Plain for *const f32 {}

/// Floats that hold `count` values of `T` wherever the workspace starts; whole cache lines.
pub(crate) const fn floats_for<T: Plain>(count: usize) -> usize {
    crate::lines((count * size_of::<T>()).div_ceil(size_of::<f32>())) + 16
}

/// The first `count` values of `T` on a cache line's boundary, and what is left: exactly [`floats_for`] floats less.
///
/// # Panics
/// Where the workspace is too short: it was not sized by the matching `*_workspace` function.
pub(crate) fn carve<T: Plain>(workspace: &mut [f32], count: usize) -> (&mut [T], &mut [f32]) {
    let need = floats_for::<T>(count);
    assert!(workspace.len() >= need, "a workspace of {} floats where {need} are needed", workspace.len());
    let (piece, rest) = workspace.split_at_mut(need);
    let skip = piece.as_ptr().align_offset(64).min(16);
    let piece = &mut piece[skip..];
    assert!(piece.as_ptr().cast::<T>().is_aligned());
    // SAFETY: aligned (checked), long enough (at most 15 floats were skipped), and any bits are a `T`.
    (unsafe { std::slice::from_raw_parts_mut(piece.as_mut_ptr().cast(), count) }, rest)
}
