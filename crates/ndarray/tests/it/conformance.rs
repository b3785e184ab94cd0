//! The shared suite on the CPU. It supports every call, so there are no expectations.

use std::sync::Arc;

use defrost_conformance::{Report, run_all, run_plans};
use defrost_kernels::Isa;
use defrost_ndarray::{CpuKernels, CpuOptions};

/// On one and on two threads; then on each other instruction set that this machine has, and without Winograd's
/// convolutions.
fn passes_with_the_same_bits(run: impl Fn(&Arc<CpuKernels>) -> Report) {
    let report = |options: CpuOptions| {
        let report = run(&Arc::new(CpuKernels::with_options(options)));
        assert!(report.passed(), "{options:?}: {report}");
        report
    };
    let options = CpuOptions::default();
    let [one, two] = [1, 2].map(|threads| report(options.with_threads(threads)));
    assert!(one.differing(&two).is_empty(), "{:?}", one.differing(&two));
    let others = Isa::available().into_iter().skip(1).map(|isa| options.with_isa(isa));
    others.chain([options.exact()]).for_each(|options| drop(report(options.with_threads(2))));
}

#[test]
fn every_call_is_right_and_the_same_on_one_and_two_threads() {
    passes_with_the_same_bits(|kernels| run_all(&**kernels, 1.0, &[]));
}

#[test]
fn whole_networks_are_right_and_the_same_on_one_and_two_threads() {
    passes_with_the_same_bits(|kernels| run_plans(kernels, 1.0, &[]));
}
