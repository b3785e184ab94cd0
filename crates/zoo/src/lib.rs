//! The zoo: architectures as graphs, heads, preprocessing, and what is known of published weights.
//!
//! The decision that shapes this crate: **a model is its published parameter table.** Names, shapes and order are
//! torchvision's to the letter (EfficientNet-Lite0's, which torchvision lacks, those of its PyTorch package), so that a file of weights needs no model code to be loaded and a file that we write is read
//! by others. Frameworks that compute the same architecture differently are a [`Geometry`] of it and keep the names.
//! This crate knows no file format: weights come in as named [`defrost_tensor::HostTensor`]s.
//!
//! A further architecture is one file that builds it, an entry in [`Arch`], a line in [`ModelSpec::build`], and its
//! weights in the registry ([`Weights`]).
//!
//! ```
//! use defrost_zoo::{Arch, ModelSpec};
//!
//! let graph = ModelSpec::new(Arch::Resnet18, 10).with_image_size(64).build()?;
//! assert_eq!(graph.params().last().unwrap().name, "fc.bias");
//! assert_eq!(graph.classes(), 10);
//! # Ok::<_, defrost_zoo::ZooError>(())
//! ```

mod arch;
mod efficientnet_lite0;
mod error;
pub mod fastai;
mod head;
mod imagenet;
pub mod keras;
pub mod lasagne;
mod layers;
mod load;
mod mean_image;
mod mobilenet_v2;
pub mod naming;
mod preprocess;
mod registry;
mod resnet;
mod spec;
mod stem;
mod summary;
pub mod timm;
mod vgg;

pub use arch::Arch;
pub use error::ZooError;
pub use head::{Head, HeadInit};
pub use imagenet::{ImagenetClass, imagenet_classes};
pub use load::{HeadLoading, LayerLoading, LoadOptions, LoadReport, Mismatch, Outcome, load, match_weights};
pub use mean_image::MeanImage;
pub use preprocess::{Interpolation, Preprocess};
pub use registry::{Source, Weights, embedded};
pub use spec::{Geometry, ModelSpec};
pub use stem::{Tradition, adapt_in_channels};
pub use summary::{StageSummary, Summary, summary};

#[cfg(test)]
mod tests;
