//! Dropout on vectors.

use defrost_tensor::{Shape4, ShapeError, call};

use crate::{Backward, Forward, Op};

/// Inverted dropout (Srivastava et al. 2014, rescaled while training), see [`call::Dropout`].
#[derive(Debug)]
pub struct Dropout {
    /// Share of the elements that become 0.
    pub rate: f32,
    /// Tells dropout layers of one network apart.
    pub layer: u32,
}

impl Op for Dropout {
    fn kind(&self) -> &'static str {
        "dropout"
    }

    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError> {
        if inputs[0].is_vector() { Ok(inputs[0]) } else { Err(ShapeError::NotAVector { input: inputs[0] }) }
    }

    fn is_random(&self) -> bool {
        self.rate > 0.0
    }

    fn forward(&self, f: &mut Forward<'_, '_>) {
        let x = f.input(0);
        if !f.training() || self.rate <= 0.0 {
            f.pass_through(x);
            return;
        }
        let (shape, keys, out) = (f.output_shape(), f.keys(), f.output());
        let (rate, layer) = (self.rate, self.layer);
        f.push(call::Dropout { shape, rate, layer, accumulate: false, x, keys, out });
    }

    fn backward(&self, b: &mut Backward<'_, '_>) {
        let x = b.grad_out();
        if self.rate <= 0.0 {
            b.pass_grad(0, x);
        } else if let Some(grad) = b.grad_input(0) {
            let (shape, keys, rate, layer) = (b.output_shape(), b.keys(), self.rate, self.layer);
            b.push(call::Dropout {
                shape,
                rate,
                layer,
                accumulate: grad.accumulate,
                x,
                keys,
                out: grad.value,
            });
        }
    }
}
