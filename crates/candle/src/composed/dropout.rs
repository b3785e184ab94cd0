//! Dropout: a custom operation, because candle has none on bits.

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, bail};
use defrost_tensor::{call, dropout_keeps};

use super::{Composed, put_or_add, take_f32};
use crate::CandleBuf;

/// Whether there is a kernel for a device.
pub(super) fn exists_on(device: &Device) -> bool {
    matches!(device, Device::Cpu)
}

/// [`call::Dropout`] of `[n, c]` by keys `[n, 2]`.
struct Keep {
    rate: f32,
    layer: u32,
    channels: usize,
}

impl CustomOp2 for Keep {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        at: &Layout,
        keys: &CpuStorage,
        keys_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(x), CpuStorage::F32(keys)) = (x, keys) else { bail!("dropout is made for f32") };
        let (Some((start, end)), Some((from, to))) = (at.contiguous_offsets(), keys_at.contiguous_offsets())
        else {
            bail!("dropout reads rows that lie one after the other")
        };
        let (x, keys) = (&x[start..end], &keys[from..to]);
        let scale = 1.0 / (1.0 - self.rate);
        let value = |(i, &x): (usize, &f32)| {
            let key = [0, 1].map(|which| keys[i / self.channels * 2 + which] as u32);
            let keeps = dropout_keeps(key, self.layer, (i % self.channels) as u32, self.rate);
            if keeps { x * scale } else { 0.0 }
        };
        Ok((CpuStorage::F32(x.iter().enumerate().map(value).collect()), at.shape().clone()))
    }
}

impl Composed {
    pub(super) fn dropout(&self, call: call::Dropout<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let keep = Keep { rate: call.rate, layer: call.layer, channels: call.shape.c };
        let (x, keys) = (take_f32(call.x, call.shape.len())?, take_f32(call.keys, 2 * call.shape.n)?);
        put_or_add(call.out, x.apply_op2_no_bwd(&keys, &keep)?, call.accumulate)
    }
}
