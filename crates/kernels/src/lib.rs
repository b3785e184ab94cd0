//! CPU kernels: f32 on slices, with the workspace and the threads given by the caller.
//!
//! The decision that shapes this crate: **a kernel is a plain function over slices that neither allocates nor decides how
//! parallel it is.** Whoever calls it hands over a [`Threads`], which says how many threads and which instruction set,
//! and a workspace as large as the matching `*_workspace` function asks for. So kernels can be timed, tested and
//! compared alone, and a step of training touches no allocator.
//!
//! Two further rules follow from what training needs:
//!
//! - **The same bits for any number of threads.** Work is cut into tasks by the shapes alone; a task runs on one thread,
//!   and partial sums are combined in the tasks' order. (Another instruction set may round differently.)
//! - **Activations are `n, h, w, c` and convolution weights `kh, kw, in / groups, out`.** Channels are innermost, so that
//!   the vector units run over channels everywhere: a convolution is a sum of matrix products whose rows are read in
//!   place (there is no im2col copy), depthwise convolutions, normalisations and pools are loops over channels.
//!   [`layout`] converts from and to the published orders.
//!
//! This crate holds the only `unsafe` code of the CPU backend: vector intrinsics, and tasks that write to disjoint parts
//! of one slice.

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

mod buffer;
mod call;
pub mod conv;
mod dots;
pub mod elementwise;
mod half;
pub mod layout;
pub mod loss;
pub mod matmul;
pub mod norm;
pub mod optim;
mod pack;
pub mod pool;
pub mod probe;
pub mod reduce;
#[cfg(feature = "gemm")]
pub mod rival;
mod scratch;
mod simd;
#[cfg(test)]
mod testing;
mod threads;
mod tile;
mod workers;

pub use buffer::{AlignedBuf, zeroed_vec};
pub use call::{NoRoom, SliceKernels};
pub use simd::Isa;
pub use threads::Threads;

/// Length of a workspace that is long enough for a `Vec<f32>`-like scratch of `floats`, rounded to whole cache lines.
pub(crate) const fn lines(floats: usize) -> usize {
    floats.next_multiple_of(16)
}
