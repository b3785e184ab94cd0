//! defrost: fine-tuning of pre-trained image classifiers.
//!
//! This is the facade: [`FineTune`] leads from a folder of pictures and a recipe to a run, [`Trained`] puts the result to
//! use, and every crate below is re-exported for those who need a single part.
//!
//! The decision that shapes this crate: **it composes and does nothing else.** Only here do weights, networks, recipes,
//! pictures and backends meet; each of them can be used without the others.
//!
//! # Backends
//!
//! | name | what it is | feature |
//! |---|---|---|
//! | `cpu`, `ndarray` | the CPU | always there |
//! | `wgpu` | a GPU over Vulkan, Metal or DirectX 12 | `wgpu` |
//! | `candle` | candle's CPU | `candle` |
//! | `candle:cuda:N` | an NVIDIA GPU through candle | `candle-cuda`, `candle-cudnn` |
//! | `candle:metal` | an Apple GPU through candle | `candle-metal` |
//!
//! # Features
//!
//! | name | adds |
//! |---|---|
//! | `onnx` | networks as ONNX files (module `export`) |
//! | `pull` | published weights by name, downloaded where missing (module `pull`) |

mod by_hash;
pub mod device;
#[doc(hidden)]
pub mod doc;
mod error;
#[cfg(feature = "onnx")]
pub mod export;
mod fine_tune;
mod inspect;
mod lint;
pub mod memory;
mod model;
mod named;
mod pictures;
mod probe;
#[cfg(feature = "pull")]
pub mod pull;
mod source;
mod trained;

pub use defrost_augment as augment;
#[cfg(feature = "candle")]
pub use defrost_candle as candle;
pub use defrost_data as data;
pub use defrost_exec as exec;
pub use defrost_graph as graph;
pub use defrost_plan as plan;
pub use defrost_policy as policy;
pub use defrost_report as report;
pub use defrost_tensor as tensor;
pub use defrost_train as train;
pub use defrost_weights as weights;
#[cfg(feature = "wgpu")]
pub use defrost_wgpu as wgpu;
pub use defrost_zoo as zoo;

pub use device::Device;
pub use error::Error;
pub use fine_tune::{FineTune, Prepared, Start};
pub use inspect::{Fit, Inspection, inspect};
pub use model::Model;
pub use pictures::{data_of, images_of};
pub use probe::Probed;
pub use trained::{Answer, Guess, Trained, Value};

/// What the first example uses.
pub mod prelude {
    pub use crate::policy::Recipe;
    pub use crate::{Device, Error, FineTune, Trained};
}
