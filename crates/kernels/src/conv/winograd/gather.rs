//! Forward pass and input gradient: tiles of sources times transformed weights.

use std::ops::Range;

use super::product::{self, Tiles};
use super::transform::{self, Grid, Store};
use super::{COLS, Class, Plane};
use crate::conv::{Epilogue, bounds};
use crate::scratch::{carve, floats_for};
use crate::simd::{Vector, dispatch, fence, load, prefetch, prefetch_to_write, store, streams};
use crate::threads::{Parts, PtrMut};
use crate::tile::Finish;
use crate::{Isa, Threads, lines};

/// Floats of a task's transformed sources where all transformed weights stay at hand: half of a second-level cache's
/// worth, beside the weights.
const NEAR: usize = 1 << 16;
/// Tiles of a task, at most, where weights are transformed as they are needed, each used that often; and floats of their
/// transformed sources: a core's part of a third-level cache, since every panel reads them anew.
const FAR: usize = 160;
const FAR_FLOATS: usize = 3 << 19;
/// Source channels whose transformed weights are at hand together.
const DEPTH: usize = 128;
/// Transformed weights with at most this many floats are made once, for all tasks.
const SHARED: usize = 1 << 20;

/// How the work is cut up. Nothing here changes a result.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Floats of a vector, and of a panel of target channels.
    lanes: usize,
    width: usize,
    /// Chunks of source channels, and those whose weights are transformed together.
    chunks: usize,
    depth: usize,
    /// Panels of target channels.
    panels: usize,
    /// Blocks of tiles, and ranges of panels.
    blocks: usize,
    splits: usize,
    /// Points of a tile, at most.
    area: usize,
    /// Whether the weights are transformed once.
    shared: bool,
}

impl Cut {
    fn new(threads: &Threads, plane: &Plane) -> Self {
        let lanes = super::lanes(threads.isa());
        let width = COLS * lanes;
        let chunks = plane.source.c.div_ceil(lanes);
        let panels = plane.target.c.div_ceil(width);
        let classes = plane.tiling.classes();
        let (area, most) = (plane.tiling.area(), plane.tiling.most());
        let weights: usize = classes.iter().map(Class::area).sum::<usize>() * chunks * lanes * panels * width;
        let shared = weights <= SHARED;
        let (blocks, splits) = if shared {
            let tiles = (NEAR / (area * chunks * lanes)).max(14);
            (most.div_ceil(tiles).next_multiple_of(threads.count().min(8)).min(most), 1)
        } else {
            let blocks = most.div_ceil(FAR.min(FAR_FLOATS / (area * chunks * lanes)).max(14));
            if blocks < 2 * threads.count() {
                // So many tasks that a thread which is held up holds nobody up.
                (blocks, (8 * threads.count()).div_ceil(blocks).min(panels))
            } else {
                (blocks.next_multiple_of(threads.count().min(8)).min(most), 1)
            }
        };
        let depth = if shared { chunks } else { (DEPTH / lanes).min(chunks) };
        Self { lanes, width, chunks, depth, panels, blocks, splits, area, shared }
    }

    /// Tiles of a block of `class`, at most.
    fn tiles(&self, plane: &Plane, class: &Class) -> usize {
        (plane.tiling.n * class.tiles()).div_ceil(self.blocks)
    }

    /// Floats between two points' transformed sources of `tiles` tiles. The odd line keeps points apart in the caches, whose
    /// places repeat every few KiB.
    fn source_point(&self, tiles: usize) -> usize {
        self.chunks * tiles * self.lanes + 16
    }

    /// Floats of the transformed sources of a block of `class`.
    fn source_block(&self, plane: &Plane, class: &Class) -> usize {
        class.area() * self.source_point(self.tiles(plane, class))
    }

    /// Floats of all transformed sources, where several tasks need the same: they are transformed once.
    fn sources_len(&self, plane: &Plane) -> usize {
        let blocks = plane.tiling.classes().iter().map(|class| self.source_block(plane, class));
        if self.splits > 1 { self.blocks * blocks.sum::<usize>() } else { 0 }
    }

