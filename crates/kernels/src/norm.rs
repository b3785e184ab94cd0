//! Batch normalisation (Ioffe and Szegedy, 2015) over the rows of an `[n · h · w, c]` matrix, and its folding into the
//! convolution before it.
//!
//! Statistics are summed in double precision: the variance is a difference of large numbers. Each pass streams over
//! the activation once: one for the statistics, one for the result.

use defrost_tensor::{Activation, NormDesc, RunningVariance};

use crate::Threads;
use crate::conv::bounds;
use crate::reduce::row_shards;
use crate::scratch::{carve, floats_for};
use crate::simd::{Vector, dispatch, madd};

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

/// Normalises with the batch's statistics: `out = activation((x - mean) · inv_std · weight + bias)`.
///
/// # Panics
/// Where a slice has another length than the others say.
#[allow(clippy::too_many_arguments)]
pub fn train(
    threads: &Threads,
    desc: &NormDesc,
    activation: Activation,
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
    let sum = |i: usize| partial.iter().skip(i).step_by(2 * c).sum::<f64>();
    let (scale, _) = carve::<f32>(workspace, c);
    let BatchStats { mean, inv_std, mut running_mean, mut running_var } = stats;
    let (count, keep) = (rows as f64, 1.0 - desc.momentum);
    for i in 0..c {
        let m = sum(i) / count;
        // The sums are exact to 2⁻⁵³; only then may the variance come out a hair below 0. `max` would hide NaN.
        let var = sum(c + i) / count - m * m;
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
    let coefficients = Coefficients { mean, scale, bias: affine.bias, bounds: bounds(activation) };
    apply(threads, &coefficients, x, out);
}

/// Normalises with the running statistics, which stay as they are.
///
/// # Panics
/// Where a slice has another length than the others say.
#[allow(clippy::too_many_arguments)]
pub fn eval(
    threads: &Threads,
    desc: &NormDesc,
    activation: Activation,
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
    let coefficients =
        Coefficients { mean: running_mean, scale, bias: affine.bias, bounds: bounds(activation) };
    apply(threads, &coefficients, x, out);
}

fn inv_std(desc: &NormDesc, var: f32) -> f32 {
    (1.0 / (f64::from(var) + f64::from(desc.eps)).sqrt()) as f32
}

/// Adds `Σ x` and `Σ x²` of each channel to the two halves of `sums`.
#[inline(always)]
fn moments_body<V: Vector>(x: &[f32], sums: &mut [f64]) {
    let c = sums.len() / 2;
    let (sum, squares) = sums.split_at_mut(c);
    let mut quads = x.chunks_exact(4 * c);
    for quad in &mut quads {
        let (a, rest) = quad.split_at(c);
        let (b, rest) = rest.split_at(c);
        let (d, e) = rest.split_at(c);
        let (e, squares, sum) = (&e[..c], &mut squares[..c], &mut sum[..c]);
        for i in 0..c {
            let v = [f64::from(a[i]), f64::from(b[i]), f64::from(d[i]), f64::from(e[i])];
            sum[i] += (v[0] + v[1]) + (v[2] + v[3]);
            squares[i] += (v[0] * v[0] + v[1] * v[1]) + (v[2] * v[2] + v[3] * v[3]);
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

/// `out = clamp((x - mean) · scale + bias)`.
struct Coefficients<'a> {
    mean: &'a [f32],
    scale: &'a [f32],
    bias: &'a [f32],
    bounds: (f32, f32),
}

fn apply(threads: &Threads, coefficients: &Coefficients<'_>, x: &[f32], out: &mut [f32]) {
    let task = task_len(coefficients.mean.len());
    threads.for_chunks(out, task, |i, out| {
        apply_rows(threads.isa(), coefficients, &x[i * task..][..out.len()], out);
    });
}

dispatch!(fn apply_rows(coefficients: &Coefficients<'_>, x: &[f32], out: &mut [f32]) = apply_body);

#[inline(always)]
fn apply_body<V: Vector>(coefficients: &Coefficients<'_>, x: &[f32], out: &mut [f32]) {
    let c = coefficients.mean.len();
    let (mean, scale, bias) = (coefficients.mean, &coefficients.scale[..c], &coefficients.bias[..c]);
    let (low, high) = coefficients.bounds;
    for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
        for i in 0..c {
            let v = madd::<V>(x[i] - mean[i], scale[i], bias[i]);
            let v = if v < low { low } else { v };
            out[i] = if v > high { high } else { v };
        }
    }
}

/// The gradient that comes in, and what masks it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The output's gradient.
    pub grad_out: &'a [f32],
    /// The forward call's activation.
    pub activation: Activation,
    /// The forward call's output, where the activation is not the identity.
    pub out: Option<&'a [f32]>,
}

impl<'a> Incoming<'a> {
    /// The mask that applies: the output, and the value from which on nothing passes (NaN: none).
    fn mask(&self) -> Option<(&'a [f32], f32)> {
        match self.activation {
            Activation::Relu => Some((self.out.expect("an activation comes with its output"), f32::NAN)),
            Activation::Relu6 => Some((self.out.expect("an activation comes with its output"), 6.0)),
            _ => None,
        }
    }
}

/// The gradients that are wanted.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// The input's gradient.
    pub grad_in: Option<&'a mut [f32]>,
    /// Whether to add to `grad_in` instead of overwriting it.
    pub accumulate: bool,
    /// The scale's gradient.
    pub grad_weight: Option<&'a mut [f32]>,
    /// The shift's gradient.
    pub grad_bias: Option<&'a mut [f32]>,
    /// Whether to add to the gradients of scale and shift instead of overwriting them.
    pub accumulate_params: bool,
}

/// The gradients of [`train`]; the statistics depend on `x` and are differentiated too.
///
/// With `g` the masked gradient and `x̂ = (x - mean) · inv_std`:
/// `grad_in = weight · inv_std · (g - mean(g) - x̂ · mean(g · x̂))` (Ioffe and Szegedy, section 3).
///
/// # Panics
/// Where a slice has another length than the others say.
#[allow(clippy::too_many_arguments)]
pub fn train_grad(
    threads: &Threads,
    x: &[f32],
    weight: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    incoming: Incoming<'_>,
    wanted: Wanted<'_>,
    workspace: &mut [f32],
) {
    let c = weight.len();
    assert_eq!((mean.len(), inv_std.len()), (c, c), "statistics");
    let (coefficients, workspace) = carve::<f32>(workspace, 4 * c);
    let (sums, rows) = gradient_sums(threads, Some((x, mean)), c, &incoming, workspace);
    let Wanted { grad_in, accumulate, grad_weight, grad_bias, accumulate_params } = wanted;
    store_params(sums, inv_std, grad_weight, grad_bias, accumulate_params);
    let Some(grad_in) = grad_in else { return };
    assert_eq!(grad_in.len(), x.len(), "input gradient");
    let (slope, rest) = coefficients.split_at_mut(c);
    let (pull, rest) = rest.split_at_mut(c);
    for i in 0..c {
        let (k, s) = (f64::from(weight[i]) * f64::from(inv_std[i]), f64::from(inv_std[i]));
        slope[i] = k as f32;
        pull[i] = (-k * s * s * sums[c + i] / rows as f64) as f32;
        rest[i] = (-k * sums[i] / rows as f64) as f32;
    }
    let terms = Terms { mean, slope, pull, shift: &rest[..c] };
    let task = task_len(c);
    let mask = incoming.mask();
    threads.for_chunks(grad_in, task, |i, grad_in| {
        let span = i * task..i * task + grad_in.len();
        let mask = mask.map(|(out, high)| (&out[span.clone()], high));
        grad_rows(
            threads.isa(),
            &terms,
            &x[span.clone()],
            &incoming.grad_out[span],
            mask,
            accumulate,
            grad_in,
        );
    });
}

/// The gradients of [`eval`]: the statistics are constants. `x` is needed for the scale's gradient only.
///
/// # Panics
/// Where a slice has another length than the others say.
#[allow(clippy::too_many_arguments)]
pub fn eval_grad(
    threads: &Threads,
    desc: &NormDesc,
    x: Option<&[f32]>,
    weight: &[f32],
    running_mean: &[f32],
    running_var: &[f32],
    incoming: Incoming<'_>,
    wanted: Wanted<'_>,
    workspace: &mut [f32],
) {
    let c = desc.channels;
    assert_eq!((weight.len(), running_mean.len(), running_var.len()), (c, c, c), "scale and statistics");
    let (coefficients, workspace) = carve::<f32>(workspace, 4 * c);
    let (inv, slope) = coefficients.split_at_mut(c);
    let slope = &mut slope[..c];
    for i in 0..c {
        inv[i] = inv_std(desc, running_var[i]);
        slope[i] = weight[i] * inv[i];
    }
    let Wanted { grad_in, accumulate, grad_weight, grad_bias, accumulate_params } = wanted;
    if grad_weight.is_some() || grad_bias.is_some() {
        assert!(grad_weight.is_none() || x.is_some(), "the scale's gradient needs the input");
        let x = x.filter(|_| grad_weight.is_some()).map(|x| (x, running_mean));
        let (sums, _) = gradient_sums(threads, x, c, &incoming, workspace);
        store_params(sums, inv, grad_weight, grad_bias, accumulate_params);
    }
    let Some(grad_in) = grad_in else { return };
    assert_eq!(grad_in.len(), incoming.grad_out.len(), "input gradient");
    let (task, mask, slope) = (task_len(c), incoming.mask(), &*slope);
    threads.for_chunks(grad_in, task, |i, grad_in| {
        let span = i * task..i * task + grad_in.len();
        let mask = mask.map(|(out, high)| (&out[span.clone()], high));
        scale_rows(threads.isa(), slope, &incoming.grad_out[span], mask, accumulate, grad_in);
    });
}

/// Writes the gradients of scale and shift.
fn store_params(
    sums: &[f64],
    inv_std: &[f32],
    grad_weight: Option<&mut [f32]>,
    grad_bias: Option<&mut [f32]>,
    accumulate: bool,
) {
    let c = inv_std.len();
    let put = |out: &mut f32, v: f64| *out = if accumulate { *out + v as f32 } else { v as f32 };
    if let Some(grad) = grad_weight {
        assert_eq!(grad.len(), c, "scale gradient");
        grad.iter_mut().zip(&sums[c..]).zip(inv_std).for_each(|((o, &s), &inv)| put(o, s * f64::from(inv)));
    }
    if let Some(grad) = grad_bias {
        assert_eq!(grad.len(), c, "shift gradient");
        grad.iter_mut().zip(sums).for_each(|(o, &s)| put(o, s));
    }
}

/// `Σ g` and `Σ g · (x - mean)` of each channel (0 without `x`), and the number of rows.
fn gradient_sums<'w>(
    threads: &Threads,
    x: Option<(&[f32], &[f32])>,
    c: usize,
    incoming: &Incoming<'_>,
    workspace: &'w mut [f32],
) -> (&'w [f64], usize) {
    let g = incoming.grad_out;
    assert!(g.len().is_multiple_of(c), "output gradient");
    assert!(x.is_none_or(|(x, _)| x.len() == g.len()), "input");
    let mask = incoming.mask();
    assert!(mask.is_none_or(|(out, _)| out.len() == g.len()), "output");
    let rows = g.len() / c;
    let shards = row_shards(rows);
    let (partial, _) = carve::<f64>(workspace, shards * 2 * c);
    threads.for_chunks(partial, 2 * c, |shard, sums| {
        sums.fill(0.0);
        let span = rows * shard / shards * c..rows * (shard + 1) / shards * c;
        let mask = mask.map(|(out, high)| (&out[span.clone()], high));
        let x = x.map(|(x, mean)| (&x[span.clone()], mean));
        sum_rows(threads.isa(), x, &g[span], mask, sums);
    });
    let (total, rest) = partial.split_at_mut(2 * c);
    for shard in rest.chunks_exact(2 * c) {
        total.iter_mut().zip(shard).for_each(|(t, s)| *t += s);
    }
    (total, rows)
}

type Mask<'a> = Option<(&'a [f32], f32)>;

