//! Buffers on the device, and the parts of them that a kernel sees.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the buffers of one device share: how much they take, and which are gone.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next: AtomicU64,
    bytes: AtomicU64,
    /// Buffers that were dropped: what was cached for them can go.
    dead: Mutex<Vec<u64>>,
}

impl Ledger {
    /// Bytes in all buffers that live.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The buffers dropped since the last call.
    pub(crate) fn take_dead(&self) -> Vec<u64> {
        std::mem::take(&mut *self.dead.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A buffer of the wgpu backend.
///
/// Activations lie in it as `n, h, w, c` and weights of convolutions as `kh, kw, in / groups, out`; uploads and downloads
/// see published orders. It knows whether its last writer stored 32 or 16 bits an element.
#[derive(Debug)]
pub struct WgpuBuf {
    pub(crate) raw: wgpu::Buffer,
    pub(crate) id: u64,
    /// Whether elements are 16-bit floats at present.
    pub(crate) half: bool,
    /// Whether it has room for 16 bits an element alone.
    pub(crate) narrow: bool,
    ledger: Arc<Ledger>,
}

impl WgpuBuf {
    pub(crate) fn new(raw: wgpu::Buffer, ledger: &Arc<Ledger>) -> Self {
        ledger.bytes.fetch_add(raw.size(), Ordering::Relaxed);
        let id = ledger.next.fetch_add(1, Ordering::Relaxed);
        Self { raw, id, half: false, narrow: false, ledger: Arc::clone(ledger) }
    }

    /// The first `len` elements.
    pub(crate) fn span(&self, len: usize) -> Span<'_> {
        self.part(0, len)
    }

    /// Elements `start .. start + len`, which kernels know by their places in the whole buffer.
    pub(crate) fn part(&self, start: usize, len: usize) -> Span<'_> {
        Span { buf: self, base: 0, start, len }
    }

    /// The elements of the items in `range`, each of `len` elements.
    pub(crate) fn items(&self, range: &Range<usize>, len: usize) -> Span<'_> {
        self.part(range.start * len, range.len() * len)
    }

    /// Elements `start .. start + len`, the first of which kernels know as element 0.
    pub(crate) fn view(&self, start: usize, len: usize) -> Span<'_> {
        Span { buf: self, base: start, start, len }
    }

    /// Bytes an element.
    pub(crate) fn width(&self) -> usize {
        if self.half { 2 } else { 4 }
    }
}

impl Drop for WgpuBuf {
    fn drop(&mut self) {
        self.ledger.bytes.fetch_sub(self.raw.size(), Ordering::Relaxed);
        self.ledger.dead.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
    }
}

/// Elements of a buffer that one dispatch reads or writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    pub(crate) buf: &'a WgpuBuf,
    /// The element of the buffer that kernels know as 0.
    base: usize,
    start: usize,
    len: usize,
}

/// Where a span is bound: bytes of its buffer, and what a kernel adds to the index of an element (it wraps).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Window {
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// In elements.
    pub(crate) at: u32,
}

impl Span<'_> {
    /// Whether the buffer has room for the span, as it stores its elements at present.
    pub(crate) fn fits(&self) -> bool {
        (self.start + self.len) as u64 * self.buf.width() as u64 <= self.buf.raw.size()
    }

    /// The smallest window over the span, or the whole buffer where a binding may be that large: then all calls on
    /// the buffer share one bind group.
    pub(crate) fn window(&self, max: u64, align: u64) -> Window {
        let whole = self.buf.raw.size();
        let seen = window(whole, self.start, self.len, self.buf.width() as u64, max, align);
        Window { at: seen.at.wrapping_add(self.base as u32), ..seen }
    }
}

fn window(total: u64, start: usize, len: usize, width: u64, max: u64, align: u64) -> Window {
    if total <= max {
        return Window { offset: 0, size: total, at: 0 };
    }
    let offset = start as u64 * width / align * align;
    // Whole vectors of four, which all buffers are made of.
    let size = (((start + len) as u64 * width).next_multiple_of(16) - offset).max(16);
    Window { offset, size, at: ((offset / width) as u32).wrapping_neg() }
}

#[cfg(test)]
mod tests {
    use super::{Window, window};

    #[test]
    fn small_buffers_are_bound_whole_and_large_ones_in_aligned_windows() {
        assert_eq!(window(4096, 100, 7, 4, 4096, 256), Window { offset: 0, size: 4096, at: 0 });
        let seen = window(1 << 20, 1000, 7, 4, 4096, 256);
        assert_eq!(seen, Window { offset: 3840, size: 4032 - 3840, at: 960_u32.wrapping_neg() });
        // Element 1000 of the buffer is element 40 of the window.
        assert_eq!(1000_u32.wrapping_add(seen.at), 40);
        let half = window(1 << 20, 1000, 8, 2, 4096, 256);
        assert_eq!((half.offset, 1000_u32.wrapping_add(half.at)), (1792, 104));
    }
}
