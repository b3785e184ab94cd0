//! Elementwise kernels: activations, sums, copies, dropout.

use defrost_tensor::{Activation, dropout_keeps};

use crate::Threads;
use crate::conv::bounds;
use crate::simd::{Vector, dispatch};

/// Elements of a task.
const TASK: usize = 1 << 14;

/// Writes or adds to each element.
#[inline(always)]
fn put(out: &mut [f32], accumulate: bool, value: impl Fn(usize) -> f32) {
    if accumulate {
        out.iter_mut().enumerate().for_each(|(i, o)| *o += value(i));
    } else {
        out.iter_mut().enumerate().for_each(|(i, o)| *o = value(i));
    }
}

#[inline(always)]
fn clamp(v: f32, (low, high): (f32, f32)) -> f32 {
    // Comparisons in this order keep NaN.
    let v = if v < low { low } else { v };
    if v > high { high } else { v }
}

/// `out = activation(x)`.
///
/// # Panics
/// Where the lengths differ.
pub fn activate(threads: &Threads, activation: Activation, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "input and output");
    let bounds = bounds(activation);
    threads.for_chunks(out, TASK, |i, out| {
        activate_part(threads.isa(), bounds, &x[i * TASK..][..out.len()], out);
    });
}

dispatch!(fn activate_part(bounds: (f32, f32), x: &[f32], out: &mut [f32]) = activate_body);

#[inline(always)]
fn activate_body<V: Vector>(bounds: (f32, f32), x: &[f32], out: &mut [f32]) {
    let x = &x[..out.len()];
    put(out, false, |i| clamp(x[i], bounds));
}

/// `grad_in = grad_out` where the activation's value `out` lets it pass, else 0.
///
/// # Panics
/// Where the lengths differ.
pub fn activate_grad(
    threads: &Threads,
    activation: Activation,
    out: &[f32],
    grad_out: &[f32],
    accumulate: bool,
    grad_in: &mut [f32],
) {
    assert_eq!((out.len(), grad_out.len()), (grad_in.len(), grad_in.len()), "value and gradients");
    threads.for_chunks(grad_in, TASK, |i, grad_in| {
        let span = i * TASK..i * TASK + grad_in.len();
        activate_grad_part(
            threads.isa(),
            activation,
            &out[span.clone()],
            &grad_out[span],
            accumulate,
            grad_in,
        );
    });
}

dispatch!(
    fn activate_grad_part(activation: Activation, out: &[f32], g: &[f32], accumulate: bool, grad_in: &mut [f32])
        = activate_grad_body
);

#[inline(always)]
fn activate_grad_body<V: Vector>(
    activation: Activation,
    out: &[f32],
    g: &[f32],
    accumulate: bool,
    grad_in: &mut [f32],
) {
    let (out, g) = (&out[..grad_in.len()], &g[..grad_in.len()]);
    match activation {
        Activation::Relu => put(grad_in, accumulate, |i| if out[i] > 0.0 { g[i] } else { 0.0 }),
        Activation::Relu6 => {
            put(grad_in, accumulate, |i| if (out[i] > 0.0) & (out[i] < 6.0) { g[i] } else { 0.0 });
        }
        _ => put(grad_in, accumulate, |i| g[i]),
    }
}

/// `out = activation(a + b)`.
///
/// # Panics
/// Where the lengths differ.
pub fn add(threads: &Threads, activation: Activation, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert_eq!((a.len(), b.len()), (out.len(), out.len()), "summands and sum");
    let bounds = bounds(activation);
    threads.for_chunks(out, TASK, |i, out| {
        let span = i * TASK..i * TASK + out.len();
        add_part(threads.isa(), bounds, &a[span.clone()], &b[span], out);
    });
}

dispatch!(fn add_part(bounds: (f32, f32), a: &[f32], b: &[f32], out: &mut [f32]) = add_body);

#[inline(always)]
fn add_body<V: Vector>(bounds: (f32, f32), a: &[f32], b: &[f32], out: &mut [f32]) {
    let (a, b) = (&a[..out.len()], &b[..out.len()]);
    put(out, false, |i| clamp(a[i] + b[i], bounds));
}

/// `out = x`, or `out += x` where `accumulate`.
///
/// # Panics
/// Where the lengths differ.
pub fn copy(threads: &Threads, x: &[f32], accumulate: bool, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "source and target");
    threads.for_chunks(out, TASK, |i, out| {
        let x = &x[i * TASK..][..out.len()];
        if accumulate {
            add_part_to(threads.isa(), x, out);
        } else {
            out.copy_from_slice(x);
        }
    });
}

dispatch!(fn add_part_to(x: &[f32], out: &mut [f32]) = add_to_body);

#[inline(always)]
fn add_to_body<V: Vector>(x: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(x).for_each(|(o, &x)| *o += x);
}

