//! Calls: a kernel with its descriptor and its operands, as data.
//!
//! A plan is a list of [`Call`]s over values, then over slots; an interpreter swaps the slots for buffers and runs
//! them. Each call is generic over what stands for an operand that is read (`R`) and one that is written (`W`), so
//! one definition serves the planner, the printer and the backend. A call that is added here is one struct, one
//! method of [`Kernels`] and one line in the list at the end.

use crate::{Activation, ConvDesc, KernelError, Kernels, NormDesc, PoolDesc, Shape4};

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

call! {
    /// `out = activation(conv(x, weight) + bias + residual)`.
    Conv2d {
        /// The convolution.
        desc: ConvDesc,
        /// The shape of `x`.
        input: Shape4,
        /// Applied last.
        activation: Activation,
        ;
        reads {
            /// The input, of shape `input`.
            x,
            /// The weights.
            weight,
        };
        may_read {
            /// One value an output channel.
            bias,
            /// Added before the activation; the output's shape.
            residual,
        };
        writes {
            /// The output.
            out,
        }
    }
}

call! {
    /// The gradient of a convolution with respect to its input.
    Conv2dGradInput {
        /// The convolution.
        desc: ConvDesc,
        /// The shape of the convolution's input.
        input: Shape4,
        /// Whether to add to `grad_in` instead of overwriting it.
        accumulate: bool,
        ;
        reads {
            /// The output's gradient.
            grad_out,
            /// The weights.
            weight,
        };
        writes {
            /// The input's gradient.
            grad_in,
        }
    }
}

call! {
    /// The gradient of a convolution with respect to its weights.
    Conv2dGradWeight {
        /// The convolution.
        desc: ConvDesc,
        /// The shape of `x`.
        input: Shape4,
        /// Whether to add to `grad_weight` instead of overwriting it.
        accumulate: bool,
        ;
        reads {
            /// The convolution's input.
            x,
            /// The output's gradient.
            grad_out,
        };
        writes {
            /// The weights' gradient, in the layout of the weights.
            grad_weight,
        }
    }
}

call! {
    /// `out = activation((x - mean) / sqrt(var + eps) · weight + bias)` with the batch's own statistics.
    ///
    /// The variance that normalises is the biased one. Where the running statistics are given, they take in the batch.
    NormTrain {
        /// The constants.
        desc: NormDesc,
        /// The shape of `x` and `out`.
        shape: Shape4,
        /// Applied last.
        activation: Activation,
        ;
        reads {
            /// The input.
            x,
            /// Scale, one a channel.
            weight,
            /// Shift, one a channel.
            bias,
        };
        writes {
            /// The output.
            out,
            /// The batch's mean, one a channel: [`NormTrainGrad`] reads it.
            mean,
            /// `1 / sqrt(var + eps)` of the batch, one a channel.
            inv_std,
        };
        may_write {
            /// Running mean.
            running_mean,
            /// Running variance.
            running_var,
        }
    }
}

call! {
    /// The gradients of [`NormTrain`]; the statistics depend on `x` and are differentiated too.
    NormTrainGrad {
        /// The constants.
        desc: NormDesc,
        /// The shape of `x`.
        shape: Shape4,
        /// The forward call's activation: where it is not the identity, `out` is given and masks `grad_out`.
        activation: Activation,
        /// Whether to add to `grad_in` instead of overwriting it.
        accumulate: bool,
        /// Whether to add to the gradients of weight and bias instead of overwriting them.
        accumulate_params: bool,
        ;
        reads {
            /// The forward call's input.
            x,
            /// Scale.
            weight,
            /// The batch's mean.
            mean,
            /// The batch's inverse standard deviation.
            inv_std,
            /// The output's gradient.
            grad_out,
        };
        may_read {
            /// The forward call's output.
            out,
        };
        may_write {
            /// The input's gradient.
            grad_in,
            /// The scale's gradient.
            grad_weight,
            /// The shift's gradient.
            grad_bias,
        }
    }
}

call! {
    /// [`NormTrain`] with the running statistics, which stay as they are.
    NormEval {
        /// The constants.
        desc: NormDesc,
        /// The shape of `x` and `out`.
        shape: Shape4,
        /// Applied last.
        activation: Activation,
        ;
        reads {
            /// The input.
            x,
            /// Scale.
            weight,
            /// Shift.
            bias,
            /// Running mean.
            running_mean,
            /// Running variance.
            running_var,
        };
        writes {
            /// The output.
            out,
        }
    }
}

