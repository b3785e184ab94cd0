//! Pools: the largest value or the mean of windows, and their gradients.

use defrost_tensor::{PoolDesc, Shape4, ShapeError};

use crate::Threads;
use crate::simd::{Vector, dispatch, load, store};

/// A pool with the shapes of its input and output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolShape {
    desc: PoolDesc,
    input: Shape4,
    output: Shape4,
}

impl PoolShape {
    /// `desc` over an input of shape `input`.
    ///
    /// # Errors
    /// As [`PoolDesc::output`].
    pub fn new(desc: PoolDesc, input: Shape4) -> Result<Self, ShapeError> {
        Ok(Self { desc, input, output: desc.output(input)? })
    }

    /// The output's shape.
    pub fn output(&self) -> Shape4 {
        self.output
    }
}

/// The largest value of each window; NaN wins.
///
/// # Panics
/// Where a slice has another length than its shape says.
pub fn max(threads: &Threads, shape: &PoolShape, x: &[f32], out: &mut [f32]) {
    check(shape, x, out);
    let row = shape.output.w * shape.output.c;
    threads.for_chunks(out, row, |i, out| {
        max_row(threads.isa(), shape, x, i / shape.output.h, i % shape.output.h, out);
    });
}

/// The mean of each window; padding is not counted.
///
/// # Panics
/// Where a slice has another length than its shape says.
pub fn avg(threads: &Threads, shape: &PoolShape, x: &[f32], out: &mut [f32]) {
    check(shape, x, out);
    let row = shape.output.w * shape.output.c;
    threads.for_chunks(out, row, |i, out| {
        avg_row(threads.isa(), shape, x, i / shape.output.h, i % shape.output.h, out);
    });
}

/// The gradient of [`max`]: to the first largest value of each window, in row order.
///
/// # Panics
/// Where a slice has another length than its shape says.
pub fn max_grad(
    threads: &Threads,
    shape: &PoolShape,
    x: &[f32],
    grad_out: &[f32],
    accumulate: bool,
    grad_in: &mut [f32],
) {
    check(shape, x, grad_out);
    assert_eq!(grad_in.len(), x.len(), "input gradient");
    let (inside, outside) = (shape.input.image_len(), shape.output.image_len());
    threads.for_chunks(grad_in, inside, |n, grad_in| {
        if !accumulate {
            grad_in.fill(0.0);
        }
        let x = &x[n * inside..][..inside];
        max_grad_image(threads.isa(), shape, x, &grad_out[n * outside..][..outside], grad_in);
    });
}

/// The gradient of [`avg`].
///
/// # Panics
/// Where a slice has another length than its shape says.
pub fn avg_grad(
    threads: &Threads,
    shape: &PoolShape,
    grad_out: &[f32],
    accumulate: bool,
    grad_in: &mut [f32],
) {
    check(shape, grad_in, grad_out);
    let (inside, outside) = (shape.input.image_len(), shape.output.image_len());
    threads.for_chunks(grad_in, inside, |n, grad_in| {
        if !accumulate {
            grad_in.fill(0.0);
        }
        avg_grad_image(threads.isa(), shape, &grad_out[n * outside..][..outside], grad_in);
    });
}

fn check(shape: &PoolShape, input: &[f32], output: &[f32]) {
    assert_eq!((input.len(), output.len()), (shape.input.len(), shape.output.len()), "input and output");
}

/// The starts of the input positions of window `(oy, ox)`, in row order, within an image.
#[inline(always)]
fn window(shape: &PoolShape, oy: usize, ox: usize) -> impl Iterator<Item = usize> {
    let Shape4 { c, h, w, .. } = shape.input;
    let columns = shape.desc.range(1, ox, w);
    shape.desc.range(0, oy, h).flat_map(move |y| columns.clone().map(move |x| (y * w + x) * c))
}

dispatch!(fn max_row(shape: &PoolShape, x: &[f32], n: usize, oy: usize, out: &mut [f32]) = max_row_body);

#[inline(always)]
fn max_row_body<V: Vector>(shape: &PoolShape, x: &[f32], n: usize, oy: usize, out: &mut [f32]) {
    let c = shape.input.c;
    let image = &x[n * shape.input.image_len()..][..shape.input.image_len()];
    for (ox, out) in out.chunks_exact_mut(c).enumerate() {
        out.fill(f32::NEG_INFINITY);
        for at in window(shape, oy, ox) {
            for (o, &v) in out.iter_mut().zip(&image[at..at + c]) {
                *o = if v > *o || v.is_nan() { v } else { *o };
            }
        }
    }
}

dispatch!(fn avg_row(shape: &PoolShape, x: &[f32], n: usize, oy: usize, out: &mut [f32]) = avg_row_body);

#[inline(always)]
fn avg_row_body<V: Vector>(shape: &PoolShape, x: &[f32], n: usize, oy: usize, out: &mut [f32]) {
    let c = shape.input.c;
    let image = &x[n * shape.input.image_len()..][..shape.input.image_len()];
    for (ox, out) in out.chunks_exact_mut(c).enumerate() {
        out.fill(0.0);
        let mut count = 0;
        for at in window(shape, oy, ox) {
            out.iter_mut().zip(&image[at..at + c]).for_each(|(o, &v)| *o += v);
            count += 1;
        }
        let share = count as f32;
        out.iter_mut().for_each(|o| *o /= share);
    }
}

dispatch!(
    fn max_grad_image(shape: &PoolShape, x: &[f32], grad_out: &[f32], grad_in: &mut [f32]) = max_grad_body
);

