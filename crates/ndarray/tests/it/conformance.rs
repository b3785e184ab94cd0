//! The shared suite on the CPU. It supports every call, so there are no expectations.

use std::sync::Arc;

use defrost_conformance::{Report, run_all, run_plans};
use defrost_kernels::Isa;
use defrost_ndarray::{CpuKernels, CpuOptions};

/// On each instruction set that this machine has, and without Winograd's convolutions.
fn passes_with_the_same_bits(run: impl Fn(&Arc<CpuKernels>) -> Report) {
    let options = CpuOptions::default();
    let paths = Isa::available().into_iter().map(|isa| options.with_isa(isa));
    for path in paths.chain([options.exact()]) {
        let [one, two] = [1, 2].map(|threads| {
            let kernels = Arc::new(CpuKernels::with_options(path.with_threads(threads)));
            let report = run(&kernels);
            assert!(report.passed(), "{path:?}: {report}");
            report
        });
        assert!(one.differing(&two).is_empty(), "{path:?}: {:?}", one.differing(&two));
    }
}

#[test]
fn every_call_is_right_and_the_same_on_one_and_two_threads() {
    passes_with_the_same_bits(|kernels| run_all(&**kernels, 1.0, &[]));
}

#[test]
fn whole_networks_are_right_and_the_same_on_one_and_two_threads() {
    passes_with_the_same_bits(|kernels| run_plans(kernels, 1.0, &[]));
}
