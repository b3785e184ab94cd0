//! Batch normalisation (Ioffe and Szegedy, 2015) over the rows of an `[n · h · w, c]` matrix, and its folding into the
//! convolution before it.
//!
//! Statistics are summed in double precision: the variance is a difference of large numbers. Each pass streams over
//! the activation once: one for the statistics, one for the result.

mod fold;
mod grad;
#[cfg(test)]
mod tests;

use defrost_tensor::{Activation, NormDesc, RunningVariance};

pub use fold::{Folded, fold};
pub use grad::{Incoming, Wanted, eval_grad, train_grad};

use crate::Threads;
use crate::conv::bounds;
use crate::reduce::{add_rows, row_shards};
use crate::scratch::{carve, floats_for};
use crate::simd::{Vector, dispatch, fence, load, prefetch, store, streams};

/// Floats that a task of an elementwise pass writes, about.
const TASK: usize = 1 << 14;

fn task_len(channels: usize) -> usize {
    (TASK / channels).max(1) * channels
}

/// Floats of workspace that [`train`], [`train_grad`] and [`eval_grad`] need.
pub fn workspace(rows: usize, channels: usize) -> usize {
    floats_for::<f64>(row_shards(rows) * 2 * channels) + floats_for::<f32>(4 * channels)
}

/// What a channel is normalised with.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Scale, one a channel.
    pub weight: &'a [f32],
    /// Shift, one a channel.
    pub bias: &'a [f32],
}

/// The statistics that [`train`] writes, one a channel.
#[derive(Debug)]
pub struct BatchStats<'a> {
    /// The batch's mean.
    pub mean: &'a mut [f32],
    /// `1 / sqrt(var + eps)` with the batch's biased variance.
    pub inv_std: &'a mut [f32],
    /// Running mean, which takes in the batch's.
    pub running_mean: Option<&'a mut [f32]>,
    /// Running variance, which takes in the batch's as [`NormDesc::running_variance`] says.
    pub running_var: Option<&'a mut [f32]>,
}

/// What is done with what is normalised before it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added before the activation, of the output's length.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

/// Normalises with the batch's statistics: `out = activation((x - mean) · inv_std · weight + bias + residual)`.
///
/// # Panics
/// Where a slice has another length than the others say.
#[allow(clippy::too_many_arguments)]
pub fn train(
    threads: &Threads,
    desc: &NormDesc,
    epilogue: Epilogue<'_>,
    x: &[f32],
    affine: Affine<'_>,
    out: &mut [f32],
    stats: BatchStats<'_>,
    workspace: &mut [f32],
) {
    let c = desc.channels;
    assert_eq!((x.len(), x.len() % c), (out.len(), 0), "input and output");
    assert_eq!((affine.weight.len(), affine.bias.len()), (c, c), "scale and shift");
    assert_eq!((stats.mean.len(), stats.inv_std.len()), (c, c), "statistics");
    let rows = x.len() / c;
    let shards = row_shards(rows);
    let (partial, workspace) = carve::<f64>(workspace, shards * 2 * c);
    threads.for_chunks(partial, 2 * c, |shard, sums| {
        sums.fill(0.0);
        moments(threads.isa(), &x[rows * shard / shards * c..rows * (shard + 1) / shards * c], sums);
    });
    let sums = add_rows(partial, 2 * c);
    let (scale, _) = carve::<f32>(workspace, c);
    let BatchStats { mean, inv_std, mut running_mean, mut running_var } = stats;
    let (count, keep) = (rows as f64, 1.0 - desc.momentum);
    for i in 0..c {
        let m = sums[i] / count;
        // The sums are exact to 2⁻⁵³; only then may the variance come out a hair below 0. `max` would hide NaN.
        let var = sums[c + i] / count - m * m;
        let var = if var < 0.0 { 0.0 } else { var };
        mean[i] = m as f32;
        inv_std[i] = (1.0 / (var + f64::from(desc.eps)).sqrt()) as f32;
        scale[i] = affine.weight[i] * inv_std[i];
        if let Some(running) = &mut running_mean {
            running[i] = keep * running[i] + desc.momentum * mean[i];
        }
        if let Some(running) = &mut running_var {
            let recorded = match desc.running_variance {
                RunningVariance::Biased => var,
                _ => var * count / (count - 1.0).max(1.0),
            };
            running[i] = keep * running[i] + desc.momentum * recorded as f32;
        }
    }
    let coefficients = Coefficients { mean, scale, bias: affine.bias, bounds: bounds(epilogue.activation) };
    apply(threads, &coefficients, x, epilogue.residual, out);
}

/// Normalises with the running statistics, which stay as they are.
///
/// # Panics
/// Where a slice has another length than the others say.
#[allow(clippy::too_many_arguments)]
pub fn eval(
    threads: &Threads,
    desc: &NormDesc,
    epilogue: Epilogue<'_>,
    x: &[f32],
    affine: Affine<'_>,
    running_mean: &[f32],
    running_var: &[f32],
    out: &mut [f32],
    workspace: &mut [f32],
) {
    let c = desc.channels;
    assert_eq!((x.len(), x.len() % c), (out.len(), 0), "input and output");
    assert_eq!((affine.weight.len(), affine.bias.len()), (c, c), "scale and shift");
    assert_eq!((running_mean.len(), running_var.len()), (c, c), "running statistics");
    let (scale, _) = carve::<f32>(workspace, c);
    for (i, s) in scale.iter_mut().enumerate() {
        *s = affine.weight[i] * inv_std(desc, running_var[i]);
    }
    let bounds = bounds(epilogue.activation);
    let coefficients = Coefficients { mean: running_mean, scale, bias: affine.bias, bounds };
    apply(threads, &coefficients, x, epilogue.residual, out);
}

