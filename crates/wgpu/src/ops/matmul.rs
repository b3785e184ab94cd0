//! Matrix products: tiles, splits, and matrices that are larger than a window.

use std::ops::Range;

use defrost_tensor::call::Gemm;
use defrost_tensor::{Activation, KernelError};

use super::{COMMON, activation, blocks};
use crate::WgpuKernels;
use crate::buffer::{Span, WgpuBuf};
use crate::queue::{Job, Words};
use crate::shader::Source;

const PRODUCT: &str = include_str!("../shaders/matmul/product.wgsl");
const TILES: &str = include_str!("../shaders/matmul/tiles.wgsl");
const LANES: &str = include_str!("../shaders/matmul/lanes.wgsl");
const SPLITS: &str = include_str!("../shaders/matmul/splits.wgsl");
const MATRIX: &str = include_str!("../shaders/matmul/matrix.wgsl");
pub(super) const SHAPE: &str = include_str!("../shaders/conv/shape.wgsl");
const GATHER: &str = include_str!("../shaders/conv/gather.wgsl");
const COLUMNS: &str = include_str!("../shaders/conv/columns.wgsl");
const FORWARD: &str = include_str!("../shaders/conv/forward.wgsl");
const GRAD_INPUT: &str = include_str!("../shaders/conv/grad_input.wgsl");
const GRAD_WEIGHT: &str = include_str!("../shaders/conv/grad_weight.wgsl");

/// What the operands of a product are read as: the shaders by tiles, by registers, and of the second stage.
#[derive(Debug)]
pub(crate) struct Kind {
    tiles: Source,
    lanes: Source,
    splits: Source,
    /// Whether neighbours in memory of the left operand are neighbours along the rows of the result, not along the sum.
    a_by_m: bool,
    /// Whether neighbours in memory of the right operand are neighbours along the sum.
    b_by_k: bool,
}

/// Products of a slice in workgroup memory.
const SLICE: usize = 16;
/// The longest sum in one go.
const LONGEST: usize = 8192;

const fn source(name: &'static str, parts: &'static [&'static str]) -> Source {
    Source { name, parts, reads: 4, writes: 1 }
}

macro_rules! kind {
    ($name:ident, $text:literal, $a_by_m:literal, $b_by_k:literal, [$($part:ident),*]) => {
        pub(crate) static $name: Kind = Kind {
            tiles: source(concat!($text, " tiles"), &[COMMON, PRODUCT, $($part,)* TILES]),
            lanes: source(concat!($text, " lanes"), &[COMMON, PRODUCT, $($part,)* LANES]),
            splits: source(concat!($text, " splits"), &[COMMON, PRODUCT, $($part,)* SPLITS]),
            a_by_m: $a_by_m,
            b_by_k: $b_by_k,
        };
    };
}

kind!(NN, "matmul", false, false, [MATRIX]);
kind!(NT, "matmul b^T", false, true, [MATRIX]);
kind!(TN, "matmul a^T", true, false, [MATRIX]);
kind!(TT, "matmul a^T b^T", true, true, [MATRIX]);
kind!(CONV_FORWARD, "conv", false, false, [SHAPE, FORWARD, GATHER, COLUMNS]);
kind!(CONV_GRAD_INPUT, "conv grad input", false, true, [SHAPE, GRAD_INPUT, GATHER]);
kind!(CONV_GRAD_WEIGHT, "conv grad weight", true, false, [SHAPE, GRAD_WEIGHT, COLUMNS]);

/// A product of one dispatch, or of two where the sum is split.
pub(crate) struct Product<'a> {
    pub(crate) kind: &'static Kind,
    /// Whether all that is neighbours in memory comes in whole vectors of four.
    pub(crate) vectors: bool,
    pub(crate) m: Range<usize>,
    /// Columns a group.
    pub(crate) n: usize,
    pub(crate) k: Range<usize>,
    pub(crate) groups: usize,
    /// Elements from a row of the result to the next.
    pub(crate) ldc: usize,
    pub(crate) accumulate: bool,
    pub(crate) activation: Activation,
    pub(crate) a: Span<'a>,
    pub(crate) b: Span<'a>,
    pub(crate) bias: Option<Span<'a>>,
    pub(crate) residual: Option<Span<'a>>,
    pub(crate) out: Span<'a>,
    /// What the kind's `Shape` is.
    pub(crate) shape: &'a dyn Fn(Words) -> Words,
}

/// How a product is cut into pieces of work.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tiling {
    /// Results of a workgroup, or of a thread where products go through registers alone.
    rows: usize,
    columns: usize,
    /// Threads across and down; 0 where products go through registers alone.
    threads: [usize; 2],
}

