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
        let x = &x[n * inside..][..inside];
        max_grad_image(threads.isa(), shape, x, &grad_out[n * outside..][..outside], accumulate, grad_in);
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
    let Shape4 { c, h, w, .. } = shape.input;
    let image = x[n * shape.input.image_len()..][..shape.input.image_len()].as_ptr();
    let rows = shape.desc.range(0, oy, h);
    for (ox, out) in out.chunks_exact_mut(c).enumerate() {
        let columns = shape.desc.range(1, ox, w);
        let window = Window { rows: rows.len(), columns: columns.len(), step: [w * c, c] };
        let start = image.wrapping_add((rows.start * w + columns.start) * c);
        for first in (0..c).step_by(V::LANES) {
            let lanes = V::LANES.min(c - first);
            // SAFETY: the window lies in the image, whose positions are `c` channels long, as the output's are.
            unsafe {
                let (best, _) = window.largest::<V>(start.wrapping_add(first), lanes);
                store::<V>(best, out.as_mut_ptr().add(first), lanes);
            }
        }
    }
}

/// Positions of a window.
#[derive(Clone, Copy)]
struct Window {
    rows: usize,
    columns: usize,
    /// Floats between rows, and between columns.
    step: [usize; 2],
}

impl Window {
    /// Calls `visit(place, offset)` for each position in row order. Places are whole numbers as floats: exact, and of the
    /// vectors' own kind. Loops of known length are unrolled.
    #[inline(always)]
    fn each(self, mut visit: impl FnMut(f32, usize)) {
        match (self.rows, self.columns) {
            (2, 2) => self.each_of(2, 2, &mut visit),
            (3, 3) => self.each_of(3, 3, &mut visit),
            (rows, columns) => self.each_of(rows, columns, &mut visit),
        }
    }

    #[inline(always)]
    fn each_of(self, rows: usize, columns: usize, visit: &mut impl FnMut(f32, usize)) {
        for y in 0..rows {
            for x in 0..columns {
                visit((y * columns + x) as f32, y * self.step[0] + x * self.step[1]);
            }
        }
    }

    /// The largest of the values from `x` on, and its place.
    ///
    /// # Safety
    /// `lanes` floats can be read at each position.
    #[inline(always)]
    unsafe fn largest<V: Vector>(self, x: *const f32, lanes: usize) -> (V, V) {
        let (mut best, mut at) = (V::splat(f32::NEG_INFINITY), V::splat(0.0));
        self.each(|place, offset| {
            // SAFETY: the caller's.
            let v = unsafe { load::<V>(x.wrapping_add(offset), lanes) };
            (best, at) = best.larger(at, v, V::splat(place));
        });
        (best, at)
    }

    /// Adds `g` to the values from `to` on, each lane at its place of `at`.
    ///
    /// # Safety
    /// `lanes` floats can be read and written at each position.
    #[inline(always)]
    unsafe fn add<V: Vector>(self, g: V, at: V, to: *mut f32, lanes: usize) {
        self.each(|place, offset| {
            let to = to.wrapping_add(offset);
            // SAFETY: the caller's.
            unsafe { store::<V>(load::<V>(to, lanes).add(g.at_place(at, V::splat(place))), to, lanes) }
        });
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
    fn max_grad_image(
        shape: &PoolShape,
        x: &[f32],
        grad_out: &[f32],
        accumulate: bool,
        grad_in: &mut [f32],
    ) = max_grad_body
);

#[inline(always)]
fn max_grad_body<V: Vector>(
    shape: &PoolShape,
    x: &[f32],
    grad_out: &[f32],
    accumulate: bool,
    grad_in: &mut [f32],
) {
    let Shape4 { c, h, w, .. } = shape.input;
    assert_eq!((x.len(), grad_in.len()), (shape.input.image_len(), x.len()), "an image");
    // Rows are cleared just before the first window that reaches them, and are then still in the cache.
    let mut cleared = if accumulate { h } else { 0 };
    for (oy, g) in grad_out.chunks_exact(shape.output.w * c).enumerate() {
        let rows = shape.desc.range(0, oy, h);
        if rows.end > cleared {
            grad_in[cleared * w * c..rows.end * w * c].fill(0.0);
            cleared = rows.end;
        }
        let (x, grad_in) = (x.as_ptr(), grad_in.as_mut_ptr());
        for (ox, g) in g.chunks_exact(c).enumerate() {
            let columns = shape.desc.range(1, ox, w);
            let window = Window { rows: rows.len(), columns: columns.len(), step: [w * c, c] };
            let start = (rows.start * w + columns.start) * c;
            for first in (0..c).step_by(V::LANES) {
                let lanes = V::LANES.min(c - first);
                // SAFETY: the window lies in the image, whose positions are `c` channels long, as the output's are.
                unsafe {
                    let (_, at) = window.largest::<V>(x.wrapping_add(start + first), lanes);
                    let g = load::<V>(g.as_ptr().add(first), lanes);
                    window.add(g, at, grad_in.wrapping_add(start + first), lanes);
                }
            }
        }
    }
    grad_in[cleared * w * c..].fill(0.0);
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
