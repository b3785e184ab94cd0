//! An f32 buffer on a cache line's boundary whose allocation may fail.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// A zeroed f32 buffer that starts on a 64-byte boundary: a vector of 16 never straddles two cache lines. It can be cut into
/// pieces, each of which is a buffer, and these joined again.
#[derive(Debug)]
pub struct AlignedBuf {
    ptr: NonNull<f32>,
    len: usize,
    /// What it is a piece of; none where it has no elements.
    memory: Option<Arc<Memory>>,
}

// SAFETY: no two buffers have an element in common, so each owns its own as a `Vec<f32>` does.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

/// An allocation, given back with the last piece of it.
#[derive(Debug)]
struct Memory {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: nothing is read or written through it; it is freed once, by whoever drops it last.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        if mapped(self.layout) {
            unmap(self.ptr, self.layout.size().next_multiple_of(PAGE));
        } else {
            // SAFETY: `zeroed` allocated it with this layout.
            unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
        }
    }
}

impl AlignedBuf {
    /// A buffer without elements; allocates nothing.
    pub const fn empty() -> Self {
        Self { ptr: NonNull::<Line>::dangling().cast(), len: 0, memory: None }
    }

    /// A buffer of `len` zeros, or `None` where the system has no room for it.
    pub fn zeroed(len: usize) -> Option<Self> {
        if len == 0 {
            return Some(Self::empty());
        }
        let layout = Self::layout(len)?;
        let ptr = match mapped(layout) {
            true => map(layout.size())?,
            // SAFETY: the layout's size is not zero.
            false => NonNull::new(unsafe { alloc_zeroed(layout) })?,
        };
        Some(Self { ptr: ptr.cast(), len, memory: Some(Arc::new(Memory { ptr, layout })) })
    }

    /// Cuts the buffer in two: keeps the first `at` elements and returns the rest.
    ///
    /// # Panics
    /// Where there are fewer than `at`.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        assert!(at <= self.len, "a cut at {at} of a buffer of {}", self.len);
        // SAFETY: within the allocation, or at its end.
        let ptr = unsafe { self.ptr.add(at) };
        let rest = Self { ptr, len: self.len - at, memory: self.memory.clone() };
        self.len = at;
        rest
    }

    /// Undoes [`AlignedBuf::split_off`].
    ///
    /// # Panics
    /// Where `next` is not the piece that follows.
    #[must_use]
    pub fn join(self, next: Self) -> Self {
        let same = match (&self.memory, &next.memory) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        // SAFETY: at most the end of the allocation.
        let end = unsafe { self.ptr.add(self.len) };
        assert!(same && end == next.ptr, "these pieces do not follow on each other");
        Self { len: self.len + next.len, ..self }
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
    fn pieces_are_buffers_and_become_the_whole_again() {
        for len in [64, 2 * HUGE] {
            let mut a = AlignedBuf::zeroed(len).unwrap();
            let mut b = a.split_off(16);
            let c = b.split_off(32);
            a.fill(1.0);
            b.fill(2.0);
            assert_eq!((a.len(), b.len(), c.len(), c[0]), (16, 32, len - 48, 0.0));
            drop(a);
            let whole = b.join(c);
            assert_eq!((whole[31], whole[32], whole.len()), (2.0, 0.0, len - 16));
        }
        let strangers = [(); 2].map(|()| AlignedBuf::zeroed(16).unwrap());
        let [a, b] = strangers;
        assert!(std::panic::catch_unwind(|| a.join(b)).is_err());
        assert!(AlignedBuf::empty().split_off(0).is_empty());
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
