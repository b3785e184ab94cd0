//! Pooling by maximum and by mean.

use defrost_tensor::{PoolDesc, Shape4, ShapeError, call};

use crate::{Backward, Forward, Op};

/// Max pooling, see [`call::MaxPool`].
#[derive(Debug)]
pub struct MaxPool(pub PoolDesc);

impl Op for MaxPool {
    fn kind(&self) -> &'static str {
        "max_pool"
    }

    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError> {
        self.0.output(inputs[0])
    }

    fn forward(&self, f: &mut Forward<'_, '_>) {
        let (desc, input, x, out) = (self.0, f.input_shape(0), f.input(0), f.output());
        f.push(call::MaxPool { desc, input, x, out });
    }

    fn backward(&self, b: &mut Backward<'_, '_>) {
        if let Some(grad) = b.grad_input(0) {
            let (desc, input, x, grad_out) = (self.0, b.input_shape(0), b.input(0), b.grad_out());
            let (accumulate, grad_in) = (grad.accumulate, grad.value);
            b.push(call::MaxPoolGrad { desc, input, accumulate, x, grad_out, grad_in });
        }
    }
}

/// Average pooling, see [`call::AvgPool`].
#[derive(Debug)]
pub struct AvgPool(pub PoolDesc);

impl Op for AvgPool {
    fn kind(&self) -> &'static str {
        "avg_pool"
    }

    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError> {
        self.0.output(inputs[0])
    }

    fn forward(&self, f: &mut Forward<'_, '_>) {
        let (desc, input, x, out) = (self.0, f.input_shape(0), f.input(0), f.output());
        f.push(call::AvgPool { desc, input, x, out });
    }

    fn backward(&self, b: &mut Backward<'_, '_>) {
        if let Some(grad) = b.grad_input(0) {
            let (desc, input, grad_out) = (self.0, b.input_shape(0), b.grad_out());
            let (accumulate, grad_in) = (grad.accumulate, grad.value);
            b.push(call::AvgPoolGrad { desc, input, accumulate, grad_out, grad_in });
        }
    }
}
