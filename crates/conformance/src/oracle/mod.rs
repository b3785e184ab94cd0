//! The f64 oracle: every call as the plainest loop that computes it.

mod conv;
mod dense;
mod elementwise;
mod loss;
mod norm;
mod optim;
mod pool;

use defrost_tensor::call::*;
use defrost_tensor::{Activation, KernelError, Kernels, Layout, PixelScale, Shape4};

type Read<'a> = &'a Vec<f64>;
type Write<'a> = &'a mut Vec<f64>;

/// Kernels in f64 that are slow and obviously right.
///
/// A buffer holds its layout's host order (`[n, c, h, w]`, `[out, in / groups, kh, kw]`) and may be longer than a call
/// needs. There is one formula a call, after PyTorch's documentation; a function and its gradient share the code
/// that says which elements meet, and finite differences check the rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oracle;

impl Oracle {
    /// [`Kernels::upload`] without rounding.
    pub fn upload_f64(&self, layout: Layout, host: &[f64], dst: &mut [f64]) {
        dst[..layout.len()].copy_from_slice(host);
    }

    /// [`Kernels::download`] without rounding.
    pub fn download_f64(&self, layout: Layout, src: &[f64]) -> Vec<f64> {
        src[..layout.len()].to_vec()
    }
}

macro_rules! methods {
    ($($method:ident: $call:ident => $function:path,)*) => {
        $(fn $method(&self, call: $call<Read<'_>, Write<'_>>) -> Result<(), KernelError> {
            $function(call);
            Ok(())
        })*
    };
}

impl Kernels for Oracle {
    type Buf = Vec<f64>;

    fn device(&self) -> String {
        "oracle (f64)".into()
    }

    fn alloc(&self, layout: Layout) -> Result<Vec<f64>, KernelError> {
        Ok(vec![0.0; layout.len()])
    }

    fn upload(&self, layout: Layout, host: &[f32], dst: &mut Vec<f64>) -> Result<(), KernelError> {
        let host: Vec<f64> = host.iter().map(|&v| v.into()).collect();
        self.upload_f64(layout, &host, dst);
        Ok(())
    }

    fn upload_pixels(
        &self,
        shape: Shape4,
        pixels: &[u8],
        scale: &PixelScale,
        dst: &mut Vec<f64>,
    ) -> Result<(), KernelError> {
        for (i, [n, c, y, x]) in positions(shape) {
            let source = if scale.reversed { shape.c - 1 - c } else { c };
            let byte = pixels[((n * shape.h + y) * shape.w + x) * shape.c + source];
            dst[i] = f64::from(byte) * f64::from(scale.scale[c]) + f64::from(scale.shift[c]);
        }
        Ok(())
    }

    fn download(&self, layout: Layout, src: &Vec<f64>, host: &mut [f32]) -> Result<(), KernelError> {
        for (to, &from) in host.iter_mut().zip(&src[..layout.len()]) {
            *to = from as f32;
        }
        Ok(())
    }

    fn fill(&self, len: usize, value: f32, dst: &mut Vec<f64>) -> Result<(), KernelError> {
        dst[..len].fill(value.into());
        Ok(())
    }

    methods! {
        conv2d: Conv2d => conv::conv2d,
        conv2d_grad_input: Conv2dGradInput => conv::grad_input,
        conv2d_grad_weight: Conv2dGradWeight => conv::grad_weight,
        norm_train: NormTrain => norm::train,
        norm_train_grad: NormTrainGrad => norm::train_grad,
        norm_eval: NormEval => norm::eval,
        norm_eval_grad: NormEvalGrad => norm::eval_grad,
        fold_norm: FoldNorm => norm::fold,
        activate: Activate => elementwise::activate,
        activate_grad: ActivateGrad => elementwise::activate_grad,
        add: Add => elementwise::add,
        copy: Copy => elementwise::copy,
        max_pool: MaxPool => pool::max,
        max_pool_grad: MaxPoolGrad => pool::max_grad,
        avg_pool: AvgPool => pool::avg,
        avg_pool_grad: AvgPoolGrad => pool::avg_grad,
        gemm: Gemm => dense::gemm,
        channel_sum: ChannelSum => dense::channel_sum,
        flatten: Flatten => elementwise::flatten,
        unflatten: Unflatten => elementwise::unflatten,
        copy_channels: CopyChannels => elementwise::copy_channels,
        dropout: Dropout => elementwise::dropout,
        softmax_cross_entropy: SoftmaxCrossEntropy => loss::softmax_cross_entropy,
        elementwise_loss: ElementwiseLoss => loss::elementwise,
        sgd: Sgd => optim::sgd,
        adam: Adam => optim::adam,
        rms_prop: RmsProp => optim::rms_prop,
        lamb: Lamb => optim::lamb,
        clip: Clip => optim::clip,
        lerp: Lerp => optim::lerp,
        sum_squares: SumSquares => dense::sum_squares,
    }
}

/// Where element `[n, c, y, x]` lies.
fn at(shape: Shape4, [n, c, y, x]: [usize; 4]) -> usize {
    ((n * shape.c + c) * shape.h + y) * shape.w + x
}

/// Every place in memory with its `[n, c, y, x]`.
fn positions(shape: Shape4) -> impl Iterator<Item = (usize, [usize; 4])> {
    (0..shape.len()).map(move |i| {
        let (image, rest) = (i / shape.image_len(), i % shape.image_len());
        (i, [image, rest / shape.area(), rest % shape.area() / shape.w, rest % shape.w])
    })
}

/// The places of channel `c`.
fn channel(shape: Shape4, c: usize) -> impl Iterator<Item = usize> + Clone {
    (0..shape.n).flat_map(move |n| {
        let first = at(shape, [n, c, 0, 0]);
        first..first + shape.area()
    })
}

/// The first `len` elements, zeroed unless they are to be added to.
fn target(out: &mut [f64], len: usize, accumulate: bool) -> &mut [f64] {
    let out = &mut out[..len];
    if !accumulate {
        out.fill(0.0);
    }
    out
}

/// [`Activation::apply`] in f64.
fn apply(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu if x < 0.0 => 0.0,
        Activation::Relu => x,
        Activation::Relu6 => x.clamp(0.0, 6.0),
        // An activation that this crate has not heard of is right to f32's precision.
        other => other.apply(x as f32).into(),
    }
}

/// [`Activation::passes`] in f64.
fn passes(activation: Activation, y: f64) -> bool {
    match activation {
        Activation::Identity => true,
        Activation::Relu => y > 0.0,
        Activation::Relu6 => y > 0.0 && y < 6.0,
        other => other.passes(y as f32),
    }
}
