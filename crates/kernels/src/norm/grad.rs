//! The gradients of normalisation.

use std::sync::{Mutex, PoisonError};

use defrost_tensor::{Activation, NormDesc};

use super::{AHEAD, ahead, inv_std, task_len};
use crate::Threads;
use crate::reduce::{ROW_SHARDS, add_rows, row_shards};
use crate::scratch::carve;
use crate::simd::{Vector, dispatch, fence, load, prefetch, store, streams};

/// The gradient that comes in, and what masks it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The output's gradient.
    pub grad_out: &'a [f32],
    /// The forward call's activation.
    pub activation: Activation,
    /// The forward call's shift, where `out` is what that call made of the input: then the input says what passes.
    pub bias: Option<&'a [f32]>,
    /// The forward call's output, where the activation is not the identity.
    pub out: Option<&'a [f32]>,
}

impl<'a> Incoming<'a> {
    /// The mask that applies, `scale` being what the forward call multiplied centred inputs by, if they are there.
    fn mask(&self, scale: Option<&'a [f32]>) -> Mask<'a> {
        let high = match self.activation {
            Activation::Relu => f32::NAN,
            Activation::Relu6 => 6.0,
            _ => return Mask::None,
        };
        match (self.bias, scale) {
            (Some(bias), Some(scale)) => Mask::Input { scale, bias, high },
            _ => Mask::Output { out: self.out.expect("an activation comes with its output"), high },
        }
    }
}

/// Which gradients pass: those where the activation's value is above 0 and not at or above `high` (NaN: no such bound).
#[derive(Clone, Copy)]
enum Mask<'a> {
    /// All.
    None,
    /// By the value as it was stored.
    Output { out: &'a [f32], high: f32 },
    /// By the value computed again, to the bit, from the centred input: one pass over memory less.
    Input { scale: &'a [f32], bias: &'a [f32], high: f32 },
}

impl Mask<'_> {
    /// The part for some rows.
    fn part(self, span: std::ops::Range<usize>) -> Self {
        match self {
            Mask::Output { out, high } => Mask::Output { out: &out[span], high },
            other => other,
        }
    }

    /// `g` masked: `at` is the element within the part, `i` the channel, from which `lanes` exist.
    ///
    /// # Safety
    /// They do.
    #[inline(always)]
    unsafe fn pass<V: Vector>(&self, g: V, at: usize, i: usize, lanes: usize, centred: V) -> V {
        // SAFETY: the caller's.
        unsafe {
            match *self {
                Mask::None => g,
                Mask::Output { out, high } => {
                    g.passed(load::<V>(out.as_ptr().add(at), lanes), V::splat(high))
                }
                Mask::Input { scale, bias, high } => {
                    let (scale, bias) = (scale.as_ptr().add(i), bias.as_ptr().add(i));
                    let value = centred.fma(load::<V>(scale, lanes), load::<V>(bias, lanes));
                    g.passed(value, V::splat(high))
                }
            }
        }
    }

