//! Optimizer steps, limits on gradients, averages of weights.

use candle_core::{Result, Tensor};
use defrost_tensor::Limit;
use defrost_tensor::call::*;

use super::elementwise::squares;
use super::{Composed, put, set, take_f32};
use crate::CandleBuf;

/// `a · x + b · y`.
fn mix(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    (x * a)? + (y * b)?
}

/// `average + weight · (x - average)`.
fn towards(average: &Tensor, x: &Tensor, weight: f64) -> Result<Tensor> {
    average + ((x - average)? * weight)?
}

/// `1 - beta^step`, which corrects a moment's bias.
fn correction(beta: f32, step: u32) -> f64 {
    1.0 - f64::from(beta).powi(step as i32)
}

impl Composed {
    pub(super) fn sgd(&self, call: Sgd<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let Sgd { len, lr, momentum, weight_decay, nesterov, .. } = call;
        let (lr, momentum) = (f64::from(lr), f64::from(momentum));
        let param = take_f32(call.param, len)?;
        let mut step = mix(1.0, &take_f32(call.grad, len)?, weight_decay.into(), &param)?;
        if let Some(buf) = call.velocity.filter(|_| momentum != 0.0) {
            let velocity = mix(momentum, &take_f32(buf, len)?, 1.0, &step)?;
            step = if nesterov { mix(1.0, &step, momentum, &velocity)? } else { velocity.clone() };
            put(buf, velocity)?;
        }
        put(call.param, (param - (step * lr)?)?)
    }

    pub(super) fn adam(&self, call: Adam<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let Adam { len, lr, beta1, beta2, eps, weight_decay, decoupled, step, .. } = call;
        let (lr, weight_decay) = (f64::from(lr), f64::from(weight_decay));
        let mut param = take_f32(call.param, len)?;
        let mut grad = take_f32(call.grad, len)?;
        match decoupled {
            true => param = (param * (1.0 - lr * weight_decay))?,
            false => grad = mix(1.0, &grad, weight_decay, &param)?,
        }
        let first = towards(&take_f32(call.first, len)?, &grad, 1.0 - f64::from(beta1))?;
        let second = mix(beta2.into(), &take_f32(call.second, len)?, 1.0 - f64::from(beta2), &grad.sqr()?)?;
        let root = ((second.sqrt()? / correction(beta2, step).sqrt())? + f64::from(eps))?;
        let moved = ((&first * (lr / correction(beta1, step)))? / root)?;
        put(call.first, first)?;
        put(call.second, second)?;
        put(call.param, (param - moved)?)
    }

    pub(super) fn rms_prop(&self, call: RmsProp<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let RmsProp { len, lr, alpha, eps, momentum, weight_decay, .. } = call;
        let keep = f64::from(alpha);
        let param = take_f32(call.param, len)?;
        let grad = mix(1.0, &take_f32(call.grad, len)?, weight_decay.into(), &param)?;
        let square = mix(keep, &take_f32(call.square, len)?, 1.0 - keep, &grad.sqr()?)?;
        let mut spread = square.clone();
        if let Some(buf) = call.mean {
            let mean = towards(&take_f32(buf, len)?, &grad, 1.0 - keep)?;
            spread = (spread - mean.sqr()?)?;
            // Rounding may make it negative.
            spread = set(&spread, &spread.lt(0f64)?, 0.0)?;
            put(buf, mean)?;
        }
        let mut step = (grad / (spread.sqrt()? + f64::from(eps))?)?;
        if let Some(buf) = call.velocity {
            step = mix(momentum.into(), &take_f32(buf, len)?, 1.0, &step)?;
            put(buf, step.clone())?;
        }
        put(call.square, square)?;
        put(call.param, (param - (step * f64::from(lr))?)?)
    }

    pub(super) fn lamb(&self, call: Lamb<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let Lamb { len, lr, beta1, beta2, eps, weight_decay, step, .. } = call;
        let param = take_f32(call.param, len)?;
        let grad = take_f32(call.grad, len)?;
        let first = towards(&take_f32(call.first, len)?, &grad, 1.0 - f64::from(beta1))?;
        let second = mix(beta2.into(), &take_f32(call.second, len)?, 1.0 - f64::from(beta2), &grad.sqr()?)?;
        let root = ((second.sqrt()? / correction(beta2, step).sqrt())? + f64::from(eps))?;
        let update = ((&first / correction(beta1, step))? / root)?;
        let update = mix(1.0, &update, weight_decay.into(), &param)?;
        let (weights, updates) = (squares(&param)?, squares(&update)?);
        let trust = match weight_decay {
            0.0 => weights.ones_like()?,
            _ => {
                let ratio = (weights.sqrt()? / updates.sqrt()?)?;
                // What is no number counts as 0, too.
                let adapts = (weights.gt(0f64)? * updates.gt(0f64)?)?;
                set(&ratio, &adapts.eq(0u8)?, 1.0)?
            }
        };
        put(call.squares, Tensor::stack(&[weights, updates], 0)?)?;
        put(call.first, first)?;
        put(call.second, second)?;
        put(call.param, (param - update.broadcast_mul(&(trust * f64::from(lr))?)?)?)
    }

    pub(super) fn clip(&self, call: Clip<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let x = take_f32(call.x, call.len)?;
        let limited = match (call.limit, call.squares) {
            (Limit::Norm { max, eps }, Some(squares)) => {
                let norm = (take_f32(squares, ())?.sqrt()? + f64::from(eps))?;
                let factor = (norm.recip()? * f64::from(max))?;
                // What is no number is not at least 1 either.
                x.broadcast_mul(&set(&factor, &factor.ge(1f64)?, 1.0)?)?
            }
            (Limit::Value { max }, _) => {
                let x = set(&x, &x.gt(f64::from(max))?, max)?;
                set(&x, &x.lt(f64::from(-max))?, -max)?
            }
            (other, _) => candle_core::bail!("{other:?} cannot be limited without a sum of squares"),
        };
        put(call.x, limited)
    }

    pub(super) fn lerp(&self, call: Lerp<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let average =
            towards(&take_f32(call.out, call.len)?, &take_f32(call.x, call.len)?, call.weight.into())?;
        put(call.out, average)
    }
}
