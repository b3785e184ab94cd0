//! Calls on slices: what every backend runs whose buffers are slices of f32 on the host.
//!
//! This is where a [`Call`] meets the kernel that does it; the shapes have been checked by the planner.

use std::sync::{Mutex, MutexGuard, PoisonError};

use defrost_tensor::{Call, Layout, PixelScale, Shape4};

use crate::conv::Algorithm;
use crate::{AlignedBuf, Threads, layout};

mod network;
mod step;
mod train;

/// What is wrong where a call's shapes do not fit: the planner inferred them, so it is a bug.
const PLANNED: &str = "a planned call has consistent shapes";

/// The system has no room for this many more bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRoom {
    /// Bytes asked for.
    pub bytes: usize,
}

/// Some threads and one workspace, and with them every call.
#[derive(Debug)]
pub struct SliceKernels {
    threads: Threads,
    algorithm: Algorithm,
    bf16: bool,
    /// Grows to the largest that any call needed.
    workspace: Mutex<AlignedBuf>,
    /// A piece of a gradient, see [`SliceKernels::gemm_step`].
    piece: Mutex<AlignedBuf>,
}

/// The first `len` elements.
fn read(buf: &[f32], len: usize) -> &[f32] {
    &buf[..len]
}

/// The first `len` elements.
fn write(buf: &mut [f32], len: usize) -> &mut [f32] {
    &mut buf[..len]
}

impl SliceKernels {
    /// Kernels on these threads.
    pub fn new(threads: Threads, algorithm: Algorithm) -> Self {
        let [workspace, piece] = [(), ()].map(|()| Mutex::new(AlignedBuf::empty()));
        Self { threads, algorithm, bf16: false, workspace, piece }
    }

    /// With products of bfloat16 in convolutions, where the instruction set has them and they are faster.
    pub fn with_bf16(self) -> Self {
        Self { bf16: true, ..self }
    }

    /// The threads and the instruction set in words, as in "2 threads, AVX-512".
    pub fn describe(&self) -> String {
        let count = self.threads.count();
        let s = if count == 1 { "" } else { "s" };
        let exact = if self.algorithm == Algorithm::Direct { ", exact" } else { "" };
        let bf16 = match self.bf16 {
            true if self.threads.multiplies_bf16() => ", bf16",
            true => ", f32 as it has no bf16",
            false => "",
        };
        format!("{count} thread{s}, {}{exact}{bf16}", self.threads.isa().name())
    }

    /// Writes `host`, in the published order of `layout`, into `dst`.
    pub fn upload(&self, layout: Layout, host: &[f32], dst: &mut [f32]) {
        let dst = write(dst, layout.len());
        match layout {
            Layout::Activation(shape) => layout::nchw_to_nhwc(&self.threads, shape, host, false, dst),
            Layout::ConvWeight(shape) => layout::oihw_to_hwio(shape, host, dst),
            _ => dst.copy_from_slice(host),
        }
    }

    /// Writes pictures (`n, h, w, c` bytes) into an activation of `shape`.
    pub fn upload_pixels(&self, shape: Shape4, pixels: &[u8], scale: &PixelScale, dst: &mut [f32]) {
        let PixelScale { scale, shift, reversed } = scale;
        layout::pixels(&self.threads, shape, pixels, scale, shift, *reversed, write(dst, shape.len()));
    }

    /// Reads `src` into `host`, in the published order of `layout`.
    pub fn download(&self, layout: Layout, src: &[f32], host: &mut [f32]) {
        let src = read(src, layout.len());
        match layout {
            Layout::Activation(shape) => layout::nhwc_to_nchw(&self.threads, shape, src, host),
            Layout::ConvWeight(shape) => layout::hwio_to_oihw(shape, src, host),
            _ => host.copy_from_slice(src),
        }
    }

    /// Runs a call. Activations are `n, h, w, c` and convolution weights `kh, kw, in / groups, out`.
    ///
    /// # Errors
    /// No room for a larger workspace.
    pub fn run(&self, call: Call<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
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

    /// The workspace, of at least `len` floats.
    fn workspace(&self, len: usize) -> Result<MutexGuard<'_, AlignedBuf>, NoRoom> {
        grown(&self.workspace, len)
    }
}

/// `buffer`, of at least `len` floats.
fn grown(buffer: &Mutex<AlignedBuf>, len: usize) -> Result<MutexGuard<'_, AlignedBuf>, NoRoom> {
    // Its contents mean nothing between calls, so a call that panicked has broken nothing.
    let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
    if buffer.len() < len {
        // The old one goes first: both together may not fit.
        *buffer = AlignedBuf::empty();
        *buffer = AlignedBuf::zeroed(len).ok_or(NoRoom { bytes: len.saturating_mul(4) })?;
    }
    Ok(buffer)
}