    /// Whether it has a value for each element of `len`, or for each channel of `c`.
    fn fits(&self, len: usize, c: usize) -> bool {
        match self {
            Mask::None => true,
            Mask::Output { out, .. } => out.len() == len,
            Mask::Input { scale, bias, .. } => scale.len() == c && bias.len() == c,
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
    /// What passes the activation, overwritten: the gradient of what the forward call added. [`train_grad`] alone knows it.
    pub grad_residual: Option<&'a mut [f32]>,
}

/// The gradients of [`train`](super::train); the statistics depend on `x` and are differentiated too.
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
    let (slope, coefficients) = coefficients.split_at_mut(c);
    // As the forward call has it, to the bit.
    slope.iter_mut().zip(weight).zip(inv_std).for_each(|((s, w), inv)| *s = w * inv);
    let Wanted { grad_in, accumulate, grad_weight, grad_bias, accumulate_params, mut grad_residual } = wanted;
    let (g, mask) = (incoming.grad_out, incoming.mask(Some(slope)));
    let (sums, rows) =
        gradient_sums(threads, Some((x, mean)), c, g, mask, grad_residual.as_deref_mut(), workspace);
    // What has passed need not be masked once more.
    let (g, mask) = grad_residual.map_or((g, mask), |passed| (&*passed, Mask::None));
    store_params(sums, inv_std, grad_weight, grad_bias, accumulate_params);
    let Some(grad_in) = grad_in else { return };
    assert_eq!(grad_in.len(), x.len(), "input gradient");
    let (pull, rest) = coefficients.split_at_mut(c);
    for i in 0..c {
        let (k, s) = (f64::from(weight[i]) * f64::from(inv_std[i]), f64::from(inv_std[i]));
        pull[i] = (-k * s * s * sums[c + i] / rows as f64) as f32;
        rest[i] = (-k * sums[i] / rows as f64) as f32;
    }
    let batch = Some(BatchTerms { x, mean, pull, shift: &rest[..c] });
    spread(threads, &Terms { slope, batch }, g, mask, accumulate, grad_in);
}

/// The gradients of [`eval`](super::eval): the statistics are constants. `x` is needed for the scale's gradient only.
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
    let Wanted { grad_in, accumulate, grad_weight, grad_bias, accumulate_params, grad_residual } = wanted;
    assert!(
        grad_residual.is_none(),
        "by running statistics, the gradient of what was added is a call of its own"
    );
    if grad_weight.is_some() || grad_bias.is_some() {
        assert!(grad_weight.is_none() || x.is_some(), "the scale's gradient needs the input");
        let x = x.filter(|_| grad_weight.is_some()).map(|x| (x, running_mean));
        let mask = incoming.mask(None);
        let (sums, _) = gradient_sums(threads, x, c, incoming.grad_out, mask, None, workspace);
        store_params(sums, inv, grad_weight, grad_bias, accumulate_params);
    }
    let Some(grad_in) = grad_in else { return };
    assert_eq!(grad_in.len(), incoming.grad_out.len(), "input gradient");
    let mask = incoming.mask(None);
    spread(threads, &Terms { slope, batch: None }, incoming.grad_out, mask, accumulate, grad_in);
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

/// `Σ g` and `Σ g · (x - mean)` of each channel (0 without `x`), and the number of rows. What passes the mask is written to
/// `passed`.
fn gradient_sums<'w>(
    threads: &Threads,
    x: Option<(&[f32], &[f32])>,
    c: usize,
    g: &[f32],
    mask: Mask<'_>,
    passed: Option<&mut [f32]>,
    workspace: &'w mut [f32],
) -> (&'w [f64], usize) {
    assert!(g.len().is_multiple_of(c), "output gradient");
    assert!(x.is_none_or(|(x, _)| x.len() == g.len()), "input");
    assert!(mask.fits(g.len(), c), "output");
    assert!(passed.as_ref().is_none_or(|p| p.len() == g.len()), "what passes");
    let rows = g.len() / c;
    let shards = row_shards(rows);
    let start = |shard: usize| rows * shard / shards * c;
    let stream = passed.as_ref().is_some_and(|p| streams(p, c));
    // Each shard's part, which nobody waits for.
    let mut rest = passed;
    let parts: [Mutex<Option<&mut [f32]>>; ROW_SHARDS] = std::array::from_fn(|shard| {
        let len = if shard < shards { start(shard + 1) - start(shard) } else { 0 };
        Mutex::new(rest.as_mut().and_then(|rest| rest.split_off_mut(..len)))
    });
    let (partial, _) = carve::<f64>(workspace, shards * 2 * c);
    threads.for_chunks(partial, 2 * c, |shard, sums| {
        sums.fill(0.0);
        let span = start(shard)..start(shard + 1);
        let x = x.map(|(x, mean)| (&x[span.clone()], mean));
        let mut passed = parts[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let passed = passed.as_deref_mut().map(|p| Passed { to: p, stream });
        sum_rows(threads.isa(), x, &g[span.clone()], mask.part(span), passed, sums);
    });
    (add_rows(partial, 2 * c), rows)
}

/// Where what passes goes, and how.
struct Passed<'a> {
    to: &'a mut [f32],
    stream: bool,
}

dispatch!(
    fn sum_rows(
        x: Option<(&[f32], &[f32])>,
        g: &[f32],
        mask: Mask<'_>,
        passed: Option<Passed<'_>>,
        sums: &mut [f64],
    ) = sum_rows_body
);

#[inline(always)]
fn sum_rows_body<V: Vector>(
    x: Option<(&[f32], &[f32])>,
    g: &[f32],
    mask: Mask<'_>,
    mut passed: Option<Passed<'_>>,
    sums: &mut [f64],
) {
    /// Rows that are added in single precision before they meet the sums.
    const ROWS: usize = 4;
    let c = sums.len() / 2;
    let rows = g.len() / c;
    let whole = rows / ROWS * ROWS;
    for r in (0..whole).step_by(ROWS) {
        sum_some::<V, ROWS>(x, g, mask, passed.as_mut(), r * c, sums);
    }
    for r in whole..rows {
        sum_some::<V, 1>(x, g, mask, passed.as_mut(), r * c, sums);
    }
    if passed.is_some_and(|p| p.stream) {
        fence();
    }
}

