//! The two-dimensional transforms of whole tiles, from and to wherever they lie.
//!
//! One dimension is done in registers; between the two a tile rests in a square on the stack.

use super::points::{self, MOST};
use crate::simd::Vector;

/// Where a tile's entries come from. Traits and not closures, which would not take on their caller's instruction set.
pub(super) trait Load<V> {
    /// Entry `(i, j)`.
    ///
    /// # Safety
    /// The tile has the entry.
    unsafe fn load(&self, i: usize, j: usize) -> V;
}

/// Where a tile's entries go.
pub(super) trait Store<V> {
    /// Writes entry `(i, j)`.
    ///
    /// # Safety
    /// The tile has the entry.
    unsafe fn store(&self, i: usize, j: usize, v: V);
}

/// Entries that lie `row` and `column` floats apart.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) at: *mut f32,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl Grid {
    /// Entries that are only read.
    #[inline(always)]
    pub(super) fn read(at: *const f32, row: usize, column: usize) -> Self {
        Self { at: at.cast_mut(), row, column }
    }
}

impl<V: Vector> Load<V> for Grid {
    #[inline(always)]
    unsafe fn load(&self, i: usize, j: usize) -> V {
        // SAFETY: the caller's.
        unsafe { V::load(self.at.add(i * self.row + j * self.column)) }
    }
}

impl<V: Vector> Store<V> for Grid {
    #[inline(always)]
    unsafe fn store(&self, i: usize, j: usize, v: V) {
        // SAFETY: the caller's.
        unsafe { v.store(self.at.add(i * self.row + j * self.column)) }
    }
}

/// Makes a function that runs a 1-D transform over a tile's columns, then over its rows. `$before` and `$after` say how
/// long a column or row is, by m.
macro_rules! both_ways {
    ($(#[$doc:meta])* $name:ident, |$m:ident| $before:expr, |$after_m:ident| $after:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// `from` and `to` have all entries of a tile.
        #[inline(always)]
        pub(super) unsafe fn $name<V: Vector>(m: [usize; 2], from: &impl Load<V>, to: &impl Store<V>) {
            #[inline(always)]
            const fn before($m: usize) -> usize {
                $before
            }
            #[inline(always)]
            const fn after($after_m: usize) -> usize {
                $after
            }
            let mut square = [[V::splat(0.0); MOST]; MOST];
            macro_rules! columns {
                ($one:literal) => {
                    for j in 0..before(m[1]) {
                        let mut column = [V::splat(0.0); MOST];
                        for i in 0..before($one) {
                            // SAFETY: the caller's.
                            column[i] = unsafe { from.load(i, j) };
                        }
                        let column = points::$name::<V, $one>(column);
                        for i in 0..after($one) {
                            square[i][j] = column[i];
                        }
                    }
                };
            }
            macro_rules! rows {
                ($one:literal) => {
                    for i in 0..after(m[0]) {
                        let row = points::$name::<V, $one>(square[i]);
                        for j in 0..after($one) {
                            // SAFETY: the caller's.
                            unsafe { to.store(i, j, row[j]) };
                        }
                    }
                };
            }
            match m[0] {
                4 => columns!(4),
                3 => columns!(3),
                _ => columns!(2),
            }
            match m[1] {
                4 => rows!(4),
                3 => rows!(3),
                _ => rows!(2),
            }
        }
    };
}

both_ways!(
    /// Sources to points.
    source, |m| m + 2, |m| m + 2
);
both_ways!(
    /// A window's weights to points.
    weight, |_m| 3, |m| m + 2
);
both_ways!(
    /// Points to targets.
    target, |m| m + 2, |m| m
);
both_ways!(
    /// Gradients of targets to points.
    target_transposed, |m| m, |m| m + 2
);
both_ways!(
    /// Points to gradients of a window's weights.
    weight_transposed, |m| m + 2, |_m| 3
);
