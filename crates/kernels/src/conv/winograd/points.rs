//! The one-dimensional transforms of F(m, 3) for m of 2, 3 and 4.
//!
//! `y = Aᵀ [(G g) ⊙ (Bᵀ d)]` (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016), built by Toom
//! and Cook's construction from the points 0, 1, -1, ∞ (m = 2), 0, 1, -1, 2, ∞ (m = 3) and 0, 1, -1, 2, -2, ∞ (m = 4).
//! The weights' gradient is the transposed map: `Gᵀ [(A g) ⊙ (Bᵀ d)]`.
//!
//! All functions take and give arrays of the largest size, so that one code serves all; only the first `m` or `m + 2`
//! entries (3 of a window) count, and the compiler drops the others.

use crate::simd::Vector;

/// Entries of a row or column of a transformed tile, at most.
pub(super) const MOST: usize = 6;

type Row<V> = [V; MOST];

/// `a · s + b`.
#[inline(always)]
fn axpy<V: Vector>(a: V, s: f32, b: V) -> V {
    a.fma(V::splat(s), b)
}

#[inline(always)]
fn scale<V: Vector>(a: V, s: f32) -> V {
    a.mul(V::splat(s))
}

/// `Bᵀ d`: m + 2 sources to m + 2 points.
#[inline(always)]
pub(super) fn source<V: Vector, const M: usize>(d: Row<V>) -> Row<V> {
    let [d0, d1, d2, d3, d4, d5] = d;
    let none = V::splat(0.0);
    match M {
        2 => [d0.sub(d2), d1.add(d2), d2.sub(d1), d3.sub(d1), none, none],
        3 => {
            let odd = d3.sub(d1);
            [
                axpy(d0.sub(d2), 2.0, odd),
                axpy(d1, -2.0, d3.sub(d2)),
                axpy(d1, 2.0, axpy(d2, -3.0, d3)),
                odd,
                axpy(odd, -2.0, d4.sub(d2)),
                none,
            ]
        }
        _ => {
            let (even4, odd4) = (axpy(d2, -4.0, d4), axpy(d1, -4.0, d3));
            let (even, odd) = (d4.sub(d2), scale(d3.sub(d1), 2.0));
            [
                axpy(d0, 4.0, axpy(d2, -5.0, d4)),
                even4.add(odd4),
                even4.sub(odd4),
                even.add(odd),
                even.sub(odd),
                axpy(d1, 4.0, axpy(d3, -5.0, d5)),
            ]
        }
    }
}

/// `G g`: 3 weights to m + 2 points.
#[inline(always)]
pub(super) fn weight<V: Vector, const M: usize>(g: Row<V>) -> Row<V> {
    let [g0, g1, g2, ..] = g;
    let none = V::splat(0.0);
    match M {
        2 => {
            let (even, odd) = (scale(g0.add(g2), 0.5), scale(g1, 0.5));
            [g0, even.add(odd), even.sub(odd), g2, none, none]
        }
        3 => {
            let even = g0.add(g2);
            [
                scale(g0, 0.5),
                scale(even.add(g1), -0.5),
                scale(g1.sub(even), 1.0 / 6.0),
                axpy(g0, 1.0 / 6.0, axpy(g1, 1.0 / 3.0, scale(g2, 2.0 / 3.0))),
                g2,
                none,
            ]
        }
        _ => {
            let (even, odd) = (scale(g0.add(g2), -1.0 / 6.0), scale(g1, -1.0 / 6.0));
            let (far_even, far_odd) = (axpy(g0, 1.0 / 24.0, scale(g2, 1.0 / 6.0)), scale(g1, 1.0 / 12.0));
            [scale(g0, 0.25), even.add(odd), even.sub(odd), far_even.add(far_odd), far_even.sub(far_odd), g2]
        }
    }
}

/// `Aᵀ p`: m + 2 points to m targets.
#[inline(always)]
pub(super) fn target<V: Vector, const M: usize>(p: Row<V>) -> Row<V> {
    let [p0, p1, p2, p3, p4, p5] = p;
    let none = V::splat(0.0);
    let (even, odd) = (p1.add(p2), p1.sub(p2));
    match M {
        2 => [p0.add(even), odd.add(p3), none, none, none, none],
        3 => [p0.add(even).add(p3), axpy(p3, 2.0, odd), axpy(p3, 4.0, even).add(p4), none, none, none],
        _ => {
            let (far_even, far_odd) = (p3.add(p4), p3.sub(p4));
            [
                p0.add(even).add(far_even),
                axpy(far_odd, 2.0, odd),
                axpy(far_even, 4.0, even),
                axpy(far_odd, 8.0, odd).add(p5),
                none,
                none,
            ]
        }
    }
}

/// `A g`: the transposed [`target`], m gradients to m + 2 points.
#[inline(always)]
pub(super) fn target_transposed<V: Vector, const M: usize>(g: Row<V>) -> Row<V> {
    let [g0, g1, g2, g3, ..] = g;
    let none = V::splat(0.0);
    match M {
        2 => [g0, g0.add(g1), g0.sub(g1), g1, none, none],
        3 => {
            let even = g0.add(g2);
            [g0, even.add(g1), even.sub(g1), axpy(g2, 4.0, axpy(g1, 2.0, g0)), g2, none]
        }
        _ => {
            let (even, odd) = (g0.add(g2), g1.add(g3));
            let (far_even, far_odd) = (axpy(g2, 4.0, g0), axpy(g3, 8.0, scale(g1, 2.0)));
            [g0, even.add(odd), even.sub(odd), far_even.add(far_odd), far_even.sub(far_odd), g3]
        }
    }
}

/// `Gᵀ p`: the transposed [`weight`], m + 2 points to 3 weights.
#[inline(always)]
pub(super) fn weight_transposed<V: Vector, const M: usize>(p: Row<V>) -> Row<V> {
    let [p0, p1, p2, p3, p4, p5] = p;
    let none = V::splat(0.0);
    let (w0, w1, w2) = match M {
        2 => {
            let (even, odd) = (scale(p1.add(p2), 0.5), scale(p1.sub(p2), 0.5));
            (p0.add(even), odd, even.add(p3))
        }
        3 => {
            // Columns of G: [1/2, -1/2, -1/6, 1/6, 0], [0, -1/2, 1/6, 1/3, 0], [0, -1/2, -1/6, 2/3, 1].
            let both = axpy(p2, -1.0 / 6.0, scale(p1, -0.5));
            let w0 = axpy(p0, 0.5, axpy(p3, 1.0 / 6.0, both));
            let w1 = axpy(p2, 1.0 / 6.0, axpy(p3, 1.0 / 3.0, scale(p1, -0.5)));
            (w0, w1, axpy(p3, 2.0 / 3.0, both).add(p4))
        }
        _ => {
            let (even, odd) = (scale(p1.add(p2), -1.0 / 6.0), scale(p1.sub(p2), -1.0 / 6.0));
            let (far_even, far_odd) = (p3.add(p4), p3.sub(p4));
            let w0 = axpy(p0, 0.25, axpy(far_even, 1.0 / 24.0, even));
            (w0, axpy(far_odd, 1.0 / 12.0, odd), axpy(far_even, 1.0 / 6.0, even).add(p5))
        }
    };
    [w0, w1, w2, none, none, none]
}
