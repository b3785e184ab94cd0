//! Depthwise convolutions: loops over pixels with the channels in vectors.

use super::gather::{Gather, Phase, Tap};
use super::weight::valid;
use super::{ConvShape, Epilogue, bounds};
use crate::Threads;
use crate::reduce::add_shards;
use crate::simd::{Vector, dispatch, fence, load, prefetch, store, streams};
use crate::threads::PtrMut;
use crate::tile::Finish;

/// Target floats of a task, about.
const TASK: usize = 1 << 14;

pub(super) fn run(
    threads: &Threads,
    gather: &Gather,
    source: &[f32],
    weight: &[f32],
    epilogue: &Epilogue<'_>,
    accumulate: bool,
    target: &mut [f32],
) {
    let shape = gather.target;
    let stream = streams(target, shape.c);
    let rows = (TASK / (shape.w * shape.c)).clamp(1, shape.h);
    let tasks = shape.h.div_ceil(rows);
    let out = PtrMut(target.as_mut_ptr());
    threads.for_each(shape.n * tasks, |_, task| {
        let (n, y) = (task / tasks, task % tasks * rows);
        let finish = Finish {
            bias: epilogue.bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            residual: epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
            bounds: bounds(epilogue.activation),
            stream,
        };
        for y in y..(y + rows).min(shape.h) {
            target_row(threads.isa(), &Row { gather, source, weight, finish, accumulate, out, n, y });
        }
    });
}

/// The work of [`target_row`]: row `y` of image `n` of the target.
struct Row<'a> {
    gather: &'a Gather,
    source: &'a [f32],
    weight: &'a [f32],
    finish: Finish,
    accumulate: bool,
    out: PtrMut,
    n: usize,
    y: usize,
}

