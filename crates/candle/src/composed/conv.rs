//! Convolutions and matrix products: candle's, where it has them.

use candle_core::{Result, Tensor};
use defrost_tensor::call::*;
use defrost_tensor::{ConvDesc, ConvKind, Pads, Shape4};

use super::{Composed, activated, channels, dims, put, put_or_add, take};
use crate::CandleBuf;

/// A convolution with the shapes that follow from its input.
#[derive(Clone, Copy)]
pub(super) struct Shapes {
    pub(super) desc: ConvDesc,
    pub(super) input: Shape4,
    pub(super) output: Shape4,
    pub(super) pads: Pads,
}

impl Shapes {
    fn new(desc: ConvDesc, input: Shape4) -> Result<Self> {
        let output = desc.output(input).map_err(candle_core::Error::wrap)?;
        Ok(Self { desc, input, output, pads: desc.pads(input.h, input.w) })
    }

    /// Rows and columns of the padded input.
    pub(super) fn padded(&self) -> [usize; 2] {
        let Pads { top, left, bottom, right } = self.pads;
        [self.input.h + top + bottom, self.input.w + left + right]
    }

    pub(super) fn pad(&self, x: &Tensor) -> Result<Tensor> {
        let Pads { top, left, bottom, right } = self.pads;
        x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)
    }

    /// The input's part of a padded tensor.
    pub(super) fn unpad(&self, x: &Tensor) -> Result<Tensor> {
        x.narrow(2, self.pads.top, self.input.h)?.narrow(3, self.pads.left, self.input.w)
    }

    /// The taps of the window, in the order of the weights.
    pub(super) fn taps(&self) -> impl Iterator<Item = [usize; 2]> + use<> {
        let [kh, kw] = self.desc.kernel;
        (0..kh).flat_map(move |i| (0..kw).map(move |j| [i, j]))
    }

    /// The stride and the dilation, where candle can do the convolution: it knows one of each.
    fn square(&self) -> Option<(usize, usize)> {
        let ([sh, sw], [dh, dw]) = (self.desc.stride, self.desc.dilation);
        (sh == sw && dh == dw).then_some((sh, dh))
    }

    /// The same for the product of input and gradient, which candle makes without groups.
    fn one_group(&self) -> Option<(usize, usize)> {
        self.square().filter(|_| self.desc.groups == 1)
    }
}

impl Composed {
    pub(super) fn conv2d(&self, call: Conv2d<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let shapes = Shapes::new(call.desc, call.input)?;
        let x = take(call.x, dims(call.input))?.to_dtype(self.activations)?;
        let weight = take(call.weight, &call.desc.weight_shape()[..])?;
        let mut y = match call.desc.kind() {
            ConvKind::Depthwise => self.depthwise(&shapes, &x, &weight)?,
            kind => self.dense(&shapes, &x, &weight.to_dtype(x.dtype())?, kind)?,
        };
        if let Some(bias) = call.bias {
            y = y.broadcast_add(&channels(bias, shapes.output.c)?.to_dtype(y.dtype())?)?;
        }
        if let Some(residual) = call.residual {
            y = (&y + take(residual, dims(shapes.output))?.to_dtype(y.dtype())?)?;
        }
        put(call.out, activated(y, call.activation)?)
    }

    fn dense(&self, shapes: &Shapes, x: &Tensor, weight: &Tensor, kind: ConvKind) -> Result<Tensor> {
        let Shape4 { n, c, .. } = shapes.input;
        let out = shapes.output;
        if kind == ConvKind::Pointwise {
            let weight = weight.reshape((1, out.c, c))?.broadcast_as((n, out.c, c))?;
            return weight.matmul(&x.reshape((n, c, out.area()))?)?.reshape(dims(out));
        }
        match shapes.square() {
            Some((stride, dilation)) => {
                shapes.pad(x)?.conv2d(weight, 0, stride, dilation, shapes.desc.groups)
            }
            None => {
                let patches = self.patches(shapes, x)?;
                let weight = self.grouped_weight(shapes, weight)?;
                weight.matmul(&patches)?.reshape(dims(out))
            }
        }
    }

