//! The vocabulary that graphs and backends share: shapes, op descriptors, host arrays, calls and the [`Kernels`] trait.
//!
//! The decision that shapes this crate: **a backend is one trait of explicit kernels over buffers that the caller
//! owns, and a call to a kernel is data.** A plan is a list of [`Call`]s that can be printed, counted, fused and tested
//! before a single float is computed; a backend never sees a graph and holds no state of a model. What a backend has to
//! know is in this crate, and nothing else is.
//!
//! Activations are always `[n, c, h, w]` ([`Shape4`]), parameters always have the published shapes; how either lies in
//! memory is the backend's choice, and only [`Kernels::upload`] and [`Kernels::download`] see the difference.

pub mod call;
mod desc;
mod dropout;
mod host;
mod kernels;
mod limit;
mod loss;
mod shape;

pub use call::Call;
pub use desc::{Activation, ConvDesc, ConvKind, NormDesc, Padding, Pads, PoolDesc, RunningVariance};
pub use dropout::dropout_keeps;
pub use host::HostTensor;
pub use kernels::{KernelError, Kernels, Layout, PixelScale, Splitter};
pub use limit::Limit;
pub use loss::ElementLoss;
pub use shape::{Shape4, ShapeError};
