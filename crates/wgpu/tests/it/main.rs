//! The integration tests of the wgpu backend. They need an adapter; software Vulkan is enough.

mod conformance;
mod faults;
mod step;