    /// Floats between two points' transformed weights of a panel.
    fn weight_point(&self) -> usize {
        self.depth * self.lanes * self.width + 16
    }

    /// Floats between two points' products of a panel.
    fn product_point(&self, tiles: usize) -> usize {
        tiles * self.width + 16
    }

    /// Floats of a panel's weights of one class, transformed.
    fn weight_panel(&self) -> usize {
        lines(self.area * self.weight_point())
    }

    /// Floats of all weights, transformed, where they are shared.
    fn shared_len(&self, plane: &Plane) -> usize {
        if self.shared { plane.tiling.classes().len() * self.panels * self.weight_panel() } else { 0 }
    }

    /// Floats of a thread's own workspace.
    fn own_floats(&self, plane: &Plane) -> usize {
        let weights = self.window_len() + if self.shared { 0 } else { self.weight_panel() };
        let tiles = |class: &Class| {
            let sources = if self.splits > 1 { 0 } else { self.source_block(plane, class) };
            sources + class.area() * self.product_point(self.tiles(plane, class))
        };
        plane.tiling.classes().iter().map(tiles).max().unwrap_or(0) + weights
    }

    /// Floats of a thread's own workspace wherever it starts.
    fn own_len(&self, plane: &Plane) -> usize {
        floats_for::<f32>(self.own_floats(plane))
    }

    /// Floats of a panel's weights before they are transformed.
    fn window_len(&self) -> usize {
        9 * self.depth * self.lanes * self.width
    }
}

/// Floats of workspace that [`run`] needs.
pub(in crate::conv) fn workspace(threads: &Threads, plane: &Plane) -> usize {
    let cut = Cut::new(threads, plane);
    let shared = [cut.shared_len(plane), cut.sources_len(plane)].map(floats_for::<f32>);
    shared.iter().sum::<usize>() + threads.count() * cut.own_len(plane)
}

/// Everything a task needs.
struct Job<'a> {
    isa: Isa,
    plane: &'a Plane,
    cut: Cut,
    source: &'a [f32],
    weight: &'a [f32],
    /// Transformed, by class and panel, where they are shared.
    shared: &'a [f32],
    /// Transformed, by class and block, where several tasks need the same.
    sources: &'a [f32],
    epilogue: &'a Epilogue<'a>,
    stream: bool,
    accumulate: bool,
    out: PtrMut,
}

/// Runs the convolution, or its input gradient.
#[allow(clippy::too_many_arguments)]
pub(in crate::conv) fn run(
    threads: &Threads,
    plane: &Plane,
    source: &[f32],
    weight: &[f32],
    epilogue: &Epilogue<'_>,
    accumulate: bool,
    target: &mut [f32],
    workspace: &mut [f32],
) {
    let cut = Cut::new(threads, plane);
    assert_eq!((source.len(), target.len()), (plane.source.len(), plane.target.len()), "source and target");
    assert_eq!(weight.len(), 9 * plane.source.c * plane.target.c, "weights");
    let (shared, workspace) = carve::<f32>(workspace, cut.shared_len(plane));
    let (sources, workspace) = carve::<f32>(workspace, cut.sources_len(plane));
    let own = Parts::new(workspace, cut.own_len(plane));
    let classes = plane.tiling.classes();
    if cut.shared {
        let parts = Parts::new(shared, cut.weight_panel());
        threads.for_each(parts.count(), |worker, i| {
            // SAFETY: each task its panel, each worker its workspace.
            let (panel, own) = unsafe { (parts.get(i), own.get(worker)) };
            let (window, _) = carve::<f32>(own, cut.window_len());
            let class = &classes[i / cut.panels];
            transform_weights(
                threads.isa(),
                plane,
                &cut,
                class,
                weight,
                i % cut.panels,
                0..cut.chunks,
                window,
                panel,
            );
        });
    }
    if !sources.is_empty() {
        transform_once(threads, plane, &cut, source, sources);
    }
    let job = Job {
        isa: threads.isa(),
        plane,
        cut,
        source,
        weight,
        shared,
        sources,
        epilogue,
        stream: streams(target, plane.target.c) && plane.target.c.is_multiple_of(cut.lanes),
        accumulate,
        out: PtrMut(target.as_mut_ptr()),
    };
    threads.for_each(cut.splits * cut.blocks * classes.len(), |worker, task| {
        // SAFETY: one task a worker at a time.
        let own = unsafe { own.get(worker) };
        let (class, task) = (task % classes.len(), task / classes.len());
        let (block, split) = (task % cut.blocks, task / cut.blocks);
        let panels = cut.panels * split / cut.splits..cut.panels * (split + 1) / cut.splits;
        block_of_tiles(&job, class, block, panels, own);
    });
}

