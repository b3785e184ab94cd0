//! An f32 buffer on a cache line's boundary whose allocation may fail.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A zeroed f32 buffer that starts on a 64-byte boundary: a vector of 16 never straddles two cache lines.
#[derive(Debug)]
pub struct AlignedBuf {
    ptr: NonNull<f32>,
    len: usize,
}

// SAFETY: the buffer owns its memory, as a `Vec<f32>` does.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A buffer without elements; allocates nothing.
    pub const fn empty() -> Self {
        Self { ptr: NonNull::<Line>::dangling().cast(), len: 0 }
    }

    /// A buffer of `len` zeros, or `None` where the system has no room for it.
    pub fn zeroed(len: usize) -> Option<Self> {
        if len == 0 {
            return Some(Self::empty());
        }
        // SAFETY: the layout's size is not zero.
        let ptr = unsafe { alloc_zeroed(Self::layout(len)?) };
        Some(Self { ptr: NonNull::new(ptr.cast())?, len })
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_mul(size_of::<f32>())?, align_of::<Line>()).ok()
    }
}

#[repr(align(64))]
struct Line(#[allow(dead_code)] [f32; 16]);

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if let (1.., Some(layout)) = (self.len, Self::layout(self.len)) {
            // SAFETY: `zeroed` allocated it with this layout.
            unsafe { dealloc(self.ptr.as_ptr().cast(), layout) }
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised elements, or dangling and aligned with `len` 0.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::AlignedBuf;

    #[test]
    fn is_zeroed_aligned_and_says_when_there_is_no_room() {
        let mut buf = AlignedBuf::zeroed(1000).unwrap();
        assert!(buf.as_ptr().addr().is_multiple_of(64) && buf.iter().all(|&v| v == 0.0));
        buf[999] = 1.0;
        assert_eq!(buf.iter().sum::<f32>(), 1.0);
        assert!(AlignedBuf::zeroed(usize::MAX / 2).is_none());
        assert!(AlignedBuf::zeroed(1 << 60).is_none());
        assert!(AlignedBuf::zeroed(0).unwrap().is_empty());
    }
}