dispatch!(fn target_row(row: &Row<'_>) = target_row_body);

#[inline(always)]
fn target_row_body<V: Vector>(row: &Row<'_>) {
    let gather = row.gather;
    for phase in &gather.phases {
        if row.y % gather.spread[0] != phase.origin[0] {
            continue;
        }
        let y = row.y / gather.spread[0];
        let mut done = 0;
        if let Some(interior) = interior(gather, phase, y) {
            (0..interior.start).for_each(|x| position::<V>(row, phase, y, x));
            done = match gather.step[1] {
                1 => fours::<V, 1>(row, phase, y, interior),
                _ => fours::<V, 2>(row, phase, y, interior),
            };
        }
        (done..phase.grid[1]).for_each(|x| position::<V>(row, phase, y, x));
    }
    if row.finish.stream {
        fence();
    }
}

/// The positions of a row whose nine sources are all inside, where the fast path for 3×3 windows applies.
#[inline(always)]
fn interior(gather: &Gather, phase: &Phase, y: usize) -> Option<std::ops::Range<usize>> {
    let first = phase.taps.first()?.offset;
    let square = phase.taps.len() == 9
        && phase
            .taps
            .iter()
            .enumerate()
            .all(|(i, t)| t.offset == [first[0] + (i / 3) as isize, first[1] + (i % 3) as isize]);
    let top = (y * gather.step[0]).wrapping_add_signed(first[0]);
    if !square
        || gather.step[1] > 2
        || gather.spread != [1; 2]
        || top >= gather.source.h
        || top + 2 >= gather.source.h
    {
        return None;
    }
    let at = |offset| valid(phase.grid[1], gather.step[1], offset, gather.source.w);
    let (left, right) = (at(first[1]), at(first[1] + 2));
    let range = left.start..right.end;
    (range.start < range.end).then_some(range)
}

/// One target position with whatever taps are inside.
#[inline(always)]
fn position<V: Vector>(row: &Row<'_>, phase: &Phase, y: usize, x: usize) {
    const MAX: usize = 32;
    let (gather, channels) = (row.gather, row.gather.target.c);
    let target = gather.target_at(phase, row.n, y, x);
    let mut pairs = [(std::ptr::null::<f32>(), std::ptr::null::<f32>()); MAX];
    let mut taps: &[Tap] = &phase.taps;
    let (mut first, mut count) = (true, 0);
    loop {
        // In pieces of `MAX` taps: windows beyond 5×5 are rare.
        while let Some((tap, rest)) = taps.split_first().filter(|_| count < MAX) {
            taps = rest;
            if let Some(at) = gather.source_at(tap, row.n, y, x) {
                pairs[count] = (row.source[at..].as_ptr(), row.weight[tap.index * channels..].as_ptr());
                count += 1;
            }
        }
        let last = taps.is_empty();
        let pairs = &pairs[..count];
        for c in (0..channels).step_by(V::LANES) {
            let lanes = V::LANES.min(channels - c);
            // SAFETY: each pointer is valid for the channels, `target` is a position of the target (and residual).
            unsafe {
                let mut acc = V::splat(0.0);
                for &(source, weight) in pairs {
                    acc = load::<V>(source.add(c), lanes).fma(load::<V>(weight.add(c), lanes), acc);
                }
                finish::<V>(row, acc, target + c, c, lanes, row.accumulate || !first, last);
            }
        }
        if last {
            return;
        }
        (first, count) = (false, 0);
    }
}

/// # Safety
/// `lanes` channels from `c` of a target at `at` exist.
#[inline(always)]
unsafe fn finish<V: Vector>(row: &Row<'_>, sum: V, at: usize, c: usize, lanes: usize, add: bool, last: bool) {
    let mut v = sum;
    // SAFETY: the caller's.
    unsafe {
        let out = row.out.get().add(at);
        if add {
            v = v.add(load::<V>(out, lanes));
        }
        if last {
            if !row.finish.bias.is_null() {
                v = v.add(load::<V>(row.finish.bias.add(c), lanes));
            }
            if !row.finish.residual.is_null() {
                v = v.add(load::<V>(row.finish.residual.add(at), lanes));
            }
            let (low, high) = row.finish.bounds;
            v = v.at_least(V::splat(low)).at_most(V::splat(high));
        }
        if row.finish.stream && last { v.stream(out) } else { store::<V>(v, out, lanes) }
    }
}

/// Positions of a 3×3 window, all of whose sources are inside, by fours: each source is loaded once. Returns the first
/// position that is left over.
#[inline(always)]
fn fours<V: Vector, const STEP: usize>(
    row: &Row<'_>,
    phase: &Phase,
    y: usize,
    positions: std::ops::Range<usize>,
) -> usize {
    let (gather, channels) = (row.gather, row.gather.target.c);
    let count = positions.len() / 4 * 4;
    if count == 0 {
        return positions.start;
    }
    let source = |tap: &Tap| {
        let at = gather.source_at(tap, row.n, y, positions.start).expect("the position is interior");
        // The last position's right neighbour is inside as well.
        row.source[at..at + ((count - 1) * STEP + 1) * channels].as_ptr()
    };
    let mut sources: [*const f32; 3] = std::array::from_fn(|i| source(&phase.taps[3 * i]));
    let weights: [*const f32; 9] =
        std::array::from_fn(|i| row.weight[phase.taps[i].index * channels..][..channels].as_ptr());
    let mut target = gather.target_at(phase, row.n, y, positions.start);
    // The rows that the next target row needs first: the hardware does not foresee that many streams.
    let below = gather.source.w * channels;
    let whole = channels / V::LANES * V::LANES;
    for _ in 0..count / 4 {
        let quad = Quad { row, sources, weights, target, channels, below };
        for c in (0..whole).step_by(V::LANES) {
            // SAFETY: `4 · STEP + 3 - STEP` source positions from here are inside, in three rows; four target positions
            // exist from `target` on, each with `V::LANES` channels from `c`.
            unsafe { quad.sum::<V, STEP>(c, V::LANES) }
        }
        if whole < channels {
            // SAFETY: as above, with fewer channels.
            unsafe { quad.sum::<V, STEP>(whole, channels - whole) }
        }
        sources = sources.map(|s| s.wrapping_add(4 * STEP * channels));
        target += 4 * channels;
    }
    positions.start + count
}

/// Four targets side by side and the first of their sources in three rows.
struct Quad<'a> {
    row: &'a Row<'a>,
    sources: [*const f32; 3],
    weights: [*const f32; 9],
    target: usize,
    channels: usize,
    /// Floats of a row of sources.
    below: usize,
}

impl Quad<'_> {
    /// `lanes` channels from `c`.
    ///
    /// # Safety
    /// They exist in all sources, weights and targets.
    #[inline(always)]
    unsafe fn sum<V: Vector, const STEP: usize>(&self, c: usize, lanes: usize) {
        let Self { row, sources, weights, target, channels, below } = *self;
        for s in 0..4 * STEP {
            for r in 1..=STEP {
                prefetch(sources[2].wrapping_add(r * below + s * channels + c));
            }
        }
        // SAFETY: the caller's.
        unsafe {
            let mut acc = [V::splat(0.0); 4];
            for i in 0..3 {
                let w: [V; 3] = std::array::from_fn(|j| load::<V>(weights[3 * i + j].add(c), lanes));
                for s in 0..3 * STEP + 3 {
                    let v = load::<V>(sources[i].add(s * channels + c), lanes);
                    for (o, acc) in acc.iter_mut().enumerate() {
                        if s >= o * STEP && s < o * STEP + 3 {
                            *acc = v.fma(w[s - o * STEP], *acc);
                        }
                    }
                }
            }
            if row.accumulate || !row.finish.residual.is_null() {
                for (o, acc) in acc.into_iter().enumerate() {
                    finish::<V>(row, acc, target + o * channels + c, c, lanes, row.accumulate, true);
                }
                return;
            }
            let bias = row.finish.bias;
            let bias = if bias.is_null() { V::splat(0.0) } else { load::<V>(bias.add(c), lanes) };
            let (low, high) = (V::splat(row.finish.bounds.0), V::splat(row.finish.bounds.1));
            let out = row.out.get().add(target + c);
            for (o, acc) in acc.into_iter().enumerate() {
                let v = acc.add(bias).at_least(low).at_most(high);
                let out = out.add(o * channels);
                if row.finish.stream { v.stream(out) } else { store::<V>(v, out, lanes) }
            }
        }
    }
}

