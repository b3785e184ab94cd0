//! The weight gradient of dense and grouped convolutions: `Σ_pixels xᵀ · grad_out` for each tap.
//!
//! Small weights are summed in shards of the pixels, each into its own copy, which are then added in order; large ones
//! (whose copies would not fit a cache) are cut into tiles, each of which runs over all pixels.

use std::ops::Range;

use defrost_tensor::{ConvKind, Shape4};

use super::ConvShape;
use crate::Threads;
use crate::reduce::add_shards;
use crate::tile::{OuterBlock, Panels, PtrMut, Run, outer_block};

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

pub(super) fn workspace(_: &Threads, shape: &ConvShape) -> usize {
    match shards(shape) {
        1 => 0,
        n => n * crate::lines(shape.weight_len()),
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
    let desc = &shape.desc;
    let taps = desc.kernel[0] * desc.kernel[1];
    let panels = Panels::new(threads.isa(), desc.out_channels / desc.groups);
    let sum = Sum { threads, shape, x, grad_out, panels };
    let shards = shards(shape);
    if shards > 1 {
        let part = crate::lines(shape.weight_len());
        let partial = &mut workspace[..shards * part];
        let units = sum.units();
        threads.for_chunks(partial, part, |shard, out| {
            out.fill(0.0);
            let units = units * shard / shards..units * (shard + 1) / shards;
            let rows = 0..desc.in_channels / desc.groups;
            let out = PtrMut(out.as_mut_ptr());
            for group in 0..desc.groups {
                sum.add(units.clone(), group, 0..taps, 0..panels.count(), rows.clone(), out);
            }
        });
        add_shards(threads, partial, part, accumulate, grad_weight);
        return;
    }
    if !accumulate {
        threads.for_chunks(grad_weight, 1 << 16, |_, part| part.fill(0.0));
    }
    let depth = desc.in_channels / desc.groups;
    let tiles = desc.groups * taps * panels.count();
    // Enough tasks for many threads, but blocks of rows long enough that the gradients are not read too often.
    let splits = (32 / tiles).clamp(1, depth.div_ceil(64));
    let split = depth.div_ceil(splits).next_multiple_of(8);
    let out = PtrMut(grad_weight.as_mut_ptr());
    threads.for_each(tiles * splits, |_, task| {
        let rows = (task % splits * split).min(depth)..((task % splits + 1) * split).min(depth);
        let task = task / splits;
        let (panel, tap) = (task % panels.count(), task / panels.count() % taps);
        let group = task / panels.count() / taps;
        sum.add(0..sum.units(), group, tap..tap + 1, panel..panel + 1, rows, out);
    });
}

/// The operands of the sum.
struct Sum<'a> {
    threads: &'a Threads,
    shape: &'a ConvShape,
    x: &'a [f32],
    grad_out: &'a [f32],
    panels: Panels,
}

impl Sum<'_> {
    fn pointwise(&self) -> bool {
        self.shape.desc.kind() == ConvKind::Pointwise
    }

    /// What pixels are counted in: single ones for a matrix product, else rows of the output.
    fn units(&self) -> usize {
        let out = self.shape.output;
        if self.pointwise() { out.rows() } else { out.n * out.h }
    }

    /// Adds the products of the pixels in `units` to a part of the weights at `out`.
    fn add(
        &self,
        units: Range<usize>,
        group: usize,
        taps: Range<usize>,
        run: Range<usize>,
        rows: Range<usize>,
        out: PtrMut,
    ) {
        let desc = &self.shape.desc;
        let (depth, columns) = (desc.in_channels / desc.groups, desc.out_channels / desc.groups);
        let chunk = if self.pointwise() { CHUNK } else { (CHUNK / self.shape.output.w).clamp(1, MAX_RUNS) };
        let a_step = self.shape.input.c * if self.pointwise() { 1 } else { desc.stride[1] };
        for first in units.clone().step_by(chunk) {
            let units = first..(first + chunk).min(units.end);
            for tap in taps.clone() {
                let mut runs = [Run { a: std::ptr::null(), b: std::ptr::null(), count: 0 }; MAX_RUNS];
                let count = self.runs(units.clone(), group, tap, a_step, &mut runs);
                if count == 0 {
                    continue;
                }
                // SAFETY: the tap's rows and the group's columns lie in the weights.
                let out = unsafe { out.get().add(tap * depth * desc.out_channels + group * columns) };
                outer_block(
                    self.threads.isa(),
                    &OuterBlock {
                        runs: &runs[..count],
                        a_step,
                        b_step: self.shape.output.c,
                        rows: rows.clone(),
                        panels: self.panels,
                        run: run.clone(),
                        out,
                        out_step: desc.out_channels,
                        accumulate: true,
                    },
                );
            }
        }
    }

    /// The stretches of pixels in `units` whose source for `tap` is no padding; how many there are.
    fn runs(&self, units: Range<usize>, group: usize, tap: usize, a_step: usize, runs: &mut [Run]) -> usize {
        let ConvShape { desc, input, output, pads } = self.shape;
        let (a0, b0) = (group * desc.in_channels / desc.groups, group * desc.out_channels / desc.groups);
        if self.pointwise() {
            let a = self.x[units.start * input.c + a0..].as_ptr();
            let b = self.grad_out[units.start * output.c + b0..].as_ptr();
            runs[0] = Run { a, b, count: units.len() };
            return 1;
        }
        let dy = (tap / desc.kernel[1] * desc.dilation[0]) as isize - pads.top as isize;
        let dx = (tap % desc.kernel[1] * desc.dilation[1]) as isize - pads.left as isize;
        let columns = valid(output.w, desc.stride[1], dx, input.w);
        if columns.is_empty() {
            return 0;
        }
        let ix = (columns.start * desc.stride[1]).wrapping_add_signed(dx);
        let mut count = 0usize;
        for unit in units {
            let (n, oy) = (unit / output.h, unit % output.h);
            let iy = (oy * desc.stride[0]).wrapping_add_signed(dy);
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
