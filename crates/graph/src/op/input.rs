//! The network's input: a place, not a computation.

use defrost_tensor::{Shape4, ShapeError};

use crate::{Backward, Forward, Op};

/// Stands for the batch.
#[derive(Debug)]
pub(crate) struct Input;

impl Op for Input {
    fn kind(&self) -> &'static str {
        "input"
    }

    fn output(&self, _: &[Shape4]) -> Result<Shape4, ShapeError> {
        // The builder gives the input its shape; nobody asks here.
        Ok(Shape4::vector(1, 1))
    }

    fn forward(&self, _: &mut Forward<'_, '_>) {}

    fn backward(&self, _: &mut Backward<'_, '_>) {}
}
