//! From the published orders (`n, c, h, w` and `out, in, kh, kw`) to the stored ones, and back.

use defrost_tensor::Shape4;

use crate::Threads;

/// Writes or adds the transpose of a `rows × columns` matrix.
pub(crate) fn transpose(x: &[f32], rows: usize, columns: usize, accumulate: bool, out: &mut [f32]) {
    /// Blocks of both matrices that fit the first-level cache.
    const BLOCK: usize = 32;
    for r in (0..rows).step_by(BLOCK) {
        for c in (0..columns).step_by(BLOCK) {
            for c in c..columns.min(c + BLOCK) {
                for r in r..rows.min(r + BLOCK) {
                    let (v, o) = (x[r * columns + c], &mut out[c * rows + r]);
                    *o = if accumulate { *o + v } else { v };
                }
            }
        }
    }
}

/// From `n, c, h, w` to `n, h, w, c`; added to `out` where `accumulate`.
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn nchw_to_nhwc(threads: &Threads, shape: Shape4, x: &[f32], accumulate: bool, out: &mut [f32]) {
    assert_eq!((x.len(), out.len()), (shape.len(), shape.len()), "activation");
    let image = shape.image_len();
    threads.for_chunks(out, image, |n, out| {
        transpose(&x[n * image..][..image], shape.c, shape.area(), accumulate, out);
    });
}

/// From `n, h, w, c` to `n, c, h, w`.
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn nhwc_to_nchw(threads: &Threads, shape: Shape4, x: &[f32], out: &mut [f32]) {
    assert_eq!((x.len(), out.len()), (shape.len(), shape.len()), "activation");
    let image = shape.image_len();
    threads.for_chunks(out, image, |n, out| {
        transpose(&x[n * image..][..image], shape.area(), shape.c, false, out);
    });
}

/// From `out, in, kh, kw` to `kh, kw, in, out`, where `shape` is `[out, in, kh, kw]`.
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn oihw_to_hwio(shape: [usize; 4], x: &[f32], out: &mut [f32]) {
    blocks(shape, x.len(), out.len(), |oihw, hwio, outs| {
        for (from, to) in (oihw..).step_by(shape[1..].iter().product()).zip(hwio..hwio + outs) {
            out[to] = x[from];
        }
    });
}

/// From `kh, kw, in, out` to `out, in, kh, kw`, where `shape` is `[out, in, kh, kw]`.
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn hwio_to_oihw(shape: [usize; 4], x: &[f32], out: &mut [f32]) {
    blocks(shape, x.len(), out.len(), |oihw, hwio, outs| {
        for (to, from) in (oihw..).step_by(shape[1..].iter().product()).zip(hwio..hwio + outs) {
            out[to] = x[from];
        }
    });
}

/// Calls `row` for rows of output channels of one input channel and tap, so that all elements come once: with the place of
/// its first element in both orders, and its length. A block of rows stays in the second-level cache.
fn blocks(shape: [usize; 4], oihw: usize, hwio: usize, mut row: impl FnMut(usize, usize, usize)) {
    /// Output and input channels of a block: a cache line of either order holds this many.
    const BLOCK: usize = 16;
    let [outputs, inputs, kh, kw] = shape;
    let (taps, len) = (kh * kw, shape.iter().product::<usize>());
    assert_eq!((oihw, hwio), (len, len), "weights");
    for o in (0..outputs).step_by(BLOCK) {
        for first in (0..inputs).step_by(BLOCK) {
            for t in 0..taps {
                for i in first..inputs.min(first + BLOCK) {
                    row((o * inputs + i) * taps + t, (t * inputs + i) * outputs + o, BLOCK.min(outputs - o));
                }
            }
        }
    }
}

/// Pictures (`n, h, w, c` bytes) as numbers: `x = byte · scale[c] + shift[c]`; `reversed` takes the channels from the last.
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn pixels(
    threads: &Threads,
    shape: Shape4,
    bytes: &[u8],
    scale: &[f32],
    shift: &[f32],
    reversed: bool,
    out: &mut [f32],
) {
    let c = shape.c;
    assert_eq!((bytes.len(), out.len()), (shape.len(), shape.len()), "pictures");
    assert_eq!((scale.len(), shift.len()), (c, c), "scale and shift");
    let row = shape.w * c;
    threads.for_chunks(out, row, |i, out| {
        for (out, bytes) in out.chunks_exact_mut(c).zip(bytes[i * row..][..row].chunks_exact(c)) {
            for (k, o) in out.iter_mut().enumerate() {
                let byte = bytes[if reversed { c - 1 - k } else { k }];
                *o = f32::from(byte) * scale[k] + shift[k];
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn orders_convert_and_come_back() {
        let shape = Shape4::new(2, 5, 3, 37);
        let (x, threads) = (random(shape.len(), 1), Threads::new(2));
        let (mut nhwc, mut back) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        nchw_to_nhwc(&threads, shape, &x, false, &mut nhwc);
        let at = |n: usize, c: usize, y: usize, w: usize| x[((n * 5 + c) * 3 + y) * 37 + w];
        assert_eq!(nhwc[((3 + 2) * 37 + 11) * 5 + 4], at(1, 4, 2, 11));
        nhwc_to_nchw(&threads, shape, &nhwc, &mut back);
        assert_eq!(back, x);
        nchw_to_nhwc(&threads, shape, &x, true, &mut nhwc);
        assert_eq!(nhwc[9], 2.0 * at(0, 4, 0, 1));

        for [o, i, h, w] in [[4, 3, 2, 5], [37, 18, 1, 3], [16, 33, 1, 1]] {
            let len = o * i * h * w;
            let weights = random(len, 2);
            let (mut hwio, mut back) = (vec![0.0; len], vec![0.0; len]);
            oihw_to_hwio([o, i, h, w], &weights, &mut hwio);
            for (at, &value) in weights.iter().enumerate() {
                let (tap, input, output) = (at % (h * w), at / (h * w) % i, at / (h * w * i));
                assert_eq!(hwio[(tap * i + input) * o + output], value);
            }
            hwio_to_oihw([o, i, h, w], &hwio, &mut back);
            assert_eq!(back, weights);
        }
    }

    #[test]
    fn pixels_are_scaled_and_reversed_where_asked() {
        let (shape, bytes) = (Shape4::new(1, 3, 1, 2), [0, 1, 2, 10, 20, 30]);
        let mut out = [0.0; 6];
        let (scale, shift) = ([1.0, 2.0, 3.0], [0.5, 0.0, -1.0]);
        pixels(&Threads::serial(), shape, &bytes, &scale, &shift, false, &mut out);
        assert_eq!(out, [0.5, 2.0, 5.0, 10.5, 40.0, 89.0]);
        pixels(&Threads::serial(), shape, &bytes, &scale, &shift, true, &mut out);
        assert_eq!(out, [2.5, 2.0, -1.0, 30.5, 40.0, 29.0]);
    }
}
