//! A few rows times a transposed matrix: dot products of long rows.
//!
//! A dense layer over a small batch reads weights that fit into no cache, once: what it takes is the time to read them. So
//! they are read where they lie, along their rows, and neither packed nor read in columns.

use crate::simd::{Vector, dispatch, load, prefetch};

/// Most rows of the left matrix: with more, weights that are packed are read less often.
pub(crate) const ROWS: usize = 32;
/// Rows that are multiplied at once, at most.
const GROUP: usize = 8;
/// Columns of a task, a multiple of each number of columns that are summed at once.
pub(crate) const COLUMNS: usize = 48;
/// Terms that are worked off before the next ones: as many of all left rows stay in the first-level cache.
const TERMS: usize = 1024;
/// Floats between what is multiplied and what is asked for.
const AHEAD: usize = 256;
/// Floats of the widest vector.
const WIDEST: usize = 16;

/// Floats of workspace for [`dots`].
pub(crate) const OWN: usize = ROWS * COLUMNS * WIDEST;

/// The operands of [`dots`]: at most [`ROWS`] rows of `a` and [`COLUMNS`] rows of `b`, all `k` long, one after another.
#[derive(Clone, Copy)]
pub(crate) struct Dots<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
    pub(crate) k: usize,
}

// `sums[i · columns + j] = a[i] · b[j]`, in an order that depends on `k` alone.
dispatch!(
    pub(crate) fn dots(operands: &Dots<'_>, own: &mut [f32], sums: &mut [f32]) = dots_body
);

#[inline(always)]
fn dots_body<V: Vector>(operands: &Dots<'_>, own: &mut [f32], sums: &mut [f32]) {
    let Dots { a, b, k } = *operands;
    let (rows, columns) = (a.len() / k, b.len() / k);
    assert!((1..=ROWS).contains(&rows) && columns <= COLUMNS && own.len() >= OWN);
    assert_eq!((a.len(), b.len(), sums.len()), (rows * k, columns * k, rows * columns), "matrices");
    own.fill(0.0);
    for first in (0..k).step_by(TERMS) {
        let terms = TERMS.min(k - first);
        let mut j = 0;
        while j < columns {
            let wide = V::LANES == WIDEST && j + 3 <= columns;
            for group in (0..rows).step_by(GROUP) {
                let some = (rows - group).min(GROUP);
                // SAFETY: rows and columns exist, and their sums have places.
                unsafe {
                    let (a, b) = (a.as_ptr().add(group * k + first), b.as_ptr().add(j * k + first));
                    let own = own.as_mut_ptr().add((j * ROWS + group) * WIDEST);
                    match (some, wide) {
                        (1, true) => add::<V, 1, 3>(a, b, k, terms, some, own),
                        (2, true) => add::<V, 2, 3>(a, b, k, terms, some, own),
                        (3..=4, true) => add::<V, 4, 3>(a, b, k, terms, some, own),
                        (_, true) => add::<V, 8, 3>(a, b, k, terms, some, own),
                        (1, false) => add::<V, 1, 1>(a, b, k, terms, some, own),
                        (2, false) => add::<V, 2, 1>(a, b, k, terms, some, own),
                        (3..=4, false) => add::<V, 4, 1>(a, b, k, terms, some, own),
                        (_, false) => add::<V, 8, 1>(a, b, k, terms, some, own),
                    }
                }
            }
            j += if wide { 3 } else { 1 };
        }
    }
    for (j, lanes) in own.chunks_exact(ROWS * WIDEST).take(columns).enumerate() {
        for (i, lanes) in lanes.chunks_exact(WIDEST).take(rows).enumerate() {
            sums[i * columns + j] = lanes[..V::LANES].iter().sum();
        }
    }
}

/// Adds `terms` products of `R` rows and `C` columns to their sums' lanes. Of rows beyond `rows` the last is taken.
///
/// # Safety
/// `terms` floats of each of `rows` rows and `C` columns, `k` apart, can be read, and `own` has places for all.
#[inline(always)]
unsafe fn add<V: Vector, const R: usize, const C: usize>(
    a: *const f32,
    b: *const f32,
    k: usize,
    terms: usize,
    rows: usize,
    own: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let a: [*const f32; R] = std::array::from_fn(|i| a.add(i.min(rows - 1) * k));
        let b: [*const f32; C] = std::array::from_fn(|j| b.add(j * k));
        let place = |i: usize, j: usize| own.add((j * ROWS + i) * WIDEST);
        let mut acc: [[V; C]; R] = std::array::from_fn(|i| std::array::from_fn(|j| V::load(place(i, j))));
        for t in (0..terms).step_by(V::LANES) {
            let lanes = V::LANES.min(terms - t);
            let bs: [V; C] = std::array::from_fn(|j| {
                prefetch(b[j].wrapping_add(t + AHEAD));
                load::<V>(b[j].add(t), lanes)
            });
            for i in 0..R {
                let x = load::<V>(a[i].add(t), lanes);
                for j in 0..C {
                    acc[i][j] = x.fma(bs[j], acc[i][j]);
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            for (j, acc) in acc.iter().enumerate() {
                acc.store(place(i, j));
            }
        }
    }
}
