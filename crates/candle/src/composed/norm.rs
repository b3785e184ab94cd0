//! Batch normalisation; all of it in f32.

use candle_core::{DType, Result, Tensor};
use defrost_tensor::call::*;
use defrost_tensor::{Activation, NormDesc, RunningVariance, Shape4};

use super::{Composed, activated, channels, dims, passed, put, put_or_add, take_f32};
use crate::CandleBuf;

/// `1 / sqrt(var + eps)`.
fn inverse(var: &Tensor, desc: &NormDesc) -> Result<Tensor> {
    (var + f64::from(desc.eps))?.sqrt()?.recip()
}

/// The sum over images, rows and columns, for broadcasting.
fn total(x: &Tensor) -> Result<Tensor> {
    x.sum_keepdim((0, 2, 3))
}

/// `x` with the residual added, if there is one.
fn joined(x: Tensor, residual: Option<&CandleBuf>, shape: Shape4) -> Result<Tensor> {
    match residual {
        Some(residual) => x + take_f32(residual, dims(shape))?,
        None => Ok(x),
    }
}

/// Where gradients go, and whether they are added.
struct Wanted<'a> {
    grad_in: Option<&'a mut CandleBuf>,
    grad_weight: Option<&'a mut CandleBuf>,
    grad_bias: Option<&'a mut CandleBuf>,
    accumulate: bool,
    accumulate_params: bool,
}

impl Wanted<'_> {
    fn params(&mut self, weight: Option<Tensor>, bias: Tensor) -> Result<()> {
        if let (Some(buf), Some(weight)) = (self.grad_weight.take(), weight) {
            put_or_add(buf, weight.flatten_all()?, self.accumulate_params)?;
        }
        match self.grad_bias.take() {
            Some(buf) => put_or_add(buf, bias.flatten_all()?, self.accumulate_params),
            None => Ok(()),
        }
    }

    fn input(self, dtype: DType, value: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        match self.grad_in {
            Some(buf) => put_or_add(buf, value()?.to_dtype(dtype)?, self.accumulate),
            None => Ok(()),
        }
    }
}

/// The gradient that comes in, past the activation.
fn incoming(
    grad: &CandleBuf,
    out: Option<&CandleBuf>,
    shape: Shape4,
    activation: Activation,
) -> Result<Tensor> {
    let grad = take_f32(grad, dims(shape))?;
    match out.filter(|_| activation != Activation::Identity) {
        Some(out) => passed(&grad, &take_f32(out, dims(shape))?, activation),
        None => Ok(grad),
    }
}

impl Composed {
    pub(super) fn norm_train(&self, call: NormTrain<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let NormTrain { desc, shape, activation, .. } = call;
        let (c, count) = (desc.channels, shape.rows() as f64);
        let x = take_f32(call.x, dims(shape))?;
        // The mean of what is left makes up for the rounding of a long sum: a constant channel has no variance.
        let rough = (total(&x)? / count)?;
        let centred = x.broadcast_sub(&rough)?;
        let rest = (total(&centred)? / count)?;
        let (mean, centred) = ((rough + &rest)?, centred.broadcast_sub(&rest)?);
        let var = (total(&centred.sqr()?)? / count)?;
        let inv_std = inverse(&var, &desc)?;
        let scale = (&inv_std * channels(call.weight, c)?)?;
        let out = centred.broadcast_mul(&scale)?.broadcast_add(&channels(call.bias, c)?)?;
        let out = joined(out, call.residual, shape)?;
        put(call.out, activated(out, activation)?.to_dtype(self.activations)?)?;
        let recorded = match desc.running_variance {
            RunningVariance::Unbiased => (&var * (count / (count - 1.0).max(1.0)))?,
            _ => var,
        };
        for (running, new) in [(call.running_mean, &mean), (call.running_var, &recorded)] {
            if let Some(running) = running {
                let weight = f64::from(desc.momentum);
                let old = channels(running, c)?;
                put(running, ((old * (1.0 - weight))? + (new * weight)?)?)?;
            }
        }
        put(call.mean, mean)?;
        put(call.inv_std, inv_std)
    }

