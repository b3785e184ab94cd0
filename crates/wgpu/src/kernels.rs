//! `impl Kernels for WgpuKernels`.

use defrost_tensor::call::*;
use defrost_tensor::{KernelError, Kernels, Layout, PixelScale, Shape4};

use crate::adapter::{AdapterInfo, OpenError};
use crate::buffer::WgpuBuf;
use crate::gpu::{Gpu, Traffic, WgpuOptions};
use crate::profile::KernelTime;

/// The wgpu backend's kernels on one device.
#[derive(Debug)]
pub struct WgpuKernels {
    gpu: Gpu,
}

impl WgpuKernels {
    /// Opens a device.
    ///
    /// # Errors
    /// No adapter, none of that name, one that cannot be opened.
    pub fn new(options: &WgpuOptions) -> Result<Self, OpenError> {
        Ok(Self { gpu: Gpu::open(options)? })
    }

    /// The adapter that was opened.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.gpu.info
    }

    /// Where time went since the last call, longest first. Empty unless [`WgpuOptions::profile`] was asked for and the
    /// adapter has timestamps.
    pub fn take_times(&self) -> Vec<KernelTime> {
        let mut recorder = self.gpu.recorder();
        recorder.profiler().map(|p| p.take()).unwrap_or_default()
    }

    /// Pipelines and bind groups that are cached: both stay the same from the second step of a plan on.
    pub fn cached(&self) -> (usize, usize) {
        self.gpu.recorder().cached()
    }

    /// Gives the device up as a driver's reset would: every later call fails.
    #[doc(hidden)]
    pub fn lose(&self) {
        self.gpu.device.destroy();
    }

    /// The most bytes that buffers may take, as [`WgpuOptions::memory`] says.
    pub fn memory(&self) -> Option<u64> {
        self.gpu.memory
    }

    /// What crossed between host and device since the device was opened.
    pub fn traffic(&self) -> Traffic {
        self.gpu.traffic()
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Names what is recorded next, for the profile.
    fn call(&self, name: &'static str) -> &Self {
        if self.gpu.profile {
            self.gpu.recorder().call = name;
        }
        self
    }
}

/// Writes `values` to `out`, which is `rows` of `columns`, transposed.
fn transpose(rows: usize, columns: usize, values: &[f32], out: &mut [f32]) {
    for (r, row) in values.chunks_exact(columns).take(rows).enumerate() {
        for (c, &v) in row.iter().enumerate() {
            out[c * rows + r] = v;
        }
    }
}

/// Published order to the device's, or back.
fn reorder(layout: Layout, from: &[f32], to: &mut [f32], back: bool) {
    let (outer, rows, columns) = match layout {
        Layout::Activation(s) => (s.n, s.c, s.area()),
        Layout::ConvWeight([o, i, h, w]) => (1, o, i * h * w),
        _ => (1, 1, layout.len()),
    };
    let taps = match layout {
        Layout::ConvWeight([_, _, h, w]) => h * w,
        _ => 1,
    };
    if taps > 1 {
        // o, i, taps to taps, i, o: both ends change places, the middle stays.
        let inner = columns / taps;
        for o in 0..rows {
            for i in 0..inner {
                for t in 0..taps {
                    let (published, ours) = ((o * inner + i) * taps + t, (t * inner + i) * rows + o);
                    match back {
                        false => to[ours] = from[published],
                        true => to[published] = from[ours],
                    }
                }
            }
        }
        return;
    }
    if rows == 1 || columns == 1 {
        return to.copy_from_slice(from);
    }
    let len = rows * columns;
    for (from, to) in from.chunks_exact(len).zip(to.chunks_exact_mut(len)).take(outer) {
        match back {
            false => transpose(rows, columns, from, to),
            true => transpose(columns, rows, from, to),
        }
    }
}

impl Kernels for WgpuKernels {
    type Buf = WgpuBuf;

    fn device(&self) -> String {
        self.gpu.name()
    }

