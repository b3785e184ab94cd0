//! The weight gradient: transformed sources times transformed gradients of the targets, summed over all tiles.

use std::ops::Range;

use super::product::{self, Outer};
use super::transform::{self, Grid, Load, Store};
use super::{COLS, Class, Plane};
use crate::reduce::add_shards;
use crate::scratch::{carve, floats_for};
use crate::simd::{Vector, dispatch, load, prefetch, store};
use crate::threads::{Parts, PtrMut};
use crate::{Isa, Threads, lines};

/// Weights of a tap with at most this many elements are summed in shards of the tiles.
const SHARD_MAX: usize = 1 << 14;
/// Shards, where there are any: part of the result's definition, as sums are rounded.
const SHARDS: usize = 8;
/// Tiles that are transformed together where the sums stay in the second-level cache, and where they do not.
const NEAR: usize = 32;
const FAR: usize = 128;

/// Into how many shards the tiles are cut: a function of the shape alone.
fn shards(plane: &Plane) -> usize {
    if plane.source.c * plane.target.c > SHARD_MAX {
        return 1;
    }
    let tiles = plane.tiling.n * plane.tiling.classes().iter().map(Class::tiles).max().unwrap_or(0);
    SHARDS.min(tiles.div_ceil(NEAR))
}

/// How the work is cut up beside the shards. Nothing here changes a result.
#[derive(Clone, Copy, Debug)]
struct Cut {
    lanes: usize,
    width: usize,
    /// Chunks of source channels of a task, at most.
    chunks: usize,
    /// Ranges of source channels.
    splits: usize,
    /// Panels of target channels.
    panels: usize,
    /// Tiles that are transformed together, at most.
    tiles: usize,
    /// Points of a tile, at most.
    area: usize,
}

impl Cut {
    fn new(threads: &Threads, plane: &Plane) -> Self {
        let lanes = super::lanes(threads.isa());
        let width = COLS * lanes;
        let all = plane.source.c.div_ceil(lanes);
        let shards = shards(plane);
        let splits = if shards > 1 { 1 } else { threads.count().max(2).min(all) };
        let classes = plane.tiling.classes();
        let most = plane.tiling.n * classes.iter().map(Class::tiles).max().unwrap_or(0);
        let tiles = if shards > 1 { NEAR } else { FAR };
        // Blocks of about equal size.
        let tiles = most.div_ceil(most.div_ceil(tiles).max(1));
        Self {
            lanes,
            width,
            chunks: all.div_ceil(splits),
            splits,
            panels: plane.target.c.div_ceil(width),
            tiles,
            area: classes.iter().map(Class::area).max().unwrap_or(0),
        }
    }

    /// Floats between two points' transformed sources, gradients and sums; odd lines apart, see
    /// [`gather`](super::gather).
    fn source_point(&self) -> usize {
        self.chunks * self.tiles * self.lanes + 16
    }

    fn target_point(&self) -> usize {
        self.panels * self.tiles * self.width + 16
    }

    fn sum_point(&self) -> usize {
        self.chunks * self.panels * self.lanes * self.width + 16
    }

    fn own_floats(&self) -> usize {
        self.area * (self.source_point() + self.target_point() + self.sum_point())
    }

    fn own_len(&self) -> usize {
        floats_for::<f32>(self.own_floats())
    }
}

/// Floats between two shards' results.
fn part(plane: &Plane) -> usize {
    lines(9 * plane.source.c * plane.target.c)
}

/// Floats of workspace that [`run`] needs.
pub(in crate::conv) fn workspace(threads: &Threads, plane: &Plane) -> usize {
    let partial = if shards(plane) > 1 { shards(plane) * part(plane) } else { 0 };
    partial + threads.count() * Cut::new(threads, plane).own_len()
}

/// Everything a task needs.
struct Job<'a> {
    isa: Isa,
    plane: &'a Plane,
    cut: Cut,
    source: &'a [f32],
    grad: &'a [f32],
}

