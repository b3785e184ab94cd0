//! Element-wise activation.

use defrost_tensor::{Activation, Shape4, ShapeError, call};

use crate::{Backward, Forward, Op};

/// An activation function, see [`call::Activate`].
#[derive(Debug)]
pub struct Activate(pub Activation);

impl Op for Activate {
    fn kind(&self) -> &'static str {
        "activate"
    }

    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError> {
        Ok(inputs[0])
    }

    fn forward(&self, f: &mut Forward<'_, '_>) {
        let (activation, len, x, out) = (self.0, f.output_shape().len(), f.input(0), f.output());
        f.push(call::Activate { activation, len, x, out });
    }

    fn backward(&self, b: &mut Backward<'_, '_>) {
        if let Some(grad) = b.grad_input(0) {
            let (activation, len, out, grad_out) = (self.0, b.output_shape().len(), b.output(), b.grad_out());
            let (accumulate, grad_in) = (grad.accumulate, grad.value);
            b.push(call::ActivateGrad { activation, len, accumulate, out, grad_out, grad_in });
        }
    }
}