/// The gradient where the output lets it pass.
#[inline(always)]
fn masked(g: f32, out: f32, high: f32) -> f32 {
    // `high` is NaN where there is none: the comparison must then let everything pass.
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    if out > 0.0 && !(out >= high) { g } else { 0.0 }
}

dispatch!(
    fn sum_rows(x: Option<(&[f32], &[f32])>, g: &[f32], mask: Mask<'_>, sums: &mut [f64]) = sum_rows_body
);

#[inline(always)]
fn sum_rows_body<V: Vector>(x: Option<(&[f32], &[f32])>, g: &[f32], mask: Mask<'_>, sums: &mut [f64]) {
    let c = sums.len() / 2;
    let (sum, products) = sums.split_at_mut(c);
    let products = &mut products[..c];
    // Four rows are added in single precision before they meet the sums.
    let mut at = 0;
    while at < g.len() {
        let rows = ((g.len() - at) / c).min(4);
        let span = at..at + rows * c;
        let g = &g[span.clone()];
        let mask = mask.map(|(out, high)| (&out[span.clone()], high));
        let x = x.map(|(x, mean)| (&x[span], mean));
        match rows {
            4 => sum_some::<4>(x, g, mask, sum, products),
            _ => {
                for r in 0..rows {
                    let span = r * c..(r + 1) * c;
                    let mask = mask.map(|(out, high)| (&out[span.clone()], high));
                    let x = x.map(|(x, mean)| (&x[span.clone()], mean));
                    sum_some::<1>(x, &g[span], mask, sum, products);
                }
            }
        }
        at += rows * c;
    }
}

#[inline(always)]
fn sum_some<const R: usize>(
    x: Option<(&[f32], &[f32])>,
    g: &[f32],
    mask: Mask<'_>,
    sum: &mut [f64],
    products: &mut [f64],
) {
    let c = sum.len();
    let products = &mut products[..c];
    // Slices of equal length, so that the loops below need no bounds checks.
    let g: [&[f32]; R] = std::array::from_fn(|r| &g[r * c..][..c]);
    match (x, mask) {
        (Some((x, mean)), Some((out, high))) => {
            let x: [&[f32]; R] = std::array::from_fn(|r| &x[r * c..][..c]);
            let out: [&[f32]; R] = std::array::from_fn(|r| &out[r * c..][..c]);
            let mean = &mean[..c];
            for i in 0..c {
                let (mut s, mut p) = (0.0, 0.0);
                for r in 0..R {
                    let g = masked(g[r][i], out[r][i], high);
                    s += g;
                    p += g * (x[r][i] - mean[i]);
                }
                sum[i] += f64::from(s);
                products[i] += f64::from(p);
            }
        }
        (Some((x, mean)), None) => {
            let x: [&[f32]; R] = std::array::from_fn(|r| &x[r * c..][..c]);
            let mean = &mean[..c];
            for i in 0..c {
                let (mut s, mut p) = (0.0, 0.0);
                for r in 0..R {
                    s += g[r][i];
                    p += g[r][i] * (x[r][i] - mean[i]);
                }
                sum[i] += f64::from(s);
                products[i] += f64::from(p);
            }
        }
        (None, Some((out, high))) => {
            let out: [&[f32]; R] = std::array::from_fn(|r| &out[r * c..][..c]);
            for i in 0..c {
                let s: f32 = (0..R).map(|r| masked(g[r][i], out[r][i], high)).sum();
                sum[i] += f64::from(s);
            }
        }
        (None, None) => {
            for i in 0..c {
                let s: f32 = (0..R).map(|r| g[r][i]).sum();
                sum[i] += f64::from(s);
            }
        }
    }
}

/// `grad_in = slope · g + pull · (x - mean) + shift`.
struct Terms<'a> {
    mean: &'a [f32],
    slope: &'a [f32],
    pull: &'a [f32],
    shift: &'a [f32],
}