/// Computes the gradient, or adds it.
pub(in crate::conv) fn run(
    threads: &Threads,
    plane: &Plane,
    source: &[f32],
    grad: &[f32],
    accumulate: bool,
    grad_weight: &mut [f32],
    workspace: &mut [f32],
) {
    let (cut, shards) = (Cut::new(threads, plane), shards(plane));
    assert_eq!((source.len(), grad.len()), (plane.source.len(), plane.target.len()), "source and gradient");
    assert_eq!(grad_weight.len(), 9 * plane.source.c * plane.target.c, "weight gradient");
    let (partial, workspace) = workspace.split_at_mut(if shards > 1 { shards * part(plane) } else { 0 });
    let own = Parts::new(workspace, cut.own_len());
    let job = Job { isa: threads.isa(), plane, cut, source, grad };
    let out = PtrMut(if shards > 1 { partial.as_mut_ptr() } else { grad_weight.as_mut_ptr() });
    let all = plane.source.c.div_ceil(cut.lanes);
    threads.for_each(shards * cut.splits, |worker, task| {
        // SAFETY: one task a worker at a time.
        let own = unsafe { own.get(worker) };
        let (shard, split) = (task / cut.splits, task % cut.splits);
        let chunks = all * split / cut.splits..all * (split + 1) / cut.splits;
        // SAFETY: each shard has its own part; within it a task writes the rows of its channels.
        let out = PtrMut(unsafe { out.get().add(if shards > 1 { shard * part(plane) } else { 0 }) });
        let [mut add, sharded] = [accumulate, shards > 1];
        add &= !sharded;
        for class in plane.tiling.classes() {
            let tiles = plane.tiling.n * class.tiles();
            let tiles = tiles * shard / shards..tiles * (shard + 1) / shards;
            sum(&job, class, tiles, chunks.clone(), add, out, own);
            add = true;
        }
    });
    if shards > 1 {
        add_shards(threads, partial, part(plane), accumulate, grad_weight);
    }
}

/// The sum over `tiles` of one class, for `chunks` of source channels.
fn sum(
    job: &Job<'_>,
    class: &Class,
    tiles: Range<usize>,
    chunks: Range<usize>,
    add: bool,
    out: PtrMut,
    own: &mut [f32],
) {
    let Job { isa, cut, .. } = *job;
    let (own, _) = carve::<f32>(own, cut.own_floats());
    let (sources, own) = own.split_at_mut(cut.area * cut.source_point());
    let (targets, sums) = own.split_at_mut(cut.area * cut.target_point());
    let block = cut.lanes * cut.width;
    let blocks = tiles.len().div_ceil(cut.tiles);
    for b in 0..blocks.max(1) {
        let at = |b: usize| tiles.start + tiles.len() * b / blocks.max(1);
        let tiles = at(b)..at(b + 1);
        transform_sources(isa, job, class, tiles.clone(), chunks.clone(), sources);
        transform_gradients(isa, job, class, tiles.clone(), targets);
        for point in 0..class.area() {
            for panel in 0..cut.panels {
                for q in 0..chunks.len() {
                    let work = Outer {
                        a: sources[point * cut.source_point() + q * cut.tiles * cut.lanes..].as_ptr(),
                        b: targets[point * cut.target_point() + panel * cut.tiles * cut.width..].as_ptr(),
                        c: sums[point * cut.sum_point() + (q * cut.panels + panel) * block..].as_mut_ptr(),
                        tiles: tiles.len(),
                        rows: cut.lanes.min(job.plane.source.c - (chunks.start + q) * cut.lanes),
                        accumulate: b > 0,
                    };
                    product::outer(isa, &work);
                }
            }
        }
    }
    transform_sums(isa, job, class, chunks, add, sums, out);
}

