//! The weight gradient: transformed sources times transformed gradients of the targets, summed over all tiles.
//!
//! Few weights are summed in shards of the tiles, each with its own ([`near`]); where there are many, all tiles are transformed
//! once, and tasks are ranges of weights ([`wide`]).

mod near;
mod wide;

use std::ops::Range;

use super::product::{self, Outer};
use super::transform::{self, Grid, Load, Store};
use super::{COLS, Class, Plane};
use crate::simd::{Vector, dispatch, load, prefetch, store};
use crate::threads::PtrMut;
use crate::{Isa, Threads};

/// Floats of workspace that [`run`] needs.
pub(in crate::conv) fn workspace(threads: &Threads, plane: &Plane) -> usize {
    if near::shards(plane) > 1 { near::workspace(threads, plane) } else { wide::workspace(threads, plane) }
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
    assert_eq!((source.len(), grad.len()), (plane.source.len(), plane.target.len()), "source and gradient");
    assert_eq!(grad_weight.len(), 9 * plane.source.c * plane.target.c, "weight gradient");
    let run = if near::shards(plane) > 1 { near::run } else { wide::run };
    let job = Job { isa: threads.isa(), plane, source, grad };
    run(threads, &job, accumulate, grad_weight, workspace);
}

/// What all tasks need.
#[derive(Clone, Copy)]
struct Job<'a> {
    isa: Isa,
    plane: &'a Plane,
    source: &'a [f32],
    grad: &'a [f32],
}

/// Chunks of source channels, panels of target channels, and tiles at most that are at hand together.
#[derive(Clone, Copy, Debug)]
struct Extent {
    chunks: usize,
    panels: usize,
    tiles: usize,
    /// Floats of a chunk, which is a vector.
    lanes: usize,
}

impl Extent {
    /// All channels of `plane`, and `tiles` tiles.
    fn of(threads: &Threads, plane: &Plane, tiles: usize) -> Self {
        let lanes = super::lanes(threads.isa());
        let (chunks, panels) = (plane.source.c.div_ceil(lanes), plane.target.c.div_ceil(COLS * lanes));
        Self { chunks, panels, tiles, lanes }
    }

    /// Floats of a panel.
    fn width(&self) -> usize {
        COLS * self.lanes
    }

    /// Floats between two points' transformed sources, gradients and sums; odd lines apart, see [`gather`](super::gather).
    fn source_point(&self) -> usize {
        self.chunks * self.tiles * self.lanes + 16
    }

    fn target_point(&self) -> usize {
        self.panels * self.tiles * self.width() + 16
    }

    fn sum_point(&self) -> usize {
        self.chunks * self.panels * self.lanes * self.width() + 16
    }
}

/// Transformed sources and gradients of some tiles of a class.
#[derive(Clone, Copy)]
struct Tiles<'a> {
    extent: Extent,
    sources: &'a [f32],
    gradients: &'a [f32],
    /// How many there are.
    count: usize,
}

/// The sums over `tiles`, for ranges of chunks and panels, or what is to be added to them.
fn multiply(
    job: &Job<'_>,
    class: &Class,
    tiles: Tiles<'_>,
    chunks: &Range<usize>,
    panels: &Range<usize>,
    accumulate: bool,
    sums: &mut [f32],
) {
    let Tiles { extent, sources, gradients, count } = tiles;
    let (lanes, width) = (extent.lanes, extent.width());
    let of = Extent { chunks: chunks.len(), panels: panels.len(), ..extent };
    for point in 0..class.area() {
        let sums = &mut sums[point * of.sum_point()..][..of.sum_point()];
        for panel in panels.clone() {
            for q in chunks.clone() {
                let at = (q - chunks.start) * of.panels + panel - panels.start;
                let work = Outer {
                    a: sources[point * extent.source_point() + q * extent.tiles * lanes..].as_ptr(),
                    b: gradients[point * extent.target_point() + panel * extent.tiles * width..].as_ptr(),
                    c: sums[at * lanes * width..].as_mut_ptr(),
                    tiles: count,
                    rows: lanes.min(job.plane.source.c - q * lanes),
                    accumulate,
                };
                product::outer(job.isa, &work);
            }
        }
    }
}

dispatch!(
    fn transform_sources(job: &Job<'_>, class: &Class, tiles: Range<usize>, extent: Extent, out: PtrMut)
        = transform_sources_body
);

/// The callers have room for the tiles.
#[inline(always)]
fn transform_sources_body<V: Vector>(
    job: &Job<'_>,
    class: &Class,
    tiles: Range<usize>,
    extent: Extent,
    out: PtrMut,
) {
    let (plane, point) = (job.plane, extent.source_point());
    // SAFETY: as said.
    unsafe {
        super::sources::<V>(
            plane.source,
            plane.pad,
            class,
            tiles,
            0..extent.chunks,
            extent.tiles,
            point,
            job.source,
            out.get(),
        );
    }
}

dispatch!(
    fn transform_gradients(job: &Job<'_>, class: &Class, tiles: Range<usize>, extent: Extent, out: PtrMut)
        = transform_gradients_body
);

/// The callers have room for the tiles.
#[inline(always)]
fn transform_gradients_body<V: Vector>(
    job: &Job<'_>,
    class: &Class,
    tiles: Range<usize>,
    extent: Extent,
    out: PtrMut,
) {
    let Job { plane, grad, .. } = job;
    let (shape, width, points) = (plane.target, COLS * V::LANES, class.points());
    let (step, out) = (extent.target_point(), out.get());
    let (first, end) = (tiles.start, tiles.end);
    for t in tiles {
        class.ahead(t, end, shape, |at| {
            for c in (0..shape.c).step_by(V::LANES) {
                prefetch(grad.as_ptr().wrapping_add(at + c));
            }
        });
        let [n, y, x] = class.place(t);
        let [h, w] = [class.m[0].min(shape.h - y), class.m[1].min(shape.w - x)];
        for c in (0..extent.panels * width).step_by(V::LANES) {
            let lanes = V::LANES.min(shape.c.saturating_sub(c));
            let from = grad.as_ptr().wrapping_add(((n * shape.h + y) * shape.w + x) * shape.c + c);
            let to = out.wrapping_add(((c / width) * extent.tiles + t - first) * width + c % width);
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
    fn transform_sums(
        job: &Job<'_>,
        class: &Class,
        chunks: &Range<usize>,
        panels: &Range<usize>,
        add: bool,
        sums: &[f32],
        out: PtrMut,
    ) = transform_sums_body
);

/// Writes the weights' gradients of `chunks` and `panels` from their sums, or adds them; nobody else writes those.
#[inline(always)]
fn transform_sums_body<V: Vector>(
    job: &Job<'_>,
    class: &Class,
    chunks: &Range<usize>,
    panels: &Range<usize>,
    add: bool,
    sums: &[f32],
    out: PtrMut,
) {
    let of = Extent { chunks: chunks.len(), panels: panels.len(), tiles: 0, lanes: V::LANES };
    let (points, step, width) = (class.points(), of.sum_point(), of.width());
    let (rows, columns) = (job.plane.source.c, job.plane.target.c);
    let sums = sums[..class.area() * step].as_ptr();
    for (q, chunk) in chunks.clone().enumerate() {
        for row in 0..V::LANES.min(rows - chunk * V::LANES) {
            for c in (panels.start * width..columns.min(panels.end * width)).step_by(V::LANES) {
                let lanes = V::LANES.min(columns - c);
                let block = (q * of.panels + c / width - panels.start) * V::LANES + row;
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
