//! Gathers of dense and grouped convolutions as matrix products over packed weights.

use super::gather::{Gather, Phase};
use super::{Epilogue, bounds};
use crate::pack::{Panels, Right, pack, packed_len};
use crate::scratch::{carve, floats_for};
use crate::simd::streams;
use crate::threads::{Parts, PtrMut};
use crate::tile::{Finish, ROW_ALIGN, RowBlock, row_block};
use crate::{Threads, half};

/// Target rows of a task, at most: their sources stay in the second-level cache while the weights' panels pass by.
const BLOCK_ROWS: usize = 240;

/// Tasks, at least, where there are as many panels of columns to make them of.
const TASKS: usize = 32;

/// Rows a task for a phase of `rows` rows and `taps` taps: a function of the shape alone.
fn block_rows(rows: usize, taps: usize) -> usize {
    // The table of sources must not drive the sources themselves out of the cache.
    let most = (8192 / taps.max(1)).clamp(ROW_ALIGN, BLOCK_ROWS);
    let blocks = rows.div_ceil(most).max(rows.div_ceil(ROW_ALIGN).min(8));
    rows.div_ceil(blocks.max(1)).next_multiple_of(ROW_ALIGN)
}

fn phase_rows(gather: &Gather, phase: &Phase) -> usize {
    gather.source.n * phase.grid[0] * phase.grid[1]
}

fn table_floats(gather: &Gather) -> usize {
    let table = |phase: &Phase| {
        let rows = block_rows(phase_rows(gather, phase), phase.taps.len());
        floats_for::<usize>(1) + floats_for::<*const f32>(phase.taps.len() * rows) + floats_for::<usize>(rows)
    };
    gather.phases.iter().map(table).max().unwrap_or(0)
}

/// Floats that any group's tap may read.
fn zeros_len(gather: &Gather) -> usize {
    gather.groups * gather.depth
}

/// Floats of workspace for [`run`]: packed weights, a row of zeros for the padding, and a table of sources a thread.
pub(super) fn workspace(threads: &Threads, gather: &Gather) -> usize {
    let packed = |phase: &Phase| packed_len(threads.isa(), phase.taps.len(), gather.depth, gather.columns());
    let packed: usize = gather.phases.iter().map(|p| crate::lines(packed(p))).sum();
    let pairs = |phase: &Phase| pairs_len(gather, phase, Panels::new(threads.isa(), gather.columns()));
    let pairs = gather.phases.iter().map(pairs).max().unwrap_or(0);
    let halves = if halves(threads, gather) { floats_for::<u32>(pairs) } else { 0 };
    let own = threads.count() * (table_floats(gather) + half_floats(threads, gather));
    packed * gather.groups + halves + floats_for::<f32>(zeros_len(gather)) + own
}

/// Whether products are of rounded operands.
fn halves(threads: &Threads, gather: &Gather) -> bool {
    gather.half && half::supported(threads.isa())
}

/// Pairs of rounded weights of a phase.
fn pairs_len(gather: &Gather, phase: &Phase, panels: Panels) -> usize {
    (phase.taps.len() * gather.depth).div_ceil(2) * panels.padded()
}

/// Floats of a thread's rounded sources.
fn half_floats(threads: &Threads, gather: &Gather) -> usize {
    if !halves(threads, gather) {
        return 0;
    }
    let rows = |phase: &Phase| block_rows(phase_rows(gather, phase), phase.taps.len());
    half::own_len(gather.phases.iter().map(rows).max().unwrap_or(0))
}

