//! One file a kind of kernel: which shader, over which windows, on which grid.

pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod elementwise;
pub(crate) mod loss;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod optim;
pub(crate) mod pool;
pub(crate) mod reduce;

use std::ops::Range;

use defrost_tensor::{Activation, KernelError, Shape4};

use crate::WgpuKernels;
use crate::buffer::{Span, WgpuBuf};
use crate::queue::{Job, Words};
use crate::shader::{Define, Source};

pub(crate) const COMMON: &str = include_str!("../shaders/common.wgsl");

/// Threads of a workgroup that sums by a tree.
pub(crate) const TREE: u32 = 64;

/// Positions or pieces that a thread sums up at most. A GPU has work for more threads; and llvmpipe leaves all loops of a
/// thread, silently, after 65,535 rounds.
pub(crate) const ROUNDS: usize = 1 << 14;

/// The number that shaders know an activation by.
pub(crate) fn activation(which: Activation) -> usize {
    match which {
        Activation::Identity => 0,
        Activation::Relu => 1,
        Activation::Relu6 => 2,
        // `supports` names the kernels of the others.
        _ => unreachable!("{which:?} is no activation of this backend"),
    }
}

/// 4 where all of `lens` are whole vectors of four, else 1.
pub(crate) fn width(lens: &[usize]) -> usize {
    if lens.iter().all(|len| len.is_multiple_of(4)) { 4 } else { 1 }
}

/// The operands of a job, reads first.
pub(crate) type Operands<'a> = (&'a [Option<Span<'a>>], &'a [Option<Span<'a>>]);

impl WgpuKernels {
    /// Threads of a workgroup of kernels without shared memory.
    pub(crate) fn threads(&self) -> u32 {
        let limits = &self.gpu().limits;
        let most = limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x);
        if self.gpu().tiles { most.min(256) } else { most.min(64) }
    }

    /// Threads to aim for where a sum is cut into chunks.
    pub(crate) fn crowd(&self) -> usize {
        if self.gpu().tiles { 1 << 16 } else { 1 << 9 }
    }

    /// Elements that a window is sure to have room for, a multiple of 4.
    pub(crate) fn room(&self) -> usize {
        ((self.gpu().max_binding - self.gpu().align) / 4) as usize / 4 * 4
    }

    /// `0 .. len` in parts that windows have room for.
    pub(crate) fn parts(&self, len: usize) -> Vec<Range<usize>> {
        blocks(len, self.room())
    }

    /// Images in parts, so that windows have room for each operand; `lens` are elements an image.
    pub(crate) fn image_parts(&self, images: usize, lens: &[usize]) -> Vec<Range<usize>> {
        let most = lens.iter().map(|len| self.room() / len.max(&1)).min().unwrap_or(images);
        // `supports` refuses images that are larger than a window.
        blocks(images, most.max(1))
    }

    /// `count` workgroups, folded into two dimensions where one has no room.
    pub(crate) fn fold(&self, count: usize) -> [u32; 3] {
        let most = self.gpu().limits.max_compute_workgroups_per_dimension as usize;
        let y = count.div_ceil(most).max(1);
        [count.div_ceil(y) as u32, y as u32, 1]
    }

    /// Runs `source` with a thread for each of `count` pieces.
    pub(crate) fn spread(
        &self,
        source: &'static Source,
        width: usize,
        defines: &[Define],
        words: Words,
        (reads, writes): Operands<'_>,
        count: usize,
    ) -> Result<(), KernelError> {
        if count == 0 {
            return Ok(());
        }
        let threads = self.threads();
        let defines = [&[("THREADS", threads)], defines].concat();
        let groups = self.fold(count.div_ceil(threads as usize));
        self.run(Job { source, width, defines: &defines, words, reads, writes, groups, operations: 0.0 })
    }

    /// Runs `source` with a workgroup of [`TREE`] threads for each of `count` results.
    pub(crate) fn trees(
        &self,
        source: &'static Source,
        width: usize,
        words: Words,
        (reads, writes): Operands<'_>,
        count: usize,
    ) -> Result<(), KernelError> {
        let defines = [("THREADS", TREE), ("TREE", TREE)];
        let groups = self.fold(count);
        self.run(Job { source, width, defines: &defines, words, reads, writes, groups, operations: 0.0 })
    }

    /// The first stage of a sum over positions: runs `source` over chunks of `shape`'s positions, in as many dispatches as
    /// windows ask for. Its numbers are those of the chunks, then `more`; `reads` gives what it reads of some positions.
    pub(crate) fn over_chunks<'a, const N: usize>(
        &self,
        source: &'static Source,
        shape: Shape4,
        chunks: Chunks,
        more: impl Fn(Words) -> Words,
        reads: impl Fn(&Range<usize>) -> [Option<Span<'a>>; N],
        out: Span<'_>,
    ) -> Result<(), KernelError> {
        let c = shape.c;
        let w = width(&[c]);
        for (part, seen) in chunks.parts(shape.rows(), self.room() / c) {
            let words = Words::new().all(&[seen.start, seen.end, chunks.rows, part.len(), part.start, c / w]);
            self.spread(source, w, &[], more(words), (&reads(&seen), &[Some(out)]), part.len() * c / w)?;
        }
        Ok(())
    }

    pub(crate) fn run(&self, job: Job<'_>) -> Result<(), KernelError> {
        self.gpu().recorder().dispatch(self.gpu(), job)
    }

    /// Runs `f` with a workspace of at least `len` elements; there are two.
    pub(crate) fn with_workspace(
        &self,
        which: usize,
        len: usize,
        f: impl FnOnce(&mut WgpuBuf) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let old = self.gpu().recorder().take_workspace(which);
        let mut buf = match old.filter(|buf| buf.raw.size() >= len as u64 * 4) {
            Some(buf) => buf,
            None => self.gpu().alloc(len)?,
        };
        let result = f(&mut buf);
        self.gpu().recorder().put_workspace(which, buf);
        result
    }
}

/// `0 .. len` in blocks of at most `most`.
pub(crate) fn blocks(len: usize, most: usize) -> Vec<Range<usize>> {
    (0..len).step_by(most).map(|at| at..(at + most).min(len)).collect()
}

/// How a sum over `positions` is cut into chunks: how many there are in all, and the positions of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chunks {
    pub(crate) rows: usize,
    pub(crate) count: usize,
}

