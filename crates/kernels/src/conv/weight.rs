//! The weight gradient of dense and grouped convolutions: `Σ_pixels xᵀ · grad_out` for each tap.
//!
//! Small weights are summed in shards of the pixels, each into its own copy, which are then added in order; large ones
//! (whose copies would not fit a cache) are cut into tiles, each of which runs over all pixels.

use std::ops::Range;

use defrost_tensor::{ConvKind, Shape4};

use super::ConvShape;
use super::narrow::Narrow;
use crate::pack::Panels;
use crate::reduce::add_shards;
use crate::simd::{Vector, dispatch, load, prefetch};
use crate::threads::{Parts, PtrMut};
use crate::tile::{OuterBlock, Run, outer_block};
use crate::{Isa, Threads, half};

/// Weights with at most this many elements are summed in shards.
const SHARD_MAX: usize = 1 << 16;
/// Pixels that are worked off together: a panel of their gradients stays in the first-level cache.
const CHUNK: usize = half::PIXELS;
/// The widest panel.
const WIDEST: usize = 64;
/// Rows of pixels that are worked off together, at most.
const MAX_RUNS: usize = 32;
/// Source channels of a part of the weights that is summed at once, and panels of columns: they and what they are summed
/// from fit into a second-level cache.
const ROWS: usize = 256;
const PANELS: usize = 4;
/// Source channels that are copied together: a cache line's.
const A_WIDTH: usize = 16;
/// Floats of a chunk's pixels for as many channels, and of a panel of their gradients. The odd line keeps them apart in the
/// caches, whose places repeat every few KiB.
const A_BLOCK: usize = CHUNK * A_WIDTH + 16;
const B_PANEL: usize = CHUNK * WIDEST + 16;
/// Floats of a chunk's copied sources.
const A_PACKED: usize = ROWS / A_WIDTH * A_BLOCK;

/// How many shards there are: a function of the shape alone.
fn shards(shape: &ConvShape) -> usize {
    if shape.weight_len() > SHARD_MAX {
        return 1;
    }
    let useful = shape.output.rows().div_ceil(2 * CHUNK);
    ((1 << 18) / shape.weight_len()).clamp(8, 32).min(useful)
}

pub(super) fn workspace(threads: &Threads, shape: &ConvShape) -> usize {
    let shards = match shards(shape) {
        1 => 0,
        n => n * crate::lines(shape.weight_len()),
    };
    let narrow = Narrow::new(shape);
    let depth = narrow.map_or(shape.desc.in_channels, |narrow| narrow.depth);
    let own = own_floats(threads.isa(), shape, depth);
    shards + narrow.map_or(0, |narrow| narrow.len()) + threads.count() * own
}

/// Whether products are of rounded operands. Pairs are of pixels, so that channels may be odd. Gradients of rows that are too
/// long to be kept are rounded for each tap anew, which only many channels are worth.
fn halves(isa: Isa, shape: &ConvShape) -> bool {
    let taps = shape.desc.kernel[0] * shape.desc.kernel[1];
    let worth = taps == 1 || shape.output.w <= CHUNK || shape.desc.in_channels >= 256;
    shape.halves(2) && half::supported(isa) && worth
}

/// Floats of a thread's copied operands, each tap of `depth` floats.
fn own_floats(isa: Isa, shape: &ConvShape, depth: usize) -> usize {
    let panels = Panels::new(isa, shape.desc.out_channels);
    if halves(isa, shape) {
        half::outer_len(depth, panels)
    } else {
        crate::lines(A_PACKED + PANELS * B_PANEL)
    }
}

pub(super) fn run(
    threads: &Threads,
    shape: &ConvShape,
    x: &[f32],
    grad_out: &[f32],
    accumulate: bool,
    grad_weight: &mut [f32],
    workspace: &mut [f32],
) {
    let Some(narrow) = Narrow::new(shape) else {
        let sum = Sum::new(threads.isa(), shape, x, grad_out);
        return run_sum(threads, shape, &sum, accumulate, grad_weight, workspace);
    };
    let (padded, workspace) = workspace.split_at_mut(narrow.len());
    narrow.pad(threads, shape, x, padded);
    // A row of the window is one tap over more channels.
    let sum = Sum {
        x: padded,
        input: narrow.padded,
        window: [shape.desc.kernel[0], 1],
        first: [0; 2],
        depth: narrow.depth,
        ..Sum::new(threads.isa(), shape, x, grad_out)
    };
    run_sum(threads, shape, &sum, accumulate, grad_weight, workspace);
}

