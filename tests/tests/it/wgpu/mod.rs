//! The same on a GPU; software Vulkan is enough. Where there is no adapter, each test says loudly that it was skipped.

mod faults;
mod golden;
mod runs;

use std::sync::Arc;

use defrost::exec::Engine;
use defrost::wgpu::{WgpuEngine, testing};

/// The device that all tests share: a driver compiles each shader anew for each device.
fn engine() -> Option<Arc<dyn Engine>> {
    Some(Arc::new(WgpuEngine::with_kernels(testing::shared()?)))
}
