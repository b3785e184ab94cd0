//! The wgpu backend: [`Kernels`](defrost_tensor::Kernels) in WGSL, on any GPU with Vulkan, Metal or DirectX 12.
//!
//! The decision that shapes this crate: **a call becomes dispatches at once, and a dispatch is looked up, never built
//! twice.** Calls are data and repeat from step to step over the same buffers, so pipelines and bind groups are cached by what
//! they are made of; a dispatch's numbers go through one uniform buffer. A step is a few command buffers, the batch's bytes
//! in, and two numbers out.
//!
//! Activations lie as `n, h, w, c` and weights as `kh, kw, in / groups, out`, as on the CPU backend, so that vectors of four
//! channels are loaded at once. Convolutions are products whose operands are gathered while they are read (implicit GEMM).
//! Sums are cut into chunks by their shape alone and added in a fixed order: the same input gives the same bits on one
//! adapter. No kernel sees more of a buffer than the adapter's limit; matrices, batches and sums are cut where they are
//! larger.

mod adapter;
mod buffer;
mod engine;
mod gpu;
mod kernels;
mod ops;
mod profile;
mod queue;
mod shader;
#[doc(hidden)]
pub mod testing;

pub use adapter::{AdapterInfo, OpenError, adapters};
pub use buffer::WgpuBuf;
pub use engine::WgpuEngine;
pub use gpu::{Traffic, WgpuOptions};
pub use kernels::WgpuKernels;
pub use profile::KernelTime;