fn run_sum(
    threads: &Threads,
    shape: &ConvShape,
    sum: &Sum<'_>,
    accumulate: bool,
    grad_weight: &mut [f32],
    workspace: &mut [f32],
) {
    let (groups, depth, panels) = (sum.groups, sum.depth, sum.panels);
    let shards = shards(shape);
    let own = own_floats(threads.isa(), shape, depth);
    let (own, workspace) = workspace.split_at_mut(threads.count() * own);
    let own = Parts::new(own, own.len() / threads.count());
    if shards > 1 {
        let part = crate::lines(shape.weight_len());
        let partial = &mut workspace[..shards * part];
        let units = sum.units();
        let parts = Parts::new(partial, part);
        threads.for_each(shards, |worker, shard| {
            // SAFETY: one task a worker at a time, and each shard once.
            let (own, out) = unsafe { (own.get(worker), parts.get(shard)) };
            out.fill(0.0);
            let units = units * shard / shards..units * (shard + 1) / shards;
            let out = PtrMut(out.as_mut_ptr());
            for group in 0..groups {
                for panel in (0..panels.count()).step_by(PANELS) {
                    let run = panel..(panel + PANELS).min(panels.count());
                    for row in (0..depth).step_by(ROWS) {
                        let rows = row..(row + ROWS).min(depth);
                        sum.add(units.clone(), group, run.clone(), rows, out, own);
                    }
                }
            }
        });
        add_shards(threads, partial, part, accumulate, grad_weight);
        return;
    }
    if !accumulate {
        threads.for_chunks(grad_weight, 1 << 16, |_, part| part.fill(0.0));
    }
    // A tile is some panels of columns, some source channels and all taps, which read the same pixels: as wide as leaves
    // enough tiles for all threads, so that the pixels are not read too often.
    let (mut split, mut wide) = (depth.div_ceil(ROWS), panels.count().div_ceil(PANELS));
    while groups * split * wide < 4 * threads.count() {
        if depth / split > 64 {
            split *= 2;
        } else if wide < panels.count() {
            wide = (2 * wide).min(panels.count());
        } else if depth / split > A_WIDTH {
            split *= 2;
        } else {
            break;
        }
    }
    let rows = depth.div_ceil(split).next_multiple_of(A_WIDTH);
    let out = PtrMut(grad_weight.as_mut_ptr());
    threads.for_each(groups * split * wide, |worker, task| {
        let (row, task) = ((task % split * rows).min(depth), task / split);
        let (part, group) = (task % wide, task / wide);
        let run = panels.count() * part / wide..panels.count() * (part + 1) / wide;
        // SAFETY: one task a worker at a time.
        let own = unsafe { own.get(worker) };
        sum.add(0..sum.units(), group, run, row..depth.min(row + rows), out, own);
    });
}

/// The operands of the sum and their geometry.
#[derive(Clone, Copy)]
struct Sum<'a> {
    isa: Isa,
    x: &'a [f32],
    grad_out: &'a [f32],
    input: Shape4,
    output: Shape4,
    /// Rows and columns of taps.
    window: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// Where the first tap of the first output lies: minus the padding.
    first: [isize; 2],
    groups: usize,
    /// Source floats of a tap a group.
    depth: usize,
    panels: Panels,
    /// Whether the sum is a plain matrix product.
    pointwise: bool,
    /// Whether products are of rounded operands.
    halves: bool,
}

impl<'a> Sum<'a> {
    fn new(isa: Isa, shape: &ConvShape, x: &'a [f32], grad_out: &'a [f32]) -> Self {
        let ConvShape { desc, input, output, pads, .. } = *shape;
        Self {
            isa,
            x,
            grad_out,
            input,
            output,
            window: desc.kernel,
            stride: desc.stride,
            dilation: desc.dilation,
            first: [-(pads.top as isize), -(pads.left as isize)],
            groups: desc.groups,
            depth: desc.in_channels / desc.groups,
            panels: Panels::new(isa, desc.out_channels / desc.groups),
            pointwise: desc.kind() == ConvKind::Pointwise,
            halves: halves(isa, shape),
        }
    }

    /// What pixels are counted in: single ones for a matrix product, else rows of the output.
    fn units(&self) -> usize {
        if self.pointwise { self.output.rows() } else { self.output.n * self.output.h }
    }

