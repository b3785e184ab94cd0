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
use crate::threads::PtrMut;
use crate::tile::{OuterBlock, Run, outer_block};
use crate::{Isa, Threads};

/// Weights with at most this many elements are summed in shards.
const SHARD_MAX: usize = 1 << 16;
/// Pixels that are worked off together: a panel of their gradients stays in the first-level cache.
const CHUNK: usize = 128;
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

pub(super) fn workspace(shape: &ConvShape) -> usize {
    let shards = match shards(shape) {
        1 => 0,
        n => n * crate::lines(shape.weight_len()),
    };
    shards + Narrow::new(shape).map_or(0, |narrow| narrow.len())
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
    if shards > 1 {
        let part = crate::lines(shape.weight_len());
        let partial = &mut workspace[..shards * part];
        let units = sum.units();
        threads.for_chunks(partial, part, |shard, out| {
            out.fill(0.0);
            let units = units * shard / shards..units * (shard + 1) / shards;
            let out = PtrMut(out.as_mut_ptr());
            for group in 0..groups {
                sum.add(units.clone(), group, 0..panels.count(), 0..depth, out);
            }
        });
        add_shards(threads, partial, part, accumulate, grad_weight);
        return;
    }
    if !accumulate {
        threads.for_chunks(grad_weight, 1 << 16, |_, part| part.fill(0.0));
    }
    // A tile is a panel of columns, some source channels and all taps, which read the same pixels: enough tiles for many
    // threads, but wide enough that the pixels are not read too often.
    let tiles = groups * panels.count();
    let split = (tiles * depth / 16).next_multiple_of(8).clamp(16, 64);
    let splits = depth.div_ceil(split);
    let out = PtrMut(grad_weight.as_mut_ptr());
    threads.for_each(tiles * splits, |_, task| {
        let (split_at, task) = (task % splits * split, task / splits);
        let (panel, group) = (task % panels.count(), task / panels.count());
        let rows = split_at..depth.min(split_at + split);
        sum.add(0..sum.units(), group, panel..panel + 1, rows, out);
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

    /// Adds the products of the pixels in `units` to a part of the weights at `out`.
    fn add(&self, units: Range<usize>, group: usize, run: Range<usize>, rows: Range<usize>, out: PtrMut) {
        let columns = self.output.c / self.groups;
        let chunk = if self.pointwise { CHUNK } else { (CHUNK / self.output.w).clamp(1, MAX_RUNS) };
        let a_step = self.input.c * if self.pointwise { 1 } else { self.stride[1] };
        for first in units.clone().step_by(chunk) {
            let units = first..(first + chunk).min(units.end);
            for tap in 0..self.window[0] * self.window[1] {
                let mut runs = [Run { a: std::ptr::null(), b: std::ptr::null(), count: 0 }; MAX_RUNS];
                let count = self.runs(units.clone(), group, tap, a_step, &mut runs);
                if count == 0 {
                    continue;
                }
                // SAFETY: the tap's rows and the group's columns lie in the weights.
                let out = unsafe { out.get().add(tap * self.depth * self.output.c + group * columns) };
                outer_block(
                    self.isa,
                    &OuterBlock {
                        runs: &runs[..count],
                        a_step,
                        b_step: self.output.c,
                        rows: rows.clone(),
                        panels: self.panels,
                        run: run.clone(),
                        out,
                        out_step: self.output.c,
                        accumulate: true,
                    },
                );
            }
        }
    }

    /// The stretches of pixels in `units` whose source for `tap` is no padding; how many there are.
    fn runs(&self, units: Range<usize>, group: usize, tap: usize, a_step: usize, runs: &mut [Run]) -> usize {
        let Self { input, output, stride, .. } = self;
        let (a0, b0) = (group * self.depth, group * output.c / self.groups);
        if self.pointwise {
            let a = self.x[units.start * input.c + a0..].as_ptr();
            let b = self.grad_out[units.start * output.c + b0..].as_ptr();
            runs[0] = Run { a, b, count: units.len() };
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
        for unit in units {
            let (n, oy) = (unit / output.h, unit % output.h);
            let iy = (oy * stride[0]).wrapping_add_signed(dy);
            if iy >= input.h {
                continue;
            }
            let at = |s: &Shape4, y: usize, x: usize| ((n * s.h + y) * s.w + x) * s.c;
            let a = self.x[at(input, iy, ix) + a0..].as_ptr();
            let b = self.grad_out[at(output, oy, columns.start) + b0..].as_ptr();
            // Whole rows follow one another without a gap: one long stretch.
            if let Some(last) = count.checked_sub(1).map(|i| &mut runs[i])
                && last.a.wrapping_add(last.count * a_step) == a
                && last.b.wrapping_add(last.count * output.c) == b
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
