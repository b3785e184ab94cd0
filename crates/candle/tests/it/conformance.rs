//! The shared suite, without an expectation of failure: on candle's CPU, on what GPUs do (compositions of candle's
//! operations, run on the CPU), and on a GPU where the build has one and one is at hand.

use std::sync::Arc;

use defrost_candle::{CandleKernels, CandleOptions, Place, Precision};
use defrost_conformance::{Case, cases, run_all, run_cases, run_plans};

/// What a GPU may be off by, in terms of what a CPU may.
const SCALE: f64 = 10.0;

fn cpu(threads: usize) -> CandleOptions {
    CandleOptions::new(Place::Cpu { threads: Some(threads) })
}

fn open(options: &CandleOptions) -> Arc<CandleKernels> {
    Arc::new(CandleKernels::new(options).unwrap())
}

fn composed(precision: Precision) -> Arc<CandleKernels> {
    let mut options = cpu(1);
    (options.composed, options.precision) = (true, precision);
    open(&options)
}

#[test]
fn every_call_is_right_on_the_cpu() {
    let report = run_all(&*open(&cpu(1)), 1.0, &[]);
    assert!(report.passed(), "{report}");
}

#[test]
fn threads_change_no_bit() {
    let [one, two] = [1, 2].map(|threads| run_all(&*open(&cpu(threads)), 1.0, &[]));
    for (a, b) in one.outcomes.iter().zip(&two.outcomes) {
        assert_eq!(a.digest, b.digest, "{}", a.case);
    }
}

#[test]
fn whole_networks_are_right_on_the_cpu() {
    let report = run_plans(&open(&cpu(2)), 1.0, &[]);
    assert!(report.passed(), "{report}");
}

#[test]
fn every_call_is_right_as_a_composition() {
    let report = run_all(&*composed(Precision::F32), SCALE, &[]);
    assert!(report.passed(), "{report}");
}

#[test]
fn whole_networks_are_right_as_compositions() {
    let report = run_plans(&composed(Precision::F32), SCALE, &[]);
    assert!(report.passed(), "{report}");
}

/// Half precision keeps 11 bits.
#[test]
fn sixteen_bits_are_right_to_sixteen_bits() {
    let cases: Vec<_> =
        cases().into_iter().filter(|c| c.name.starts_with("conv2d") && c.tolerance > 0.0).collect();
    let scale = |case: &Case| 5e-3 / case.tolerance;
    let kernels = composed(Precision::F16);
    for case in cases.into_iter().step_by(3) {
        let report = run_cases(&*kernels, std::slice::from_ref(&case), scale(&case), &[]);
        assert!(report.passed(), "{report}");
    }
}
