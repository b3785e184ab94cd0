//! Matrix products of dense layers: row-major, either operand transposed, with bias and activation.

use defrost_tensor::Activation;

use crate::conv::bounds;
use crate::dots::{self, Dots};
use crate::pack::{Panels, Right, pack_panel};
use crate::scratch::{carve, floats_for};
use crate::threads::{Parts, PtrMut};
use crate::tile::{Finish, OuterBlock, ROW_ALIGN, RowBlock, Run, outer_block, row_block};
use crate::{Threads, layout};

/// Terms of the sum that are worked off before the next ones: a packed panel of them stays in the second-level cache.
const DEPTH: usize = 512;
/// Rows of a task.
const ROWS: usize = 40 * ROW_ALIGN;
/// Terms a pass of the product with a transposed left matrix.
const CHUNK: usize = 128;
/// The widest panel.
const WIDEST: usize = 64;

/// A matrix product `c = activation(op(a) · op(b) + bias)`, `op(a)` being `m × k` and `op(b)` `k × n`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Matmul {
    /// Rows of `c`.
    pub m: usize,
    /// Columns of `c`.
    pub n: usize,
    /// Terms of a sum.
    pub k: usize,
    /// `a` is stored as `k × m`.
    pub transpose_a: bool,
    /// `b` is stored as `n × k`.
    pub transpose_b: bool,
    /// Whether to add to `c`.
    pub accumulate: bool,
    /// Applied last.
    pub activation: Activation,
}

impl Matmul {
    fn table(&self) -> usize {
        let rows = self.m.min(ROWS).next_multiple_of(ROW_ALIGN);
        floats_for::<*const f32>(rows) + floats_for::<usize>(rows) + floats_for::<f32>(DEPTH * WIDEST)
    }

    /// Floats of workspace that [`run`] needs.
    pub fn workspace(&self, threads: &Threads) -> usize {
        match (self.transpose_a, self.transpose_b) {
            (true, false) => 0,
            (true, true) => floats_for::<f32>(self.m * self.k) + threads.count() * self.own(),
            (false, _) => threads.count() * self.own(),
        }
    }

    /// Floats of a thread's workspace where `a` is as it is.
    fn own(&self) -> usize {
        if self.is_dots() {
            floats_for::<f32>(dots::OWN) + floats_for::<f32>(dots::ROWS * dots::COLUMNS)
        } else {
            self.table()
        }
    }

    /// Whether rows of both matrices are multiplied where they lie.
    fn is_dots(&self) -> bool {
        self.transpose_b && (1..=dots::ROWS).contains(&self.m) && self.k > 0
    }
}

/// Runs the product.
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn run(
    threads: &Threads,
    shape: &Matmul,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    c: &mut [f32],
    workspace: &mut [f32],
) {
    let &Matmul { m, n, k, .. } = shape;
    assert_eq!((a.len(), b.len(), c.len()), (m * k, k * n, m * n), "matrices");
    assert!(bias.is_none_or(|bias| bias.len() == n), "bias");
    match (shape.transpose_a, shape.transpose_b) {
        (false, _) => rows(threads, shape, a, b, bias, c, workspace),
        (true, true) => {
            let (plain, workspace) = carve::<f32>(workspace, m * k);
            layout::transpose(a, k, m, false, plain);
            rows(threads, shape, plain, b, bias, c, workspace);
        }
        (true, false) => outer(threads, shape, a, b, bias, c),
    }
}

/// `a` as it is: blocks of its rows times packed panels of `op(b)`.
fn rows(
    threads: &Threads,
    shape: &Matmul,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    c: &mut [f32],
    workspace: &mut [f32],
) {
    let &Matmul { m, n, k, .. } = shape;
    if shape.is_dots() {
        return few_rows(threads, shape, a, b, bias, c, workspace);
    }
    let panels = Panels::new(threads.isa(), n);
    let blocks = m.div_ceil(ROWS);
    let tables = Parts::new(workspace, shape.table());
    let out = PtrMut(c.as_mut_ptr());
    threads.for_each(blocks * panels.count(), |worker, task| {
        // SAFETY: one task a worker at a time.
        let table = unsafe { tables.get(worker) };
        let (block, p) = (task / panels.count(), task % panels.count());
        let rows = block * ROWS..m.min((block + 1) * ROWS);
        let stride = rows.len().next_multiple_of(ROW_ALIGN);
        let range = panels.range(p).start..panels.range(p).end.min(n);
        let (sources, table) = carve::<*const f32>(table, stride);
        let (targets, table) = carve::<usize>(table, rows.len());
        targets.iter_mut().zip(rows.clone()).for_each(|(t, r)| *t = r * n);
        let depths = k.div_ceil(DEPTH).max(1);
        for depth in 0..depths {
            let terms = k * depth / depths..k * (depth + 1) / depths;
            for (i, source) in sources.iter_mut().enumerate() {
                // Rows beyond the last are computed and dropped; they read the last again.
                *source = a[(rows.start + i).min(rows.end - 1) * k + terms.start..].as_ptr();
            }
            let (row, column) = if shape.transpose_b { (1, k) } else { (n, 1) };
            let right = Right {
                data: b,
                taps: &[terms.start * row + range.start * column],
                depth: terms.len(),
                row,
                column,
            };
            let panel = Panels::new(threads.isa(), range.len());
            let (packed, _) = carve::<f32>(table, terms.len() * panel.padded());
            pack_panel(&right, 0..range.len(), panel.padded(), 0..terms.len(), packed);
            let last = depth + 1 == depths;
            let bias = bias.filter(|_| last).map_or(std::ptr::null(), |bias| bias[range.start..].as_ptr());
            row_block(
                threads.isa(),
                &RowBlock {
                    sources,
                    stride,
                    taps: 1,
                    depth: terms.len(),
                    shift: 0,
                    weight: packed,
                    panels: panel,
                    run: 0..1,
                    targets,
                    // SAFETY: the panel's first column exists.
                    out: unsafe { out.get().add(range.start) },
                    accumulate: shape.accumulate || depth > 0,
                    finish: Finish {
                        bias,
                        residual: std::ptr::null(),
                        bounds: bounds(if last { shape.activation } else { Activation::Identity }),
                        stream: false,
                    },
                },
            );
        }
    });
}

