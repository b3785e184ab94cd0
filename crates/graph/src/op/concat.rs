//! Activations one after the other along their channels.

use defrost_tensor::{Shape4, ShapeError, call};

use crate::{Backward, Forward, Op};

/// All inputs' channels, the first input's first: `torch.cat(…, dim=1)`. Images, rows and columns agree.
#[derive(Debug)]
pub struct Concat;

impl Op for Concat {
    fn kind(&self) -> &'static str {
        "concat"
    }

    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError> {
        let first = inputs[0];
        match inputs.iter().find(|&&i| Shape4 { c: first.c, ..i } != first) {
            Some(&other) => Err(ShapeError::Mismatch { a: first, b: other }),
            None => Ok(Shape4 { c: inputs.iter().map(|i| i.c).sum(), ..first }),
        }
    }

    fn forward(&self, f: &mut Forward<'_, '_>) {
        let (output, out) = (f.output_shape(), f.output());
        let mut to = 0;
        for i in 0..f.inputs() {
            let (input, x) = (f.input_shape(i), f.input(i));
            let (from, channels, accumulate) = (0, input.c, false);
            f.push(call::CopyChannels { input, output, from, to, channels, accumulate, x, out });
            to += channels;
        }
    }

    fn backward(&self, b: &mut Backward<'_, '_>) {
        let (input, x) = (b.output_shape(), b.grad_out());
        let mut from = 0;
        for i in 0..b.inputs() {
            let output = b.input_shape(i);
            let (to, channels) = (0, output.c);
            if let Some(grad) = b.grad_input(i) {
                let (accumulate, out) = (grad.accumulate, grad.value);
                b.push(call::CopyChannels { input, output, from, to, channels, accumulate, x, out });
            }
            from += channels;
        }
    }
}
