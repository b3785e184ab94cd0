//! Image transforms on 8-bit pixels, and on batches of them.
//!
//! **The key decision: randomness is keyed, not streamed.** A transform never asks a generator "what comes
//! next"; it asks for the numbers that belong to a [`Key`] of seed, epoch, sample and operation. So the same
//! sample in the same epoch of the same run gives the same pixels whatever the number of loader threads, the
//! order in which they finish, the batch size, or the step at which the run was interrupted and resumed. The
//! numbers are the ChaCha8 keystream of that key and never change between releases ([`key`] says exactly how).
//!
//! A [`Pipeline`] is plain data: a list of [`Op`]s with the defaults of torchvision and timm, readable from a
//! recipe and written back into one. The size of the result is no part of it, because it belongs to the run
//! (and to the network); it is given when a pipeline is applied. Pixels stay `u8` to the very end: the
//! normalisation that a network wants is done where the network runs.
//!
//! ```
//! use defrost_augment::{Image, Key, Op, Pipeline, RandomResizedCrop, Size};
//!
//! let photo = Image::filled(400, 300, &[90, 120, 40]).unwrap();
//! let pipeline = Pipeline(vec![Op::RandomResizedCrop(RandomResizedCrop::default())]);
//! let view = pipeline.apply(&photo, Size::square(224), Key::new(7, 0, 12)).unwrap();
//! assert_eq!((view.width(), view.height()), (224, 224));
//! ```

mod blur;
mod check;
mod color;
mod error;
mod flip;
mod image;
pub mod key;
pub mod mix;
mod op;
mod pipeline;
mod resize;
pub mod sheet;
mod view;
mod warp;

pub use error::Error;
pub use image::{Image, Size};
pub use key::{Key, Random};
pub use mix::{Mix, MixPlan};
pub use op::{
    Affine, Anchor, ColorJitter, ErasingValue, Fill, Flip, GaussianBlur, Grayscale, Interpolation, Op,
    Perspective, RandAugment, RandomErasing, RandomInterpolation, RandomResizedCrop, Resize, ResizeMode,
    Rotate, TrivialAugment,
};
pub use pipeline::Pipeline;
pub use resize::{center_crop, crop, resize};
pub use sheet::{Sheet, contact_sheet};
pub use view::{TestTime, View};

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