/// Transforms all sources, for tasks that share them.
fn transform_once(threads: &Threads, plane: &Plane, cut: &Cut, source: &[f32], sources: &mut [f32]) {
    /// Tiles of a task, of the class that has most.
    const TILES: usize = 8;
    let classes = plane.tiling.classes();
    let most = plane.tiling.most().div_ceil(cut.blocks);
    let (tasks, out) = (most.div_ceil(TILES), PtrMut(sources.as_mut_ptr()));
    threads.for_each(tasks * cut.blocks, |_, task| {
        let (block, task) = (task / tasks, task % tasks);
        let mut at = 0;
        for class in classes {
            let (step, len) = (cut.tiles(plane, class), cut.source_block(plane, class));
            let all = plane.tiling.part(class, block, cut.blocks);
            let first = all.len() * task / tasks;
            let tiles = all.start + first..all.start + all.len() * (task + 1) / tasks;
            // SAFETY: each block of a class has its part of `sources`, each tile its places in it.
            let out = PtrMut(unsafe { out.get().add(at + block * len + first * cut.lanes) });
            transform_sources(threads.isa(), plane, cut, class, step, tiles, source, out);
            at += cut.blocks * len;
        }
    });
}

/// A block of tiles of one class, for some panels of target channels.
fn block_of_tiles(job: &Job<'_>, class: usize, block: usize, panels: Range<usize>, own: &mut [f32]) {
    let Job { isa, plane, cut, .. } = job;
    let classes = plane.tiling.classes();
    let (index, class) = (class, &classes[class]);
    let tiles = plane.tiling.part(class, block, cut.blocks);
    if tiles.is_empty() {
        return;
    }
    let (step, len) = (cut.tiles(plane, class), cut.source_block(plane, class));
    let (source_point, product_point) = (cut.source_point(step), cut.product_point(step));
    let (own, _) = carve::<f32>(own, cut.own_floats(plane));
    let (window, own) = own.split_at_mut(cut.window_len());
    let (products, own) = own.split_at_mut(class.area() * product_point);
    let (sources, own) = if cut.splits > 1 {
        let before: usize = classes[..index].iter().map(|class| cut.source_block(plane, class)).sum();
        (&job.sources[cut.blocks * before + block * len..][..len], own)
    } else {
        let (sources, own) = own.split_at_mut(len);
        // SAFETY: for no more than the tiles of a block.
        let out = PtrMut(sources.as_mut_ptr());
        transform_sources(*isa, plane, cut, class, step, tiles.clone(), job.source, out);
        (&*sources, own)
    };
    for panel in panels {
        for first in (0..cut.chunks).step_by(cut.depth) {
            let chunks = first..(first + cut.depth).min(cut.chunks);
            let weights = if cut.shared {
                &job.shared[(index * cut.panels + panel) * cut.weight_panel()..][..cut.weight_panel()]
            } else {
                let weights = &mut own[..cut.weight_panel()];
                transform_weights(
                    *isa,
                    plane,
                    cut,
                    class,
                    job.weight,
                    panel,
                    chunks.clone(),
                    window,
                    weights,
                );
                weights
            };
            for point in 0..class.area() {
                let work = Tiles {
                    a: sources[point * source_point + first * step * cut.lanes..].as_ptr(),
                    tiles_step: step,
                    chunks: chunks.len(),
                    b: weights[point * cut.weight_point()..].as_ptr(),
                    c: products[point * product_point..].as_mut_ptr(),
                    tiles: tiles.len(),
                    accumulate: first > 0,
                };
                product::tiles(*isa, &work);
            }
        }
        transform_targets(*isa, job, class, tiles.clone(), panel, products, product_point);
    }
}

