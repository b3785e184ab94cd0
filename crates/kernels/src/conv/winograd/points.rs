//! The one-dimensional transforms of F(m, 3) for m of 2, 3 and 4.
//!
//! `y = Aᵀ [(G g) ⊙ (Bᵀ d)]` (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016), built by Toom
//! and Cook's construction from the points 0, ±1, ∞ (m = 2), ±3/8, ±5/4, ∞ (m = 3) and 0, ±5/8, ±3/2, ∞ (m = 4). The
//! weights' gradient is the transposed map: `Gᵀ [(A g) ⊙ (Bᵀ d)]`.
//!
//! The points decide the rounding. Those of m = 3 and 4 were searched for among pairs `±a, ±b` of short fractions: with
//! 64 channels of normal numbers F(4×4) is then off by 8·10⁻⁷ (relative L2) instead of 2·10⁻⁶ with the customary 0, ±1,
//! ±2, its largest error is six times smaller, and F(3×3) is as exact as a direct sum. Being pairs, they cost nothing:
//! even and odd parts are shared.
//!
//! All functions take and give arrays of the largest size, so that one code serves all; only the first `m` or `m + 2`
//! entries (3 of a window) count, and the compiler drops the others.

use crate::simd::Vector;

/// Entries of a row or column of a transformed tile, at most.
pub(super) const MOST: usize = 6;

type Row<V> = [V; MOST];

/// The points of F(m, 3) are `±a`, `±b`, ∞, and 0 for m = 4.
struct Pairs {
    a: f32,
    b: f32,
    /// The products of a point's differences from the others, for `a` and for `b`: what its weights are divided by.
    over_a: f32,
    over_b: f32,
}

const THREE: Pairs = {
    let (a, b) = (0.375f32, 1.25f32);
    Pairs { a, b, over_a: 1.0 / (2.0 * a * (a * a - b * b)), over_b: 1.0 / (2.0 * b * (b * b - a * a)) }
};

const FOUR: Pairs = {
    let (a, b) = (0.625f32, 1.5f32);
    Pairs {
        a,
        b,
        over_a: 1.0 / (2.0 * a * a * (a * a - b * b)),
        over_b: 1.0 / (2.0 * b * b * (b * b - a * a)),
    }
};

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
            // (x² - b²)(x ± a), (x² - a²)(x ± b), (x² - a²)(x² - b²)
            let Pairs { a, b, .. } = THREE;
            let (odd_a, even_a) = (axpy(d1, -b * b, d3), axpy(d0, -b * b, d2));
            let (odd_b, even_b) = (axpy(d1, -a * a, d3), axpy(d0, -a * a, d2));
            [
                axpy(even_a, a, odd_a),
                axpy(even_a, -a, odd_a),
                axpy(even_b, b, odd_b),
                axpy(even_b, -b, odd_b),
                axpy(d0, a * a * b * b, axpy(d2, -(a * a + b * b), d4)),
                none,
            ]
        }
        _ => {
            // (x² - a²)(x² - b²), x (x² - b²)(x ± a), x (x² - a²)(x ± b), x (x² - a²)(x² - b²)
            let Pairs { a, b, .. } = FOUR;
            let (sum, product) = (a * a + b * b, a * a * b * b);
            let (even_a, odd_a) = (axpy(d2, -b * b, d4), axpy(d1, -b * b, d3));
            let (even_b, odd_b) = (axpy(d2, -a * a, d4), axpy(d1, -a * a, d3));
            [
                axpy(d0, product, axpy(d2, -sum, d4)),
                axpy(odd_a, a, even_a),
                axpy(odd_a, -a, even_a),
                axpy(odd_b, b, even_b),
                axpy(odd_b, -b, even_b),
                axpy(d1, product, axpy(d3, -sum, d5)),
            ]
        }
    }
}

