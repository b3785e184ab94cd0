//! The trait that a backend implements.

use crate::Shape4;
use crate::call::*;

/// What a buffer holds, so that a backend can store it as suits it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Layout {
    /// An activation, `[n, c, h, w]` on the host.
    Activation(Shape4),
    /// A convolution's weights (or their gradient or optimizer state), `[out, in / groups, kh, kw]` on the host.
    ConvWeight([usize; 4]),
    /// Anything else, stored as it is: vectors, matrices, scalars.
    Plain(usize),
}

impl Layout {
    /// Elements.
    pub fn len(&self) -> usize {
        match *self {
            Self::Activation(s) => s.len(),
            Self::ConvWeight(s) => s.iter().product(),
            Self::Plain(len) => len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How bytes of a picture become the numbers a network was trained on: `x = byte · scale[c] + shift[c]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelScale {
    /// Factor a channel of the network's input.
    pub scale: Vec<f32>,
    /// Summand a channel of the network's input, or one a pixel of it, `[c, h, w]`: a mean image that is taken away.
    pub shift: Vec<f32>,
    /// Whether the network takes the channels in reverse order (Caffe's BGR).
    pub reversed: bool,
}

impl PixelScale {
    /// Whether each pixel of an input of `shape` has its own summand. Kernels know summands of channels alone: such
    /// pictures are given to them as arrays, see [`PixelScale::apply`].
    pub fn is_image(&self, shape: Shape4) -> bool {
        self.shift.len() != shape.c && self.shift.len() == shape.image_len()
    }

    /// Pictures (`n, h, w, c` bytes) as the network's input of `shape`, `[n, c, h, w]`, with a summand a pixel.
    pub fn apply(&self, shape: Shape4, pixels: &[u8]) -> Vec<f32> {
        let plane = shape.h * shape.w;
        let mut out = vec![0.0; pixels.len()];
        let images = out.chunks_exact_mut(shape.image_len()).zip(pixels.chunks_exact(shape.image_len()));
        for (out, bytes) in images {
            for (c, (out, shift)) in
                out.chunks_exact_mut(plane).zip(self.shift.chunks_exact(plane)).enumerate()
            {
                let from = if self.reversed { shape.c - 1 - c } else { c };
                let bytes = bytes.chunks_exact(shape.c);
                for ((x, shift), pixel) in out.iter_mut().zip(shift).zip(bytes) {
                    *x = f32::from(pixel[from]) * self.scale[c] + shift;
                }
            }
        }
        out
    }
}

/// Why a kernel failed. Anything that can be known before a step (shapes, lengths) is checked above this line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The device has no room.
    #[error("the {device} has no room for {bytes} more bytes: a smaller batch, image or network needs less")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes asked for.
        bytes: usize,
    },
    /// The device is gone: a driver reset, an unplugged card.
    #[error("the {device} was lost ({reason}): resume from the last checkpoint")]
    DeviceLost {
        /// The device's name.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// The driver refused what it was given: a shader, a command.
    #[error("the {device}'s driver refused {what}: {reason}")]
    Refused {
        /// The device's name.
        device: String,
        /// What was refused.
        what: String,
        /// What the driver said.
        reason: String,
    },
    /// The backend cannot do this, and said so in [`Kernels::supports`].
    #[error("the {device} cannot run {what}")]
    Unsupported {
        /// The device's name.
        device: String,
        /// What was asked.
        what: String,
    },
}

/// Cuts a buffer into pieces that are buffers themselves, and joins them again: values of a program that are not in use at the
/// same time can lie anywhere in one buffer. A buffer of activations holds one picture's values after another's: a piece of it
/// that starts with a picture is a smaller batch.
#[derive(Debug)]
pub struct Splitter<B> {
    /// A buffer's first elements, so many, and the rest.
    pub split: fn(B, usize) -> (B, B),
    /// A piece and the one that follows it. Others are a bug and panic.
    pub join: fn(B, B) -> B,
}

impl<B> Clone for Splitter<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> std::marker::Copy for Splitter<B> {}

/// The kernels of a backend over its own buffers.
///
/// The decision that shapes this trait: forward and backward are *separate, explicit* methods over buffers that the
/// caller owns. There is no tape and nothing is allocated in a step, so a planner can leave out whatever a frozen
/// network does not need, reuse buffers by lifetime, and fuse. Nothing broadcasts; every operand is *at least* as long
/// as its call's shape says (buffers are shared by lifetime, so one may be longer; the rest of it is not touched; a
/// shorter one is a bug and may panic). Each method takes one [call struct](crate::call);
/// its documentation is the method's contract. Operands that are written never overlap ones that are read.
///
/// Buffers hold f32 or whatever the backend stores in their place. An implementation must give the same bits for the
/// same input, whatever the number of threads.
pub trait Kernels {
    /// A buffer on the device.
    type Buf;

    /// The device in words, as in "cpu (2 threads, AVX-512)".
    fn device(&self) -> String;

    /// Whether the backend can run a call of this kind and shape; planners ask before the first step.
    fn supports(&self, call: &Call<Layout, Layout>) -> bool {
        let _ = call;
        true
    }

    /// A buffer for `layout`, zeroed.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`].
    fn alloc(&self, layout: Layout) -> Result<Self::Buf, KernelError>;

    /// Bytes in which an activation's element is stored: 4, or 2 where the backend stores those of
    /// [`Call::writes_activations`] in 16 bits.
    fn activation_bytes(&self) -> usize {
        4
    }

    /// A buffer, zeroed, for values that are stored in [`Kernels::activation_bytes`] an element and in nothing else. What
    /// [`Kernels::alloc`] gives has room for 4.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`].
    fn alloc_activation(&self, shape: Shape4) -> Result<Self::Buf, KernelError> {
        self.alloc(Layout::Activation(shape))
    }

    /// How buffers are cut and joined; `None` where they cannot be, and each value of a program needs a buffer of its own.
    fn splitter(&self) -> Option<Splitter<Self::Buf>> {
        None
    }

    /// Writes `host` (row-major, in the layout's host order) into `dst`, after all work given so far: calls that still run read
    /// what was there before. A backend whose calls return before their work is done does not wait for it here.
    ///
    /// # Errors
    /// [`KernelError::DeviceLost`].
    fn upload(&self, layout: Layout, host: &[f32], dst: &mut Self::Buf) -> Result<(), KernelError>;

    /// [`Kernels::upload`] of values that nobody needs on the host any more: a backend whose buffers lie in the same memory may
    /// give them back as it goes.
    ///
    /// # Errors
    /// [`KernelError::DeviceLost`].
    fn upload_owned(&self, layout: Layout, host: Vec<f32>, dst: &mut Self::Buf) -> Result<(), KernelError> {
        self.upload(layout, &host, dst)
    }

    /// Writes pictures (`n, h, w, c` bytes) into an activation of `shape`, in the same order.
    ///
    /// # Errors
    /// [`KernelError::DeviceLost`].
    fn upload_pixels(
        &self,
        shape: Shape4,
        pixels: &[u8],
        scale: &PixelScale,
        dst: &mut Self::Buf,
    ) -> Result<(), KernelError>;

    /// Reads `src` into `host`, row-major in the layout's host order; waits for the work that writes it.
    ///
    /// # Errors
    /// [`KernelError::DeviceLost`].
    fn download(&self, layout: Layout, src: &Self::Buf, host: &mut [f32]) -> Result<(), KernelError>;

    /// Sets the first `len` elements to `value`.
    ///
    /// # Errors
    /// [`KernelError::DeviceLost`].
    fn fill(&self, len: usize, value: f32, dst: &mut Self::Buf) -> Result<(), KernelError>;

    /// Waits until all work given so far is done.
    ///
    /// # Errors
    /// [`KernelError::DeviceLost`].
    fn synchronize(&self) -> Result<(), KernelError> {
        Ok(())
    }

    /// See [`Conv2d`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn conv2d(&self, call: Conv2d<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Conv2dGradInput`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn conv2d_grad_input(&self, call: Conv2dGradInput<&Self::Buf, &mut Self::Buf>)
    -> Result<(), KernelError>;

    /// See [`Conv2dGradWeight`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn conv2d_grad_weight(
        &self,
        call: Conv2dGradWeight<&Self::Buf, &mut Self::Buf>,
    ) -> Result<(), KernelError>;

