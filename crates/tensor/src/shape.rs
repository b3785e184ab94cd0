//! Shapes of activations, and what can be wrong with a shape.

use std::fmt;

/// The shape of an activation, always `[n, c, h, w]`; a vector has `h = w = 1`.
///
/// This is the logical shape. How a backend orders the elements in memory is its own business.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Shape4 {
    /// Images in the batch.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

impl Shape4 {
    /// `[n, c, h, w]`.
    pub const fn new(n: usize, c: usize, h: usize, w: usize) -> Self {
        Self { n, c, h, w }
    }

    /// `[n, c, 1, 1]`.
    pub const fn vector(n: usize, c: usize) -> Self {
        Self::new(n, c, 1, 1)
    }

    /// Elements in the whole batch.
    #[allow(clippy::len_without_is_empty)] // No activation is empty: the planner refuses a batch of none.
    pub const fn len(&self) -> usize {
        self.n * self.c * self.h * self.w
    }

    /// Elements in one image.
    pub const fn image_len(&self) -> usize {
        self.c * self.h * self.w
    }

    /// Positions in one channel of one image, `h * w`.
    pub const fn area(&self) -> usize {
        self.h * self.w
    }

    /// Rows of the activation seen as a matrix of `c` columns, `n * h * w`.
    pub const fn rows(&self) -> usize {
        self.n * self.h * self.w
    }

    /// The same image shape for another batch size.
    pub const fn with_batch(self, n: usize) -> Self {
        Self { n, ..self }
    }

    /// Whether this is a batch of vectors.
    pub const fn is_vector(&self) -> bool {
        self.h == 1 && self.w == 1
    }
}

impl fmt::Display for Shape4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}, {}, {}]", self.n, self.c, self.h, self.w)
    }
}

/// What is wrong with a shape.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A buffer does not hold as many elements as its shape says.
    #[error("{what} holds {got} elements, its shape needs {want}")]
    Length {
        /// What was looked at.
        what: &'static str,
        /// Elements that the shape needs.
        want: usize,
        /// Elements that are there.
        got: usize,
    },
    /// An input has another number of channels than the operation was made for.
    #[error("input {input} has {} channels, the operation takes {want}", input.c)]
    Channels {
        /// The input's shape.
        input: Shape4,
        /// Channels that the operation takes.
        want: usize,
    },
    /// The window of a convolution or pool is larger than the padded input.
    #[error("input {input} is smaller than the {}x{} window, padding included", kernel[0], kernel[1])]
    TooSmall {
        /// The input's shape.
        input: Shape4,
        /// Rows and columns of the window, dilation included.
        kernel: [usize; 2],
    },
    /// Two inputs that must agree do not.
    #[error("the inputs' shapes differ: {a} and {b}")]
    Mismatch {
        /// The first input's shape.
        a: Shape4,
        /// The second input's shape.
        b: Shape4,
    },
    /// A convolution's groups do not divide its channels.
    #[error("{groups} groups do not divide {in_channels} input and {out_channels} output channels")]
    Groups {
        /// Groups asked for.
        groups: usize,
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
    },
    /// A dense layer or a loss got an input that still has rows and columns.
    #[error("input {input} still has rows and columns: pool or flatten it first")]
    NotAVector {
        /// The input's shape.
        input: Shape4,
    },
}