/// `G g`: 3 weights to m + 2 points.
#[inline(always)]
pub(super) fn weight<V: Vector, const M: usize>(g: Row<V>) -> Row<V> {
    let [g0, g1, g2, ..] = g;
    let none = V::splat(0.0);
    if M == 2 {
        let (even, odd) = (scale(g0.add(g2), 0.5), scale(g1, 0.5));
        return [g0, even.add(odd), even.sub(odd), g2, none, none];
    }
    let Pairs { a, b, over_a, over_b } = if M == 3 { THREE } else { FOUR };
    let even_a = axpy(g2, a * a * over_a, scale(g0, over_a));
    let even_b = axpy(g2, b * b * over_b, scale(g0, over_b));
    let (odd_a, odd_b) = (scale(g1, a * over_a), scale(g1, b * over_b));
    if M == 3 {
        [even_a.add(odd_a), odd_a.sub(even_a), even_b.add(odd_b), odd_b.sub(even_b), g2, none]
    } else {
        let at_0 = scale(g0, 1.0 / (a * a * b * b));
        [at_0, even_a.add(odd_a), even_a.sub(odd_a), even_b.add(odd_b), even_b.sub(odd_b), g2]
    }
}

/// `Aᵀ p`: m + 2 points to m targets.
#[inline(always)]
pub(super) fn target<V: Vector, const M: usize>(p: Row<V>) -> Row<V> {
    let [p0, p1, p2, p3, p4, p5] = p;
    let none = V::splat(0.0);
    match M {
        2 => [p0.add(p1.add(p2)), p1.sub(p2).add(p3), none, none, none, none],
        3 => {
            let Pairs { a, b, .. } = THREE;
            let (even_a, odd_a, even_b, odd_b) = (p0.add(p1), p0.sub(p1), p2.add(p3), p2.sub(p3));
            [
                even_a.add(even_b),
                axpy(odd_a, a, scale(odd_b, b)),
                axpy(even_a, a * a, axpy(even_b, b * b, p4)),
                none,
                none,
                none,
            ]
        }
        _ => {
            let Pairs { a, b, .. } = FOUR;
            let (even_a, odd_a, even_b, odd_b) = (p1.add(p2), p1.sub(p2), p3.add(p4), p3.sub(p4));
            [
                p0.add(even_a).add(even_b),
                axpy(odd_a, a, scale(odd_b, b)),
                axpy(even_a, a * a, scale(even_b, b * b)),
                axpy(odd_a, a * a * a, axpy(odd_b, b * b * b, p5)),
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
            let Pairs { a, b, .. } = THREE;
            let (even_a, even_b) = (axpy(g2, a * a, g0), axpy(g2, b * b, g0));
            [axpy(g1, a, even_a), axpy(g1, -a, even_a), axpy(g1, b, even_b), axpy(g1, -b, even_b), g2, none]
        }
        _ => {
            let Pairs { a, b, .. } = FOUR;
            let (even_a, odd_a) = (axpy(g2, a * a, g0), axpy(g3, a * a, g1));
            let (even_b, odd_b) = (axpy(g2, b * b, g0), axpy(g3, b * b, g1));
            [
                g0,
                axpy(odd_a, a, even_a),
                axpy(odd_a, -a, even_a),
                axpy(odd_b, b, even_b),
                axpy(odd_b, -b, even_b),
                g3,
            ]
        }
    }
}

/// `Gᵀ p`: the transposed [`weight`], m + 2 points to 3 weights.
#[inline(always)]
pub(super) fn weight_transposed<V: Vector, const M: usize>(p: Row<V>) -> Row<V> {
    let [p0, p1, p2, p3, p4, p5] = p;
    let none = V::splat(0.0);
    if M == 2 {
        let (even, odd) = (scale(p1.add(p2), 0.5), scale(p1.sub(p2), 0.5));
        return [p0.add(even), odd, even.add(p3), none, none, none];
    }
    let Pairs { a, b, over_a, over_b } = if M == 3 { THREE } else { FOUR };
    // Of a pair, what its even powers meet and what its odd ones do, and the point at infinity.
    let (even_a, odd_a, even_b, odd_b, last) = if M == 3 {
        (p0.sub(p1), p0.add(p1), p2.sub(p3), p2.add(p3), p4)
    } else {
        (p1.add(p2), p1.sub(p2), p3.add(p4), p3.sub(p4), p5)
    };
    let w0 = axpy(even_a, over_a, scale(even_b, over_b));
    let w0 = if M == 3 { w0 } else { axpy(p0, 1.0 / (a * a * b * b), w0) };
    let w1 = axpy(odd_a, a * over_a, scale(odd_b, b * over_b));
    let w2 = axpy(even_a, a * a * over_a, axpy(even_b, b * b * over_b, last));
    [w0, w1, w2, none, none, none]
}