impl Tiling {
    const LANES: Self = Self { rows: 8, columns: 4, threads: [0, 0] };

    fn tiles(&self, m: usize, n: usize) -> usize {
        m.div_ceil(self.rows) * n.div_ceil(self.columns)
    }
}

/// The largest tiles that waste little, fit workgroup memory of `shared` bytes and still keep a GPU busy. `ty` is how many
/// threads a workgroup has down.
fn tiling(m: usize, n: usize, groups: usize, ty: usize, shared: usize) -> Tiling {
    let tile = |qm: usize, qn: usize| Tiling { rows: 4 * qm * ty, columns: 64 * qn, threads: [16, ty] };
    let good = |t: &Tiling| {
        let padded = m.next_multiple_of(t.rows) * n.next_multiple_of(t.columns);
        let fits = 4 * SLICE * (t.rows + t.columns) <= shared;
        fits && t.tiles(m, n) * groups >= 96 && padded * 4 <= m * n * 5
    };
    [tile(2, 2), tile(2, 1)].into_iter().find(good).unwrap_or(tile(1, 1))
}

/// How the sums of a product are split: how many parts, and how long one is.
///
/// Split where tiles are too few to keep a GPU busy, and where a sum is long, for accuracy; but never so often that the
/// parts (of `results` each) need more than `room` elements.
fn split(k: usize, results: usize, workgroups: usize, busy: usize, room: usize) -> (usize, usize) {
    let most = (k / (8 * SLICE)).min(room.min(1 << 24) / results.max(1)).clamp(1, 512);
    let wanted = (busy / workgroups.max(1)).max(k.div_ceil(LONGEST)).clamp(1, most);
    let length = k.div_ceil(wanted).next_multiple_of(SLICE).max(SLICE);
    (k.div_ceil(length).max(1), length)
}

impl WgpuKernels {
    pub(crate) fn product(&self, p: &Product<'_>) -> Result<(), KernelError> {
        let (m, k) = (p.m.len(), p.k.len());
        if m == 0 || p.n == 0 {
            return Ok(());
        }
        let tiled = self.gpu().tiles;
        let limits = &self.gpu().limits;
        let down = if self.threads() >= 256 { 16 } else { 8 };
        let shared = limits.max_compute_workgroup_storage_size as usize;
        let tiling = if tiled { tiling(m, p.n, p.groups, down, shared) } else { Tiling::LANES };
        let (tiles, tiles_n) = (tiling.tiles(m, p.n), p.n.div_ceil(tiling.columns));
        let [tx, ty] = tiling.threads;
        let threads = if tiled { tx * ty } else { self.threads() as usize };
        let workgroups = if tiled { tiles } else { tiles.div_ceil(threads) };
        let results = m * p.n * p.groups;
        let busy = if tiled { 256 } else { 1 };
        // Groups and splits share a dimension of the grid.
        let most = limits.max_compute_workgroups_per_dimension as usize / p.groups;
        let room = self.room().min(most.max(1) * results);
        let (splits, k_split) = split(k, results, workgroups * p.groups, busy, room);

        let words = Words::new()
            .all(&[p.m.start, p.m.end, p.n, p.k.start, p.k.end, tiles, tiles_n, p.groups, splits, k_split])
            .all(&[p.ldc, usize::from(p.accumulate), usize::from(p.bias.is_some())])
            .all(&[usize::from(p.residual.is_some()), activation(p.activation), 0]);
        let words = (p.shape)(words);
        let width = if p.vectors { 4 } else { 1 };
        let by = [("A_BY_M", u32::from(p.kind.a_by_m)), ("B_BY_K", u32::from(p.kind.b_by_k))];
        let mut defines = by.to_vec();
        defines.push(("THREADS", threads as u32));
        if tiled {
            let vectors = |side: usize| SLICE * side / 4 / threads;
            let sizes = [
                ("QM", tiling.rows / (4 * ty)),
                ("QN", tiling.columns / (4 * tx)),
                ("TX", tx),
                ("TY", ty),
                ("BM", tiling.rows),
                ("BN", tiling.columns),
                ("BK", SLICE),
                ("LA", vectors(tiling.rows)),
                ("LB", vectors(tiling.columns)),
                ("HALF", usize::from(p.a.buf.half)),
            ];
            defines.extend(sizes.map(|(name, value)| (name, value as u32)));
        } else {
            defines.push(("QM", (tiling.rows / 4) as u32));
        }
        let [x, y, _] = self.fold(workgroups);
        let job = Job {
            source: if tiled { &p.kind.tiles } else { &p.kind.lanes },
            width,
            defines: &defines,
            words,
            reads: &[Some(p.a), Some(p.b), p.bias, p.residual],
            writes: &[Some(p.out)],
            groups: [x, y, (p.groups * splits) as u32],
            operations: 2.0 * (results * k) as f64,
        };
        if splits == 1 {
            return self.run(job);
        }
        self.with_workspace(0, splits * results, |workspace| {
            let part = Some(workspace.span(splits * results));
            self.run(Job { reads: &[job.reads[0], job.reads[1], None, None], writes: &[part], ..job })?;
            let operands = (&[part, None, p.bias, p.residual][..], &[Some(p.out)][..]);
            self.spread(&p.kind.splits, width, &by, words, operands, results / width)
        })
    }

