//! Stopwatches: things are timed in turn, and the least time of each counts.

use std::time::Instant;

/// Seconds of each of `what`: the least of `rounds`, in which each runs once in turn, after one run to warm up.
pub(crate) fn in_turn(rounds: usize, what: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    what.iter_mut().for_each(|f| f());
    let mut best = vec![f64::INFINITY; what.len()];
    for _ in 0..rounds {
        for (f, best) in what.iter_mut().zip(&mut best) {
            let start = Instant::now();
            f();
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    best
}

/// The middle one.
pub(crate) fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
