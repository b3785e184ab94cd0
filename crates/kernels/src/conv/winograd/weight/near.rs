//! Few weights: shards of the tiles, whose transformed sources, gradients and sums stay in a core's caches.

use super::{Extent, Job, Tiles, multiply, transform_gradients, transform_sources, transform_sums};
use crate::conv::winograd::Plane;
use crate::reduce::add_shards;
use crate::scratch::{carve, floats_for};
use crate::threads::{Parts, PtrMut};
use crate::{Threads, lines};

/// Weights of a tap with at most this many elements are summed in shards of the tiles.
const SHARD_MAX: usize = 1 << 14;
/// Shards, where there are any: part of the result's definition, as sums are rounded.
const SHARDS: usize = 16;
/// Tiles that are transformed together.
const TOGETHER: usize = 32;

/// Into how many shards the tiles are cut: a function of the shape alone.
pub(super) fn shards(plane: &Plane) -> usize {
    if plane.source.c * plane.target.c > SHARD_MAX {
        return 1;
    }
    SHARDS.min(plane.tiling.most().div_ceil(TOGETHER))
}

/// Floats of the transformed sources, gradients and sums of a task.
fn own(plane: &Plane, extent: &Extent) -> [usize; 3] {
    let area = plane.tiling.area();
    [extent.source_point(), extent.target_point(), extent.sum_point()].map(|point| area * point)
}

/// Floats between two shards' results.
fn part(plane: &Plane) -> usize {
    lines(9 * plane.source.c * plane.target.c)
}

/// Floats of workspace that [`run`] needs.
pub(super) fn workspace(threads: &Threads, plane: &Plane) -> usize {
    let own: usize = own(plane, &Extent::of(threads, plane, TOGETHER)).iter().sum();
    shards(plane) * part(plane) + threads.count() * floats_for::<f32>(own)
}

/// Computes the gradient, or adds it.
pub(super) fn run(
    threads: &Threads,
    job: &Job<'_>,
    accumulate: bool,
    grad_weight: &mut [f32],
    workspace: &mut [f32],
) {
    let plane = job.plane;
    let (extent, shards) = (Extent::of(threads, plane, TOGETHER), shards(plane));
    let floats = own(plane, &extent);
    let len = floats.iter().sum();
    let (partial, workspace) = workspace.split_at_mut(shards * part(plane));
    let workspaces = Parts::new(workspace, floats_for::<f32>(len));
    let out = PtrMut(partial.as_mut_ptr());
    threads.for_each(shards, |worker, shard| {
        // SAFETY: one task a worker at a time.
        let (own, _) = carve::<f32>(unsafe { workspaces.get(worker) }, len);
        let (sources, own) = own.split_at_mut(floats[0]);
        let (gradients, sums) = own.split_at_mut(floats[1]);
        // SAFETY: each shard has its own part.
        let out = PtrMut(unsafe { out.get().add(shard * part(plane)) });
        let (chunks, panels) = (0..extent.chunks, 0..extent.panels);
        for (i, class) in plane.tiling.classes().iter().enumerate() {
            let all = plane.tiling.part(class, shard, shards);
            let blocks = all.len().div_ceil(TOGETHER).max(1);
            for b in 0..blocks {
                let at = |b: usize| all.start + all.len() * b / blocks;
                let tiles = at(b)..at(b + 1);
                let count = tiles.len();
                transform_sources(job.isa, job, class, tiles.clone(), extent, PtrMut(sources.as_mut_ptr()));
                transform_gradients(job.isa, job, class, tiles, extent, PtrMut(gradients.as_mut_ptr()));
                let tiles = Tiles { extent, sources, gradients, count };
                multiply(job, class, tiles, &chunks, &panels, b > 0, sums);
            }
            transform_sums(job.isa, job, class, &chunks, &panels, i > 0, sums, out);
        }
    });
    add_shards(threads, partial, part(plane), accumulate, grad_weight);
}