    /// A product of matrices, cut where one is larger than a window.
    pub(crate) fn gemm_call(&self, call: Gemm<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Gemm { m, n, k, transpose_a, transpose_b, accumulate, activation, a, b, bias, c } = call;
        c.half = false;
        let c = &*c;
        let (lda, ldb) = (if transpose_a { m } else { k }, if transpose_b { k } else { n });
        let kind = match (transpose_a, transpose_b) {
            (false, false) => &NN,
            (false, true) => &NT,
            (true, false) => &TN,
            (true, true) => &TT,
        };
        let room = self.room();
        // Whole vectors of rows, where there is room for one.
        let rows = |len: usize| match room / len {
            few @ 0..4 => few.max(1),
            many => many / 4 * 4,
        };
        let [mut at_once_m, mut at_once_n, mut at_once_k] = [m, n, k];
        if m * k > room {
            let side = if transpose_a { &mut at_once_k } else { &mut at_once_m };
            *side = rows(lda).min(*side);
        }
        if k * n > room {
            let side = if transpose_b { &mut at_once_n } else { &mut at_once_k };
            *side = rows(ldb).min(*side);
        }
        if m * n > room {
            at_once_m = rows(n).min(at_once_m);
        }
        let vectors = [lda, ldb, n, k, at_once_m, at_once_n, at_once_k];
        let vectors = vectors.iter().enumerate().all(|(i, &v)| v.is_multiple_of(4) || (i == 4 && v == m));
        for m in blocks(m, at_once_m) {
            for n_part in blocks(n, at_once_n) {
                for k_part in blocks(k, at_once_k) {
                    let (first, last) = (k_part.start == 0, k_part.end == k);
                    let part = |by_row: bool, row: &Range<usize>, column: &Range<usize>, ld: usize| {
                        let (outer, inner) = if by_row { (row, column) } else { (column, row) };
                        (outer.start * ld + inner.start, (outer.len() - 1) * ld + inner.len())
                    };
                    let (a_at, a_len) = part(!transpose_a, &m, &k_part, lda);
                    let (b_at, b_len) = part(!transpose_b, &k_part, &n_part, ldb);
                    let (c_at, c_len) = part(true, &m, &n_part, n);
                    self.product(&Product {
                        kind,
                        vectors,
                        m: 0..m.len(),
                        n: n_part.len(),
                        k: 0..k_part.len(),
                        groups: 1,
                        ldc: n,
                        accumulate: accumulate || !first,
                        activation: if last { activation } else { Activation::Identity },
                        a: a.view(a_at, a_len),
                        b: b.view(b_at, b_len),
                        bias: bias.filter(|_| first).map(|b| b.view(n_part.start, n_part.len())),
                        residual: None,
                        out: c.view(c_at, c_len),
                        shape: &|words| words.all(&[lda, ldb, 0, 0]),
                    })?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_the_product_and_long_sums_are_split() {
        let rows_columns = |m, n| {
            let t = tiling(m, n, 1, 16, 16 << 10);
            (t.rows, t.columns)
        };
        assert_eq!(rows_columns(50_176, 256), (128, 128));
        assert_eq!(rows_columns(50_176, 64), (128, 64));
        assert_eq!(rows_columns(784, 512), (64, 64));
        assert_eq!(rows_columns(32, 10), (64, 64));
        assert_eq!(tiling(50_176, 256, 1, 16, 12 << 10).columns, 64, "what workgroup memory has room for");
        // A gradient of weights: 9 tiles, a long sum.
        let (splits, length) = split(1_605_632, 576 * 64, 9, 256, 1 << 25);
        assert!(splits >= 196 && splits * length >= 1_605_632 && (splits - 1) * length < 1_605_632);
        assert!(length.is_multiple_of(SLICE) && length <= LONGEST);
        // Enough tiles and a short sum: nothing to split; and no parts beyond what there is room for.
        assert_eq!(split(576, 1 << 20, 512, 256, 1 << 25), (1, 576));
        assert_eq!(split(4608, 1 << 24, 1, 256, 1 << 25).0, 1);
        assert_eq!(split(0, 100, 1, 256, 1 << 25), (1, SLICE));
    }
}