dispatch!(
    fn grad_rows(terms: &Terms<'_>, x: &[f32], g: &[f32], mask: Mask<'_>, accumulate: bool, out: &mut [f32])
        = grad_rows_body
);

#[inline(always)]
fn grad_rows_body<V: Vector>(
    terms: &Terms<'_>,
    x: &[f32],
    g: &[f32],
    mask: Mask<'_>,
    accumulate: bool,
    grad_in: &mut [f32],
) {
    let c = terms.mean.len();
    let (mean, slope, pull, shift) = (terms.mean, &terms.slope[..c], &terms.pull[..c], &terms.shift[..c]);
    for (r, grad_in) in grad_in.chunks_exact_mut(c).enumerate() {
        let (x, g) = (&x[r * c..][..c], &g[r * c..][..c]);
        let value = |i: usize, g: f32| madd::<V>(slope[i], g, madd::<V>(pull[i], x[i] - mean[i], shift[i]));
        match mask {
            Some((out, high)) => {
                let out = &out[r * c..][..c];
                put(grad_in, accumulate, |i| value(i, masked(g[i], out[i], high)));
            }
            None => put(grad_in, accumulate, |i| value(i, g[i])),
        }
    }
}

#[inline(always)]
fn put(out: &mut [f32], accumulate: bool, value: impl Fn(usize) -> f32) {
    if accumulate {
        for (i, o) in out.iter_mut().enumerate() {
            *o += value(i);
        }
    } else {
        for (i, o) in out.iter_mut().enumerate() {
            *o = value(i);
        }
    }
}

