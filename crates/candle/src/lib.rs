//! The candle backend: [`Kernels`](defrost_tensor::Kernels) on the tensors and devices of
//! [candle](https://github.com/huggingface/candle).
//!
//! The decision that shapes this crate: **candle's tensors, devices, matrix products and convolutions, never its autograd.**
//! Its gradients of pools are wrong or missing, both gradients of a convolution are computed whether they are wanted or not,
//! and a depthwise convolution runs one channel at a time. Values are plain tensors without history, and each gradient is a
//! kernel of its own, as everywhere in defrost.
//!
//! There are two ways, chosen by the device:
//!
//! - **On the CPU** candle's operations are several times slower than `defrost-kernels`, so a call is one custom operation in
//!   place on the tensors' memory, run by those kernels. Activations lie as `n, h, w, c`, weights as `kh, kw, in / groups, out`.
//! - **On a GPU** a call is a composition of candle's operations (the module `composed`), all on the device: nothing goes
//!   through the host. Everything lies in published order. The same compositions run on the CPU in tests.

mod buffer;
mod composed;
mod engine;
mod kernels;
mod options;
mod slices;

pub use buffer::CandleBuf;
pub use engine::CandleEngine;
pub use kernels::CandleKernels;
pub use options::{CandleOptions, OpenError, Place, Precision, devices};
