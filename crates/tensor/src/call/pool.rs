//! Pools.

use crate::{PoolDesc, Shape4};

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