call! {
    /// The gradients of [`NormEval`]: the statistics are constants.
    NormEvalGrad {
        /// The constants.
        desc: NormDesc,
        /// The shape of `grad_out`.
        shape: Shape4,
        /// The forward call's activation: where it is not the identity, `out` is given and masks `grad_out`.
        activation: Activation,
        /// Whether to add to `grad_in` instead of overwriting it.
        accumulate: bool,
        /// Whether to add to the gradients of weight and bias instead of overwriting them.
        accumulate_params: bool,
        ;
        reads {
            /// Scale.
            weight,
            /// Running mean.
            running_mean,
            /// Running variance.
            running_var,
            /// The output's gradient.
            grad_out,
        };
        may_read {
            /// The forward call's input: given where `grad_weight` is.
            x,
            /// The forward call's output.
            out,
        };
        may_write {
            /// The input's gradient.
            grad_in,
            /// The scale's gradient.
            grad_weight,
            /// The shift's gradient.
            grad_bias,
        }
    }
}

call! {
    /// Folds a normalisation by running statistics into the convolution before it:
    /// `s = norm_weight / sqrt(var + eps)`, `folded_weight = s · weight`, `folded_bias = norm_bias + s · (bias - mean)`.
    FoldNorm {
        /// The constants of the normalisation.
        desc: NormDesc,
        /// The convolution, whose output channels are normalised.
        conv: ConvDesc,
        ;
        reads {
            /// The convolution's weights.
            weight,
            /// Scale.
            norm_weight,
            /// Shift.
            norm_bias,
            /// Running mean.
            running_mean,
            /// Running variance.
            running_var,
        };
        may_read {
            /// The convolution's bias.
            bias,
        };
        writes {
            /// Weights in the layout of `weight`.
            folded_weight,
            /// One bias an output channel.
            folded_bias,
        }
    }
}

call! {
    /// `out = activation(x)`.
    Activate {
        /// The function.
        activation: Activation,
        /// Elements.
        len: usize,
        ;
        reads {
            /// The input.
            x,
        };
        writes {
            /// The output.
            out,
        }
    }
}

call! {
    /// The gradient of [`Activate`]: `grad_out` where the function's value lets it pass, else 0.
    ActivateGrad {
        /// The function.
        activation: Activation,
        /// Elements.
        len: usize,
        /// Whether to add to `grad_in` instead of overwriting it.
        accumulate: bool,
        ;
        reads {
            /// The function's value.
            out,
            /// The output's gradient.
            grad_out,
        };
        writes {
            /// The input's gradient.
            grad_in,
        }
    }
}

call! {
    /// `out = activation(a + b)`: the end of a residual block.
    Add {
        /// Applied last.
        activation: Activation,
        /// Elements.
        len: usize,
        ;
        reads {
            /// One summand.
            a,
            /// The other.
            b,
        };
        writes {
            /// The sum.
            out,
        }
    }
}

call! {
    /// `out = x`, or `out += x`.
    Copy {
        /// Elements.
        len: usize,
        /// Whether to add to `out` instead of overwriting it.
        accumulate: bool,
        ;
        reads {
            /// The source.
            x,
        };
        writes {
            /// The target.
            out,
        }
    }
}

call! {
    /// The largest value of each window. NaN wins.
    MaxPool {
        /// The windows.
        desc: PoolDesc,
        /// The shape of `x`.
        input: Shape4,
        ;
        reads {
            /// The input.
            x,
        };
        writes {
            /// The output.
            out,
        }
    }
}

call! {
    /// The gradient of [`MaxPool`]: each output's gradient goes to the *first* largest value of its window, in row order.
    MaxPoolGrad {
        /// The windows.
        desc: PoolDesc,
        /// The shape of `x`.
        input: Shape4,
        /// Whether to add to `grad_in` instead of overwriting it.
        accumulate: bool,
        ;
        reads {
            /// The forward call's input.
            x,
            /// The output's gradient.
            grad_out,
        };
        writes {
            /// The input's gradient.
            grad_in,
        }
    }
}

call! {
    /// The mean of each window; padding is not counted.
    AvgPool {
        /// The windows.
        desc: PoolDesc,
        /// The shape of `x`.
        input: Shape4,
        ;
        reads {
            /// The input.
            x,
        };
        writes {
            /// The output.
            out,
        }
    }
}

call! {
    /// The gradient of [`AvgPool`].
    AvgPoolGrad {
        /// The windows.
        desc: PoolDesc,
        /// The shape of the forward call's input.
        input: Shape4,
        /// Whether to add to `grad_in` instead of overwriting it.
        accumulate: bool,
        ;
        reads {
            /// The output's gradient.
            grad_out,
        };
        writes {
            /// The input's gradient.
            grad_in,
        }
    }
}