/// Adds `R` rows from element `at` on.
#[inline(always)]
fn sum_some<V: Vector, const R: usize>(
    x: Option<(&[f32], &[f32])>,
    g: &[f32],
    mask: Mask<'_>,
    passed: Option<&mut Passed<'_>>,
    at: usize,
    sums: &mut [f64],
) {
    let c = sums.len() / 2;
    let span = at..at + R * c;
    let g = g[span.clone()].as_ptr();
    let mask = mask.part(span.clone());
    let passed = passed.map(|p| (p.to[span.clone()].as_mut_ptr(), p.stream));
    let x = x.map(|(x, mean)| (x[span].as_ptr(), mean[..c].as_ptr()));
    let ahead = ahead(R * c);
    for i in (0..c).step_by(V::LANES) {
        let lanes = V::LANES.min(c - i);
        let (mut sum, mut products) = (V::splat(0.0), V::splat(0.0));
        // SAFETY: `R` rows of all operands and `c` values a channel were sliced above; `i + lanes <= c`.
        unsafe {
            for r in 0..R {
                let ahead = r * c + i + ahead;
                prefetch(g.wrapping_add(ahead));
                if let Some((x, _)) = x {
                    prefetch(x.wrapping_add(ahead));
                }
                if let Mask::Output { out, .. } = mask {
                    prefetch(out.as_ptr().wrapping_add(ahead));
                }
                let centred = match x {
                    Some((x, mean)) => load::<V>(x.add(r * c + i), lanes).sub(load::<V>(mean.add(i), lanes)),
                    None => V::splat(0.0),
                };
                let g = mask.pass(load::<V>(g.add(r * c + i), lanes), r * c + i, i, lanes, centred);
                match passed {
                    Some((to, true)) => g.stream(to.add(r * c + i)),
                    Some((to, false)) => store::<V>(g, to.add(r * c + i), lanes),
                    None => {}
                }
                sum = sum.add(g);
                products = g.fma(centred, products);
            }
            sum.add_to(sums.as_mut_ptr().add(i), lanes);
            if x.is_some() {
                products.add_to(sums.as_mut_ptr().add(c + i), lanes);
            }
        }
    }
}

/// `grad_in = slope · g + pull · (x - mean) + shift`, all but the slope only with statistics that depend on `x`.
#[derive(Clone, Copy)]
struct Terms<'a> {
    slope: &'a [f32],
    batch: Option<BatchTerms<'a>>,
}

#[derive(Clone, Copy)]
struct BatchTerms<'a> {
    x: &'a [f32],
    mean: &'a [f32],
    pull: &'a [f32],
    shift: &'a [f32],
}

/// The input's gradient over all rows.
fn spread(
    threads: &Threads,
    terms: &Terms<'_>,
    grad_out: &[f32],
    mask: Mask<'_>,
    accumulate: bool,
    grad_in: &mut [f32],
) {
    let c = terms.slope.len();
    assert!(mask.fits(grad_in.len(), c), "output");
    let (task, stream) = (task_len(c), streams(grad_in, c));
    // What the sums have read last may still be in a cache.
    threads.for_chunks_back(grad_in, task, |i, grad_in| {
        let span = i * task..i * task + grad_in.len();
        let batch = terms.batch.map(|b| BatchTerms { x: &b.x[span.clone()], ..b });
        let terms = Terms { batch, ..*terms };
        let (g, mask) = (&grad_out[span.clone()], mask.part(span));
        grad_rows(threads.isa(), &terms, g, mask, accumulate, stream, grad_in);
    });
}

dispatch!(
    fn grad_rows(terms: &Terms<'_>, g: &[f32], mask: Mask<'_>, accumulate: bool, stream: bool, grad_in: &mut [f32])
        = grad_rows_body
);

#[inline(always)]
fn grad_rows_body<V: Vector>(
    terms: &Terms<'_>,
    g: &[f32],
    mask: Mask<'_>,
    accumulate: bool,
    stream: bool,
    grad_in: &mut [f32],
) {
    let c = terms.slope.len();
    let len = grad_in.len();
    let slope = terms.slope.as_ptr();
    let g = g[..len].as_ptr();
    let mask = mask.part(0..len);
    let batch = terms
        .batch
        .map(|b| (b.x[..len].as_ptr(), b.mean[..c].as_ptr(), b.pull[..c].as_ptr(), b.shift[..c].as_ptr()));
    let grad_in = grad_in.as_mut_ptr();
    for row in (0..len / c * c).step_by(c) {
        for i in (0..c).step_by(V::LANES) {
            let (at, lanes) = (row + i, V::LANES.min(c - i));
            // SAFETY: `at + lanes <= len` and `i + lanes <= c`, the lengths of the slices above.
            unsafe {
                let (mut v, mut centred) = (V::splat(0.0), V::splat(0.0));
                prefetch(g.wrapping_add(at + AHEAD));
                if let Some((x, ..)) = batch {
                    prefetch(x.wrapping_add(at + AHEAD));
                }
                if let Some((x, mean, pull, shift)) = batch {
                    centred = load::<V>(x.add(at), lanes).sub(load::<V>(mean.add(i), lanes));
                    v = load::<V>(pull.add(i), lanes).fma(centred, load::<V>(shift.add(i), lanes));
                }
                let g = mask.pass(load::<V>(g.add(at), lanes), at, i, lanes, centred);
                v = load::<V>(slope.add(i), lanes).fma(g, v);
                if accumulate {
                    v = v.add(load::<V>(grad_in.add(at), lanes));
                }
                if stream {
                    v.stream(grad_in.add(at));
                } else {
                    store::<V>(v, grad_in.add(at), lanes);
                }
            }
        }
    }
    if stream {
        fence();
    }
}