dispatch!(
    fn scale_rows(slope: &[f32], g: &[f32], mask: Mask<'_>, accumulate: bool, out: &mut [f32]) = scale_rows_body
);

#[inline(always)]
fn scale_rows_body<V: Vector>(
    slope: &[f32],
    g: &[f32],
    mask: Mask<'_>,
    accumulate: bool,
    grad_in: &mut [f32],
) {
    let c = slope.len();
    for (r, grad_in) in grad_in.chunks_exact_mut(c).enumerate() {
        let g = &g[r * c..][..c];
        match mask {
            Some((out, high)) => {
                let out = &out[r * c..][..c];
                put(grad_in, accumulate, |i| slope[i] * masked(g[i], out[i], high));
            }
            None => put(grad_in, accumulate, |i| slope[i] * g[i]),
        }
    }
}

/// The operands of [`fold`], one value an output channel.
#[derive(Clone, Copy, Debug)]
pub struct Folded<'a> {
    /// The normalisation's scale and shift.
    pub affine: Affine<'a>,
    /// Running mean.
    pub running_mean: &'a [f32],
    /// Running variance.
    pub running_var: &'a [f32],
    /// The convolution's bias.
    pub bias: Option<&'a [f32]>,
}

/// Folds a normalisation by running statistics into the weights (output channels innermost) and bias of the convolution
/// before it: `s = norm_weight / sqrt(var + eps)`, `s · weight` and `norm_bias + s · (bias - mean)`.
///
/// # Panics
/// Where a slice has another length than the others say.
pub fn fold(
    desc: &NormDesc,
    weight: &[f32],
    norm: &Folded<'_>,
    folded_weight: &mut [f32],
    folded_bias: &mut [f32],
) {
    let c = desc.channels;
    assert_eq!((weight.len(), weight.len() % c), (folded_weight.len(), 0), "weights");
    assert_eq!((folded_bias.len(), norm.running_mean.len(), norm.running_var.len()), (c, c, c), "statistics");
    // The bias holds the scales first, and its own values once the weights are done.
    for i in 0..c {
        folded_bias[i] = norm.affine.weight[i] * inv_std(desc, norm.running_var[i]);
    }
    for (out, w) in folded_weight.chunks_exact_mut(c).zip(weight.chunks_exact(c)) {
        for i in 0..c {
            out[i] = w[i] * folded_bias[i];
        }
    }
    for i in 0..c {
        let bias = norm.bias.map_or(0.0, |b| b[i]);
        folded_bias[i] = madd_f64(folded_bias[i], bias - norm.running_mean[i], norm.affine.bias[i]);
    }
}

fn madd_f64(a: f32, b: f32, c: f32) -> f32 {
    (f64::from(a) * f64::from(b) + f64::from(c)) as f32
}

#[cfg(test)]
mod tests;