/// How many shards the pixels are summed in: a function of the shape alone.
fn shards(shape: &ConvShape) -> usize {
    (shape.output.n * shape.output.h).min(16)
}

pub(super) fn grad_weight_workspace(shape: &ConvShape) -> usize {
    shards(shape) * crate::lines(shape.weight_len())
}

pub(super) fn grad_weight(
    threads: &Threads,
    shape: &ConvShape,
    x: &[f32],
    grad_out: &[f32],
    accumulate: bool,
    grad_weight: &mut [f32],
    workspace: &mut [f32],
) {
    let (shards, part) = (shards(shape), crate::lines(shape.weight_len()));
    let rows = shape.output.n * shape.output.h;
    let gather = Gather::forward(shape);
    let partial = &mut workspace[..shards * part];
    threads.for_chunks(partial, part, |shard, out| {
        out.fill(0.0);
        let rows = rows * shard / shards..rows * (shard + 1) / shards;
        for row in rows {
            let (n, y) = (row / shape.output.h, row % shape.output.h);
            weight_row(threads.isa(), &WeightRow { gather: &gather, x, grad_out, n, y }, out);
        }
    });
    add_shards(threads, partial, part, accumulate, grad_weight);
}

/// The work of [`weight_row`]: the products of output row `y` of image `n`.
struct WeightRow<'a> {
    gather: &'a Gather,
    x: &'a [f32],
    grad_out: &'a [f32],
    n: usize,
    y: usize,
}

