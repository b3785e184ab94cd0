//! The shared suite. Every call is supported, so there are no expectations.

use defrost_conformance::{Case, cases, run_all, run_cases, run_plans};
use defrost_tensor::Kernels;
use defrost_wgpu::testing::{open, shared};
use defrost_wgpu::{WgpuKernels, WgpuOptions};

/// What a GPU may be off by, in terms of what a CPU may.
const SCALE: f64 = 10.0;

#[test]
fn every_call_is_right() {
    let Some(kernels) = shared() else { return };
    let report = run_all(&*kernels, SCALE, &[]);
    assert!(report.passed(), "{report}");
}

#[test]
fn whole_networks_are_right() {
    let Some(kernels) = shared() else { return };
    let report = run_plans(&kernels, SCALE, &[]);
    assert!(report.passed(), "{report}");
}

/// Whether each call of each network has room for what it stores: where it has not, it is refused. How near the numbers are is
/// no matter here: rounding to 11 bits flips ReLUs of networks as small as these, and with them gradients.
#[test]
fn whole_networks_have_room_in_16_bits() {
    let Some(single) = shared() else { return };
    if !single.adapter().half {
        eprintln!("\n*** SKIPPED: {} has no 16-bit floating point ***\n", single.adapter());
        return;
    }
    let mut options = WgpuOptions::default();
    options.half = true;
    let Some(kernels) = open(&options) else { return };
    let report = run_plans(&kernels, 1e5, &[]);
    assert!(report.passed(), "{report}");
}

/// The products of GPUs, by tiles in workgroup memory; a software adapter takes others by itself.
#[test]
fn products_by_tiles_are_right() {
    let mut options = WgpuOptions::default();
    options.tiles = Some(true);
    let Some(kernels) = open(&options) else { return };
    let products = |case: &Case| ["conv2d", "gemm"].iter().any(|name| case.name.starts_with(name));
    pass(&kernels, products);
}

/// Matrices, pictures and sums that are larger than what a kernel may see at once, and grids that are folded.
#[test]
fn what_is_larger_than_the_limits_is_cut() {
    let mut options = WgpuOptions::default();
    (options.max_binding, options.max_groups) = (Some(8192), Some(3));
    let Some(kernels) = open(&options) else { return };
    // An image of a convolution or a pool must fit; what does not is refused before the first step.
    let larger = |case: &Case| {
        let layouts = case.layouts();
        let large = layouts.reads().iter().chain(&layouts.writes()).any(|l| l.len() > 2048);
        large && kernels.supports(&layouts)
    };
    let seen = pass(&kernels, larger);
    for call in
        ["conv2d/", "conv2d_grad_input", "conv2d_grad_weight", "gemm", "norm_train_grad", "max_pool", "adam"]
    {
        assert!(seen.iter().any(|name| name.starts_with(call)), "no large case of {call}");
    }
}

/// Runs the chosen cases and returns their names.
fn pass(kernels: &WgpuKernels, choose: impl Fn(&Case) -> bool) -> Vec<String> {
    let chosen: Vec<_> = cases().into_iter().filter(choose).collect();
    let report = run_cases(kernels, &chosen, SCALE, &[]);
    assert!(report.passed(), "{report}");
    chosen.into_iter().map(|case| case.name).collect()
}