    /// Adds the products of the pixels in `units` to a part of the weights at `out`: at most [`PANELS`] and [`ROWS`], whose
    /// first is a multiple of [`A_WIDTH`].
    fn add(
        &self,
        units: Range<usize>,
        group: usize,
        run: Range<usize>,
        rows: Range<usize>,
        out: PtrMut,
        own: &mut [f32],
    ) {
        let columns = self.output.c / self.groups;
        let chunk = if self.pointwise { CHUNK } else { (CHUNK / self.output.w).clamp(1, MAX_RUNS) };
        let a_step = self.input.c * if self.pointwise { 1 } else { self.stride[1] };
        let a_unit = if self.pointwise { 1 } else { self.output.w };
        let taps = self.window[0] * self.window[1];
        // Pixels that are far apart share few places of the first-level cache: where they are read often, those of a chunk
        // are copied together.
        let fits = chunk * a_unit <= CHUNK;
        let pack = !self.halves && taps * rows.len() >= 64 && columns > 16 && fits;
        // Rounded gradients of a chunk's pixels are shared by all taps.
        let keep = self.halves && !self.pointwise && fits;
        let (packed_a, packed_b) = own.split_at_mut(if pack { A_PACKED } else { 0 });
        for first in units.clone().step_by(chunk) {
            let units = first..(first + chunk).min(units.end);
            let (pixel, pixels) = (first * a_unit, units.len() * a_unit);
            let grad = &self.grad_out[pixel * self.output.c + group * columns..];
            let whole = OuterBlock {
                runs: &[],
                a_step: if pack { A_WIDTH } else { a_step },
                a_block: if pack { A_BLOCK } else { A_WIDTH },
                b_step: self.output.c,
                b_first: 0,
                rows: rows.clone(),
                panels: self.panels,
                run: run.clone(),
                out: out.get(),
                out_step: self.output.c,
                accumulate: true,
            };
            if keep {
                // SAFETY: the chunk's pixels.
                unsafe { half::round_gradients(&whole, grad.as_ptr(), pixels, packed_b) }
            }
            if pack {
                for (panel, to) in run.clone().zip(packed_b.chunks_exact_mut(B_PANEL)) {
                    let range = self.panels.range(panel);
                    let live = range.start..range.end.min(columns);
                    pack_pixels(self.isa, &grad[live.start..], self.output.c, live.len(), pixels, 0, to);
                }
            }
            for tap in 0..taps {
                let mut found = [Stretch { a: std::ptr::null(), pixel: 0, count: 0 }; MAX_RUNS];
                let count = self.stretches(units.clone(), group, tap, a_step, &mut found);
                let found = &mut found[..count];
                if found.is_empty() {
                    continue;
                }
                if pack {
                    self.pack_sources(found, a_step, rows.clone(), packed_a);
                }
                // SAFETY: the tap's rows and the group's columns lie in the weights.
                let out = unsafe { out.get().add(tap * self.depth * self.output.c + group * columns) };
                let whole = OuterBlock { out, ..whole.clone() };
                if keep {
                    let mut sources = [std::ptr::null(); CHUNK];
                    for s in &*found {
                        for (i, source) in sources[s.pixel..][..s.count].iter_mut().enumerate() {
                            *source = s.a.wrapping_add(i * a_step);
                        }
                    }
                    // SAFETY: stretches lie in the source, with as many channels as the weights have rows.
                    unsafe { half::tap_block(&whole, &sources[..pixels], packed_b) }
                    continue;
                }
                let mut runs = [Run { a: std::ptr::null(), b: std::ptr::null(), count: 0 }; MAX_RUNS];
                let mut runs = |b: &[f32], step: usize| {
                    for (run, s) in runs.iter_mut().zip(&*found) {
                        *run = Run { a: s.a, b: b[s.pixel * step..].as_ptr(), count: s.count };
                    }
                    runs
                };
                if !pack {
                    let work = OuterBlock { runs: &runs(grad, self.output.c)[..count], ..whole };
                    if self.halves {
                        half::outer_block(&work, packed_b)
                    } else {
                        outer_block(self.isa, &work)
                    }
                    continue;
                }
                for (panel, b) in run.clone().zip(packed_b.chunks_exact(B_PANEL)) {
                    let range = self.panels.range(panel);
                    let b_step = (range.end.min(columns) - range.start).next_multiple_of(16);
                    let runs = &runs(b, b_step)[..count];
                    let run = panel..panel + 1;
                    outer_block(
                        self.isa,
                        &OuterBlock { runs, b_step, b_first: range.start, run, ..whole.clone() },
                    );
                }
            }
        }
    }

    /// Copies `rows` of the stretches' pixels together, [`A_WIDTH`] rows of all pixels after another, and lets the
    /// stretches start there.
    fn pack_sources(&self, found: &mut [Stretch], a_step: usize, rows: Range<usize>, to: &mut [f32]) {
        let mut pixel = 0;
        for stretch in found {
            // SAFETY: the stretch's pixels lie in the source, `a_step` apart, with as many channels.
            let from = unsafe {
                std::slice::from_raw_parts(
                    stretch.a.add(rows.start),
                    (stretch.count - 1) * a_step + rows.len(),
                )
            };
            let to = &mut to[pixel * A_WIDTH..];
            pack_pixels(self.isa, from, a_step, rows.len(), stretch.count, A_BLOCK, to);
            // The block's rows are counted from the convolution's first.
            stretch.a = to.as_ptr().wrapping_sub(rows.start / A_WIDTH * A_BLOCK);
            pixel += stretch.count;
        }
    }

