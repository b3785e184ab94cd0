//! Calls that treat each element alone, sums, and calls that put elements in other places.

use candle_core::{DType, Result, Tensor};
use defrost_tensor::call::*;

use super::{Composed, activated, dims, passed, put, put_or_add, take, take_f32};
use crate::CandleBuf;

impl Composed {
    pub(super) fn activate(&self, call: Activate<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        put(call.out, activated(take(call.x, call.len)?, call.activation)?)
    }

    pub(super) fn activate_grad(&self, call: ActivateGrad<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let grad = passed(&take(call.grad_out, call.len)?, &take(call.out, call.len)?, call.activation)?;
        put_or_add(call.grad_in, grad, call.accumulate)
    }

    pub(super) fn add(&self, call: Add<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let (a, b) = (take(call.a, call.len)?, take(call.b, call.len)?);
        let b = b.to_dtype(a.dtype())?;
        put(call.out, activated((a + b)?, call.activation)?)
    }

    pub(super) fn copy(&self, call: Copy<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        put_or_add(call.out, take(call.x, call.len)?, call.accumulate)
    }

    pub(super) fn flatten(&self, call: Flatten<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        put(call.out, take(call.x, call.input.len())?)
    }

    pub(super) fn unflatten(&self, call: Unflatten<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        put_or_add(call.out, take(call.x, call.input.len())?, call.accumulate)
    }

    pub(super) fn copy_channels(&self, call: CopyChannels<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let CopyChannels { input, output, from, to, channels, accumulate, x, out } = call;
        let x = take(x, dims(input))?.narrow(1, from, channels)?;
        let old = take(out, dims(output))?.to_dtype(x.dtype())?;
        let x = match accumulate {
            true => (old.narrow(1, to, channels)? + x)?,
            false => x,
        };
        let end = to + channels;
        let parts = [(0, to), (end, output.c - end)].map(|(at, len)| old.narrow(1, at, len));
        let [before, after] = parts;
        let parts: Vec<Tensor> =
            [before?, x, after?].into_iter().filter(|part| part.elem_count() > 0).collect();
        put(out, Tensor::cat(&parts, 1)?)
    }

    pub(super) fn channel_sum(&self, call: ChannelSum<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let sum = take_f32(call.x, dims(call.shape))?.sum((0, 2, 3))?;
        put_or_add(call.sum, sum, call.accumulate)
    }

    pub(super) fn sum_squares(&self, call: SumSquares<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let sum = squares(&take_f32(call.x, call.len)?)?;
        put_or_add(call.sum, sum.reshape(1)?, call.accumulate)
    }
}

/// `Σ x²`, a scalar.
pub(super) fn squares(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)?.sqr()?.sum_all()
}