/// Few rows of `a` as it is times rows of `b`.
fn few_rows(
    threads: &Threads,
    shape: &Matmul,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    c: &mut [f32],
    workspace: &mut [f32],
) {
    let &Matmul { m, n, k, .. } = shape;
    let own = Parts::new(workspace, shape.own());
    let (low, high) = bounds(shape.activation);
    let out = PtrMut(c.as_mut_ptr());
    threads.for_each(n.div_ceil(dots::COLUMNS), |worker, task| {
        let columns = task * dots::COLUMNS..n.min((task + 1) * dots::COLUMNS);
        // SAFETY: one task a worker at a time.
        let (lanes, rest) = carve::<f32>(unsafe { own.get(worker) }, dots::OWN);
        let (sums, _) = carve::<f32>(rest, m * columns.len());
        let operands = Dots { a, b: &b[columns.start * k..columns.end * k], k };
        dots::dots(threads.isa(), &operands, lanes, sums);
        for (i, sums) in sums.chunks_exact(columns.len()).enumerate() {
            // SAFETY: each task has its own columns of the result's rows.
            let c =
                unsafe { std::slice::from_raw_parts_mut(out.get().add(i * n + columns.start), sums.len()) };
            for (j, (c, &sum)) in c.iter_mut().zip(sums).enumerate() {
                let before = if shape.accumulate { *c } else { 0.0 };
                let sum = before + sum + bias.map_or(0.0, |bias| bias[columns.start + j]);
                // `clamp` and `max` would hide NaN.
                let sum = if sum < low { low } else { sum };
                *c = if sum > high { high } else { sum };
            }
        }
    });
}

/// `a` transposed, as in a weight gradient: sums of outer products.
fn outer(threads: &Threads, shape: &Matmul, a: &[f32], b: &[f32], bias: Option<&[f32]>, c: &mut [f32]) {
    let &Matmul { m, n, k, .. } = shape;
    let panels = Panels::new(threads.isa(), n);
    let splits = 32usize.div_ceil(panels.count()).min(m.div_ceil(32)).max(1);
    let split = m.div_ceil(splits).next_multiple_of(8);
    let out = PtrMut(c.as_mut_ptr());
    threads.for_each(panels.count() * splits, |_, task| {
        let (panel, part) = (task / splits, task % splits);
        let rows = (part * split).min(m)..((part + 1) * split).min(m);
        for first in (0..k.max(1)).step_by(CHUNK) {
            let count = CHUNK.min(k - first);
            let runs = [Run { a: a[first * m..].as_ptr(), b: b[first * n..].as_ptr(), count }];
            outer_block(
                threads.isa(),
                &OuterBlock {
                    runs: &runs,
                    a_step: m,
                    a_block: 16,
                    b_step: n,
                    b_first: 0,
                    rows: rows.clone(),
                    panels,
                    run: panel..panel + 1,
                    out: out.get(),
                    out_step: n,
                    accumulate: shape.accumulate || first > 0,
                },
            );
        }
    });
    if bias.is_some() || shape.activation != Activation::Identity {
        let (low, high) = bounds(shape.activation);
        threads.for_chunks(c, n, |_, row| {
            for (i, v) in row.iter_mut().enumerate() {
                let sum = *v + bias.map_or(0.0, |bias| bias[i]);
                let sum = if sum < low { low } else { sum };
                *v = if sum > high { high } else { sum };
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, random};

    #[test]
    fn products_equal_plain_loops_for_all_orders_and_instruction_sets() {
        for (m, n, k) in
            [(1, 1, 1), (3, 10, 1280), (13, 100, 2051), (33, 67, 130), (70, 300, 9), (1000, 24, 600)]
        {
            let (a, b, bias) = (random(m * k, 1), random(k * n, 2), random(n, 3));
            for isa in Isa::available() {
                for flags in 0..8 {
                    let [ta, tb, add] = [flags & 1 > 0, flags & 2 > 0, flags & 4 > 0];
                    let activation = if add { Activation::Identity } else { Activation::Relu };
                    let shape =
                        Matmul { m, n, k, transpose_a: ta, transpose_b: tb, accumulate: add, activation };
                    let want: Vec<f64> = (0..m * n)
                        .map(|e| {
                            let (i, j) = (e / n, e % n);
                            let sum: f64 = (0..k)
                                .map(|p| {
                                    let a = if ta { a[p * m + i] } else { a[i * k + p] };
                                    let b = if tb { b[j * k + p] } else { b[p * n + j] };
                                    f64::from(a) * f64::from(b)
                                })
                                .sum();
                            let sum = sum + f64::from(bias[j]);
                            if add { sum + 1.0 } else { sum.max(0.0) }
                        })
                        .collect();
                    let run = |count: usize| {
                        let threads = Threads::new(count).with_isa(isa);
                        let mut c = vec![1.0; m * n];
                        let mut ws = vec![f32::NAN; shape.workspace(&threads)];
                        super::run(&threads, &shape, &a, &b, Some(&bias), &mut c, &mut ws);
                        c
                    };
                    let got = run(1);
                    assert_close(&got, &want, 1e-5, &format!("{isa:?} {shape:?}"));
                    assert_eq!(got, run(2), "{isa:?} {shape:?}");
                }
            }
        }
    }
}