    /// `[n, groups, out / groups, in / groups · taps]`.
    fn grouped_weight(&self, shapes: &Shapes, weight: &Tensor) -> Result<Tensor> {
        let (desc, n) = (&shapes.desc, shapes.input.n);
        let (rows, columns) = (desc.out_channels / desc.groups, desc.fan_in());
        let weight = weight.reshape((1, desc.groups, rows, columns))?;
        weight.broadcast_as((n, desc.groups, rows, columns))?.contiguous()
    }

    /// What each output sees of its input: `[n, groups, in / groups · taps, positions]`.
    fn patches(&self, shapes: &Shapes, x: &Tensor) -> Result<Tensor> {
        let (x, out) = (shapes.pad(x)?, shapes.output);
        let taps = shapes.taps().map(|tap| self.tap(shapes, &x, tap)).collect::<Result<Vec<_>>>()?;
        let groups = shapes.desc.groups;
        Tensor::stack(&taps, 2)?.reshape((out.n, groups, shapes.desc.fan_in(), out.area()))
    }

    /// What one tap sees of a padded input, an element an output position.
    pub(super) fn tap(&self, shapes: &Shapes, padded: &Tensor, [i, j]: [usize; 2]) -> Result<Tensor> {
        let ([sh, sw], [dh, dw]) = (shapes.desc.stride, shapes.desc.dilation);
        let rows = self.every(padded, 2, i * dh, shapes.output.h, sh)?;
        self.every(&rows, 3, j * dw, shapes.output.w, sw)
    }

    /// The reverse of [`Composed::tap`].
    pub(super) fn untap(&self, shapes: &Shapes, x: &Tensor, [i, j]: [usize; 2]) -> Result<Tensor> {
        let ([sh, sw], [dh, dw], [h, w]) = (shapes.desc.stride, shapes.desc.dilation, shapes.padded());
        self.spread(&self.spread(x, 2, i * dh, sh, h)?, 3, j * dw, sw, w)
    }

    pub(super) fn conv2d_grad_input(&self, call: Conv2dGradInput<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let shapes = Shapes::new(call.desc, call.input)?;
        let grad = take(call.grad_out, dims(shapes.output))?.to_dtype(self.gradients)?;
        let weight = take(call.weight, &call.desc.weight_shape()[..])?;
        let grad_in = match call.desc.kind() {
            ConvKind::Depthwise => self.depthwise_grad_input(&shapes, &grad, &weight)?,
            kind => self.dense_grad_input(&shapes, &grad, &weight.to_dtype(grad.dtype())?, kind)?,
        };
        put_or_add(call.grad_in, grad_in, call.accumulate)
    }

