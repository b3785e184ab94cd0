//! The shared suite on the CPU. It supports every call, so there are no expectations.

use defrost_conformance::run_all;
use defrost_ndarray::CpuKernels;

#[test]
fn passes_the_suite_and_gives_the_same_bits_on_one_and_two_threads() {
    let one = run_all(&CpuKernels::new(Some(1)), 1.0, &[]);
    assert!(one.passed(), "{one}");
    let two = run_all(&CpuKernels::new(Some(2)), 1.0, &[]);
    assert!(two.passed(), "{two}");
    assert!(one.differing(&two).is_empty(), "{:?}", one.differing(&two));
}
