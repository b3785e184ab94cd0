//! A backend in a repository of its own, with nothing of defrost but `tensor`, `exec` and (for its tests) `conformance`.
//!
//! Its device is the slowest there is: plain loops over `Vec<f32>` in published order. It shows what a backend is made of:
//!
//! 1. a type that implements [`Kernels`]: buffers, their way in and out, and one method a call;
//! 2. [`Kernels::supports`], which says before the first step what the device cannot do (here: averages of weights), so that
//!    a recipe that needs it is refused instead of failing midway;
//! 3. an [`Engine`], five lines around [`Interpreter`], which is all that the trainer sees;
//! 4. a test that hands the kernels to the conformance suite, with the list of what is missing (`tests/conformance.rs`).

use std::sync::Arc;

use defrost_exec::{Engine, ExecError, Graph, Interpreter, ParamStore, Session};
use defrost_tensor::call::*;
use defrost_tensor::{Call, KernelError, Kernels, Layout, PixelScale, Shape4};

mod dense;
mod network;

/// Plain loops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loops;

/// Methods that run a function of this crate.
macro_rules! methods {
    ($($method:ident($call:ident) => $function:path;)*) => {
        $(fn $method(&self, call: $call<&Vec<f32>, &mut Vec<f32>>) -> Result<(), KernelError> {
            $function(call);
            Ok(())
        })*
    };
}

/// Methods for what [`Loops`] declares not to do.
macro_rules! refused {
    ($($method:ident($call:ident);)*) => {
        $(fn $method(&self, _: $call<&Vec<f32>, &mut Vec<f32>>) -> Result<(), KernelError> {
            Err(KernelError::Unsupported { device: self.device(), what: stringify!($method).into() })
        })*
    };
}

impl Kernels for Loops {
    type Buf = Vec<f32>;

    fn device(&self) -> String {
        "loops".into()
    }

    fn supports(&self, call: &Call<Layout, Layout>) -> bool {
        !matches!(call, Call::Lerp(_))
    }

    fn alloc(&self, layout: Layout) -> Result<Vec<f32>, KernelError> {
        let mut buf = Vec::new();
        let bytes = layout.len().saturating_mul(4);
        buf.try_reserve_exact(layout.len())
            .map_err(|_| KernelError::OutOfMemory { device: self.device(), bytes })?;
        buf.resize(layout.len(), 0.0);
        Ok(buf)
    }

    fn upload(&self, layout: Layout, host: &[f32], dst: &mut Vec<f32>) -> Result<(), KernelError> {
        // Published order is this backend's order. Another would convert here.
        dst[..layout.len()].copy_from_slice(host);
        Ok(())
    }

    fn upload_pixels(
        &self,
        shape: Shape4,
        pixels: &[u8],
        scale: &PixelScale,
        dst: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        for (i, [n, c, y, x]) in positions(shape) {
            let source = if scale.reversed { shape.c - 1 - c } else { c };
            let byte = pixels[((n * shape.h + y) * shape.w + x) * shape.c + source];
            dst[i] = f32::from(byte) * scale.scale[c] + scale.shift[c];
        }
        Ok(())
    }

    fn download(&self, layout: Layout, src: &Vec<f32>, host: &mut [f32]) -> Result<(), KernelError> {
        host.copy_from_slice(&src[..layout.len()]);
        Ok(())
    }

    fn fill(&self, len: usize, value: f32, dst: &mut Vec<f32>) -> Result<(), KernelError> {
        dst[..len].fill(value);
        Ok(())
    }

    methods! {
        conv2d(Conv2d) => network::conv2d;
        conv2d_grad_input(Conv2dGradInput) => network::conv2d_grad_input;
        conv2d_grad_weight(Conv2dGradWeight) => network::conv2d_grad_weight;
        norm_train(NormTrain) => network::norm_train;
        norm_train_grad(NormTrainGrad) => network::norm_train_grad;
        norm_eval(NormEval) => network::norm_eval;
        norm_eval_grad(NormEvalGrad) => network::norm_eval_grad;
        fold_norm(FoldNorm) => network::fold_norm;
        max_pool(MaxPool) => network::max_pool;
        max_pool_grad(MaxPoolGrad) => network::max_pool_grad;
        avg_pool(AvgPool) => network::avg_pool;
        avg_pool_grad(AvgPoolGrad) => network::avg_pool_grad;
        activate(Activate) => dense::activate;
        activate_grad(ActivateGrad) => dense::activate_grad;
        add(Add) => dense::add;
        copy(Copy) => dense::copy;
        gemm(Gemm) => dense::gemm;
        channel_sum(ChannelSum) => dense::channel_sum;
        flatten(Flatten) => dense::flatten;
        unflatten(Unflatten) => dense::unflatten;
        copy_channels(CopyChannels) => dense::copy_channels;
        softmax_cross_entropy(SoftmaxCrossEntropy) => dense::softmax_cross_entropy;
        elementwise_loss(ElementwiseLoss) => dense::elementwise_loss;
        dropout(Dropout) => dense::dropout;
        sgd(Sgd) => dense::sgd;
        adam(Adam) => dense::adam;
        clip(Clip) => dense::clip;
        rms_prop(RmsProp) => dense::rms_prop;
        lamb(Lamb) => dense::lamb;
        sum_squares(SumSquares) => dense::sum_squares;
    }

    refused! {
        lerp(Lerp);
    }
}

/// What the trainer sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopsEngine;

impl Engine for LoopsEngine {
    fn device(&self) -> String {
        Loops.device()
    }

    fn open(&self, graph: Arc<Graph>, params: &ParamStore) -> Result<Box<dyn Session>, ExecError> {
        Ok(Box::new(Interpreter::new(Arc::new(Loops), graph, params)?))
    }
}

/// Where element `[n, c, y, x]` lies.
fn at(shape: Shape4, [n, c, y, x]: [usize; 4]) -> usize {
    ((n * shape.c + c) * shape.h + y) * shape.w + x
}

/// Every place with its `[n, c, y, x]`.
fn positions(shape: Shape4) -> impl Iterator<Item = (usize, [usize; 4])> {
    (0..shape.len()).map(move |i| {
        let (image, rest) = (i / shape.image_len(), i % shape.image_len());
        (i, [image, rest / shape.area(), rest % shape.area() / shape.w, rest % shape.w])
    })
}

/// The places of channel `c`.
fn channel(shape: Shape4, c: usize) -> impl Iterator<Item = usize> {
    (0..shape.n).flat_map(move |n| {
        let first = at(shape, [n, c, 0, 0]);
        first..first + shape.area()
    })
}

/// The sum, added up in f64: long sums of f32 lose digits.
fn sum(values: impl Iterator<Item = f32>) -> f64 {
    values.map(f64::from).sum()
}

/// Writes `value(i)` to each of the first `len` elements of `out`, or adds it.
fn store(out: &mut [f32], len: usize, accumulate: bool, value: impl Fn(usize) -> f32) {
    for (i, out) in out[..len].iter_mut().enumerate() {
        *out = if accumulate { *out + value(i) } else { value(i) };
    }
}
