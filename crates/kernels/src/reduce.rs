//! Sums in a fixed order: over channels, over squares, over the shards of a gradient.

use crate::Threads;
use crate::scratch::{carve, floats_for};
use crate::simd::{Vector, dispatch};

/// `out = Σ shards` in the shards' order (or `out += …`); `partial` holds shards of `part` floats each.
pub(crate) fn add_shards(threads: &Threads, partial: &[f32], part: usize, accumulate: bool, out: &mut [f32]) {
    let chunk = 1 << 12;
    threads.for_chunks(out, chunk, |i, out| {
        let span = i * chunk..i * chunk + out.len();
        let mut sums = partial.chunks_exact(part).map(|shard| &shard[span.clone()]);
        if !accumulate {
            out.copy_from_slice(sums.next().expect("there is a shard"));
        }
        for shard in sums {
            add_to(threads.isa(), shard, out);
        }
    });
}

dispatch!(fn add_to(x: &[f32], out: &mut [f32]) = add_to_body);

#[inline(always)]
fn add_to_body<V: Vector>(x: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(x).for_each(|(o, &x)| *o += x);
}

/// Shards that sums over rows are cut into at most.
pub(crate) const ROW_SHARDS: usize = 16;

/// Into how many shards sums over `rows` rows are cut: a function of the shape alone.
pub(crate) fn row_shards(rows: usize) -> usize {
    rows.div_ceil(64).clamp(1, ROW_SHARDS)
}

/// Adds all rows of `len` sums to the first, which is returned.
pub(crate) fn add_rows(rows: &mut [f64], len: usize) -> &mut [f64] {
    let (total, rest) = rows.split_at_mut(len);
    for row in rest.chunks_exact(len) {
        total.iter_mut().zip(row).for_each(|(t, s)| *t += s);
    }
    total
}

/// Floats of workspace that [`channel_sum`] needs.
pub fn channel_sum_workspace(rows: usize, channels: usize) -> usize {
    floats_for::<f64>(row_shards(rows) * channels)
}

/// `sum[c] = Σ_rows x[row][c]` (or `+=`), in double precision.
///
/// # Panics
/// Where a slice has another length than the numbers say.
pub fn channel_sum(
    threads: &Threads,
    x: &[f32],
    rows: usize,
    accumulate: bool,
    sum: &mut [f32],
    workspace: &mut [f32],
) {
    let channels = sum.len();
    assert_eq!(x.len(), rows * channels, "summands");
    let shards = row_shards(rows);
    let (partial, _) = carve::<f64>(workspace, shards * channels);
    threads.for_chunks(partial, channels, |shard, partial| {
        partial.fill(0.0);
        let rows = rows * shard / shards..rows * (shard + 1) / shards;
        sum_rows(threads.isa(), &x[rows.start * channels..rows.end * channels], partial);
    });
    for (out, &mut total) in sum.iter_mut().zip(add_rows(partial, channels)) {
        *out = if accumulate { *out + total as f32 } else { total as f32 };
    }
}

dispatch!(fn sum_rows(x: &[f32], sums: &mut [f64]) = sum_rows_body);

#[inline(always)]
fn sum_rows_body<V: Vector>(x: &[f32], sums: &mut [f64]) {
    for row in x.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x));
    }
}

/// Elements of a shard of [`sum_squares`].
const SQUARES: usize = 1 << 15;

/// Floats of workspace that [`sum_squares`] needs.
pub fn sum_squares_workspace(len: usize) -> usize {
    floats_for::<f64>(len.div_ceil(SQUARES))
}

/// `Σ x²`, in double precision.
pub fn sum_squares(threads: &Threads, x: &[f32], workspace: &mut [f32]) -> f64 {
    let (partial, _) = carve::<f64>(workspace, x.len().div_ceil(SQUARES));
    threads.for_chunks(partial, 1, |i, out| {
        let end = x.len().min((i + 1) * SQUARES);
        out[0] = squares(threads.isa(), &x[i * SQUARES..end]);
    });
    partial.iter().sum()
}

dispatch!(fn squares(x: &[f32]) -> f64 = squares_body);

#[inline(always)]
fn squares_body<V: Vector>(x: &[f32]) -> f64 {
    // As many running sums as hide the latency of the addition.
    let mut sums = [0.0f64; 32];
    let (chunks, rest) = x.as_chunks::<32>();
    for chunk in chunks {
        for (s, &x) in sums.iter_mut().zip(chunk) {
            *s += f64::from(x) * f64::from(x);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn sums_are_exact_to_the_last_bit_and_do_not_depend_on_the_threads() {
        let (rows, channels) = (1000, 7);
        let x = random(rows * channels, 1);
        let want: Vec<f32> = (0..channels)
            .map(|c| x[c..].iter().step_by(channels).map(|&v| f64::from(v)).sum::<f64>() as f32)
            .collect();
        for count in [1, 2] {
            let threads = Threads::new(count);
            let mut ws = vec![0.0; channel_sum_workspace(rows, channels)];
            let mut got = vec![9.0; channels];
            channel_sum(&threads, &x, rows, false, &mut got, &mut ws);
            assert_eq!(got, want);
            channel_sum(&threads, &x, rows, true, &mut got, &mut ws);
            assert!(got.iter().zip(&want).all(|(g, w)| (g - 2.0 * w).abs() < 1e-5));
        }
        let x = random(100_003, 2);
        let want: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
        let mut ws = vec![0.0; sum_squares_workspace(x.len())];
        let one = sum_squares(&Threads::new(1), &x, &mut ws);
        assert!((one - want).abs() < 1e-9 * want);
        assert_eq!(one.to_bits(), sum_squares(&Threads::new(2), &x, &mut ws).to_bits());
    }
}
