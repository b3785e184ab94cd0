//! Batch normalisation, on images and on vectors.

use defrost_tensor::{Activation, Layout, NormDesc, Shape4, ShapeError, call};

use crate::{Backward, Forward, Op, ParamId, Statistics};

/// Batch normalisation, see [`call::NormTrain`] and [`call::NormEval`].
#[derive(Debug)]
pub struct BatchNorm {
    /// The constants.
    pub desc: NormDesc,
    /// Scale.
    pub weight: ParamId,
    /// Shift.
    pub bias: ParamId,
    /// Running mean.
    pub running_mean: ParamId,
    /// Running variance.
    pub running_var: ParamId,
}

impl Op for BatchNorm {
    fn kind(&self) -> &'static str {
        "batch_norm"
    }

    fn output(&self, inputs: &[Shape4]) -> Result<Shape4, ShapeError> {
        if inputs[0].c == self.desc.channels {
            Ok(inputs[0])
        } else {
            Err(ShapeError::Channels { input: inputs[0], want: self.desc.channels })
        }
    }

    fn params(&self) -> Vec<ParamId> {
        vec![self.weight, self.bias, self.running_mean, self.running_var]
    }

    fn norm(&self) -> Option<&NormDesc> {
        Some(&self.desc)
    }

    fn forward(&self, f: &mut Forward<'_, '_>) {
        let (desc, shape, activation) = (self.desc, f.output_shape(), Activation::Identity);
        let (x, weight, bias) = (f.input(0), f.param(self.weight), f.param(self.bias));
        let (running_mean, running_var) = (f.param(self.running_mean), f.param(self.running_var));
        let out = f.output();
        let statistics = f.statistics();
        if statistics == Statistics::Running {
            f.push(call::NormEval {
                desc,
                shape,
                activation,
                x,
                weight,
                bias,
                running_mean,
                running_var,
                residual: None,
                out,
            });
            return;
        }
        let update = statistics == Statistics::BatchUpdating;
        let call = call::NormTrain {
            desc,
            shape,
            activation,
            x,
            weight,
            bias,
            residual: None,
            out,
            mean: f.save(Layout::Plain(desc.channels)),
            inv_std: f.save(Layout::Plain(desc.channels)),
            running_mean: update.then_some(running_mean),
            running_var: update.then_some(running_var),
        };
        f.push(call);
    }

    fn backward(&self, b: &mut Backward<'_, '_>) {
        let (desc, shape, activation) = (self.desc, b.output_shape(), Activation::Identity);
        let (grad_weight, grad_bias) = (b.grad_param(self.weight), b.grad_param(self.bias));
        let grad_in = b.grad_input(0);
        let accumulate = grad_in.is_some_and(|g| g.accumulate);
        let accumulate_params = grad_weight.or(grad_bias).is_some_and(|g| g.accumulate);
        let (grad_out, weight) = (b.grad_out(), b.param(self.weight));
        let (grad_in, grad_weight, grad_bias) =
            (grad_in.map(|g| g.value), grad_weight.map(|g| g.value), grad_bias.map(|g| g.value));
        if b.statistics() == Statistics::Running {
            let call = call::NormEvalGrad {
                desc,
                shape,
                activation,
                accumulate,
                accumulate_params,
                weight,
                running_mean: b.param(self.running_mean),
                running_var: b.param(self.running_var),
                grad_out,
                x: grad_weight.map(|_| b.input(0)),
                out: None,
                grad_in,
                grad_weight,
                grad_bias,
            };
            b.push(call);
        } else {
            let call = call::NormTrainGrad {
                desc,
                shape,
                activation,
                accumulate,
                accumulate_params,
                x: b.input(0),
                weight,
                mean: b.saved(0),
                inv_std: b.saved(1),
                grad_out,
                bias: None,
                out: None,
                grad_in,
                grad_weight,
                grad_bias,
                grad_residual: None,
            };
            b.push(call);
        }
    }
}