/// Where channels are copied from and to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channels {
    /// Channels of the source and the first that is read.
    pub source: [usize; 2],
    /// Channels of the target and the first that is written.
    pub target: [usize; 2],
    /// How many.
    pub count: usize,
}

/// Copies (or adds) channels of one activation to another's; the target's other channels stay.
///
/// # Panics
/// Where a range ends beyond its activation, or the two have different numbers of rows.
pub fn copy_channels(threads: &Threads, at: Channels, x: &[f32], accumulate: bool, out: &mut [f32]) {
    let Channels { source: [in_row, from], target: [out_row, to], count } = at;
    assert!(from + count <= in_row && to + count <= out_row, "channels {at:?}");
    assert_eq!((x.len() / in_row, x.len() % in_row), (out.len() / out_row, out.len() % out_row), "rows");
    if x.len() == in_row {
        return copy(threads, &x[from..from + count], accumulate, &mut out[to..to + count]);
    }
    let rows = (TASK / out_row).max(1);
    threads.for_chunks(out, rows * out_row, |i, out| {
        let x = x[i * rows * in_row..].chunks_exact(in_row);
        for (x, out) in x.zip(out.chunks_exact_mut(out_row)) {
            let (x, out) = (&x[from..from + count], &mut out[to..to + count]);
            if accumulate {
                out.iter_mut().zip(x).for_each(|(o, &x)| *o += x);
            } else {
                out.copy_from_slice(x);
            }
        }
    });
}

/// Which dropout layer, and how much it drops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Share of the elements that become 0.
    pub rate: f32,
    /// Tells dropout layers of one network apart.
    pub layer: u32,
}

/// `out = x / (1 - rate)` where [`dropout_keeps`], else 0, for vectors of `len` elements; `keys` holds two whole numbers a
/// vector.
///
/// # Panics
/// Where the lengths do not fit.
pub fn dropout(dropout: Dropout, len: usize, x: &[f32], keys: &[f32], accumulate: bool, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "input and output");
    assert_eq!((x.len() % len, keys.len()), (0, x.len() / len * 2), "vectors and keys");
    let kept = 1.0 - dropout.rate;
    for ((x, out), key) in x.chunks_exact(len).zip(out.chunks_exact_mut(len)).zip(keys.chunks_exact(2)) {
        let key = [key[0] as u32, key[1] as u32];
        put(out, accumulate, |i| {
            if dropout_keeps(key, dropout.layer, i as u32, dropout.rate) { x[i] / kept } else { 0.0 }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn elementwise_kernels_equal_their_definitions() {
        let len = TASK + 37;
        let mut x: Vec<f32> = random(len, 1).iter().map(|v| v * 8.0).collect();
        x[5] = f32::NAN;
        let (b, mut out) = (random(len, 2), vec![0.0; len]);
        let same = |got: &[f32], want: &dyn Fn(usize) -> f32| {
            got.iter()
                .enumerate()
                .all(|(i, g)| g.to_bits() == want(i).to_bits() || (g.is_nan() && want(i).is_nan()))
        };
        let threads = Threads::new(2);
        for act in [Activation::Identity, Activation::Relu, Activation::Relu6] {
            activate(&threads, act, &x, &mut out);
            assert!(same(&out, &|i| act.apply(x[i])));
            let mut grad = vec![1.0; len];
            activate_grad(&threads, act, &out, &b, true, &mut grad);
            assert!(same(&grad, &|i| 1.0 + if act.passes(out[i]) { b[i] } else { 0.0 }));
            activate_grad(&threads, act, &out, &b, false, &mut grad);
            assert!(same(&grad, &|i| if act.passes(out[i]) { b[i] } else { 0.0 }));
            add(&threads, act, &x, &b, &mut out);
            assert!(same(&out, &|i| act.apply(x[i] + b[i])));
        }
        copy(&threads, &b, false, &mut out);
        copy(&threads, &b, true, &mut out);
        assert!(same(&out, &|i| b[i] + b[i]));
    }

    #[test]
    fn dropout_follows_the_shared_hash() {
        let (x, keys) = (random(3 * 50, 1), [1.0, 2.0, 3.0, 4.0, 1.0, 2.0]);
        let mut out = vec![0.0; x.len()];
        dropout(Dropout { rate: 0.25, layer: 7 }, 50, &x, &keys, false, &mut out);
        for (i, &o) in out.iter().enumerate() {
            let key = [keys[i / 50 * 2] as u32, keys[i / 50 * 2 + 1] as u32];
            let keep = dropout_keeps(key, 7, (i % 50) as u32, 0.25);
            assert_eq!(o, if keep { x[i] / 0.75 } else { 0.0 });
        }
        dropout(Dropout { rate: 1.0, layer: 7 }, 50, &x, &keys, false, &mut out);
        assert!(out.iter().all(|&o| o == 0.0));
    }
}
