//! Data sets of images: found, checked, split, decoded and handed out in batches.
//!
//! **The key decision: a data set is checked before the run, and is a plain list afterwards.** Opening a folder
//! looks at every file once, in parallel: what it is by its content (never by its name), how large it is, whether
//! it can be decoded, and what its bytes hash to. So the run starts with true counts, unreadable files are named
//! at the start rather than after an hour, a resumed run notices that its data changed, and an image that is in
//! both training and validation is found. A [`Dataset`] is then a list of samples in a fixed order; everything
//! random about it (the split, the order of an epoch, the augmentation) is keyed by seed, epoch and sample, so a
//! [`Loader`] may start in the middle of an epoch, with any number of threads, and gives the same batches.
//!
//! Bad input is an answer, not a crash: a file that cannot be read is skipped, named and counted (or an error
//! with [`Options::strict`]), also when it becomes unreadable during the run, and memory is bounded by a limit on
//! pixels that is checked before anything is decoded.
//!
//! ```no_run
//! use std::sync::Arc;
//! use defrost_augment::{Pipeline, Size};
//! use defrost_data::{Loader, LoaderOptions, Options, Splits};
//!
//! let splits = Splits::open("photos".as_ref(), &Options::default())?;
//! println!("{}", splits.summary());
//! let options = LoaderOptions { batch: 32, size: Size::square(224), ..LoaderOptions::train() };
//! let loader = Loader::new(Arc::new(splits.train), Pipeline::train(), options)?;
//! for batch in loader.epoch(0) {
//!     let batch = batch?;
//!     println!("{} images, {} bytes", batch.n, batch.pixels.len());
//! }
//! # Ok::<(), defrost_data::Error>(())
//! ```

mod batch;
mod columns;
mod dataset;
mod decode;
mod error;
mod folder;
mod inspect;
mod jpeg;
mod loader;
mod order;
mod queue;
mod scan;
mod split;
mod table;

pub use batch::Batch;
pub use columns::Hints;
pub use dataset::{Dataset, NO_LABEL, Sample, TargetKind, duplicates};
pub use decode::{Channels, DecodeError, DecodeOptions, decode, decode_file};
pub use error::{Error, Skipped, Warning};
pub use folder::{Layout, Options, Splits, Verify};
pub use loader::{Batches, Loader, LoaderOptions, Working};
pub use order::Sampling;
pub use table::{Columns, TableOptions};

#[cfg(test)]
mod tests;
