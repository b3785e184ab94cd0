//! Calls that treat each element alone.

use crate::{Activation, Shape4};

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