fn inv_std(desc: &NormDesc, var: f32) -> f32 {
    (1.0 / (f64::from(var) + f64::from(desc.eps)).sqrt()) as f32
}

/// Floats of a cache line.
const LINE: usize = 16;

/// How far ahead of what is read, in floats, the next is asked for: a page. Processors foresee several operands side by side only
/// so far.
const AHEAD: usize = 1024;

/// The same where the rows of a block of `block` floats are read side by side: the next block, if that is further.
#[inline(always)]
fn ahead(block: usize) -> usize {
    block.max(AHEAD)
}

/// Adds `Σ x` and `Σ x²` of each channel to the two halves of `sums`.
#[inline(always)]
fn moments_body<V: Vector>(x: &[f32], sums: &mut [f64]) {
    let c = sums.len() / 2;
    let (sum, squares) = sums.split_at_mut(c);
    let ahead = ahead(4 * c);
    let mut quads = x.chunks_exact(4 * c);
    for quad in &mut quads {
        let (a, rest) = quad.split_at(c);
        let (b, rest) = rest.split_at(c);
        let (d, e) = rest.split_at(c);
        let (e, squares, sum) = (&e[..c], &mut squares[..c], &mut sum[..c]);
        for start in (0..c).step_by(LINE) {
            [a, b, d, e].iter().for_each(|row| prefetch(row.as_ptr().wrapping_add(start + ahead)));
            for i in start..(start + LINE).min(c) {
                let v = [f64::from(a[i]), f64::from(b[i]), f64::from(d[i]), f64::from(e[i])];
                sum[i] += (v[0] + v[1]) + (v[2] + v[3]);
                squares[i] += (v[0] * v[0] + v[1] * v[1]) + (v[2] * v[2] + v[3] * v[3]);
            }
        }
    }
    for row in quads.remainder().chunks_exact(c) {
        for i in 0..c {
            let v = f64::from(row[i]);
            sum[i] += v;
            squares[i] += v * v;
        }
    }
}

dispatch!(fn moments(x: &[f32], sums: &mut [f64]) = moments_body);

/// `out = clamp((x - mean) · scale + bias + residual)`.
struct Coefficients<'a> {
    mean: &'a [f32],
    scale: &'a [f32],
    bias: &'a [f32],
    bounds: (f32, f32),
}

fn apply(
    threads: &Threads,
    coefficients: &Coefficients<'_>,
    x: &[f32],
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    assert!(residual.is_none_or(|r| r.len() == out.len()), "residual");
    let c = coefficients.mean.len();
    let (task, stream) = (task_len(c), streams(out, c));
    // What the statistics have read last may still be in a cache.
    threads.for_chunks_back(out, task, |i, out| {
        let span = i * task..i * task + out.len();
        let residual = residual.map(|r| &r[span.clone()]);
        apply_rows(threads.isa(), coefficients, &x[span], residual, stream, out);
    });
}

dispatch!(
    fn apply_rows(
        coefficients: &Coefficients<'_>,
        x: &[f32],
        residual: Option<&[f32]>,
        stream: bool,
        out: &mut [f32],
    ) = apply_body
);

#[inline(always)]
fn apply_body<V: Vector>(
    coefficients: &Coefficients<'_>,
    x: &[f32],
    residual: Option<&[f32]>,
    stream: bool,
    out: &mut [f32],
) {
    let c = coefficients.mean.len();
    let len = out.len();
    let mean = coefficients.mean.as_ptr();
    let (scale, bias) = (coefficients.scale[..c].as_ptr(), coefficients.bias[..c].as_ptr());
    let (low, high) = (V::splat(coefficients.bounds.0), V::splat(coefficients.bounds.1));
    let (x, out) = (x[..len].as_ptr(), out.as_mut_ptr());
    let residual = residual.map(|r| r[..len].as_ptr());
    for row in (0..len / c * c).step_by(c) {
        for i in (0..c).step_by(V::LANES) {
            let (at, lanes) = (row + i, V::LANES.min(c - i));
            // SAFETY: `at + lanes <= len` and `i + lanes <= c`, the lengths of the slices above.
            unsafe {
                prefetch(x.wrapping_add(at + AHEAD));
                if let Some(residual) = residual {
                    prefetch(residual.wrapping_add(at + AHEAD));
                }
                let centred = load::<V>(x.add(at), lanes).sub(load::<V>(mean.add(i), lanes));
                let mut v = centred.fma(load::<V>(scale.add(i), lanes), load::<V>(bias.add(i), lanes));
                if let Some(residual) = residual {
                    v = v.add(load::<V>(residual.add(at), lanes));
                }
                let v = v.at_least(low).at_most(high);
                if stream { v.stream(out.add(at)) } else { store::<V>(v, out.add(at), lanes) }
            }
        }
    }
    if stream {
        fence();
    }
}