dispatch!(
    fn transform_sources(
        plane: &Plane,
        cut: &Cut,
        class: &Class,
        step: usize,
        tiles: Range<usize>,
        source: &[f32],
        out: PtrMut,
    ) = transform_sources_body
);

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn transform_sources_body<V: Vector>(
    plane: &Plane,
    cut: &Cut,
    class: &Class,
    step: usize,
    tiles: Range<usize>,
    source: &[f32],
    out: PtrMut,
) {
    // SAFETY: the two callers have room for blocks of `step` tiles.
    unsafe {
        super::sources::<V>(
            plane.source,
            plane.pad,
            class,
            tiles,
            0..cut.chunks,
            step,
            cut.source_point(step),
            source,
            out.get(),
        );
    }
}

dispatch!(
    fn transform_weights(plane: &Plane, cut: &Cut, class: &Class, weight: &[f32], panel: usize, chunks: Range<usize>,
        window: &mut [f32], out: &mut [f32]) = transform_weights_body
);

/// Transforms the weights of `chunks` of source channels and one panel of target channels.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn transform_weights_body<V: Vector>(
    plane: &Plane,
    cut: &Cut,
    class: &Class,
    weight: &[f32],
    panel: usize,
    chunks: Range<usize>,
    window: &mut [f32],
    out: &mut [f32],
) {
    let width = COLS * V::LANES;
    let (sources, targets) = (plane.source.c, plane.target.c);
    let (k0, k1) = (chunks.start * V::LANES, (chunks.end * V::LANES).min(sources));
    let columns = panel * width..targets.min((panel + 1) * width);
    let padded = chunks.len() * V::LANES;
    let window = &mut window[..9 * padded * width];
    // The window's weights, rows of one panel: `[tap][source][width]`.
    if columns.len() < width || k1 - k0 < padded {
        window.fill(0.0);
    }
    for tap in 0..9 {
        let to = &mut window[tap * padded * width..][..padded * width];
        if plane.backward {
            let from = &weight[(8 - tap) * sources * targets..][..sources * targets];
            turn::<V>(from, sources, columns.clone(), k0..k1, to);
        } else {
            let from = &weight[tap * sources * targets..][..sources * targets];
            for (k, to) in (k0..k1).zip(to.chunks_exact_mut(width)) {
                prefetch(from.as_ptr().wrapping_add((k + 8) * targets + columns.start));
                to[..columns.len()].copy_from_slice(&from[k * targets..][columns.clone()]);
            }
        }
    }
    let (points, step) = (class.points(), cut.weight_point());
    let out = &mut out[..class.area() * step];
    let (window, out) = (window.as_ptr(), out.as_mut_ptr());
    for at in (0..padded * width).step_by(V::LANES) {
        // SAFETY: `at` is below the length of a tap's weights and of a point's, whose number the slices above have.
        unsafe {
            let from = Grid::read(window.add(at), 3 * padded * width, padded * width);
            let to = Grid { at: out.add(at), row: points[1] * step, column: step };
            transform::weight::<V>(class.m, &from, &to);
        }
    }
}

/// `to[k - ks.start][n - columns.start] = from[n · step + k]`: rows become columns of a panel.
#[inline(always)]
fn turn<V: Vector>(from: &[f32], step: usize, columns: Range<usize>, ks: Range<usize>, to: &mut [f32]) {
    let width = COLS * V::LANES;
    for n in columns.clone().step_by(V::LANES) {
        for k in ks.clone().step_by(V::LANES) {
            let (rows, cols) = (V::LANES.min(columns.end - n), V::LANES.min(ks.end - k));
            let (i, j) = (k - ks.start, n - columns.start);
            if rows == V::LANES && cols == V::LANES {
                let square = &from[n * step + k..][..(V::LANES - 1) * step + V::LANES];
                let to = &mut to[i * width + j..][..(V::LANES - 1) * width + V::LANES];
                // SAFETY: both squares lie in the slices.
                unsafe { V::transpose(square.as_ptr(), step, to.as_mut_ptr(), width) }
                continue;
            }
            for (r, c) in (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))) {
                to[(i + c) * width + j + r] = from[(n + r) * step + k + c];
            }
        }
    }
}