#[allow(clippy::too_many_arguments)]
pub(super) fn run(
    threads: &Threads,
    gather: &Gather,
    source: &[f32],
    weight: &[f32],
    epilogue: &Epilogue<'_>,
    accumulate: bool,
    target: &mut [f32],
    workspace: &mut [f32],
) {
    let (zeros, workspace) = carve::<f32>(workspace, zeros_len(gather));
    zeros.fill(0.0);
    let zeros = &*zeros;
    let (tables, mut workspace) = workspace.split_at_mut(threads.count() * table_floats(gather));
    let tables = Parts::new(tables, table_floats(gather));
    let (own, rest) = workspace.split_at_mut(threads.count() * half_floats(threads, gather));
    let own = Parts::new(own, half_floats(threads, gather));
    let halves = halves(threads, gather);
    workspace = rest;
    let (depth, columns) = (gather.depth, gather.columns());
    let panels = Panels::new(threads.isa(), columns);
    // Panels are whole vectors then, too.
    let stream = streams(target, columns) && gather.groups == 1;
    let out = PtrMut(target.as_mut_ptr());
    for phase in &gather.phases {
        let taps = phase.taps.len();
        let packed_group = crate::lines(taps * depth * panels.padded());
        let (packed, rest) = std::mem::take(&mut workspace).split_at_mut(packed_group * gather.groups);
        workspace = rest;
        pack_weights(threads, gather, phase, weight, packed, packed_group);
        let packed = &*packed;
        let pairs = if halves {
            // The next phase writes over it.
            let (pairs, _) = carve::<u32>(workspace, pairs_len(gather, phase, panels));
            half::pair(threads, packed, panels, taps * depth, pairs);
            &*pairs
        } else {
            &[]
        };
        let rows = phase_rows(gather, phase);
        let block = block_rows(rows, taps);
        let blocks = rows.div_ceil(block);
        // Few rows (a late stage, a small batch): the columns are shared out as well, so that a thread which is held up holds
        // nobody up. Rounded sources are rounded for each task anew.
        let splits = match halves {
            true if blocks >= 8 => 1,
            true => panels.count(),
            false => TASKS.div_ceil(blocks).min(panels.count()),
        };
        for worker in 0..threads.count() {
            // SAFETY: no task runs.
            carve::<usize>(unsafe { tables.get(worker) }, 1).0[0] = usize::MAX;
        }
        threads.for_each(blocks * splits, |worker, task| {
            let (part, task) = (task % splits, task / splits);
            let rows = task * block..rows.min((task + 1) * block);
            let run = panels.count() * part / splits..panels.count() * (part + 1) / splits;
            // SAFETY: one task a worker at a time.
            let table = unsafe { tables.get(worker) };
            let (of, table) = carve::<usize>(table, 1);
            let (sources, table) = carve::<*const f32>(table, taps * block);
            let (targets, _) = carve::<usize>(table, block);
            let targets = &mut targets[..rows.len()];
            // The task before may have been of the same rows.
            if of[0] != task {
                fill_table(gather, phase, rows.start, source, zeros, block, sources, targets);
                of[0] = task;
            }
            for group in 0..gather.groups {
                let first = group * columns;
                // SAFETY: `first` is below the target's channels, the pointers' lengths.
                let shifted =
                    |s: Option<&[f32]>| s.map_or(std::ptr::null(), |s| unsafe { s.as_ptr().add(first) });
                let work = RowBlock {
                    sources,
                    stride: block,
                    taps,
                    depth,
                    shift: group * depth,
                    weight: &packed[group * packed_group..][..packed_group],
                    panels,
                    run: run.clone(),
                    targets,
                    // SAFETY: as above.
                    out: unsafe { out.get().add(first) },
                    accumulate,
                    finish: Finish {
                        bias: shifted(epilogue.bias),
                        residual: shifted(epilogue.residual),
                        bounds: bounds(epilogue.activation),
                        stream,
                    },
                };
                if halves {
                    // SAFETY: one task a worker at a time.
                    half::row_block(&work, pairs, unsafe { own.get(worker) });
                } else {
                    row_block(threads.isa(), &work);
                }
            }
        });
    }
}

fn pack_weights(
    threads: &Threads,
    gather: &Gather,
    phase: &Phase,
    weight: &[f32],
    packed: &mut [f32],
    packed_group: usize,
) {
    let (depth, columns) = (gather.depth, gather.columns());
    let (row, column) =
        if gather.transposed { (1, gather.weight_columns) } else { (gather.weight_columns, 1) };
    let mut starts = Vec::with_capacity(phase.taps.len());
    for group in 0..gather.groups {
        // A group's weights are the convolution's output channels of that group.
        let first = group * if gather.transposed { depth } else { columns };
        let tap_len = weight.len() / gather.window;
        starts.clear();
        starts.extend(phase.taps.iter().map(|tap| tap.index * tap_len + first));
        let right = Right { data: weight, taps: &starts, depth, row, column };
        pack(threads, &right, columns, &mut packed[group * packed_group..][..packed_group]);
    }
}

/// Writes where the sources and targets of a block's rows lie.
#[allow(clippy::too_many_arguments)]
fn fill_table(
    gather: &Gather,
    phase: &Phase,
    first: usize,
    source: &[f32],
    zeros: &[f32],
    stride: usize,
    sources: &mut [*const f32],
    targets: &mut [usize],
) {
    let [gh, gw] = phase.grid;
    if gather.is_matrix(phase) {
        // A plain matrix product: sources and targets lie row after row.
        let (from, to) = (gather.source.c, gather.target.c);
        let live = &source[first * from..][..targets.len() * from];
        for (i, target) in targets.iter_mut().enumerate() {
            (*target, sources[i]) = ((first + i) * to, live[i * from..].as_ptr());
        }
        sources[targets.len()..stride].fill(zeros.as_ptr());
        return;
    }
    let position = |r: usize| (r / (gh * gw), r / gw % gh, r % gw);
    let (mut n, mut y, mut x) = position(first);
    for (i, target) in targets.iter_mut().enumerate() {
        *target = gather.target_at(phase, n, y, x);
        for (t, tap) in phase.taps.iter().enumerate() {
            sources[t * stride + i] =
                gather.source_at(tap, n, y, x).map_or(zeros.as_ptr(), |at| source[at..].as_ptr());
        }
        x += 1;
        if x == gw {
            (x, y) = (0, y + 1);
            if y == gh {
                (y, n) = (0, n + 1);
            }
        }
    }
    for tap in sources.chunks_exact_mut(stride) {
        tap[targets.len()..].fill(zeros.as_ptr());
    }
}