    fn dense_grad_input(
        &self,
        shapes: &Shapes,
        grad: &Tensor,
        weight: &Tensor,
        kind: ConvKind,
    ) -> Result<Tensor> {
        let Shape4 { n, c, h, w } = shapes.input;
        let (out, [kh, kw]) = (shapes.output, shapes.desc.kernel);
        if kind == ConvKind::Pointwise {
            let weight = weight.reshape((1, out.c, c))?.transpose(1, 2)?.contiguous()?;
            let weight = weight.broadcast_as((n, c, out.c))?;
            return weight.matmul(&grad.reshape((n, out.c, out.area()))?)?.reshape((n, c, h, w));
        }
        let Pads { top, left, bottom, right } = shapes.pads;
        if shapes.one_group() == Some((1, 1)) && top.max(bottom) < kh && left.max(right) < kw {
            // The convolution of the gradient with the mirrored window.
            let reversed = |k: usize| self.index((0..k as u32).rev().collect());
            let weight = weight.transpose(0, 1)?.contiguous()?;
            let weight = weight.index_select(&reversed(kh)?, 2)?.index_select(&reversed(kw)?, 3)?;
            let grad = grad.pad_with_zeros(2, kh - 1 - top, kh - 1 - bottom)?;
            return grad.pad_with_zeros(3, kw - 1 - left, kw - 1 - right)?.conv2d(&weight, 0, 1, 1, 1);
        }
        let (groups, each) = (shapes.desc.groups, c / shapes.desc.groups);
        let grad = grad.reshape((n, groups, out.c / groups, out.area()))?;
        let columns = self.grouped_weight(shapes, weight)?.transpose(2, 3)?.contiguous()?.matmul(&grad)?;
        let columns = columns.reshape((n, groups * each, kh * kw, out.h, out.w))?;
        let mut sum: Option<Tensor> = None;
        for (t, tap) in shapes.taps().enumerate() {
            let part = self.untap(shapes, &columns.narrow(2, t, 1)?.squeeze(2)?, tap)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        shapes.unpad(&sum.expect("a window has a tap"))
    }

    pub(super) fn conv2d_grad_weight(
        &self,
        call: Conv2dGradWeight<&CandleBuf, &mut CandleBuf>,
    ) -> Result<()> {
        let shapes = Shapes::new(call.desc, call.input)?;
        let x = take(call.x, dims(call.input))?.to_dtype(self.gradients)?;
        let grad = take(call.grad_out, dims(shapes.output))?.to_dtype(self.gradients)?;
        let weight = match call.desc.kind() {
            ConvKind::Depthwise => self.depthwise_grad_weight(&shapes, &x, &grad)?,
            kind => self.dense_grad_weight(&shapes, &x, &grad, kind)?,
        };
        put_or_add(call.grad_weight, weight.to_dtype(candle_core::DType::F32)?, call.accumulate)
    }

    fn dense_grad_weight(
        &self,
        shapes: &Shapes,
        x: &Tensor,
        grad: &Tensor,
        kind: ConvKind,
    ) -> Result<Tensor> {
        let (Shape4 { n, c, .. }, out, [kh, kw]) = (shapes.input, shapes.output, shapes.desc.kernel);
        let swapped = |x: &Tensor| x.transpose(0, 1)?.contiguous();
        if kind == ConvKind::Pointwise {
            let rows = n * out.area();
            let x = swapped(x)?.reshape((c, rows))?;
            return swapped(grad)?.reshape((out.c, rows))?.matmul(&x.t()?);
        }
        if let Some((stride, dilation)) = shapes.one_group() {
            // Channels as images: the input under a window of the gradient's size, whose taps lie a stride apart.
            let x = swapped(&shapes.pad(x)?)?;
            let weight = x.conv2d(&swapped(grad)?, 0, dilation, stride, 1)?;
            return swapped(&weight.narrow(2, 0, kh)?.narrow(3, 0, kw)?);
        }
        let groups = shapes.desc.groups;
        let grad = grad.reshape((n, groups, out.c / groups, out.area()))?;
        let patches = self.patches(shapes, x)?;
        grad.matmul(&patches.transpose(2, 3)?.contiguous()?)?.sum(0)
    }

    pub(super) fn gemm(&self, call: Gemm<&CandleBuf, &mut CandleBuf>) -> Result<()> {
        let Gemm { m, n, k, transpose_a, transpose_b, .. } = call;
        let matrix = |buf, rows, columns, transposed| {
            let stored = if transposed { (columns, rows) } else { (rows, columns) };
            let matrix = take(buf, stored)?.to_dtype(self.gradients)?;
            if transposed { matrix.t() } else { Ok(matrix) }
        };
        let mut c = matrix(call.a, m, k, transpose_a)?.matmul(&matrix(call.b, k, n, transpose_b)?)?;
        if let Some(bias) = call.bias {
            c = c.broadcast_add(&take(bias, (1, n))?.to_dtype(c.dtype())?)?;
        }
        put_or_add(call.c, activated(c, call.activation)?, call.accumulate)
    }
}
