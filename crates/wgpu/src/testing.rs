//! What tests open: an adapter if there is one.

use std::sync::{Arc, OnceLock};

use crate::{OpenError, WgpuKernels, WgpuOptions};

/// Opens an adapter. Where there is none, says so loudly and returns nothing.
///
/// # Panics
/// Where it cannot be opened, and where there is none but `DEFROST_REQUIRE_ADAPTER` is set.
pub fn open(options: &WgpuOptions) -> Option<Arc<WgpuKernels>> {
    match WgpuKernels::new(options) {
        Ok(kernels) => Some(Arc::new(kernels)),
        Err(error @ OpenError::NoAdapter) if std::env::var_os("DEFROST_REQUIRE_ADAPTER").is_none() => {
            eprintln!("\n*** SKIPPED: this test of the wgpu backend did not run. {error} ***\n");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// One device for all tests of a process: a driver compiles each shader anew for each device.
pub fn shared() -> Option<Arc<WgpuKernels>> {
    static KERNELS: OnceLock<Option<Arc<WgpuKernels>>> = OnceLock::new();
    KERNELS.get_or_init(|| open(&WgpuOptions::default())).clone()
}
