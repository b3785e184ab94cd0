//! The CPU backend: [`Kernels`](defrost_tensor::Kernels) over `defrost-kernels`.
//!
//! The decision that shapes this crate: **it translates and decides nothing.** A call's operands become slices of the
//! exact length that its shape says, the workspace grows to the largest that any call so far needed, and everything
//! else is in `defrost-kernels`, which does not know the trait. Buffers hold activations as `n, h, w, c` and weights as
//! `kh, kw, in / groups, out`; only uploads and downloads see the difference.

mod engine;
mod kernels;
#[cfg(test)]
mod tests;

pub use engine::CpuEngine;
pub use kernels::{CpuBuf, CpuKernels, CpuOptions};
