//! Dropout by operations that candle has: its keyed hash is made of exclusive ors, which candle lacks. They are looked up byte
//! by byte; products are taken apart so that they stay below 2⁶³. Vectors are small beside what is convolved.

use std::sync::PoisonError;

use candle_core::{DType, Result, Tensor};
use defrost_tensor::call;

use super::{Composed, put_or_add, take_f32};
use crate::CandleBuf;

/// The factors of MurmurHash3's `fmix32`.
const FACTORS: [u32; 2] = [0x85EB_CA6B, 0xC2B2_AE35];

/// `fmix32`, as in [`defrost_tensor::dropout_keeps`].
fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(FACTORS[0]);
    h ^= h >> 13;
    h = h.wrapping_mul(FACTORS[1]);
    h ^ (h >> 16)
}

/// What [`defrost_tensor::dropout_keeps`] makes of layer and place, before a key comes in.
fn of_place(layer: u32, index: u32) -> u32 {
    mix(layer.wrapping_mul(0x9E37_79B9) ^ mix(index.wrapping_add(0x7F4A_7C15)))
}

impl Composed {
    /// One whole number, for broadcasting.
    fn whole(&self, number: u32) -> Result<Tensor> {
        Tensor::from_slice(&[i64::from(number)], 1, &self.device)
    }

    /// Whole numbers without their last `bits` bits.
    fn shifted(&self, x: &Tensor, bits: u32) -> Result<Tensor> {
        x.broadcast_div(&self.whole(1 << bits)?)
    }

    /// The last `bits` bits.
    fn last(&self, x: &Tensor, bits: u32) -> Result<Tensor> {
        x - self.shifted(x, bits)?.broadcast_mul(&self.whole(1 << bits)?)?
    }

    /// `a ^ b` at place `256 · a + b`, of bytes.
    fn exclusive_ors(&self) -> Result<Tensor> {
        let mut kept = self.exclusive_ors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = &*kept {
            return Ok(table.clone());
        }
        let table: Vec<u32> = (0..1 << 16).map(|i| (i >> 8) ^ (i & 255)).collect();
        let table = Tensor::from_vec(table, 1 << 16, &self.device)?;
        *kept = Some(table.clone());
        Ok(table)
    }

    /// `a ^ b` of whole numbers below 2³².
    fn xor(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let table = self.exclusive_ors()?;
        let mut sum = a.zeros_like()?;
        for byte in 0..4 {
            let of = |x| self.last(&self.shifted(x, 8 * byte)?, 8);
            let place = (of(a)?.broadcast_mul(&self.whole(256)?)? + of(b)?)?;
            let xor = table.index_select(&place.to_dtype(DType::U32)?, 0)?.to_dtype(DType::I64)?;
            sum = (sum + xor.broadcast_mul(&self.whole(1 << (8 * byte))?)?)?;
        }
        Ok(sum)
    }

    /// `a · factor` modulo 2³².
    fn times(&self, a: &Tensor, factor: u32) -> Result<Tensor> {
        let high = self.last(&a.broadcast_mul(&self.whole(factor >> 16)?)?, 16)?;
        let low = a.broadcast_mul(&self.whole(factor & 0xFFFF)?)?;
        let sum = (high.broadcast_mul(&self.whole(1 << 16)?)? + low)?;
        // 32 bits are more than a shift of a `u32` takes off.
        let high = self.shifted(&self.shifted(&sum, 16)?, 16)?;
        sum - high.broadcast_mul(&self.whole(1 << 16)?)?.broadcast_mul(&self.whole(1 << 16)?)?
    }

    fn mixed(&self, h: &Tensor) -> Result<Tensor> {
        let h = self.xor(h, &self.shifted(h, 16)?)?;
        let h = self.times(&h, FACTORS[0])?;
        let h = self.xor(&h, &self.shifted(&h, 13)?)?;
        let h = self.times(&h, FACTORS[1])?;
        self.xor(&h, &self.shifted(&h, 16)?)
    }

    pub(super) fn dropout(&self, call: call::Dropout<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let (n, c) = (call.shape.n, call.shape.c);
        let places = (0..c as u32).map(|i| i64::from(of_place(call.layer, i))).collect::<Vec<_>>();
        let places = Tensor::from_vec(places, (1, c), &self.device)?;
        let mut hash = places.broadcast_as((n, c))?.flatten_all()?;
        let keys = take_f32(call.keys, (n, 2))?.to_dtype(DType::I64)?;
        for key in [1, 0] {
            let key = keys.narrow(1, key, 1)?.broadcast_as((n, c))?.flatten_all()?;
            hash = self.mixed(&self.xor(&key, &hash)?)?;
        }
        // The top 24 bits are exact as f32.
        let keeps = self.shifted(&hash, 8)?.to_dtype(DType::F32)?.ge(f64::from(call.rate) * 16_777_216.0)?;
        let x = (take_f32(call.x, n * c)? * f64::from(1.0 / (1.0 - call.rate)))?;
        put_or_add(call.out, keeps.where_cond(&x, &x.zeros_like()?)?, call.accumulate)
    }
}