dispatch!(
    fn transform_targets(
        job: &Job<'_>,
        class: &Class,
        tiles: Range<usize>,
        panel: usize,
        products: &[f32],
        step: usize,
    ) = transform_targets_body
);

/// `step` floats lie between two points' products.
#[inline(always)]
fn transform_targets_body<V: Vector>(
    job: &Job<'_>,
    class: &Class,
    tiles: Range<usize>,
    panel: usize,
    products: &[f32],
    step: usize,
) {
    let Job { plane, epilogue, .. } = job;
    let finish = Finish {
        bias: epilogue.bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
        residual: epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
        bounds: bounds(epilogue.activation),
        stream: job.stream,
    };
    let (shape, width, points) = (plane.target, COLS * V::LANES, class.points());
    let products = products[..class.area() * step].as_ptr();
    let (low, high) = (V::splat(finish.bounds.0), V::splat(finish.bounds.1));
    let (first, end) = (tiles.start, tiles.end);
    for t in tiles {
        if !finish.stream {
            class.ahead(t, end, shape, |at| {
                let to = job.out.get().wrapping_add(at + panel * width).cast_const();
                (0..COLS).for_each(|j| prefetch_to_write(to.wrapping_add(j * V::LANES)));
            });
        }
        let [n, y, x] = class.place(t);
        let [h, w] = [class.m[0].min(shape.h - y), class.m[1].min(shape.w - x)];
        for j in 0..COLS {
            let c = panel * width + j * V::LANES;
            if c >= shape.c {
                break;
            }
            let lanes = V::LANES.min(shape.c - c);
            let from = products.wrapping_add((t - first) * width + j * V::LANES);
            let to = ((n * shape.h + y) * shape.w + x) * shape.c + c;
            // SAFETY: the products hold a row of `width` for each point and tile; the targets' positions lie in the target
            // (and residual), `lanes` channels from `c` exist.
            unsafe {
                let bias =
                    if finish.bias.is_null() { V::splat(0.0) } else { load::<V>(finish.bias.add(c), lanes) };
                let from = Grid::read(from, points[1] * step, step);
                let to = Targets { job, finish, extent: [h, w], at: to, bias, low, high, lanes };
                transform::target::<V>(class.m, &from, &to);
            }
        }
    }
    if finish.stream {
        fence();
    }
}

/// Targets of a tile, as they are finished.
struct Targets<'a, V> {
    job: &'a Job<'a>,
    finish: Finish,
    /// Rows and columns of targets that exist.
    extent: [usize; 2],
    /// The first one's place.
    at: usize,
    bias: V,
    low: V,
    high: V,
    lanes: usize,
}

impl<V: Vector> Store<V> for Targets<'_, V> {
    #[inline(always)]
    unsafe fn store(&self, i: usize, j: usize, v: V) {
        if i >= self.extent[0] || j >= self.extent[1] {
            return;
        }
        let Self { job, finish, lanes, .. } = *self;
        let shape = job.plane.target;
        let at = self.at + (i * shape.w + j) * shape.c;
        // SAFETY: the target exists (checked), with as many channels, and the residual is as long as the target.
        unsafe {
            let out = job.out.get().add(at);
            let mut v = v.add(self.bias);
            if job.accumulate {
                v = v.add(load::<V>(out, lanes));
            }
            if !finish.residual.is_null() {
                v = v.add(load::<V>(finish.residual.add(at), lanes));
            }
            v = v.at_least(self.low).at_most(self.high);
            if finish.stream { v.stream(out) } else { store::<V>(v, out, lanes) }
        }
    }
}
