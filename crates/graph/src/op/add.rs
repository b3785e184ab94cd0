//! The sum of two branches.

use defrost_tensor::{Activation, Shape4, ShapeError, call};

use crate::{Backward, Forward, Op};

/// `a + b`, the end of a residual block.
#[derive(Debug)]
pub struct Add;

impl Op for Add {
    fn kind(&self) -> &'static str {
        "add"
    }

    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError> {
        if inputs[0] == inputs[1] {
            Ok(inputs[0])
        } else {
            Err(ShapeError::Mismatch { a: inputs[0], b: inputs[1] })
        }
    }

    fn forward(&self, f: &mut Forward<'_, '_>) {
        let (len, a, b, out) = (f.output_shape().len(), f.input(0), f.input(1), f.output());
        f.push(call::Add { activation: Activation::Identity, len, a, b, out });
    }

    fn backward(&self, b: &mut Backward<'_, '_>) {
        let grad = b.grad_out();
        b.pass_grad(0, grad);
        b.pass_grad(1, grad);
    }
}
