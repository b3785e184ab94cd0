//! Convolution.

use defrost_tensor::{Activation, ConvDesc, Shape4, ShapeError, call};

use crate::{Backward, Forward, Op, ParamId};

/// A 2-D convolution, see [`call::Conv2d`].
#[derive(Debug)]
pub struct Conv2d {
    /// The geometry.
    pub desc: ConvDesc,
    /// Weights, `[out, in / groups, kh, kw]`.
    pub weight: ParamId,
    /// One a channel.
    pub bias: Option<ParamId>,
}

impl Op for Conv2d {
    fn kind(&self) -> &'static str {
        "conv2d"
    }

    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError> {
        self.desc.output(inputs[0])
    }

    fn macs(&self, inputs: &[Shape4]) -> u64 {
        self.desc.macs(inputs[0]).unwrap_or(0)
    }

    fn params(&self) -> Vec<ParamId> {
        [self.weight].into_iter().chain(self.bias).collect()
    }

    fn forward(&self, f: &mut Forward<'_, '_>) {
        let call = call::Conv2d {
            desc: self.desc,
            input: f.input_shape(0),
            activation: Activation::Identity,
            x: f.input(0),
            weight: f.param(self.weight),
            bias: self.bias.map(|b| f.param(b)),
            residual: None,
            out: f.output(),
        };
        f.push(call);
    }

    fn backward(&self, b: &mut Backward<'_, '_>) {
        let (desc, input, grad_out) = (self.desc, b.input_shape(0), b.grad_out());
        if let Some(grad) = b.grad_param(self.weight) {
            let x = b.input(0);
            let (accumulate, grad_weight) = (grad.accumulate, grad.value);
            b.push(call::Conv2dGradWeight { desc, input, accumulate, x, grad_out, grad_weight });
        }
        if let Some(grad) = self.bias.and_then(|bias| b.grad_param(bias)) {
            let shape = b.output_shape();
            b.push(call::ChannelSum { shape, accumulate: grad.accumulate, x: grad_out, sum: grad.value });
        }
        if let Some(grad) = b.grad_input(0) {
            let weight = b.param(self.weight);
            let (accumulate, grad_in) = (grad.accumulate, grad.value);
            b.push(call::Conv2dGradInput { desc, input, accumulate, grad_out, weight, grad_in });
        }
    }
}
