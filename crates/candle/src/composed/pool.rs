//! Pools. candle's have no padding, and gradients of some windows only, which are wrong.

use std::sync::PoisonError;

use candle_core::{DType, Result, Tensor};
use defrost_tensor::call::*;
use defrost_tensor::{PoolDesc, Shape4};

use super::{Composed, dims, put, put_or_add, take, take_f32};
use crate::CandleBuf;

/// A pool with the shapes of its input and output.
struct Windows {
    desc: PoolDesc,
    input: Shape4,
    output: Shape4,
}

impl Windows {
    fn new(desc: PoolDesc, input: Shape4) -> Result<Self> {
        Ok(Self { desc, input, output: desc.output(input).map_err(candle_core::Error::wrap)? })
    }

    /// Rows (columns) of the input and of the output.
    fn sizes(&self, axis: usize) -> (usize, usize) {
        match axis {
            0 => (self.input.h, self.output.h),
            _ => (self.input.w, self.output.w),
        }
    }

    /// The largest number of rows (columns) in a window.
    fn extent(&self, axis: usize) -> usize {
        let (size, out) = self.sizes(axis);
        (0..out).map(|i| self.desc.range(axis, i, size).len()).max().unwrap_or(0)
    }

    /// The input's row (column) that each output sees at place `tap` of its window; one beyond the input where the window
    /// is smaller.
    fn places(&self, axis: usize, tap: usize) -> Vec<u32> {
        let (size, out) = self.sizes(axis);
        let place = |i| self.desc.range(axis, i, size).nth(tap).unwrap_or(size) as u32;
        (0..out).map(place).collect()
    }
}

impl Composed {
    /// Calls `body` with what each output sees of `x` at each place of its window, in row order.
    fn each_tap(
        &self,
        windows: &Windows,
        x: &Tensor,
        mut body: impl FnMut(usize, usize, Tensor) -> Result<()>,
    ) -> Result<()> {
        let Shape4 { n, c, h, w } = windows.input;
        // A row and a column of what is never the largest.
        let least = |dims: (usize, usize, usize, usize)| {
            Tensor::full(f32::NEG_INFINITY, dims, &self.device)?.to_dtype(x.dtype())
        };
        let x = Tensor::cat(&[x, &least((n, c, 1, w))?], 2)?;
        let x = Tensor::cat(&[&x, &least((n, c, h + 1, 1))?], 3)?;
        for i in 0..windows.extent(0) {
            let rows = x.index_select(&self.index(windows.places(0, i))?, 2)?;
            for j in 0..windows.extent(1) {
                body(i, j, rows.index_select(&self.index(windows.places(1, j))?, 3)?)?;
            }
        }
        Ok(())
    }

    /// The largest value of each window and the number of its place.
    fn largest(&self, windows: &Windows, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let shape = dims(windows.output);
        let mut value = Tensor::full(f32::NEG_INFINITY, shape, &self.device)?.to_dtype(x.dtype())?;
        let mut place = Tensor::zeros(shape, DType::F32, &self.device)?;
        let columns = windows.extent(1);
        self.each_tap(windows, x, |i, j, seen| {
            // What is no number wins; the first of equals stays.
            let larger = (seen.gt(&value)? + seen.ne(&seen)?)?;
            let tap = Tensor::full((i * columns + j) as f32, shape, &self.device)?;
            value = larger.where_cond(&seen, &value)?;
            place = larger.where_cond(&tap, &place)?;
            Ok(())
        })?;
        Ok((value, place))
    }

    pub(super) fn max_pool(&self, call: MaxPool<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let windows = Windows::new(call.desc, call.input)?;
        put(call.out, self.largest(&windows, &take(call.x, dims(call.input))?)?.0)
    }

    pub(super) fn max_pool_grad(&self, call: MaxPoolGrad<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let windows = Windows::new(call.desc, call.input)?;
        let (Shape4 { n, c, h, w }, out) = (call.input, windows.output);
        let (_, place) = self.largest(&windows, &take(call.x, dims(call.input))?)?;
        let grad = take_f32(call.grad_out, dims(out))?;
        let zeros = grad.zeros_like()?;
        let columns = windows.extent(1);
        let mut sum = Tensor::zeros((n, c, h + 1, w), DType::F32, &self.device)?;
        for i in 0..windows.extent(0) {
            let mut rows = Tensor::zeros((n, c, out.h, w + 1), DType::F32, &self.device)?;
            for j in 0..columns {
                let here = place.eq((i * columns + j) as f64)?.where_cond(&grad, &zeros)?;
                rows = rows.index_add(&self.index(windows.places(1, j))?, &here, 3)?;
            }
            let rows = rows.narrow(3, 0, w)?.contiguous()?;
            sum = sum.index_add(&self.index(windows.places(0, i))?, &rows, 2)?;
        }
        put_or_add(call.grad_in, sum.narrow(2, 0, h)?.to_dtype(self.gradients)?, call.accumulate)
    }

    /// The weights of a mean along one axis, `[out, in]`: the mean of a window is that of its rows' means.
    fn mean_of(&self, windows: &Windows, axis: usize) -> Result<Tensor> {
        let (size, out) = windows.sizes(axis);
        let mut tables = self.means.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&(windows.desc, axis, size)) {
            return Ok(table.clone());
        }
        let mut weights = vec![0f32; out * size];
        for (i, row) in weights.chunks_exact_mut(size).enumerate() {
            let range = windows.desc.range(axis, i, size);
            let weight = 1.0 / range.len() as f32;
            row[range].fill(weight);
        }
        let table = Tensor::from_vec(weights, (out, size), &self.device)?;
        tables.insert((windows.desc, axis, size), table.clone());
        Ok(table)
    }

    /// `rows · x · columnsᵀ` for each channel of each image.
    fn sandwich(&self, x: &Tensor, rows: &Tensor, columns: &Tensor) -> Result<Tensor> {
        let (n, c, h, w) = x.dims4()?;
        let (out_h, out_w) = (rows.dim(0)?, columns.dim(0)?);
        let x = x.reshape((n * c * h, w))?.matmul(&columns.t()?)?.reshape((n * c, h, out_w))?;
        let rows = rows.unsqueeze(0)?.broadcast_as((n * c, out_h, h))?;
        rows.matmul(&x)?.reshape((n, c, out_h, out_w))
    }

    pub(super) fn avg_pool(&self, call: AvgPool<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let windows = Windows::new(call.desc, call.input)?;
        let x = take_f32(call.x, dims(call.input))?;
        let out = match call.desc {
            PoolDesc::GLOBAL => (x.sum_keepdim((2, 3))? / call.input.area() as f64)?,
            _ => self.sandwich(&x, &self.mean_of(&windows, 0)?, &self.mean_of(&windows, 1)?)?,
        };
        put(call.out, out.to_dtype(self.activations)?)
    }

    pub(super) fn avg_pool_grad(&self, call: AvgPoolGrad<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let windows = Windows::new(call.desc, call.input)?;
        let grad = take_f32(call.grad_out, dims(windows.output))?;
        let transposed = |axis| self.mean_of(&windows, axis)?.t()?.contiguous();
        let grad_in = match call.desc {
            PoolDesc::GLOBAL => (grad / call.input.area() as f64)?.broadcast_as(dims(call.input))?,
            _ => self.sandwich(&grad, &transposed(0)?, &transposed(1)?)?,
        };
        put_or_add(call.grad_in, grad_in.to_dtype(self.gradients)?, call.accumulate)
    }
}
