//! Many weights: all tiles are transformed once, for tasks that are ranges of weights. A task's sums stay in a core's caches
//! until they are transformed back.

use super::{Extent, Job, Tiles, multiply, transform_gradients, transform_sources, transform_sums};
use crate::Threads;
use crate::conv::winograd::{Class, Plane};
use crate::scratch::{carve, floats_for};
use crate::threads::{Parts, PtrMut};

/// Tiles that are transformed together, at most: part of the result's definition, as sums are rounded.
const TOGETHER: usize = 256;
/// Chunks of source channels and panels of target channels of a task, at most: transformed, their weights take a mebibyte or
/// so, and each transformed tile is read a few times.
const CHUNKS: usize = 4;
const PANELS: usize = 4;

/// How the work is cut up.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// All channels, and the tiles of a block.
    all: Extent,
    /// Blocks of tiles, one after another.
    blocks: usize,
    /// Ranges of chunks and of panels: a task has one of each.
    ranges: [usize; 2],
}

impl Cut {
    fn new(threads: &Threads, plane: &Plane) -> Self {
        let most = plane.tiling.most();
        let blocks = most.div_ceil(TOGETHER).max(1);
        let all = Extent::of(threads, plane, most.div_ceil(blocks));
        let chunks = all.chunks.div_ceil(CHUNKS);
        // Enough tasks for all threads, as long as there are panels to make them of.
        let panels = all.panels.div_ceil(PANELS).max((4 * threads.count()).div_ceil(chunks));
        Self { all, blocks, ranges: [chunks, panels.min(all.panels)] }
    }

    /// What transformed tiles of `class` take.
    fn extent(&self, plane: &Plane, class: &Class) -> Extent {
        Extent { tiles: (plane.tiling.n * class.tiles()).div_ceil(self.blocks), ..self.all }
    }

    /// Floats of the transformed sources and gradients of a block of `class`.
    fn floats(&self, plane: &Plane, class: &Class) -> [usize; 2] {
        let extent = self.extent(plane, class);
        [extent.source_point(), extent.target_point()].map(|point| class.area() * point)
    }

    /// Floats of a task's sums.
    fn sums(&self, plane: &Plane) -> usize {
        let [chunks, panels] = self.ranges;
        let (chunks, panels) = (self.all.chunks.div_ceil(chunks), self.all.panels.div_ceil(panels));
        plane.tiling.area() * Extent { chunks, panels, ..self.all }.sum_point()
    }
}

/// Floats of workspace that [`run`] needs.
pub(super) fn workspace(threads: &Threads, plane: &Plane) -> usize {
    let cut = Cut::new(threads, plane);
    let tiles = plane.tiling.classes().iter().flat_map(|class| cut.floats(plane, class)).sum();
    floats_for::<f32>(tiles) + threads.count() * floats_for::<f32>(cut.sums(plane))
}

/// Computes the gradient, or adds it.
pub(super) fn run(
    threads: &Threads,
    job: &Job<'_>,
    accumulate: bool,
    grad_weight: &mut [f32],
    workspace: &mut [f32],
) {
    let (plane, classes) = (job.plane, job.plane.tiling.classes());
    let cut = Cut::new(threads, plane);
    let len = classes.iter().flat_map(|class| cut.floats(plane, class)).sum();
    let (transformed, workspace) = carve::<f32>(workspace, len);
    let workspaces = Parts::new(workspace, floats_for::<f32>(cut.sums(plane)));
    let out = PtrMut(grad_weight.as_mut_ptr());
    let ranges = cut.ranges;
    for block in 0..cut.blocks {
        transform(threads, job, &cut, block, transformed);
        threads.for_each(ranges[0] * ranges[1], |worker, task| {
            // SAFETY: one task a worker at a time.
            let (sums, _) = carve::<f32>(unsafe { workspaces.get(worker) }, cut.sums(plane));
            let range = |all: usize, of: usize, i: usize| all * i / of..all * (i + 1) / of;
            let chunks = range(cut.all.chunks, ranges[0], task / ranges[1]);
            let panels = range(cut.all.panels, ranges[1], task % ranges[1]);
            let mut rest = &*transformed;
            for (i, class) in classes.iter().enumerate() {
                let [sources, gradients] = cut.floats(plane, class);
                let (sources, others) = rest.split_at(sources);
                let (gradients, others) = others.split_at(gradients);
                rest = others;
                let count = plane.tiling.part(class, block, cut.blocks).len();
                let tiles = Tiles { extent: cut.extent(plane, class), sources, gradients, count };
                multiply(job, class, tiles, &chunks, &panels, false, sums);
                let add = accumulate || block > 0 || i > 0;
                transform_sums(job.isa, job, class, &chunks, &panels, add, sums, out);
            }
        });
    }
}

/// Transforms the sources and gradients of a block's tiles of all classes.
fn transform(threads: &Threads, job: &Job<'_>, cut: &Cut, block: usize, transformed: &mut [f32]) {
    /// Tiles of a task, of the class that has most.
    const TILES: usize = 8;
    let plane = job.plane;
    let (tasks, out) = (cut.all.tiles.div_ceil(TILES), PtrMut(transformed.as_mut_ptr()));
    threads.for_each(tasks, |_, task| {
        let mut at = 0;
        for class in plane.tiling.classes() {
            let (extent, [sources, gradients]) = (cut.extent(plane, class), cut.floats(plane, class));
            let all = plane.tiling.part(class, block, cut.blocks);
            let first = all.len() * task / tasks;
            let tiles = all.start + first..all.start + all.len() * (task + 1) / tasks;
            // SAFETY: each class has its part of `transformed`, each tile its places in it.
            let [from, to] = unsafe {
                [
                    out.get().add(at + first * extent.lanes),
                    out.get().add(at + sources + first * extent.width()),
                ]
            };
            transform_sources(job.isa, job, class, tiles.clone(), extent, PtrMut(from));
            transform_gradients(job.isa, job, class, tiles, extent, PtrMut(to));
            at += sources + gradients;
        }
    });
}
