//! The right operand of a matrix product, copied into panels that the tiles read from one end to the other.

use std::ops::Range;

use crate::simd::{Vector, dispatch, prefetch};
use crate::threads::PtrMut;
use crate::{Isa, Threads};

/// How the columns of a right operand are cut into panels of one to four vectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels {
    columns: usize,
    lanes: usize,
    count: usize,
}

impl Panels {
    pub(crate) fn new(isa: Isa, columns: usize) -> Self {
        let (lanes, cols) = lanes_and_cols(isa);
        Self { columns, lanes, count: columns.div_ceil(lanes).div_ceil(cols).max(1) }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The columns of all panels, without padding.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The columns of all panels, padding included.
    pub(crate) fn padded(&self) -> usize {
        self.columns.next_multiple_of(self.lanes)
    }

    /// The padded columns of panel `p`: whole vectors, the wider panels first.
    pub(crate) fn range(&self, p: usize) -> Range<usize> {
        let vectors = self.columns.div_ceil(self.lanes);
        let (least, wider) = (vectors / self.count, vectors % self.count);
        let start = |p: usize| (p * least + p.min(wider)) * self.lanes;
        start(p)..start(p + 1)
    }
}

fn lanes_and_cols(isa: Isa) -> (usize, usize) {
    fn of<V: Vector>() -> (usize, usize) {
        (V::LANES, V::COLS)
    }
    dispatch!(fn get() -> (usize, usize) = of);
    get(isa)
}

/// A right operand in memory: element `(tap, k, n)` lies at `base[tap] + k · row + n · column`.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    pub(crate) data: &'a [f32],
    /// Where each tap starts.
    pub(crate) taps: &'a [usize],
    /// Rows a tap.
    pub(crate) depth: usize,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// Floats of a packed right operand.
pub(crate) fn packed_len(isa: Isa, taps: usize, depth: usize, columns: usize) -> usize {
    taps * depth * Panels::new(isa, columns).padded()
}

/// Copies a right operand into panels: panel after panel, each `taps · depth` rows of its columns, missing ones zero.
pub(crate) fn pack(threads: &Threads, right: &Right<'_>, columns: usize, packed: &mut [f32]) {
    let panels = Panels::new(threads.isa(), columns);
    let rows = right.taps.len() * right.depth;
    assert!(packed.len() >= rows * panels.padded());
    let out = PtrMut(packed.as_mut_ptr());
    // Small operands are packed in one go: waking a thread costs more.
    let pieces = (rows * columns / 16_384).clamp(1, rows.div_ceil(64).max(1));
    threads.for_each(pieces, |_, piece| {
        for p in 0..panels.count() {
            let range = panels.range(p);
            let rows_of_piece = rows * piece / pieces..rows * (piece + 1) / pieces;
            let (start, len) = (rows * range.start + rows_of_piece.start * range.len(), rows_of_piece.len());
            // SAFETY: in bounds (asserted), and each piece has its own rows.
            let dst = unsafe { std::slice::from_raw_parts_mut(out.get().add(start), len * range.len()) };
            pack_panel(right, range.start..range.end.min(columns), range.len(), rows_of_piece, dst);
        }
    });
}

/// Copies `rows` of one panel, whose `columns` are padded to `width`.
pub(crate) fn pack_panel(
    right: &Right<'_>,
    columns: Range<usize>,
    width: usize,
    rows: Range<usize>,
    dst: &mut [f32],
) {
    let live = columns.len();
    let mut at = rows.start;
    while at < rows.end {
        // Within one tap, and few enough rows that a transposing copy stays in the first-level cache.
        let (tap, k) = (at / right.depth, at % right.depth);
        let count = (right.depth - k).min(rows.end - at).min(16);
        let src = right.taps[tap] + k * right.row + columns.start * right.column;
        let block = &mut dst[(at - rows.start) * width..][..count * width];
        if right.column == 1 {
            for (i, row) in block.chunks_exact_mut(width).enumerate() {
                row[..live].copy_from_slice(&right.data[src + i * right.row..][..live]);
                row[live..].fill(0.0);
            }
        } else {
            if live < width {
                block.fill(0.0);
            }
            let mut n = 0;
            if count == 16 && right.row == 1 {
                // Four columns at a time: sixteen of each are one or two cache lines.
                while n + 4 <= live {
                    let from: [&[f32; 16]; 4] = std::array::from_fn(|j| {
                        let at = src + (n + j) * right.column;
                        prefetch(right.data.as_ptr().wrapping_add(at + 16));
                        right.data[at..].first_chunk().expect("sixteen rows of the column")
                    });
                    for (i, row) in block.chunks_exact_mut(width).enumerate() {
                        row[n..n + 4].copy_from_slice(&from.map(|column| column[i]));
                    }
                    n += 4;
                }
            }
            for n in n..live {
                for i in 0..count {
                    block[i * width + n] = right.data[src + i * right.row + n * right.column];
                }
            }
        }
        at += count;
    }
}
