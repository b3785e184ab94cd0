//! From an image of features to a vector.

use defrost_tensor::{Shape4, ShapeError, call};

use crate::{Backward, Forward, Op};

/// `[n, c, h, w]` to `[n, c·h·w, 1, 1]`, always in `c, h, w` order.
#[derive(Debug)]
pub struct Flatten;

impl Op for Flatten {
    fn kind(&self) -> &'static str {
        "flatten"
    }

    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError> {
        Ok(Shape4::vector(inputs[0].n, inputs[0].image_len()))
    }

    fn forward(&self, f: &mut Forward<'_, '_>) {
        let (input, x) = (f.input_shape(0), f.input(0));
        if input.is_vector() {
            f.pass_through(x);
        } else {
            let out = f.output();
            f.push(call::Flatten { input, x, out });
        }
    }

    fn backward(&self, b: &mut Backward<'_, '_>) {
        let (input, x) = (b.input_shape(0), b.grad_out());
        if input.is_vector() {
            b.pass_grad(0, x);
        } else if let Some(grad) = b.grad_input(0) {
            b.push(call::Unflatten { input, accumulate: grad.accumulate, x, out: grad.value });
        }
    }
}