    fn supports(&self, call: &Call<Layout, Layout>) -> bool {
        // What is cut between images needs room for one; sums over positions, for a chunk of them; weights of
        // convolutions are not cut.
        let positions = match call {
            Call::NormTrain(c) => Some(c.shape),
            Call::NormTrainGrad(c) => Some(c.shape),
            Call::NormEval(c) => Some(c.shape),
            Call::NormEvalGrad(c) => Some(c.shape),
            Call::ChannelSum(c) => Some(c.shape),
            Call::CopyChannels(c) => Some(Shape4 { c: c.input.c.max(c.output.c), ..c.input }),
            _ => None,
        };
        let gathers = positions.is_none();
        if positions.is_some_and(|shape| 64 * shape.c > self.room()) {
            return false;
        }
        if let Call::Gemm(g) = call {
            // Matrices are cut between rows.
            let lda = if g.transpose_a { g.m } else { g.k };
            let ldb = if g.transpose_b { g.k } else { g.n };
            return [lda, ldb, g.n].iter().all(|&row| row <= self.room());
        }
        let fits = |layout: &Layout| match *layout {
            Layout::Activation(s) => !gathers || s.image_len() <= self.room(),
            Layout::ConvWeight(s) => s.iter().product::<usize>() <= self.room(),
            _ => true,
        };
        call.reads().iter().chain(&call.writes()).all(fits)
    }

    fn alloc(&self, layout: Layout) -> Result<WgpuBuf, KernelError> {
        self.gpu.alloc(layout.len())
    }

    fn activation_bytes(&self) -> usize {
        if self.gpu.half { 2 } else { 4 }
    }

    fn alloc_activation(&self, shape: Shape4) -> Result<WgpuBuf, KernelError> {
        if !self.gpu.half {
            return self.alloc(Layout::Activation(shape));
        }
        let mut buf = self.gpu.alloc(shape.len().div_ceil(2))?;
        (buf.half, buf.narrow) = (true, true);
        Ok(buf)
    }

    fn upload(&self, layout: Layout, host: &[f32], dst: &mut WgpuBuf) -> Result<(), KernelError> {
        dst.half = dst.narrow && !matches!(layout, Layout::Plain(_));
        if matches!(layout, Layout::Plain(_)) {
            return self.gpu.write(&dst.raw, 0, bytemuck::cast_slice(host));
        }
        let mut ours = vec![0.0; host.len()];
        reorder(layout, host, &mut ours, false);
        if dst.half {
            let mut bits: Vec<_> = ours.iter().map(|&v| half::f16::from_f32(v).to_bits()).collect();
            bits.resize(bits.len().next_multiple_of(2), 0); // Transfers are whole words.
            return self.gpu.write(&dst.raw, 0, bytemuck::cast_slice(&bits));
        }
        self.gpu.write(&dst.raw, 0, bytemuck::cast_slice(&ours))
    }

    fn upload_pixels(
        &self,
        shape: Shape4,
        pixels: &[u8],
        scale: &PixelScale,
        dst: &mut WgpuBuf,
    ) -> Result<(), KernelError> {
        if shape.c > 4 {
            let channels = |c: usize| if scale.reversed { shape.c - 1 - c } else { c };
            let value = |i: usize| {
                let (c, area) = (i / shape.area() % shape.c, shape.area());
                let byte = pixels[(i / shape.image_len() * area + i % area) * shape.c + channels(c)];
                f32::from(byte) * scale.scale[c] + scale.shift[c]
            };
            let host: Vec<_> = (0..shape.len()).map(value).collect();
            return self.upload(Layout::Activation(shape), &host, dst);
        }
        let old = self.gpu.recorder().pixels().take();
        let bytes = match old.filter(|b| b.raw.size() >= pixels.len() as u64) {
            Some(buf) => buf,
            None => self.gpu.alloc(pixels.len().div_ceil(4))?,
        };
        // Transfers are whole words.
        let (whole, rest) = pixels.split_at(pixels.len() / 4 * 4);
        self.gpu.write(&bytes.raw, 0, whole)?;
        if !rest.is_empty() {
            let mut word = [0; 4];
            word[..rest.len()].copy_from_slice(rest);
            self.gpu.write(&bytes.raw, whole.len() as u64, &word)?;
        }
        let result = self.call("upload_pixels").pixels(shape, &bytes, scale, dst);
        *self.gpu.recorder().pixels() = Some(bytes);
        result
    }

