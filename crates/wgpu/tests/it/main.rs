//! The integration tests of the wgpu backend. They need an adapter; software Vulkan is enough.

mod conformance;

use std::sync::{Arc, OnceLock};

use defrost_wgpu::{OpenError, WgpuKernels, WgpuOptions};

/// Opens an adapter. Where there is none, says so loudly and returns nothing, or fails where `DEFROST_REQUIRE_ADAPTER`
/// is set.
fn open(options: &WgpuOptions) -> Option<Arc<WgpuKernels>> {
    match WgpuKernels::new(options) {
        Ok(kernels) => Some(Arc::new(kernels)),
        Err(error @ OpenError::NoAdapter) if std::env::var_os("DEFROST_REQUIRE_ADAPTER").is_none() => {
            eprintln!("\n*** SKIPPED: this test of the wgpu backend did not run. {error} ***\n");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// One device for all tests: a driver compiles each shader anew for each device.
fn kernels() -> Option<Arc<WgpuKernels>> {
    static KERNELS: OnceLock<Option<Arc<WgpuKernels>>> = OnceLock::new();
    KERNELS.get_or_init(|| open(&WgpuOptions::default())).clone()
}
