//! Losses with their gradients and hits, in f64 where the device has it.

use candle_core::{DType, Device, Result, Tensor};
use defrost_tensor::ElementLoss;
use defrost_tensor::call::*;

use super::{Composed, put, set, take};
use crate::CandleBuf;

/// 1 where `mask` is not 0, else 0.
fn number(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    mask.to_dtype(dtype)
}

impl Composed {
    fn exact(&self) -> DType {
        if matches!(self.device, Device::Metal(_)) { DType::F32 } else { DType::F64 }
    }

    fn rows(&self, buf: &CandleBuf, n: usize, classes: usize) -> Result<Tensor> {
        take(buf, (n, classes))?.to_dtype(self.exact())
    }

    /// The places of the first of the largest values of each row, `[n, 1]`; `largest` holds the values.
    fn first_largest(&self, x: &Tensor, largest: &Tensor) -> Result<Tensor> {
        let (n, classes) = x.dims2()?;
        let places = Tensor::arange(0f32, classes as f32, &self.device)?.to_dtype(x.dtype())?;
        let places = places.unsqueeze(0)?.broadcast_as((n, classes))?.contiguous()?;
        set(&places, &x.broadcast_eq(largest)?.eq(0u8)?, classes as f32)?.min_keepdim(1)
    }

    fn report(
        &self,
        stats: &mut CandleBuf,
        grad: Option<&mut CandleBuf>,
        [loss, hits]: [Tensor; 2],
        slope: impl FnOnce() -> Result<Tensor>,
    ) -> Result<()> {
        put(stats, Tensor::stack(&[loss, hits], 0)?.to_dtype(DType::F32)?)?;
        match grad {
            Some(grad) => put(grad, slope()?.to_dtype(DType::F32)?),
            None => Ok(()),
        }
    }

    pub(super) fn softmax_cross_entropy(
        &self,
        call: SoftmaxCrossEntropy<&CandleBuf, &mut CandleBuf>,
    ) -> Result<()> {
        let SoftmaxCrossEntropy { n, classes, gamma, .. } = call;
        let z = self.rows(call.logits, n, classes)?;
        let t = self.rows(call.targets, n, classes)?;
        let top = z.max_keepdim(1)?;
        let from_top = z.broadcast_sub(&top)?;
        let exp = from_top.exp()?;
        let total = exp.sum_keepdim(1)?;
        let log_p = from_top.broadcast_sub(&total.log()?)?;
        let p = exp.broadcast_div(&total)?;
        let (value, slope) = focus(gamma, &log_p, &p)?;

        // A weight of 0 contributes nothing, even where the logarithm is infinite.
        let absent = t.eq(0f64)?;
        let weighed = |x: Tensor| set(&(x * &t)?, &absent, 0.0);
        let (loss, own) = (weighed(value)?, weighed(slope)?);

        let most = t.max_keepdim(1)?;
        let right = self.first_largest(&z, &top)?.eq(&self.first_largest(&t, &most)?)?;
        // A sum that is no number has no largest logit.
        let hit = ((right * most.gt(0f64)?)? * total.eq(&total)?)?;
        let stats = [loss.sum_all()?.neg()?, number(&hit, z.dtype())?.sum_all()?];
        self.report(call.stats, call.grad, stats, || p.broadcast_mul(&own.sum_keepdim(1)?)? - own)
    }

    pub(super) fn elementwise_loss(&self, call: ElementwiseLoss<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let ElementwiseLoss { n, classes, loss, .. } = call;
        let x = self.rows(call.x, n, classes)?;
        let t = self.rows(call.targets, n, classes)?;
        let w = self.rows(call.weights, n, classes)?;
        let (value, slope) = element(loss, &x, &t)?;
        let absent = w.eq(0f64)?;
        let weighed = |x: Tensor| set(&(x * &w)?, &absent, 0.0);
        let total = weighed(value)?.sum_all()?;
        let hits = match loss {
            ElementLoss::BinaryCrossEntropy => {
                // Above 0 where it should be, not above it (nor without a value) where it should not.
                let (above, wanted) = (x.gt(0f64)?, t.gt(0.5f64)?);
                let right = ((&above * &wanted)? + (x.le(0f64)? * wanted.eq(0u8)?)?)?;
                let right = number(&(right + &absent)?, x.dtype())?.min_keepdim(1)?.gt(0f64)?;
                let known = number(&absent, x.dtype())?.min_keepdim(1)?.eq(0f64)?;
                number(&(right * known)?, x.dtype())?.sum_all()?
            }
            _ => total.zeros_like()?,
        };
        self.report(call.stats, call.grad, [total, hits], || weighed(slope))
    }
}

/// `(1 - p)^gamma · log p` and its slope over `log p`.
fn focus(gamma: f32, log_p: &Tensor, p: &Tensor) -> Result<(Tensor, Tensor)> {
    if gamma == 0.0 {
        return Ok((log_p.clone(), log_p.ones_like()?));
    }
    let rest = (1.0 - p)?;
    // Rounding may make it negative.
    let rest = set(&rest, &rest.lt(0f64)?, 0.0)?;
    let power = rest.powf(gamma.into())?;
    // `log p / (1 - p)` tends to -1 as p tends to 1.
    let ratio = set(&(log_p / &rest)?, &rest.le(0f64)?, -1.0)?;
    // A probability of 0 has an infinite logarithm and no weight in the slope.
    let bend = set(&((p * ratio)? * f64::from(gamma))?, &p.le(0f64)?, 0.0)?;
    Ok(((&power * log_p)?, (power * (1.0 - bend)?)?))
}

/// The losses of outputs and their derivatives.
fn element(loss: ElementLoss, x: &Tensor, t: &Tensor) -> Result<(Tensor, Tensor)> {
    let off = (x - t)?;
    match loss {
        ElementLoss::BinaryCrossEntropy => {
            let small = x.abs()?.neg()?.exp()?;
            let near = (&small + 1.0)?;
            let (low, high) = ((&small / &near)?, near.recip()?);
            let sigmoid = x.lt(0f64)?.where_cond(&low, &high)?;
            let above = set(x, &x.lt(0f64)?, 0.0)?;
            Ok((((above - (x * t)?)? + near.log()?)?, (sigmoid - t)?))
        }
        ElementLoss::Squared => Ok((off.sqr()?, (off * 2.0)?)),
        ElementLoss::Huber { delta } => {
            let delta = f64::from(delta);
            let (size, sign) = (off.abs()?, off.sign()?);
            let far = size.gt(delta)?;
            let value = far.where_cond(&((size - 0.5 * delta)? * delta)?, &(off.sqr()? * 0.5)?)?;
            Ok((value, far.where_cond(&(sign * delta)?, &off)?))
        }
        other => candle_core::bail!("unknown loss {other:?}"),
    }
}