    /// The stretches of pixels in `units` whose source for `tap` is no padding; how many there are.
    fn stretches(
        &self,
        units: Range<usize>,
        group: usize,
        tap: usize,
        a_step: usize,
        found: &mut [Stretch],
    ) -> usize {
        let Self { input, output, stride, .. } = self;
        let a0 = group * self.depth;
        if self.pointwise {
            let a = self.x[units.start * input.c + a0..].as_ptr();
            found[0] = Stretch { a, pixel: 0, count: units.len() };
            return 1;
        }
        let dy = self.first[0] + (tap / self.window[1] * self.dilation[0]) as isize;
        let dx = self.first[1] + (tap % self.window[1] * self.dilation[1]) as isize;
        let columns = valid(output.w, stride[1], dx, input.w);
        if columns.is_empty() {
            return 0;
        }
        let ix = (columns.start * stride[1]).wrapping_add_signed(dx);
        let mut count = 0usize;
        for unit in units.clone() {
            let (n, oy) = (unit / output.h, unit % output.h);
            let iy = (oy * stride[0]).wrapping_add_signed(dy);
            if iy >= input.h {
                continue;
            }
            let a = self.x[((n * input.h + iy) * input.w + ix) * input.c + a0..].as_ptr();
            let pixel = (unit - units.start) * output.w + columns.start;
            // Whole rows follow one another without a gap: one long stretch.
            if let Some(last) = count.checked_sub(1).map(|i| &mut found[i])
                && last.a.wrapping_add(last.count * a_step) == a
                && last.pixel + last.count == pixel
            {
                last.count += columns.len();
                continue;
            }
            found[count] = Stretch { a, pixel, count: columns.len() };
            count += 1;
        }
        count
    }
}

/// Pixels whose sources for a tap lie one step apart.
#[derive(Clone, Copy)]
struct Stretch {
    /// The first one's source.
    a: *const f32,
    /// The first one's place among the pixels of a chunk.
    pixel: usize,
    count: usize,
}

dispatch!(
    fn pack_pixels(from: &[f32], step: usize, live: usize, count: usize, block: usize, to: &mut [f32])
        = pack_pixels_body
);

/// Copies `live` columns of `count` pixels that lie `step` apart: each padded to whole cache lines, or, where `block` is not 0,
/// [`A_WIDTH`] columns of all pixels together, the next ones `block` floats further.
#[inline(always)]
fn pack_pixels_body<V: Vector>(
    from: &[f32],
    step: usize,
    live: usize,
    count: usize,
    block: usize,
    to: &mut [f32],
) {
    // How far apart two pixels lie, and two times as many columns as a line holds.
    let (width, lines) = if block > 0 { (A_WIDTH, block) } else { (live.next_multiple_of(16), 16) };
    assert!(from.len() >= (count - 1) * step + live);
    assert!(to.len() >= (count - 1) * width + (live - 1) / 16 * lines + 16);
    let (mut from, mut to) = (from.as_ptr(), to.as_mut_ptr());
    for _ in 0..count {
        for j in (0..live).step_by(V::LANES) {
            prefetch(from.wrapping_add(16 * step + j));
            // SAFETY: `live` columns of each pixel can be read, and whole lines of them be written (asserted).
            unsafe {
                let to = to.add(j / 16 * lines + j % 16);
                load::<V>(from.add(j), V::LANES.min(live - j)).store(to);
            }
        }
        (from, to) = (from.wrapping_add(step), to.wrapping_add(width));
    }
}

/// The outputs `o` below `outputs` for which `o · stride + offset` lies in `0..inputs`.
pub(super) fn valid(outputs: usize, stride: usize, offset: isize, inputs: usize) -> Range<usize> {
    let start = (-offset).max(0).unsigned_abs().div_ceil(stride);
    let end = inputs.saturating_add_signed(-offset).div_ceil(stride).min(outputs);
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::valid;

    #[test]
    fn valid_outputs_are_those_inside() {
        for outputs in 1..6 {
            for stride in 1..4 {
                for offset in -5isize..6 {
                    for inputs in 1..8usize {
                        let want: Vec<usize> = (0..outputs)
                            .filter(|o| (0..inputs as isize).contains(&((o * stride) as isize + offset)))
                            .collect();
                        let got: Vec<usize> = valid(outputs, stride, offset, inputs).collect();
                        assert_eq!(got, want, "{outputs} {stride} {offset} {inputs}");
                    }
                }
            }
        }
    }
}