    pub(super) fn norm_train_grad(&self, call: NormTrainGrad<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let NormTrainGrad { desc, shape, activation, accumulate, accumulate_params, .. } = call;
        let (c, count) = (desc.channels, shape.rows() as f64);
        let mut wanted = Wanted {
            grad_in: call.grad_in,
            grad_weight: call.grad_weight,
            grad_bias: call.grad_bias,
            accumulate,
            accumulate_params,
        };
        let inv_std = channels(call.inv_std, c)?;
        let x = take_f32(call.x, dims(shape))?;
        let normal = x.broadcast_sub(&channels(call.mean, c)?)?.broadcast_mul(&inv_std)?;
        let grad = incoming(call.grad_out, call.out, shape, activation)?;
        if let Some(buf) = call.grad_residual {
            put(buf, grad.to_dtype(self.gradients)?)?;
        }
        let (weight, bias) = (total(&(&grad * &normal)?)?, total(&grad)?);
        let scale = (channels(call.weight, c)? * inv_std)?;
        wanted.params(Some(weight.clone()), bias.clone())?;
        wanted.input(self.gradients, || {
            let less = normal.broadcast_mul(&(weight / count)?)?.broadcast_add(&(bias / count)?)?;
            (grad - less)?.broadcast_mul(&scale)
        })
    }

    pub(super) fn norm_eval(&self, call: NormEval<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let c = call.desc.channels;
        let inv_std = inverse(&channels(call.running_var, c)?, &call.desc)?;
        let centred = take_f32(call.x, dims(call.shape))?.broadcast_sub(&channels(call.running_mean, c)?)?;
        let scale = (inv_std * channels(call.weight, c)?)?;
        let out = centred.broadcast_mul(&scale)?.broadcast_add(&channels(call.bias, c)?)?;
        let out = joined(out, call.residual, call.shape)?;
        put(call.out, activated(out, call.activation)?.to_dtype(self.activations)?)
    }

    pub(super) fn norm_eval_grad(&self, call: NormEvalGrad<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let NormEvalGrad { desc, shape, activation, accumulate, accumulate_params, .. } = call;
        let c = desc.channels;
        let mut wanted = Wanted {
            grad_in: call.grad_in,
            grad_weight: call.grad_weight,
            grad_bias: call.grad_bias,
            accumulate,
            accumulate_params,
        };
        let inv_std = inverse(&channels(call.running_var, c)?, &desc)?;
        let grad = incoming(call.grad_out, call.out, shape, activation)?;
        let weight = match (call.x, &wanted.grad_weight) {
            (Some(x), Some(_)) => {
                let centred = take_f32(x, dims(shape))?.broadcast_sub(&channels(call.running_mean, c)?)?;
                Some((total(&(centred * &grad)?)? * &inv_std)?)
            }
            _ => None,
        };
        if wanted.grad_weight.is_some() || wanted.grad_bias.is_some() {
            wanted.params(weight, total(&grad)?)?;
        }
        let scale = (channels(call.weight, c)? * inv_std)?;
        wanted.input(self.gradients, || grad.broadcast_mul(&scale))
    }

    pub(super) fn fold_norm(&self, call: FoldNorm<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let c = call.desc.channels;
        let scale = (channels(call.norm_weight, c)? * inverse(&channels(call.running_var, c)?, &call.desc)?)?;
        let weight = take_f32(call.weight, &call.conv.weight_shape()[..])?;
        put(call.folded_weight, weight.broadcast_mul(&scale.reshape((c, 1, 1, 1))?)?)?;
        let mean = channels(call.running_mean, c)?;
        let centred = match call.bias {
            Some(bias) => (channels(bias, c)? - mean)?,
            None => mean.neg()?,
        };
        put(call.folded_bias, (channels(call.norm_bias, c)? + (scale * centred)?)?)
    }
}
