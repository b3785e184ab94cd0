//! Matrix products and sums.

use crate::{Activation, Shape4};

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