    /// See [`NormTrain`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn norm_train(&self, call: NormTrain<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`NormTrainGrad`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn norm_train_grad(&self, call: NormTrainGrad<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`NormEval`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn norm_eval(&self, call: NormEval<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`NormEvalGrad`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn norm_eval_grad(&self, call: NormEvalGrad<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`FoldNorm`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn fold_norm(&self, call: FoldNorm<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Activate`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn activate(&self, call: Activate<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`ActivateGrad`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn activate_grad(&self, call: ActivateGrad<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Add`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn add(&self, call: Add<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Copy`](struct@Copy).
    ///
    /// # Errors
    /// [`KernelError`].
    fn copy(&self, call: Copy<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`MaxPool`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn max_pool(&self, call: MaxPool<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`MaxPoolGrad`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn max_pool_grad(&self, call: MaxPoolGrad<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`AvgPool`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn avg_pool(&self, call: AvgPool<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`AvgPoolGrad`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn avg_pool_grad(&self, call: AvgPoolGrad<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Gemm`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn gemm(&self, call: Gemm<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`ChannelSum`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn channel_sum(&self, call: ChannelSum<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Flatten`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn flatten(&self, call: Flatten<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Unflatten`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn unflatten(&self, call: Unflatten<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`CopyChannels`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn copy_channels(&self, call: CopyChannels<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Dropout`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn dropout(&self, call: Dropout<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`SoftmaxCrossEntropy`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn softmax_cross_entropy(
        &self,
        call: SoftmaxCrossEntropy<&Self::Buf, &mut Self::Buf>,
    ) -> Result<(), KernelError>;

    /// See [`ElementwiseLoss`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn elementwise_loss(&self, call: ElementwiseLoss<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Sgd`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn sgd(&self, call: Sgd<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Adam`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn adam(&self, call: Adam<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`RmsProp`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn rms_prop(&self, call: RmsProp<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Lamb`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn lamb(&self, call: Lamb<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Clip`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn clip(&self, call: Clip<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// See [`Lerp`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn lerp(&self, call: Lerp<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;

    /// The gradient of a dense layer's weights (`gemm`, whose result has no buffer) and the optimizer's step with it
    /// (`update`, whose gradient has none), piece by piece: the same numbers, to rounding, as one after the other, but the gradient as a whole
    /// never exists. `false` where the backend cannot do this; nothing was done then.
    ///
    /// # Errors
    /// [`KernelError`].
    fn gemm_step(
        &self,
        gemm: Gemm<&Self::Buf, ()>,
        update: Call<(), &mut Self::Buf>,
    ) -> Result<bool, KernelError> {
        let _ = (gemm, update);
        Ok(false)
    }

    /// See [`SumSquares`].
    ///
    /// # Errors
    /// [`KernelError`].
    fn sum_squares(&self, call: SumSquares<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError>;
}
