//! Calls as compositions of candle's operations, on any device it has.
//!
//! Every value is a new tensor in published order: a call takes its operands out of their buffers, computes, and puts the
//! results in. Nothing is written in place, so buffers may share tensors. Operations that candle lacks or that are wrong for
//! some shape are made of ones that it has: windows are cut out by [`Composed::every`] and put back by [`Composed::spread`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor};
use defrost_tensor::{Activation, Call, Layout, PixelScale, Shape4};

use crate::{CandleBuf, Precision};

mod conv;
mod depthwise;
mod dropout;
mod elementwise;
mod loss;
mod norm;
mod optim;
mod pool;

/// Tables of numbers that kernels need, by what they say: rows to be read, or weights of means.
type Tables<K> = Mutex<HashMap<K, Tensor>>;

/// candle's operations on one device.
#[derive(Debug)]
pub(crate) struct Composed {
    device: Device,
    /// What activations are stored and multiplied in.
    activations: DType,
    /// The same for their gradients.
    gradients: DType,
    indices: Tables<Vec<u32>>,
    means: Tables<(defrost_tensor::PoolDesc, usize, usize)>,
    exclusive_ors: Mutex<Option<Tensor>>,
}

impl Composed {
    pub(crate) fn new(device: Device, precision: Precision) -> Self {
        let (activations, gradients) = match precision {
            Precision::F32 => (DType::F32, DType::F32),
            Precision::F16 => (DType::F16, DType::F32),
            Precision::Bf16 => (DType::BF16, DType::BF16),
        };
        Self {
            device,
            activations,
            gradients,
            indices: Tables::default(),
            means: Tables::default(),
            exclusive_ors: Mutex::default(),
        }
    }

    /// Computes a little in the numbers that were asked for.
    pub(crate) fn probe(&self) -> Result<()> {
        for numbers in [self.activations, self.gradients] {
            let x = Tensor::ones((4, 4), DType::F32, &self.device)?.to_dtype(numbers)?;
            (x.matmul(&x)? + &x)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
        }
        Ok(())
    }

    pub(crate) fn run(&self, call: Call<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        match call {
            Call::Conv2d(call) => self.conv2d(call),
            Call::Conv2dGradInput(call) => self.conv2d_grad_input(call),
            Call::Conv2dGradWeight(call) => self.conv2d_grad_weight(call),
            Call::NormTrain(call) => self.norm_train(call),
            Call::NormTrainGrad(call) => self.norm_train_grad(call),
            Call::NormEval(call) => self.norm_eval(call),
            Call::NormEvalGrad(call) => self.norm_eval_grad(call),
            Call::FoldNorm(call) => self.fold_norm(call),
            Call::Activate(call) => self.activate(call),
            Call::ActivateGrad(call) => self.activate_grad(call),
            Call::Add(call) => self.add(call),
            Call::Copy(call) => self.copy(call),
            Call::MaxPool(call) => self.max_pool(call),
            Call::MaxPoolGrad(call) => self.max_pool_grad(call),
            Call::AvgPool(call) => self.avg_pool(call),
            Call::AvgPoolGrad(call) => self.avg_pool_grad(call),
            Call::Gemm(call) => self.gemm(call),
            Call::ChannelSum(call) => self.channel_sum(call),
            Call::Flatten(call) => self.flatten(call),
            Call::Unflatten(call) => self.unflatten(call),
            Call::CopyChannels(call) => self.copy_channels(call),
            Call::Dropout(call) => self.dropout(call),
            Call::SoftmaxCrossEntropy(call) => self.softmax_cross_entropy(call),
            Call::ElementwiseLoss(call) => self.elementwise_loss(call),
            Call::Sgd(call) => self.sgd(call),
            Call::Adam(call) => self.adam(call),
            Call::RmsProp(call) => self.rms_prop(call),
            Call::Lamb(call) => self.lamb(call),
            Call::Clip(call) => self.clip(call),
            Call::Lerp(call) => self.lerp(call),
            Call::SumSquares(call) => self.sum_squares(call),
        }
    }

    pub(crate) fn alloc(&self, len: usize) -> Result<Tensor> {
        Tensor::zeros(len, DType::F32, &self.device)
    }

    pub(crate) fn upload(&self, layout: Layout, host: &[f32], dst: &mut CandleBuf) -> Result<()> {
        dst.value = Tensor::from_slice(host, layout.len(), &self.device)?;
        Ok(())
    }

    pub(crate) fn upload_pixels(
        &self,
        shape: Shape4,
        pixels: &[u8],
        scale: &PixelScale,
        dst: &mut CandleBuf,
    ) -> Result<()> {
        let Shape4 { n, c, h, w } = shape;
        let bytes = Tensor::from_slice(pixels, (n, h, w, c), &self.device)?;
        let mut x = bytes.permute((0, 3, 1, 2))?.to_dtype(DType::F32)?;
        if scale.reversed {
            x = x.contiguous()?.index_select(&self.index((0..c as u32).rev().collect())?, 1)?;
        }
        let channel = |v: &[f32]| Tensor::from_slice(v, (1, c, 1, 1), &self.device);
        let x = x.broadcast_mul(&channel(&scale.scale)?)?.broadcast_add(&channel(&scale.shift)?)?;
        put(dst, x.to_dtype(self.activations)?)
    }