#[inline(always)]
fn max_grad_body<V: Vector>(shape: &PoolShape, x: &[f32], grad_out: &[f32], grad_in: &mut [f32]) {
    let c = shape.input.c;
    assert_eq!((x.len(), grad_in.len()), (shape.input.image_len(), x.len()), "an image");
    let (x, grad_in) = (x.as_ptr(), grad_in.as_mut_ptr());
    for (o, g) in grad_out.chunks_exact(c).enumerate() {
        let (oy, ox) = (o / shape.output.w, o % shape.output.w);
        for first in (0..c).step_by(V::LANES) {
            let lanes = V::LANES.min(c - first);
            // SAFETY: a window's positions are starts of `c` channels of the image, and so long are all three slices.
            unsafe {
                // Places are whole numbers as floats: exact, and of the vectors' own kind.
                let (mut best, mut place) = (V::splat(f32::NEG_INFINITY), V::splat(0.0));
                for (i, at) in window(shape, oy, ox).enumerate() {
                    let v = load::<V>(x.add(at + first), lanes);
                    (best, place) = best.larger(place, v, V::splat(i as f32));
                }
                let g = load::<V>(g.as_ptr().add(first), lanes);
                for (i, at) in window(shape, oy, ox).enumerate() {
                    let to = grad_in.add(at + first);
                    let sum = load::<V>(to, lanes).add(g.at_place(place, V::splat(i as f32)));
                    store::<V>(sum, to, lanes);
                }
            }
        }
    }
}

dispatch!(fn avg_grad_image(shape: &PoolShape, grad_out: &[f32], grad_in: &mut [f32]) = avg_grad_body);

#[inline(always)]
fn avg_grad_body<V: Vector>(shape: &PoolShape, grad_out: &[f32], grad_in: &mut [f32]) {
    let c = shape.input.c;
    for (o, g) in grad_out.chunks_exact(c).enumerate() {
        let (oy, ox) = (o / shape.output.w, o % shape.output.w);
        let share = window(shape, oy, ox).count() as f32;
        for at in window(shape, oy, ox) {
            grad_in[at..at + c].iter_mut().zip(g).for_each(|(i, &g)| *i += g / share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::random;

    fn shapes() -> Vec<PoolShape> {
        let input = Shape4::new(2, 67, 9, 7);
        [
            PoolDesc::square(3, 2, 1),
            PoolDesc::square(2, 2, 0),
            PoolDesc::Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0], ceil: true },
            PoolDesc::GLOBAL,
            PoolDesc::Adaptive { out: [4, 11] },
        ]
        .map(|desc| PoolShape::new(desc, input).unwrap())
        .to_vec()
    }

    #[test]
    fn pools_equal_plain_loops() {
        for (shape, isa) in
            shapes().into_iter().flat_map(|s| Isa::available().into_iter().map(move |i| (s, i)))
        {
            let (x, c) = (random(shape.input.len(), 3), shape.input.c);
            let g = random(shape.output.len(), 4);
            let (mut largest, mut means) = (vec![0.0; g.len()], vec![0.0; g.len()]);
            let (mut max_in, mut avg_in) = (vec![1.0; x.len()], vec![1.0; x.len()]);
            let (mut want_max, mut want_avg) = (max_in.clone(), avg_in.clone());
            let threads = Threads::new(2).with_isa(isa);
            max(&threads, &shape, &x, &mut largest);
            avg(&threads, &shape, &x, &mut means);
            for o in 0..shape.output.rows() * c {
                let (ch, o) = (o % c, o / c);
                let (n, oy, ox) =
                    (o / shape.output.area(), o / shape.output.w % shape.output.h, o % shape.output.w);
                let at: Vec<usize> =
                    window(&shape, oy, ox).map(|i| n * shape.input.image_len() + i + ch).collect();
                let top = at.iter().map(|&i| x[i]).fold(f32::NEG_INFINITY, f32::max);
                let first = *at.iter().find(|&&i| x[i] == top).unwrap();
                want_max[first] += g[o * c + ch];
                at.iter().for_each(|&i| want_avg[i] += g[o * c + ch] / at.len() as f32);
                assert_eq!(largest[o * c + ch], top);
                let mean = at.iter().map(|&i| x[i]).sum::<f32>() / at.len() as f32;
                assert!((means[o * c + ch] - mean).abs() < 1e-5);
            }
            max_grad(&threads, &shape, &x, &g, true, &mut max_in);
            avg_grad(&threads, &shape, &g, true, &mut avg_in);
            for i in 0..x.len() {
                assert!((max_in[i] - want_max[i]).abs() < 1e-5 && (avg_in[i] - want_avg[i]).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn nan_wins_and_the_first_of_equals_takes_the_gradient() {
        let shape = PoolShape::new(PoolDesc::square(2, 2, 0), Shape4::new(1, 1, 2, 4)).unwrap();
        let x = [1.0, 1.0, 3.0, f32::NAN, 1.0, 1.0, 9.0, 2.0];
        for isa in Isa::available() {
            let threads = Threads::serial().with_isa(isa);
            let (mut out, mut grad) = ([0.0; 2], [0.0; 8]);
            max(&threads, &shape, &x, &mut out);
            assert!(out[0] == 1.0 && out[1].is_nan());
            max_grad(&threads, &shape, &x, &[5.0, 7.0], false, &mut grad);
            assert_eq!(grad, [5.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0]);
        }
    }
}
