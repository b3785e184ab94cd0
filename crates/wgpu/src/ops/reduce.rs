//! Sums in two stages of a fixed order, so that the same input gives the same bits.

use std::ops::Range;

use defrost_tensor::KernelError;
use defrost_tensor::call::{ChannelSum, SumSquares};

use super::loss::TREES;
use super::{COMMON, Chunks, ROUNDS, TREE, width};
use crate::WgpuKernels;
use crate::buffer::{Span, WgpuBuf};
use crate::queue::{Job, Words};
use crate::shader::Source;

/// Chunks of positions, for first stages.
pub(super) const CHUNK: &str = include_str!("../shaders/reduce/chunk.wgsl");
/// Trees over chunks, for second stages.
pub(super) const CHANNEL_TREE: &str = include_str!("../shaders/reduce/tree.wgsl");

static SUMS: Source = Source {
    name: "sums",
    parts: &[COMMON, include_str!("../shaders/reduce/sums.wgsl")],
    reads: 1,
    writes: 1,
};
static CHANNELS: Source = Source {
    name: "channel sums",
    parts: &[COMMON, CHUNK, include_str!("../shaders/reduce/channels.wgsl")],
    reads: 1,
    writes: 1,
};
static CHANNELS_END: Source = Source {
    name: "channel sums, end",
    parts: &[CHANNEL_TREE, include_str!("../shaders/reduce/channels_end.wgsl")],
    reads: 1,
    writes: 1,
};
static SQUARES: Source = Source {
    name: "squares",
    parts: &[COMMON, include_str!("../shaders/reduce/squares.wgsl")],
    reads: 1,
    writes: 1,
};
static TOTAL: Source = Source {
    name: "total",
    parts: &[TREES, include_str!("../shaders/reduce/total.wgsl")],
    reads: 1,
    writes: 1,
};

impl WgpuKernels {
    /// `out = Σ_chunk parts[chunk, 0..len]`.
    pub(crate) fn sum_chunks(
        &self,
        w: usize,
        parts: &WgpuBuf,
        chunks: usize,
        len: usize,
        accumulate: bool,
        out: Span<'_>,
    ) -> Result<(), KernelError> {
        let words = Words::new().all(&[len / w, chunks, usize::from(accumulate)]);
        let operands = (&[Some(parts.span(chunks * len))][..], &[Some(out)][..]);
        self.spread(&SUMS, w, &[], words, operands, len / w)
    }

    /// `out[row] = Σ parts[row, 0..len]` for a few rows.
    pub(crate) fn total(
        &self,
        parts: Span<'_>,
        rows: usize,
        len: usize,
        accumulate: bool,
        out: Span<'_>,
    ) -> Result<(), KernelError> {
        self.run(Job {
            source: &TOTAL,
            width: 1,
            defines: &[("TREE", TREE)],
            words: Words::new().all(&[rows, len, usize::from(accumulate)]),
            reads: &[Some(parts)],
            writes: &[Some(out)],
            groups: [rows as u32, 1, 1],
            operations: 0.0,
        })
    }

    pub(crate) fn channel_sum_call(
        &self,
        call: ChannelSum<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let ChannelSum { shape, accumulate, x, sum } = call;
        sum.half = false;
        let (positions, c) = (shape.rows(), shape.c);
        let w = width(&[c]);
        let chunks = Chunks::new(positions, c / w, self.crowd(), self.room() / c);
        self.with_workspace(0, chunks.count * c, |workspace| {
            let parts = workspace.span(chunks.count * c);
            self.over_chunks(
                &CHANNELS,
                shape,
                chunks,
                |words| words,
                |seen| [Some(x.items(seen, c))],
                parts,
            )?;
            let words = Words::new().all(&[c / w, chunks.count, usize::from(accumulate)]);
            let operands = (&[Some(parts)][..], &[Some(sum.span(c))][..]);
            self.trees(&CHANNELS_END, w, words, operands, c / w)
        })
    }

    pub(crate) fn sum_squares_call(
        &self,
        call: SumSquares<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let SumSquares { len, accumulate, x, sum } = call;
        sum.half = false;
        let w = width(&[len]);
        let pieces = self.parts(len);
        let threads = self.summing_threads(&pieces, w, 1);
        let count = threads * pieces.len();
        self.with_workspace(0, count, |workspace| {
            let parts = workspace.span(count);
            for (i, piece) in pieces.iter().enumerate() {
                let words = Words::new().all(&[piece.start / w, piece.end / w, threads, i * threads]);
                let operands = (&[Some(x.part(piece.start, piece.len()))][..], &[Some(parts)][..]);
                self.spread(&SQUARES, w, &[], words, operands, threads)?;
            }
            self.total(parts, 1, count, accumulate, sum.span(1))
        })
    }

    /// Threads that sum each of `pieces` up, `kinds` sums each: 16 to [`ROUNDS`] vectors of `w` a thread.
    pub(crate) fn summing_threads(&self, pieces: &[Range<usize>], w: usize, kinds: usize) -> usize {
        let vectors = pieces.iter().map(|piece| piece.len() / w).max().unwrap_or(0);
        let most = self.room() / (kinds * pieces.len()).max(1);
        vectors.div_ceil(16).min(self.crowd() / 4).max(vectors.div_ceil(ROUNDS)).clamp(1, most.max(1))
    }
}