dispatch!(fn weight_row(row: &WeightRow<'_>, out: &mut [f32]) = weight_row_body);

#[inline(always)]
fn weight_row_body<V: Vector>(row: &WeightRow<'_>, out: &mut [f32]) {
    /// Pixels of a row that are worked off for one vector of channels before the next.
    const PIXELS: usize = 16;
    let gather = row.gather;
    let (phase, width) = (&gather.phases[0], gather.target.w);
    let whole = interior(gather, phase, row.y).unwrap_or(0..0);
    taps_apart::<V>(row, 0..whole.start, out);
    for first in whole.clone().step_by(PIXELS) {
        let pixels = first..(first + PIXELS).min(whole.end);
        match gather.step[1] {
            1 => taps_together::<V, 1>(row, pixels, out),
            _ => taps_together::<V, 2>(row, pixels, out),
        }
    }
    taps_apart::<V>(row, whole.end..width, out);
}

/// Pixels of a 3×3 window all of whose sources are inside.
#[inline(always)]
fn taps_together<V: Vector, const STEP: usize>(
    row: &WeightRow<'_>,
    pixels: std::ops::Range<usize>,
    out: &mut [f32],
) {
    let (gather, phase, channels) = (row.gather, &row.gather.phases[0], row.gather.source.c);
    let step = gather.step[1] * channels;
    let out = out[..9 * channels].as_mut_ptr();
    let first = gather.target_at(phase, row.n, row.y, pixels.start);
    let g = row.grad_out[first..first + pixels.len() * channels].as_ptr();
    let sources: [*const f32; 3] = std::array::from_fn(|i| {
        let at = gather.source_at(&phase.taps[3 * i], row.n, row.y, pixels.start);
        let at = at.expect("the pixel is interior");
        row.x[at..at + (pixels.len() - 1) * step + 3 * channels].as_ptr()
    });
    // The rows that the next output row needs first.
    let below = gather.source.w * channels;
    for c in (0..channels).step_by(V::LANES) {
        let lanes = V::LANES.min(channels - c);
        for p in 0..pixels.len() {
            prefetch(g.wrapping_add((gather.target.w + p) * channels + c));
            for s in 0..STEP {
                for r in 1..=gather.step[0].min(2) {
                    prefetch(sources[2].wrapping_add(r * below + p * step + s * channels + c));
                }
            }
        }
        // SAFETY: all nine sources of these pixels are inside, as the slices above check; the window's nine positions
        // are the result's.
        unsafe {
            let mut acc: [V; 9] = std::array::from_fn(|t| load::<V>(out.add(t * channels + c), lanes));
            // By fours, which share sources.
            let fours = pixels.len() / 4 * 4;
            for p in (0..fours).step_by(4) {
                let gs: [V; 4] = std::array::from_fn(|o| load::<V>(g.add((p + o) * channels + c), lanes));
                for i in 0..3 {
                    for s in 0..3 * STEP + 3 {
                        let v = load::<V>(sources[i].add(p * step + s * channels + c), lanes);
                        for (o, &g) in gs.iter().enumerate() {
                            if s >= o * STEP && s < o * STEP + 3 {
                                acc[3 * i + s - o * STEP] = v.fma(g, acc[3 * i + s - o * STEP]);
                            }
                        }
                    }
                }
            }
            for p in fours..pixels.len() {
                let gv = load::<V>(g.add(p * channels + c), lanes);
                for (t, acc) in acc.iter_mut().enumerate() {
                    let source = sources[t / 3].add(p * step + t % 3 * channels + c);
                    *acc = load::<V>(source, lanes).fma(gv, *acc);
                }
            }
            for (t, acc) in acc.into_iter().enumerate() {
                store::<V>(acc, out.add(t * channels + c), lanes);
            }
        }
    }
}

/// Any pixels of any window: tap by tap, those whose source is inside.
#[inline(always)]
fn taps_apart<V: Vector>(row: &WeightRow<'_>, pixels: std::ops::Range<usize>, out: &mut [f32]) {
    let (gather, phase, channels) = (row.gather, &row.gather.phases[0], row.gather.source.c);
    let step = gather.step[1] * channels;
    for tap in &phase.taps {
        let inside = valid(gather.target.w, gather.step[1], tap.offset[1], gather.source.w);
        let (from, to) = (pixels.start.max(inside.start), pixels.end.min(inside.end));
        let Some(at) = gather.source_at(tap, row.n, row.y, from).filter(|_| from < to) else { continue };
        let source = row.x[at..at + (to - from - 1) * step + channels].as_ptr();
        let first = gather.target_at(phase, row.n, row.y, from);
        let g = row.grad_out[first..first + (to - from) * channels].as_ptr();
        let out = &mut out[tap.index * channels..][..channels];
        for c in (0..channels).step_by(V::LANES) {
            let lanes = V::LANES.min(channels - c);
            // SAFETY: this tap's sources of these pixels are inside, as the slices above check.
            unsafe {
                let mut acc = load::<V>(out.as_ptr().add(c), lanes);
                for p in 0..to - from {
                    let gv = load::<V>(g.add(p * channels + c), lanes);
                    acc = load::<V>(source.add(p * step + c), lanes).fma(gv, acc);
                }
                store::<V>(acc, out.as_mut_ptr().add(c), lanes);
            }
        }
    }
}