dispatch!(
    fn transform_sources(job: &Job<'_>, class: &Class, tiles: Range<usize>, chunks: Range<usize>, out: &mut [f32])
        = transform_sources_body
);

#[inline(always)]
fn transform_sources_body<V: Vector>(
    job: &Job<'_>,
    class: &Class,
    tiles: Range<usize>,
    chunks: Range<usize>,
    out: &mut [f32],
) {
    let Job { plane, cut, source, .. } = job;
    let out = &mut out[..class.area() * cut.source_point()];
    // SAFETY: of as many points as there are.
    unsafe {
        super::sources::<V>(
            plane.source,
            plane.pad,
            class,
            tiles,
            chunks,
            cut.tiles,
            cut.source_point(),
            source,
            out.as_mut_ptr(),
        );
    }
}

dispatch!(
    fn transform_gradients(job: &Job<'_>, class: &Class, tiles: Range<usize>, out: &mut [f32])
        = transform_gradients_body
);

#[inline(always)]
fn transform_gradients_body<V: Vector>(job: &Job<'_>, class: &Class, tiles: Range<usize>, out: &mut [f32]) {
    let Job { plane, cut, grad, .. } = job;
    let (shape, width, points) = (plane.target, COLS * V::LANES, class.points());
    let step = cut.target_point();
    let out = out[..class.area() * step].as_mut_ptr();
    let (first, end) = (tiles.start, tiles.end);
    for t in tiles {
        class.ahead(t, end, shape, |at| {
            for c in (0..shape.c).step_by(V::LANES) {
                prefetch(grad.as_ptr().wrapping_add(at + c));
            }
        });
        let [n, y, x] = class.place(t);
        let [h, w] = [class.m[0].min(shape.h - y), class.m[1].min(shape.w - x)];
        for c in (0..cut.panels * width).step_by(V::LANES) {
            let lanes = V::LANES.min(shape.c.saturating_sub(c));
            let from = grad.as_ptr().wrapping_add(((n * shape.h + y) * shape.w + x) * shape.c + c);
            let to = out.wrapping_add(((c / width) * cut.tiles + t - first) * width + c % width);
            // SAFETY: `h · w` positions and `lanes` channels exist; each point has room for all panels of all tiles.
            unsafe {
                let from =
                    Gradients { at: from, row: shape.w * shape.c, column: shape.c, extent: [h, w], lanes };
                let to = Grid { at: to, row: points[1] * step, column: step };
                transform::target_transposed::<V>(class.m, &from, &to);
            }
        }
    }
}

dispatch!(
    fn transform_sums(job: &Job<'_>, class: &Class, chunks: Range<usize>, add: bool, sums: &[f32], out: PtrMut)
        = transform_sums_body
);

#[inline(always)]
fn transform_sums_body<V: Vector>(
    job: &Job<'_>,
    class: &Class,
    chunks: Range<usize>,
    add: bool,
    sums: &[f32],
    out: PtrMut,
) {
    let Job { plane, cut, .. } = job;
    let (points, step, width) = (class.points(), cut.sum_point(), COLS * V::LANES);
    let (rows, columns) = (plane.source.c, plane.target.c);
    let sums = sums[..class.area() * step].as_ptr();
    for (q, chunk) in chunks.enumerate() {
        for row in 0..V::LANES.min(rows - chunk * V::LANES) {
            for c in (0..columns).step_by(V::LANES) {
                let lanes = V::LANES.min(columns - c);
                let block = (q * cut.panels + c / width) * V::LANES + row;
                let from = sums.wrapping_add(block * width + c % width);
                // SAFETY: the sums hold this row for each point, the result holds it for each of nine taps.
                unsafe {
                    let to = out.get().add((chunk * V::LANES + row) * columns + c);
                    let from = Grid::read(from, points[1] * step, step);
                    let to = Weights { at: to, tap: rows * columns, lanes, add };
                    transform::weight_transposed::<V>(class.m, &from, &to);
                }
            }
        }
    }
}

/// Gradients of a tile's targets; those that do not exist are 0.
struct Gradients {
    at: *const f32,
    row: usize,
    column: usize,
    /// Rows and columns that exist.
    extent: [usize; 2],
    lanes: usize,
}

impl<V: Vector> Load<V> for Gradients {
    #[inline(always)]
    unsafe fn load(&self, i: usize, j: usize) -> V {
        if i < self.extent[0] && j < self.extent[1] && self.lanes > 0 {
            // SAFETY: the target exists, with as many channels.
            unsafe { load::<V>(self.at.add(i * self.row + j * self.column), self.lanes) }
        } else {
            V::splat(0.0)
        }
    }
}

/// The gradients of a window's weights.
struct Weights {
    at: *mut f32,
    /// Floats between taps.
    tap: usize,
    lanes: usize,
    /// Whether to add to what is there.
    add: bool,
}

impl<V: Vector> Store<V> for Weights {
    #[inline(always)]
    unsafe fn store(&self, i: usize, j: usize, v: V) {
        // SAFETY: nine taps of as many channels exist.
        unsafe {
            let to = self.at.add((3 * i + j) * self.tap);
            let v = if self.add { v.add(load::<V>(to, self.lanes)) } else { v };
            store::<V>(v, to, self.lanes);
        }
    }
}
