//! Convolutions.

use crate::{Activation, ConvDesc, Shape4};

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
