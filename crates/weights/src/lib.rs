//! Weight files in and out: safetensors, PyTorch, Keras, NumPy and the pickles of Lasagne.
//!
//! The decision that shapes this crate: **a file is names and arrays, and nothing else.** Every reader returns
//! [`NamedTensors`], f32 arrays under the names the file gives them, in the file's own order and memory layout, with
//! whatever text the file carries as metadata. No reader knows a network: which tensor is `layer1.0.conv1.weight`, and
//! whether a kernel is stored HWIO or OIHW, is the zoo's knowledge. So a format is written once and serves every
//! architecture, and an architecture is written once and accepts every format.
//!
//! A file is never trusted. Lengths are checked against the bytes that are really there before anything is allocated,
//! and whatever is wrong comes back as an [`Error`] that says what and where.
//!
//! What is written is written whole or not at all: [`atomic`] puts the bytes beside the target, flushes them to the disk
//! and renames.

mod archive;
pub mod atomic;
mod elements;
mod error;
mod format;
mod hdf5;
pub mod keras;
pub mod lasagne;
mod mmap;
mod named;
pub mod npy;
mod pickle;
pub mod pytorch;
pub mod safetensors;

pub use error::{Error, Result};
pub use format::{Format, detect, detect_bytes, read};
pub use named::NamedTensors;
pub use safetensors::Precision;

/// The bytes that a file of `length` bytes may unpack to. Weights hardly compress; a bomb does.
fn budget(length: u64) -> u64 {
    length.saturating_mul(64).max(256 << 20)
}