call! {
    /// `c = activation(op(a) · op(b) + bias)`, a row-major `m × n` matrix; `op` transposes where told.
    Gemm {
        /// Rows of `c`.
        m: usize,
        /// Columns of `c`.
        n: usize,
        /// Columns of `op(a)`, rows of `op(b)`.
        k: usize,
        /// `a` is stored as `k × m`.
        transpose_a: bool,
        /// `b` is stored as `n × k`.
        transpose_b: bool,
        /// Whether to add to `c` instead of overwriting it; the activation is then the identity.
        accumulate: bool,
        /// Applied last.
        activation: Activation,
        ;
        reads {
            /// Left matrix.
            a,
            /// Right matrix.
            b,
        };
        may_read {
            /// One value a column.
            bias,
        };
        writes {
            /// The product.
            c,
        }
    }
}

call! {
    /// The sum over images, rows and columns, one a channel: a bias' gradient.
    ChannelSum {
        /// The shape of `x`.
        shape: Shape4,
        /// Whether to add to `sum` instead of overwriting it.
        accumulate: bool,
        ;
        reads {
            /// The summands.
            x,
        };
        writes {
            /// One sum a channel.
            sum,
        }
    }
}

call! {
    /// An activation as vectors in `c, h, w` order, whatever the backend's storage.
    Flatten {
        /// The shape of `x`.
        input: Shape4,
        ;
        reads {
            /// The activation.
            x,
        };
        writes {
            /// `[n, c·h·w]`.
            out,
        }
    }
}

call! {
    /// The inverse of [`Flatten`], which is also its gradient.
    Unflatten {
        /// The shape of `out`.
        input: Shape4,
        /// Whether to add to `out` instead of overwriting it.
        accumulate: bool,
        ;
        reads {
            /// `[n, c·h·w]`.
            x,
        };
        writes {
            /// The activation.
            out,
        }
    }
}

call! {
    /// `out = x / (1 - rate)` where [`dropout_keeps`](crate::dropout_keeps), else 0. Its gradient is the same call.
    Dropout {
        /// Vectors only: `[n, c, 1, 1]`.
        shape: Shape4,
        /// Share of the elements that become 0.
        rate: f32,
        /// Tells dropout layers of one network apart.
        layer: u32,
        /// Whether to add to `out` instead of overwriting it.
        accumulate: bool,
        ;
        reads {
            /// The input.
            x,
            /// Two whole numbers below 2²⁴ an image, from (seed, epoch, sample).
            keys,
        };
        writes {
            /// The output.
            out,
        }
    }
}

call! {
    /// `stats = [Σ loss, hits]` with `loss = -Σ_c t_c · log softmax(z)_c`, and the gradient `(Σ_c t_c) · softmax(z) - t`.
    ///
    /// Targets are rows of any weights: hard or soft labels, smoothing, class weights and the division by the batch
    /// are in them. A hit is a row whose largest logit (the first of equals) is where its target is largest.
    SoftmaxCrossEntropy {
        /// Rows.
        n: usize,
        /// Columns.
        classes: usize,
        ;
        reads {
            /// `[n, classes]`.
            logits,
            /// `[n, classes]`.
            targets,
        };
        writes {
            /// Two numbers.
            stats,
        };
        may_write {
            /// `[n, classes]`.
            grad,
        }
    }
}

call! {
    /// PyTorch's SGD: `g = grad + weight_decay · p`, `v = momentum · v + g`, `p -= lr · (nesterov ? g + momentum · v : v)`.
    Sgd {
        /// Elements.
        len: usize,
        /// Learning rate.
        lr: f32,
        /// Momentum; 0 for none, then `velocity` may be absent.
        momentum: f32,
        /// L2 penalty.
        weight_decay: f32,
        /// Nesterov's variant.
        nesterov: bool,
        ;
        reads {
            /// The gradient.
            grad,
        };
        writes {
            /// The parameter.
            param,
        };
        may_write {
            /// The momentum buffer.
            velocity,
        }
    }
}

call! {
    /// Adam (Kingma and Ba 2015) with bias correction as in PyTorch; AdamW (Loshchilov and Hutter 2019) where `decoupled`.
    Adam {
        /// Elements.
        len: usize,
        /// Learning rate.
        lr: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// Weight decay.
        weight_decay: f32,
        /// `p *= 1 - lr · weight_decay` before the step, instead of `grad += weight_decay · p`.
        decoupled: bool,
        /// This step's number, from 1.
        step: u32,
        ;
        reads {
            /// The gradient.
            grad,
        };
        writes {
            /// The parameter.
            param,
            /// First moment.
            first,
            /// Second moment.
            second,
        }
    }
}

call! {
    /// `sum = Σ x²`: for gradient norms.
    SumSquares {
        /// Elements.
        len: usize,
        /// Whether to add to `sum` instead of overwriting it.
        accumulate: bool,
        ;
        reads {
            /// The summands.
            x,
        };
        writes {
            /// One number.
            sum,
        }
    }
}

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
    Dropout => dropout,
    SoftmaxCrossEntropy => softmax_cross_entropy,
    Sgd => sgd,
    Adam => adam,
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
