//! Batch normalisation.

use crate::{Activation, ConvDesc, NormDesc, Shape4};

call! {
    /// `out = activation((x - mean) / sqrt(var + eps) · weight + bias + residual)` with the batch's own statistics.
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
        may_read {
            /// Added before the activation; the shape of `out`.
            residual,
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
        /// The activation after the forward call: where it is not the identity, `out` is given and masks `grad_out`.
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
            /// The forward call's shift. Given where `out` is, if that call computed `out` from `x` alone: then `x` alone says
            /// what the activation lets pass, and `out` need not be read.
            bias,
            /// The activation's value: the forward call's output, or that of a sum of it and another branch.
            out,
        };
        may_write {
            /// The input's gradient.
            grad_in,
            /// The scale's gradient.
            grad_weight,
            /// The shift's gradient.
            grad_bias,
            /// What of `grad_out` passes the activation, overwritten: the gradient of the forward call's residual.
            grad_residual,
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
        may_read {
            /// Added before the activation; the shape of `out`.
            residual,
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
        /// The activation after the forward call: where it is not the identity, `out` is given and masks `grad_out`.
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
            /// The activation's value: the forward call's output, or that of a sum of it and another branch.
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
