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
        let layout = Self::layout(len)?;
        if mapped(layout) {
            return map(layout.size()).map(|ptr| Self { ptr: ptr.cast(), len });
        }
        // SAFETY: the layout's size is not zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { ptr: ptr.cast(), len })
    }

    fn layout(len: usize) -> Option<Layout> {
        let size = len.checked_mul(size_of::<f32>())?;
        let align = if size >= 2 * HUGE { HUGE } else { align_of::<Line>() };
        Layout::from_size_align(size, align).ok()
    }
}

/// A vector of `len` zeros on huge pages where it is large, or `None` where the system has no room for it: for libraries whose
/// buffers are vectors.
pub fn zeroed_vec(len: usize) -> Option<Vec<f32>> {
    let mut vec = Vec::<f32>::new();
    vec.try_reserve_exact(len).ok()?;
    let size = len * size_of::<f32>();
    // Advice is for whole pages.
    let skip = vec.as_ptr().addr().next_multiple_of(HUGE) - vec.as_ptr().addr();
    if let Some(rest) = size.checked_sub(skip).filter(|&rest| rest >= HUGE) {
        // SAFETY: within the allocation.
        let start = unsafe { NonNull::from(vec.spare_capacity_mut()).cast::<u8>().add(skip) };
        advise_huge(start, rest / HUGE * HUGE);
    }
    vec.resize(len, 0.0);
    Some(vec)
}

/// A huge page. Buffers of two or more start on one: activations are walked with large strides, and small pages would
/// cost a miss of the address cache every few rows.
const HUGE: usize = 2 << 20;

/// Asks for huge pages; where the system has none, nothing changes.
fn advise_huge(ptr: NonNull<u8>, size: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: advice about memory that we own; it changes no contents.
    let _ = unsafe { libc::madvise(ptr.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
    #[cfg(not(target_os = "linux"))]
    let _ = (ptr, size);
}

/// Whether a buffer of `layout` is asked of the system itself: its pages are zero already, and become memory when the threads
/// that work on them first touch them. What is never touched costs nothing.
const fn mapped(layout: Layout) -> bool {
    cfg!(target_os = "linux") && layout.align() == HUGE
}

/// `size` zeros that start on a huge page.
#[cfg(target_os = "linux")]
fn map(size: usize) -> Option<NonNull<u8>> {
    let size = size.checked_next_multiple_of(PAGE)?;
    let whole = size.checked_add(HUGE)?;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, which nobody else knows.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), whole, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let start = NonNull::new(start.cast::<u8>())?;
    let skip = start.addr().get().next_multiple_of(HUGE) - start.addr().get();
    // SAFETY: at most `HUGE` bytes are skipped, and the mapping is that much longer.
    let (ptr, end) = unsafe { (start.add(skip), start.add(skip + size)) };
    for (ptr, size) in [(start, skip), (end, HUGE - skip)] {
        if size > 0 {
            unmap(ptr, size);
        }
    }
    advise_huge(ptr, size);
    Some(ptr)
}

#[cfg(not(target_os = "linux"))]
fn map(_: usize) -> Option<NonNull<u8>> {
    None
}

/// Gives pages of a mapping back.
fn unmap(ptr: NonNull<u8>, size: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: all callers hand over pages of a mapping of `map` that are not used any more.
    let _ = unsafe { libc::munmap(ptr.as_ptr().cast(), size) };
    #[cfg(not(target_os = "linux"))]
    let _ = (ptr, size);
}

/// A multiple of the page size of all systems that have huge pages of 2 MB.
const PAGE: usize = 64 << 10;

#[repr(align(64))]
struct Line(#[allow(dead_code)] [f32; 16]);

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if let (1.., Some(layout)) = (self.len, Self::layout(self.len)) {
            if mapped(layout) {
                unmap(self.ptr.cast(), layout.size().next_multiple_of(PAGE));
            } else {
                // SAFETY: `zeroed` allocated it with this layout.
                unsafe { dealloc(self.ptr.as_ptr().cast(), layout) }
            }
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
    use super::{AlignedBuf, HUGE, zeroed_vec};

    #[test]
    fn a_vector_is_zeroed_or_there_is_no_room() {
        for len in [0, 5, HUGE] {
            assert!(zeroed_vec(len).is_some_and(|v| v.len() == len && v.iter().all(|&v| v == 0.0)));
        }
        assert!(zeroed_vec(1 << 60).is_none());
    }

    #[test]
    fn is_zeroed_aligned_and_says_when_there_is_no_room() {
        let mut buf = AlignedBuf::zeroed(1000).unwrap();
        assert!(buf.as_ptr().addr().is_multiple_of(64) && buf.iter().all(|&v| v == 0.0));
        buf[999] = 1.0;
        assert_eq!(buf.iter().sum::<f32>(), 1.0);
        assert!(AlignedBuf::zeroed(usize::MAX / 2).is_none());
        assert!(AlignedBuf::zeroed(1 << 60).is_none());
        assert!(AlignedBuf::zeroed(0).unwrap().is_empty());
        let mut large = AlignedBuf::zeroed(3 * HUGE / 4 + 1).unwrap();
        assert!(large.as_ptr().addr().is_multiple_of(HUGE));
        large.fill(2.0);
        let other = AlignedBuf::zeroed(large.len()).unwrap();
        assert_eq!((large[3 * HUGE / 4], other[3 * HUGE / 4], other[0]), (2.0, 0.0, 0.0));
    }
}
