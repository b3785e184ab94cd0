//! `impl Kernels for CpuKernels`.

use defrost_kernels::conv::Algorithm;
use defrost_kernels::{AlignedBuf, Isa, NoRoom, SliceKernels, Threads};
use defrost_tensor::call::*;
use defrost_tensor::{Call, KernelError, Kernels, Layout, PixelScale, Shape4, Splitter};

/// A buffer of the CPU backend.
#[derive(Debug)]
pub struct CpuBuf(AlignedBuf);

impl CpuBuf {
    /// The elements as they are stored; a slot may be longer than the value in it.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
}

/// How the CPU backend computes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CpuOptions {
    /// Compute threads, one a core by default. The number changes no bit of any result.
    pub threads: Option<usize>,
    /// Convolutions as the plain sums of products, without Winograd's way of leaving products out: some 10⁻⁷ nearer to the
    /// exact result, and up to three times as slow.
    pub exact: bool,
    /// Rounds the operands of convolutions' products to bfloat16, forward and for both gradients, where the machine
    /// multiplies such (AVX-512 with BF16); weights, activations and sums stay f32. Winograd's and depthwise convolutions
    /// and dense layers stay as they are.
    pub bf16: bool,
    /// The instruction set, the best of the machine by default. Each rounds in its own way.
    pub isa: Option<Isa>,
}

impl CpuOptions {
    /// With this many threads.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// With plain sums of products.
    pub fn exact(self) -> Self {
        Self { exact: true, ..self }
    }

    /// With products of bfloat16.
    pub fn bf16(self) -> Self {
        Self { bf16: true, ..self }
    }

    /// With another instruction set.
    pub fn with_isa(self, isa: Isa) -> Self {
        Self { isa: Some(isa), ..self }
    }
}

/// The CPU backend's kernels: some threads and one workspace.
#[derive(Debug)]
pub struct CpuKernels {
    slices: SliceKernels,
}

impl CpuKernels {
    /// Kernels on `threads` threads, or on as many as the system says are useful.
    pub fn new(threads: Option<usize>) -> Self {
        Self::with_options(CpuOptions { threads, ..CpuOptions::default() })
    }

    /// Kernels that compute as `options` say.
    pub fn with_options(options: CpuOptions) -> Self {
        let threads = options.threads.map_or_else(Threads::all, Threads::new);
        let threads = threads.with_isa(options.isa.unwrap_or_else(Isa::best));
        let algorithm = if options.exact { Algorithm::Direct } else { Algorithm::Auto };
        let slices = SliceKernels::new(threads, algorithm);
        Self { slices: if options.bf16 { slices.with_bf16() } else { slices } }
    }

    fn no_room(&self, NoRoom { bytes }: NoRoom) -> KernelError {
        KernelError::OutOfMemory { device: self.device(), bytes }
    }
}

/// The methods that run a call, each on the slices behind its buffers.
macro_rules! calls {
    ($($method:ident($call:ident),)*) => {$(
        fn $method(&self, call: $call<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
            let call = call.map(&mut |b| &b.0[..], &mut |b| &mut b.0[..]);
            self.slices.run(call.into()).map_err(|e| self.no_room(e))
        }
    )*};
}

impl Kernels for CpuKernels {
    type Buf = CpuBuf;

    fn device(&self) -> String {
        format!("cpu ({})", self.slices.describe())
    }

    fn alloc(&self, layout: Layout) -> Result<CpuBuf, KernelError> {
        let no_room = || self.no_room(NoRoom { bytes: layout.len().saturating_mul(4) });
        AlignedBuf::zeroed(layout.len()).map(CpuBuf).ok_or_else(no_room)
    }

    fn splitter(&self) -> Option<Splitter<CpuBuf>> {
        let split = |CpuBuf(mut first): CpuBuf, at| {
            let rest = first.split_off(at);
            (CpuBuf(first), CpuBuf(rest))
        };
        Some(Splitter { split, join: |CpuBuf(a), CpuBuf(b)| CpuBuf(a.join(b)) })
    }

    fn upload(&self, layout: Layout, host: &[f32], dst: &mut CpuBuf) -> Result<(), KernelError> {
        self.slices.upload(layout, host, &mut dst.0);
        Ok(())
    }

    fn upload_owned(&self, layout: Layout, mut host: Vec<f32>, dst: &mut CpuBuf) -> Result<(), KernelError> {
        /// Elements that are moved at once: what is in memory twice.
        const PIECE: usize = 1 << 20;
        if let Layout::Plain(len) = layout {
            assert_eq!(host.len(), len, "an upload of another length than its buffer");
            // From the end: allocators give the pages behind what is left of a large vector back where it lies.
            while host.len() > PIECE {
                let rest = host.len() - PIECE;
                dst.0[rest..rest + PIECE].copy_from_slice(&host[rest..]);
                host.truncate(rest);
                host.shrink_to_fit();
            }
            dst.0[..host.len()].copy_from_slice(&host);
            return Ok(());
        }
        self.upload(layout, &host, dst)
    }

    fn upload_pixels(
        &self,
        shape: Shape4,
        pixels: &[u8],
        scale: &PixelScale,
        dst: &mut CpuBuf,
    ) -> Result<(), KernelError> {
        self.slices.upload_pixels(shape, pixels, scale, &mut dst.0);
        Ok(())
    }

    fn download(&self, layout: Layout, src: &CpuBuf, host: &mut [f32]) -> Result<(), KernelError> {
        self.slices.download(layout, &src.0, host);
        Ok(())
    }

    fn fill(&self, len: usize, value: f32, dst: &mut CpuBuf) -> Result<(), KernelError> {
        dst.0[..len].fill(value);
        Ok(())
    }

    fn gemm_step(&self, gemm: Gemm<&CpuBuf, ()>, update: Call<(), &mut CpuBuf>) -> Result<bool, KernelError> {
        let gemm = gemm.map(&mut |b| &b.0[..], &mut |()| ());
        let update = update.map(&mut |()| (), &mut |b| &mut b.0[..]);
        self.slices.gemm_step(gemm, update).map_err(|e| self.no_room(e))
    }

    calls! {
        conv2d(Conv2d),
        conv2d_grad_input(Conv2dGradInput),
        conv2d_grad_weight(Conv2dGradWeight),
        norm_train(NormTrain),
        norm_train_grad(NormTrainGrad),
        norm_eval(NormEval),
        norm_eval_grad(NormEvalGrad),
        fold_norm(FoldNorm),
        activate(Activate),
        activate_grad(ActivateGrad),
        add(Add),
        copy(Copy),
        max_pool(MaxPool),
        max_pool_grad(MaxPoolGrad),
        avg_pool(AvgPool),
        avg_pool_grad(AvgPoolGrad),
        gemm(Gemm),
        channel_sum(ChannelSum),
        flatten(Flatten),
        unflatten(Unflatten),
        copy_channels(CopyChannels),
        dropout(Dropout),
        softmax_cross_entropy(SoftmaxCrossEntropy),
        elementwise_loss(ElementwiseLoss),
        sgd(Sgd),
        adam(Adam),
        rms_prop(RmsProp),
        lamb(Lamb),
        clip(Clip),
        lerp(Lerp),
        sum_squares(SumSquares),
    }
}