    fn download(&self, layout: Layout, src: &WgpuBuf, host: &mut [f32]) -> Result<(), KernelError> {
        let mut ours = vec![0.0f32; host.len()];
        if src.half {
            let mut bits = vec![0u16; host.len()];
            self.gpu.read(&src.raw, bytemuck::cast_slice_mut(&mut bits))?;
            ours.iter_mut().zip(bits).for_each(|(v, bits)| *v = half::f16::from_bits(bits).to_f32());
        } else {
            self.gpu.read(&src.raw, bytemuck::cast_slice_mut(&mut ours))?;
        }
        reorder(layout, &ours, host, true);
        Ok(())
    }

    fn fill(&self, len: usize, value: f32, dst: &mut WgpuBuf) -> Result<(), KernelError> {
        self.call("fill").fill_call(len, value, dst)
    }

    fn synchronize(&self) -> Result<(), KernelError> {
        self.gpu.recorder().submit(&self.gpu)?;
        self.gpu.wait()
    }

    fn conv2d(&self, call: Conv2d<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("conv2d").conv_forward(call)
    }

    fn conv2d_grad_input(&self, call: Conv2dGradInput<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("conv2d_grad_input").conv_grad_input(call)
    }

    fn conv2d_grad_weight(&self, call: Conv2dGradWeight<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("conv2d_grad_weight").conv_grad_weight(call)
    }

    fn norm_train(&self, call: NormTrain<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("norm_train").norm_train_call(call)
    }

    fn norm_train_grad(&self, call: NormTrainGrad<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("norm_train_grad").norm_train_grad_call(call)
    }

    fn norm_eval(&self, call: NormEval<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("norm_eval").norm_eval_call(call)
    }

    fn norm_eval_grad(&self, call: NormEvalGrad<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("norm_eval_grad").norm_eval_grad_call(call)
    }

    fn fold_norm(&self, call: FoldNorm<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("fold_norm").fold_norm_call(call)
    }

    fn activate(&self, call: Activate<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("activate").activate_call(call)
    }

    fn activate_grad(&self, call: ActivateGrad<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("activate_grad").activate_grad_call(call)
    }

    fn add(&self, call: Add<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("add").add_call(call)
    }

    fn copy(&self, call: Copy<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("copy").copy_call(call)
    }

    fn max_pool(&self, call: MaxPool<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("max_pool").max_pool_call(call)
    }

    fn max_pool_grad(&self, call: MaxPoolGrad<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("max_pool_grad").max_pool_grad_call(call)
    }

    fn avg_pool(&self, call: AvgPool<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("avg_pool").avg_pool_call(call)
    }

    fn avg_pool_grad(&self, call: AvgPoolGrad<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("avg_pool_grad").avg_pool_grad_call(call)
    }

    fn gemm(&self, call: Gemm<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("gemm").gemm_call(call)
    }

    fn channel_sum(&self, call: ChannelSum<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("channel_sum").channel_sum_call(call)
    }

    fn flatten(&self, call: Flatten<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("flatten").flatten_call(call)
    }

    fn unflatten(&self, call: Unflatten<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("unflatten").unflatten_call(call)
    }

    fn copy_channels(&self, call: CopyChannels<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("copy_channels").copy_channels_call(call)
    }

    fn dropout(&self, call: Dropout<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("dropout").dropout_call(call)
    }

    fn softmax_cross_entropy(
        &self,
        call: SoftmaxCrossEntropy<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        self.call("softmax_cross_entropy").cross_entropy_call(call)
    }

    fn elementwise_loss(&self, call: ElementwiseLoss<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("elementwise_loss").elementwise_loss_call(call)
    }

    fn sgd(&self, call: Sgd<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("sgd").sgd_call(call)
    }

    fn adam(&self, call: Adam<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("adam").adam_call(call)
    }

    fn rms_prop(&self, call: RmsProp<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("rms_prop").rms_prop_call(call)
    }

    fn lamb(&self, call: Lamb<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("lamb").lamb_call(call)
    }

    fn clip(&self, call: Clip<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("clip").clip_call(call)
    }

    fn lerp(&self, call: Lerp<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("lerp").lerp_call(call)
    }

    fn sum_squares(&self, call: SumSquares<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        self.call("sum_squares").sum_squares_call(call)
    }
}
