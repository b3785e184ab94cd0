//! `impl Kernels for CandleKernels`.

use candle_core::{Device, Tensor};
use defrost_kernels::conv::Algorithm;
use defrost_kernels::{NoRoom, SliceKernels, Threads, zeroed_vec};
use defrost_tensor::call::*;
use defrost_tensor::{KernelError, Kernels, Layout, PixelScale, Shape4};

use crate::composed::Composed;
use crate::options::{CandleOptions, OpenError, Place, Precision};
use crate::{CandleBuf, slices};

/// The candle backend's kernels on one device.
#[derive(Debug)]
pub struct CandleKernels {
    name: String,
    way: Way,
}

/// How calls are run.
#[derive(Debug)]
enum Way {
    /// By kernels on slices, on the CPU.
    Slices(SliceKernels),
    /// By candle's operations.
    Composed(Composed),
}

impl CandleKernels {
    /// Opens a device.
    ///
    /// # Errors
    /// A device that this build leaves out or that is not there; numbers that it does not have.
    pub fn new(options: &CandleOptions) -> Result<Self, OpenError> {
        let device = options.place.open()?;
        let composed = || {
            let composed = Composed::new(device, options.precision);
            // Kernels of 16 bits are missing on some cards: told now, not in the first step.
            composed
                .probe()
                .map_err(|e| OpenError::Refused { device: options.place.name(), reason: e.to_string() })?;
            Ok::<_, OpenError>(Way::Composed(composed))
        };
        let (place, way) = match options.place {
            Place::Cpu { .. } if options.composed => ("cpu, composed".to_owned(), composed()?),
            Place::Cpu { .. } if options.precision != Precision::F32 => {
                let precision = options.precision.name();
                return Err(OpenError::NoSuchPrecision { device: "the CPU", precision });
            }
            Place::Cpu { threads } => {
                let threads = threads.map_or_else(Threads::all, Threads::new);
                let algorithm = if options.exact { Algorithm::Direct } else { Algorithm::Auto };
                let slices = SliceKernels::new(threads, algorithm);
                (format!("cpu ({})", slices.describe()), Way::Slices(slices))
            }
            Place::Cuda(_) | Place::Metal(_) => (options.place.name(), composed()?),
        };
        let half = match options.precision {
            Precision::F32 => String::new(),
            half => format!(", {}", half.name()),
        };
        Ok(Self { name: format!("candle {place}{half}"), way })
    }

    /// Whether buffers are the host's memory.
    pub(crate) fn is_cpu(&self) -> bool {
        matches!(self.way, Way::Slices(_))
    }

    fn no_room(&self, bytes: usize) -> KernelError {
        KernelError::OutOfMemory { device: self.name.clone(), bytes }
    }

    /// What candle says, in defrost's words.
    fn check<T>(&self, what: &str, result: candle_core::Result<T>) -> Result<T, KernelError> {
        result.map_err(|error| {
            let reason = error.to_string();
            let device = self.name.clone();
            let lower = reason.to_lowercase();
            if lower.contains("out of memory") || lower.contains("out_of_memory") {
                // The driver does not say how much.
                KernelError::OutOfMemory { device, bytes: 0 }
            } else if lower.contains("device lost") || lower.contains("illegal_address") {
                KernelError::DeviceLost { device, reason }
            } else {
                KernelError::Refused { device, what: what.to_owned(), reason }
            }
        })
    }

    fn run(&self, call: Call<&CandleBuf, &mut CandleBuf>) -> Result<(), KernelError> {
        let name = call.name();
        match &self.way {
            Way::Slices(kernels) => {
                let ran = self.check(name, slices::with_call(call, |call| kernels.run(call)))?;
                ran.map_err(|NoRoom { bytes }| self.no_room(bytes))
            }
            Way::Composed(composed) => self.check(name, composed.run(call)),
        }
    }
}

/// The methods that run a call.
macro_rules! calls {
    ($($method:ident($call:ident),)*) => {$(
        fn $method(&self, call: $call<&CandleBuf, &mut CandleBuf>) -> Result<(), KernelError> {
            self.run(call.into())
        }
    )*};
}

impl Kernels for CandleKernels {
    type Buf = CandleBuf;

    fn device(&self) -> String {
        self.name.clone()
    }

    fn alloc(&self, layout: Layout) -> Result<CandleBuf, KernelError> {
        let len = layout.len();
        let value = match &self.way {
            Way::Slices(_) => {
                let zeros = zeroed_vec(len).ok_or_else(|| self.no_room(len.saturating_mul(4)))?;
                Tensor::from_vec(zeros, len, &Device::Cpu)
            }
            Way::Composed(composed) => composed.alloc(len),
        };
        match self.check("a buffer", value) {
            Err(KernelError::OutOfMemory { .. }) => Err(self.no_room(len.saturating_mul(4))),
            value => Ok(CandleBuf { value: value? }),
        }
    }

    fn upload(&self, layout: Layout, host: &[f32], dst: &mut CandleBuf) -> Result<(), KernelError> {
        let done = match &self.way {
            Way::Slices(kernels) => slices::with_mut(dst, |dst| kernels.upload(layout, host, dst)),
            Way::Composed(composed) => composed.upload(layout, host, dst),
        };
        self.check("an upload", done)
    }

    fn upload_pixels(
        &self,
        shape: Shape4,
        pixels: &[u8],
        scale: &PixelScale,
        dst: &mut CandleBuf,
    ) -> Result<(), KernelError> {
        let done = match &self.way {
            Way::Slices(kernels) => {
                slices::with_mut(dst, |dst| kernels.upload_pixels(shape, pixels, scale, dst))
            }
            Way::Composed(composed) => composed.upload_pixels(shape, pixels, scale, dst),
        };
        self.check("an upload", done)
    }

    fn download(&self, layout: Layout, src: &CandleBuf, host: &mut [f32]) -> Result<(), KernelError> {
        let done = match &self.way {
            Way::Slices(kernels) => slices::with(src, |src| kernels.download(layout, src, host)),
            Way::Composed(composed) => composed.download(layout, src, host),
        };
        self.check("a download", done)
    }

    fn fill(&self, len: usize, value: f32, dst: &mut CandleBuf) -> Result<(), KernelError> {
        let done = match &self.way {
            Way::Slices(_) => slices::with_mut(dst, |dst| dst[..len].fill(value)),
            Way::Composed(composed) => composed.fill(len, value, dst),
        };
        self.check("fill", done)
    }

    fn synchronize(&self) -> Result<(), KernelError> {
        match &self.way {
            Way::Slices(_) => Ok(()),
            Way::Composed(composed) => self.check("waiting", composed.synchronize()),
        }
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
