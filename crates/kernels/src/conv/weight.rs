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
const CHUNK: usize = 128;
/// The widest panel.
const WIDEST: usize = 64;
/// Rows of pixels that are worked off together, at most.
const MAX_RUNS: usize = 32;

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
    let own = half_floats(threads.isa(), shape, depth);
    shards + narrow.map_or(0, |narrow| narrow.len()) + threads.count() * own
}

/// Floats of a thread's rounded operands, each tap of `depth` floats: 0 where products are of f32.
fn half_floats(isa: Isa, shape: &ConvShape, depth: usize) -> usize {
    let panels = Panels::new(isa, shape.desc.out_channels);
    // Pairs are of pixels, so that channels may be odd.
    if shape.halves(2) && half::supported(isa) { half::outer_len(depth, panels) } else { 0 }
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
    let own = half_floats(threads.isa(), shape, depth);
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
                sum.add(units.clone(), group, 0..panels.count(), 0..depth, out, own);
            }
        });
        add_shards(threads, partial, part, accumulate, grad_weight);
        return;
    }
    if !accumulate {
        threads.for_chunks(grad_weight, 1 << 16, |_, part| part.fill(0.0));
    }
    // A tile is some panels of columns, some source channels and all taps, which read the same pixels: as wide as leaves
    // enough tiles for many threads, so that the pixels are not read too often.
    let (mut split, mut wide) = (depth.div_ceil(256).max(1), panels.count().div_ceil(4));
    while groups * split * wide < 16 {
        if depth / split > 64 {
            split *= 2;
        } else if wide < panels.count() {
            wide = (2 * wide).min(panels.count());
        } else if depth / split > 16 {
            split *= 2;
        } else {
            break;
        }
    }
    let rows = depth.div_ceil(split).next_multiple_of(8);
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
        }
    }

    /// What pixels are counted in: single ones for a matrix product, else rows of the output.
    fn units(&self) -> usize {
        if self.pointwise { self.output.rows() } else { self.output.n * self.output.h }
    }

    /// Adds the products of the pixels in `units` to a part of the weights at `out`, rounded ones where `own` has room for
    /// them.
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
        let pixels = chunk * if self.pointwise { 1 } else { self.output.w };
        // Rows that are far apart share few places of the first-level cache: where they are read often, a panel of them
        // is copied together.
        let often = self.window[0] * self.window[1] * rows.len() >= 64;
        let halves = !own.is_empty();
        let pack = often && self.panels.count() > 1 && pixels <= CHUNK && !halves;
        let mut packed = [0.0; CHUNK * WIDEST];
        let panels_at_once = if pack { 1 } else { run.len().max(1) };
        for first in units.clone().step_by(chunk) {
            let units = first..(first + chunk).min(units.end);
            let pixel = first * if self.pointwise { 1 } else { self.output.w };
            let grad = &self.grad_out[pixel * self.output.c + group * columns..];
            for panel in run.clone().step_by(panels_at_once) {
                let range = self.panels.range(panel);
                let (b, b_step, b_first) = if pack {
                    let live = range.start..range.end.min(columns);
                    let count = units.len() * pixels / chunk;
                    pack_pixels(self.isa, &grad[live.start..], self.output.c, live.len(), count, &mut packed);
                    (&packed[..], live.len().next_multiple_of(16), range.start)
                } else {
                    (grad, self.output.c, 0)
                };
                for tap in 0..self.window[0] * self.window[1] {
                    let mut runs = [Run { a: std::ptr::null(), b: std::ptr::null(), count: 0 }; MAX_RUNS];
                    let count = self.runs(units.clone(), group, tap, a_step, (b, b_step), &mut runs);
                    if count == 0 {
                        continue;
                    }
                    // SAFETY: the tap's rows and the group's columns lie in the weights.
                    let out = unsafe { out.get().add(tap * self.depth * self.output.c + group * columns) };
                    let work = OuterBlock {
                        runs: &runs[..count],
                        a_step,
                        b_step,
                        b_first,
                        rows: rows.clone(),
                        panels: self.panels,
                        run: panel..panel + panels_at_once,
                        out,
                        out_step: self.output.c,
                        accumulate: true,
                    };
                    if halves { half::outer_block(&work, own) } else { outer_block(self.isa, &work) }
                }
            }
        }
    }

    /// The stretches of pixels in `units` whose source for `tap` is no padding; how many there are. The gradients of the
    /// first pixel of `units` are where `b` starts, those of the next `b_step` further.
    fn runs(
        &self,
        units: Range<usize>,
        group: usize,
        tap: usize,
        a_step: usize,
        (b, b_step): (&[f32], usize),
        runs: &mut [Run],
    ) -> usize {
        let Self { input, output, stride, .. } = self;
        let a0 = group * self.depth;
        if self.pointwise {
            let a = self.x[units.start * input.c + a0..].as_ptr();
            runs[0] = Run { a, b: b.as_ptr(), count: units.len() };
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
            let b = b[((unit - units.start) * output.w + columns.start) * b_step..].as_ptr();
            // Whole rows follow one another without a gap: one long stretch.
            if let Some(last) = count.checked_sub(1).map(|i| &mut runs[i])
                && last.a.wrapping_add(last.count * a_step) == a
                && last.b.wrapping_add(last.count * b_step) == b
            {
                last.count += columns.len();
                continue;
            }
            runs[count] = Run { a, b, count: columns.len() };
            count += 1;
        }
        count
    }
}

dispatch!(
    fn pack_pixels(from: &[f32], step: usize, live: usize, count: usize, to: &mut [f32]) = pack_pixels_body
);

/// Copies `live` columns of `count` pixels that lie `step` apart, each padded to whole cache lines.
#[inline(always)]
fn pack_pixels_body<V: Vector>(from: &[f32], step: usize, live: usize, count: usize, to: &mut [f32]) {
    let width = live.next_multiple_of(16);
    assert!(from.len() >= (count - 1) * step + live && to.len() >= count * width);
    let (mut from, mut to) = (from.as_ptr(), to.as_mut_ptr());
    for _ in 0..count {
        for j in (0..live).step_by(V::LANES) {
            prefetch(from.wrapping_add(16 * step + j));
            // SAFETY: `live` columns of each pixel can be read, and a padded row be written (asserted).
            unsafe { load::<V>(from.add(j), V::LANES.min(live - j)).store(to.add(j)) }
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
