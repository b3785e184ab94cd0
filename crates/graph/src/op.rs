//! Operations: one file each, with its shape rule, its cost and what it emits forward and backward.

mod activate;
mod add;
mod batch_norm;
mod concat;
mod conv2d;
mod dropout;
mod flatten;
mod input;
mod linear;
mod pool;

use std::fmt::Debug;

use defrost_tensor::{NormDesc, Shape4, ShapeError};

pub use activate::Activate;
pub use add::Add;
pub use batch_norm::BatchNorm;
pub use concat::Concat;
pub use conv2d::Conv2d;
pub use dropout::Dropout;
pub use flatten::Flatten;
pub(crate) use input::Input;
pub use linear::Linear;
pub use pool::{AvgPool, MaxPool};

use crate::{Backward, Forward, ParamId};

/// An operation of the graph.
///
/// It says what it does as calls of kernels; it computes nothing. What depends on the phase (training or not, what is
/// frozen) it asks of the context that it is given.
pub trait Op: Debug + Send + Sync {
    /// The operation's name, as in `conv2d`.
    fn kind(&self) -> &'static str;

    /// The output's shape for inputs of `inputs`.
    ///
    /// # Errors
    /// What does not fit.
    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError>;

    /// Multiply-accumulates of the forward pass; 0 where it only moves data.
    fn macs(&self, inputs: &[Shape4]) -> u64 {
        let _ = inputs;
        0
    }

    /// Its parameters and buffers.
    fn params(&self) -> Vec<ParamId> {
        Vec::new()
    }

    /// Its constants if it is a batch normalisation.
    fn norm(&self) -> Option<&NormDesc> {
        None
    }

    /// Whether its training output is random, so that it can be in no frozen prefix.
    fn is_random(&self) -> bool {
        false
    }

    /// Emits the calls that compute the output.
    fn forward(&self, f: &mut Forward<'_, '_>);

    /// Emits the calls that turn the output's gradient into those of the inputs and parameters that want one.
    fn backward(&self, b: &mut Backward<'_, '_>);
}