impl Chunks {
    /// Chunks for `lanes` sums side by side, so that about `crowd` threads are busy with 16 to [`ROUNDS`] positions each; at
    /// most as many as there is room for.
    pub(crate) fn new(positions: usize, lanes: usize, crowd: usize, room: usize) -> Self {
        let wanted = (crowd / lanes.max(1)).min(1024).max(positions.div_ceil(ROUNDS)).min(room).max(1);
        let rows = positions.div_ceil(wanted).max(16);
        Self { rows, count: positions.div_ceil(rows) }
    }

    /// The chunks in parts: each part's chunks and positions. Windows have room for `most` positions.
    pub(crate) fn parts(&self, positions: usize, most: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let chunks = (most / self.rows).max(1);
        let positions_of = |c: &Range<usize>| c.start * self.rows..(c.end * self.rows).min(positions);
        blocks(self.count, chunks).into_iter().map(|c| (c.clone(), positions_of(&c))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_all_positions_once() {
        for (positions, lanes) in [(1, 1), (17, 4), (100_000, 16), (802_816, 16), (49, 512)] {
            let chunks = Chunks::new(positions, lanes, 1 << 16, 1 << 20);
            assert!(chunks.count * chunks.rows >= positions && (chunks.count - 1) * chunks.rows < positions);
            let parts = chunks.parts(positions, positions / 3 + 1);
            let seen: Vec<_> = parts.iter().flat_map(|(_, p)| p.clone()).collect();
            assert!(seen.into_iter().eq(0..positions));
            assert!(parts.iter().all(|(c, p)| p.start == c.start * chunks.rows));
            assert!(Chunks::new(positions, lanes, 1 << 16, 3).count <= 3);
        }
        // A batch of VGG16's first activations on a software adapter.
        assert!(Chunks::new(256 * 224 * 224, 16, 1 << 9, 1 << 20).rows <= ROUNDS);
    }
}
