//! Dense layers.

use defrost_tensor::{Activation, Shape4, ShapeError, call};

use crate::{Backward, Forward, Op, ParamId};

/// `y = x · Wᵀ + b` on vectors.
#[derive(Debug)]
pub struct Linear {
    /// Length of the input.
    pub in_features: usize,
    /// Length of the output.
    pub out_features: usize,
    /// Weights, `[out, in]`.
    pub weight: ParamId,
    /// One an output.
    pub bias: Option<ParamId>,
}

impl Op for Linear {
    fn kind(&self) -> &'static str {
        "linear"
    }

    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError> {
        let input = inputs[0];
        if !input.is_vector() {
            return Err(ShapeError::NotAVector { input });
        }
        if input.c != self.in_features {
            return Err(ShapeError::Channels { input, want: self.in_features });
        }
        Ok(Shape4::vector(input.n, self.out_features))
    }

    fn macs(&self, inputs: &[Shape4]) -> u64 {
        (inputs[0].n * self.in_features * self.out_features) as u64
    }

    fn params(&self) -> Vec<ParamId> {
        [self.weight].into_iter().chain(self.bias).collect()
    }

    fn forward(&self, f: &mut Forward<'_, '_>) {
        let call = call::Gemm {
            m: f.output_shape().n,
            n: self.out_features,
            k: self.in_features,
            transpose_a: false,
            transpose_b: true,
            accumulate: false,
            activation: Activation::Identity,
            a: f.input(0),
            b: f.param(self.weight),
            bias: self.bias.map(|b| f.param(b)),
            c: f.output(),
        };
        f.push(call);
    }

    fn backward(&self, b: &mut Backward<'_, '_>) {
        let (rows, grad_out) = (b.output_shape().n, b.grad_out());
        let activation = Activation::Identity;
        if let Some(grad) = b.grad_input(0) {
            // dx = g · W
            let call = call::Gemm {
                m: rows,
                n: self.in_features,
                k: self.out_features,
                transpose_a: false,
                transpose_b: false,
                accumulate: grad.accumulate,
                activation,
                a: grad_out,
                b: b.param(self.weight),
                bias: None,
                c: grad.value,
            };
            b.push(call);
        }
        if let Some(grad) = self.bias.and_then(|bias| b.grad_param(bias)) {
            let shape = b.output_shape();
            b.push(call::ChannelSum { shape, accumulate: grad.accumulate, x: grad_out, sum: grad.value });
        }
        if let Some(grad) = b.grad_param(self.weight) {
            // dW = gᵀ · x, last: the weights are not read any more and may be stepped at once.
            let call = call::Gemm {
                m: self.out_features,
                n: self.in_features,
                k: rows,
                transpose_a: true,
                transpose_b: false,
                accumulate: grad.accumulate,
                activation,
                a: grad_out,
                b: b.input(0),
                bias: None,
                c: grad.value,
            };
            b.push(call);
        }
    }
}
