//! What the machine can do at most: the ceilings that kernels are measured against.

use std::time::Instant;

use crate::Threads;
use crate::simd::{Vector, dispatch};
use crate::threads::Parts;

/// Floating-point operations a second of all threads together, in fused multiply-adds on registers alone.
pub fn peak_flops(threads: &Threads) -> f64 {
    // Long enough for the system to give each thread a core of its own.
    const ROUNDS: usize = 1 << 23;
    let mut out = vec![0.0f32; threads.count() * 16];
    let parts = Parts::new(&mut out, 16);
    let mut best = 0.0f64;
    for _ in 0..5 {
        let start = Instant::now();
        threads.for_each(threads.count(), |_, i| {
            // SAFETY: each task takes its own part.
            multiply_add(threads.isa(), ROUNDS, unsafe { parts.get(i) });
        });
        let (lanes, sums) = width(threads.isa());
        let flops = 2 * lanes * sums * ROUNDS * threads.count();
        best = best.max(flops as f64 / start.elapsed().as_secs_f64());
    }
    best
}

/// Vectors that are summed at once: enough to hide the latency of one.
const SUMS: usize = 12;

fn width_body<V: Vector>() -> (usize, usize) {
    (V::LANES, SUMS)
}

dispatch!(fn width() -> (usize, usize) = width_body);

dispatch!(fn multiply_add(rounds: usize, out: &mut [f32]) = multiply_add_body);

#[inline(always)]
fn multiply_add_body<V: Vector>(rounds: usize, out: &mut [f32]) {
    let factor = V::splat(0.999);
    let mut sums = [V::splat(1.0); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sum.fma(factor, factor);
        }
    }
    let total = sums.into_iter().reduce(V::add).expect("there are sums");
    // SAFETY: 16 floats, as many as the widest vector has.
    unsafe { total.store(out[..16].as_mut_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::peak_flops;
    use crate::Threads;

    #[test]
    fn the_peak_is_a_number_of_this_century() {
        let peak = peak_flops(&Threads::serial());
        assert!((1e8..1e14).contains(&peak), "{peak}");
    }
}