    pub(crate) fn download(&self, layout: Layout, src: &CandleBuf, host: &mut [f32]) -> Result<()> {
        host.copy_from_slice(&take(src, layout.len())?.to_dtype(DType::F32)?.to_vec1()?);
        Ok(())
    }

    pub(crate) fn fill(&self, len: usize, value: f32, dst: &mut CandleBuf) -> Result<()> {
        let filled = Tensor::full(value, len, &self.device)?;
        dst.value = match dst.value.elem_count().checked_sub(len) {
            Some(rest @ 1..) => {
                Tensor::cat(&[filled, dst.value.to_dtype(DType::F32)?.narrow(0, len, rest)?], 0)?
            }
            _ => filled,
        };
        Ok(())
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        self.device.synchronize()
    }

    /// A table of places.
    fn index(&self, places: Vec<u32>) -> Result<Tensor> {
        let mut tables = self.indices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&places) {
            return Ok(table.clone());
        }
        let table = Tensor::from_slice(&places, places.len(), &self.device)?;
        tables.insert(places, table.clone());
        Ok(table)
    }

    /// `count` rows (or columns) of dimension `dim`, from `start` in steps of `step`.
    fn every(&self, x: &Tensor, dim: usize, start: usize, count: usize, step: usize) -> Result<Tensor> {
        match step {
            1 => x.narrow(dim, start, count),
            _ => x.contiguous()?.index_select(&self.index(places(start, count, step))?, dim),
        }
    }

    /// The reverse of [`Composed::every`]: zeros of `size` in dimension `dim`, and in them the rows of `x`.
    fn spread(&self, x: &Tensor, dim: usize, start: usize, step: usize, size: usize) -> Result<Tensor> {
        let count = x.dim(dim)?;
        if step == 1 {
            return x.pad_with_zeros(dim, start, size - start - count);
        }
        let mut dims = x.dims().to_vec();
        dims[dim] = size;
        let zeros = Tensor::zeros(dims, x.dtype(), &self.device)?;
        zeros.index_add(&self.index(places(start, count, step))?, &x.contiguous()?, dim)
    }
}

fn places(start: usize, count: usize, step: usize) -> Vec<u32> {
    (0..count).map(|i| (start + i * step) as u32).collect()
}

/// `[n, c, h, w]`.
fn dims(shape: Shape4) -> (usize, usize, usize, usize) {
    (shape.n, shape.c, shape.h, shape.w)
}

/// What a buffer holds, of this shape. A buffer whose last value was shorter holds zeros beyond it.
fn take(buf: &CandleBuf, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    let (len, held) = (shape.elem_count(), buf.value.elem_count());
    let value = match held >= len {
        true => buf.value.narrow(0, 0, len)?,
        false => buf.value.pad_with_zeros(0, 0, len - held)?,
    };
    value.reshape(shape)
}

/// The same in f32.
fn take_f32(buf: &CandleBuf, shape: impl Into<Shape>) -> Result<Tensor> {
    take(buf, shape)?.to_dtype(DType::F32)
}

/// One number a channel of an activation, for broadcasting; in f32.
fn channels(buf: &CandleBuf, c: usize) -> Result<Tensor> {
    take_f32(buf, (1, c, 1, 1))
}

/// Puts a value into a buffer.
fn put(buf: &mut CandleBuf, value: Tensor) -> Result<()> {
    buf.value = value.contiguous()?.flatten_all()?;
    Ok(())
}

/// Puts a value into a buffer, or adds it to what is there.
fn put_or_add(buf: &mut CandleBuf, value: Tensor, accumulate: bool) -> Result<()> {
    match accumulate {
        true => put(buf, (take(buf, value.shape())?.to_dtype(value.dtype())? + value)?),
        false => put(buf, value),
    }
}

/// `number` wherever `mask` is not 0, else `x`. Unlike a product with the mask it stops what is not a number.
fn set(x: &Tensor, mask: &Tensor, number: f32) -> Result<Tensor> {
    let number = Tensor::full(number, (), x.device())?.to_dtype(x.dtype())?;
    mask.where_cond(&number.broadcast_as(x.shape())?, x)
}

/// The activation's value; NaN stays.
fn activated(x: Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(x),
        Activation::Relu => set(&x, &x.lt(0f64)?, 0.0),
        Activation::Relu6 => {
            let x = set(&x, &x.lt(0f64)?, 0.0)?;
            set(&x, &x.gt(6f64)?, 6.0)
        }
        other => candle_core::bail!("unknown activation {other:?}"),
    }
}

/// `grad` where the activation's value `out` lets it pass, else 0.
fn passed(grad: &Tensor, out: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(grad.clone()),
        Activation::Relu => set(grad, &(out.gt(0f64)?.eq(0u8)?), 0.0),
        Activation::Relu6 => {
            let passes = (out.gt(0f64)? * out.lt(6f64)?)?;
            set(grad, &passes.eq(0u8)?, 0.0)
        }
        other => candle_core::bail!("unknown activation {other:?}"),
    }
}
