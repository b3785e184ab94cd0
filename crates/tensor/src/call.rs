//! Calls: a kernel with its descriptor and its operands, as data.
//!
//! A plan is a list of [`Call`]s over values, then over slots; an interpreter swaps the slots for buffers and runs
//! them. Each call is generic over what stands for an operand that is read (`R`) and one that is written (`W`), so
//! one definition serves the planner, the printer and the backend. A call that is added is one struct in the file of its
//! family, one method of [`Kernels`] and one line in the list below.

use crate::{KernelError, Kernels};

macro_rules! call {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$fdoc:meta])* $field:ident: $ty:ty,)*
        $(; reads { $($(#[$rdoc:meta])* $read:ident,)* })?
        $(; may_read { $($(#[$ordoc:meta])* $oread:ident,)* })?
        $(; writes { $($(#[$wdoc:meta])* $write:ident,)* })?
        $(; may_write { $($(#[$owdoc:meta])* $owrite:ident,)* })?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name<R, W> {
            $($(#[$fdoc])* pub $field: $ty,)*
            $($($(#[$rdoc])* pub $read: R,)*)?
            $($($(#[$ordoc])* pub $oread: Option<R>,)*)?
            $($($(#[$wdoc])* pub $write: W,)*)?
            $($($(#[$owdoc])* pub $owrite: Option<W>,)*)?
        }

        impl<R, W> $name<R, W> {
            /// The same call over other operands: `read` and `write` are asked for each, in the fields' order.
            pub fn map<S, X>(
                self,
                read: &mut dyn FnMut(R) -> S,
                write: &mut dyn FnMut(W) -> X,
            ) -> $name<S, X> {
                let _ = (&read, &write);
                $name {
                    $($field: self.$field,)*
                    $($($read: read(self.$read),)*)?
                    $($($oread: self.$oread.map(&mut *read),)*)?
                    $($($write: write(self.$write),)*)?
                    $($($owrite: self.$owrite.map(&mut *write),)*)?
                }
            }
        }
    };
}

mod conv;
mod dense;
mod elementwise;
mod loss;
mod norm;
mod optim;
mod pool;
mod shape;

pub use conv::*;
pub use dense::*;
pub use elementwise::*;
pub use loss::*;
pub use norm::*;
pub use optim::*;
pub use pool::*;
pub use shape::*;

macro_rules! calls {
    ($($name:ident => $method:ident,)*) => {
        /// Any call: the instruction set of a plan.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[allow(missing_docs)] // Each variant is the call of that name.
        pub enum Call<R, W> {
            $($name($name<R, W>),)*
        }

        impl<R, W> Call<R, W> {
            /// The kernel's name.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($method),)* }
            }

            /// The same call over other operands: `read` and `write` are asked for each, in the fields' order.
            pub fn map<S, X>(
                self,
                read: &mut dyn FnMut(R) -> S,
                write: &mut dyn FnMut(W) -> X,
            ) -> Call<S, X> {
                match self { $(Self::$name(call) => Call::$name(call.map(read, write)),)* }
            }
        }

        impl<B> Call<&B, &mut B> {
            /// Runs the call.
            ///
            /// # Errors
            /// What the kernel returns.
            pub fn run<K: Kernels<Buf = B> + ?Sized>(self, kernels: &K) -> Result<(), KernelError> {
                match self { $(Self::$name(call) => kernels.$method(call),)* }
            }
        }

        $(impl<R, W> From<$name<R, W>> for Call<R, W> {
            fn from(call: $name<R, W>) -> Self { Self::$name(call) }
        })*
    };
}

calls! {
    Conv2d => conv2d,
    Conv2dGradInput => conv2d_grad_input,
    Conv2dGradWeight => conv2d_grad_weight,
    NormTrain => norm_train,
    NormTrainGrad => norm_train_grad,
    NormEval => norm_eval,
    NormEvalGrad => norm_eval_grad,
    FoldNorm => fold_norm,
    Activate => activate,
    ActivateGrad => activate_grad,
    Add => add,
    Copy => copy,
    MaxPool => max_pool,
    MaxPoolGrad => max_pool_grad,
    AvgPool => avg_pool,
    AvgPoolGrad => avg_pool_grad,
    Gemm => gemm,
    ChannelSum => channel_sum,
    Flatten => flatten,
    Unflatten => unflatten,
    CopyChannels => copy_channels,
    Dropout => dropout,
    SoftmaxCrossEntropy => softmax_cross_entropy,
    ElementwiseLoss => elementwise_loss,
    Sgd => sgd,
    Adam => adam,
    RmsProp => rms_prop,
    Lamb => lamb,
    Clip => clip,
    Lerp => lerp,
    SumSquares => sum_squares,
}

impl<R: Clone, W: Clone> Call<R, W> {
    /// The operands that are read, in the fields' order.
    pub fn reads(&self) -> Vec<R> {
        let mut out = Vec::new();
        self.clone().map(&mut |r| out.push(r), &mut |_| ());
        out
    }

    /// The operands that are written, in the fields' order.
    pub fn writes(&self) -> Vec<W> {
        let mut out = Vec::new();
        self.clone().map(&mut |_| (), &mut |w| out.push(w));
        out
    }
}

impl<R, W> Call<R, W> {
    /// Where a backend stores activations in 16 bits ([`Kernels::activation_bytes`]): whether the activation that this call
    /// writes is stored so, if `narrow` says it of those that it reads. Convolutions and normalisations begin, what pools,
    /// adds, activates or moves goes on; products of matrices and all gradients keep 32 bits.
    pub fn writes_activations(&self, narrow: impl Fn(&R) -> bool) -> bool {
        match self {
            Self::Conv2d(_) | Self::NormTrain(_) | Self::NormEval(_) => true,
            Self::Activate(c) => narrow(&c.x),
            Self::Add(c) => narrow(&c.a) && narrow(&c.b),
            Self::Copy(c) => narrow(&c.x),
            Self::MaxPool(c) => narrow(&c.x),
            Self::AvgPool(c) => narrow(&c.x),
            Self::Flatten(c) => narrow(&c.x),
            Self::Unflatten(c) => narrow(&c.x),
            Self::CopyChannels(c) => narrow(&c.x),
            Self::Dropout(c) => narrow(&c.x),
            _ => false,
        }
    }
}
