//! Calls that put elements in other places.

use crate::Shape4;

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
    /// Copies (or adds) channels `from .. from + channels` of `x` to channels `to .. to + channels` of `out`; the other
    /// channels of `out` stay as they are. Concatenation, one call an input, and its gradient.
    CopyChannels {
        /// The shape of `x`.
        input: Shape4,
        /// The shape of `out`; images, rows and columns are those of `x`.
        output: Shape4,
        /// The first channel that is read.
        from: usize,
        /// The first channel that is written.
        to: usize,
        /// How many.
        channels: usize,
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
