//! The shared suite on the CPU. It supports every call, so there are no expectations.

use std::sync::Arc;

use defrost_conformance::{Report, run_all, run_plans};
use defrost_ndarray::CpuKernels;

fn passes_with_the_same_bits(run: impl Fn(&Arc<CpuKernels>) -> Report) {
    let [one, two] = [1, 2].map(|threads| run(&Arc::new(CpuKernels::new(Some(threads)))));
    assert!(one.passed(), "{one}");
    assert!(two.passed(), "{two}");
    assert!(one.differing(&two).is_empty(), "{:?}", one.differing(&two));
}

#[test]
fn every_call_is_right_and_the_same_on_one_and_two_threads() {
    passes_with_the_same_bits(|kernels| run_all(&**kernels, 1.0, &[]));
}

#[test]
fn whole_networks_are_right_and_the_same_on_one_and_two_threads() {
    passes_with_the_same_bits(|kernels| run_plans(kernels, 1.0, &[]));
}
