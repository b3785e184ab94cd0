//! The parameter table: what a network owns, under the names of the published weights.

use defrost_tensor::Layout;

/// A parameter or buffer of a [`Graph`](crate::Graph), by its place in the table.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ParamId(pub(crate) u32);

impl ParamId {
    /// The place in [`Graph::params`](crate::Graph::params).
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a parameter is for. Policies choose by it: no decay on norms and biases, say.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ParamKind {
    /// A convolution's weights, `[out, in / groups, kh, kw]`.
    ConvWeight,
    /// A dense layer's weights, `[out, in]`.
    LinearWeight,
    /// The bias of a convolution or a dense layer.
    Bias,
    /// A normalisation's scale.
    NormWeight,
    /// A normalisation's shift.
    NormBias,
    /// A normalisation's running mean: a buffer, never trained.
    RunningMean,
    /// A normalisation's running variance: a buffer, never trained.
    RunningVar,
}

impl ParamKind {
    /// Whether an optimizer may change it. Buffers change by running statistics only.
    pub const fn is_trainable(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVar)
    }

    /// Whether it belongs to a normalisation.
    pub const fn is_norm(self) -> bool {
        matches!(self, Self::NormWeight | Self::NormBias | Self::RunningMean | Self::RunningVar)
    }
}

/// How a parameter starts where no weights are loaded. The names and formulas are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// Every element the same.
    Constant(f32),
    /// He et al. 2015: normal with deviation `sqrt(2 / fan_out)`.
    KaimingNormalFanOut {
        /// Outputs that one input feeds.
        fan_out: usize,
    },
    /// `U(-b, b)` with `b = 1 / sqrt(fan_in)`: PyTorch's default for dense layers and their biases.
    FanInUniform {
        /// Inputs that one output sums over.
        fan_in: usize,
    },
    /// Normal with this deviation.
    Normal {
        /// Standard deviation.
        std: f32,
    },
}

/// One entry of the parameter table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Param {
    /// The published name, as in `layer1.0.conv1.weight`.
    pub name: String,
    /// The published shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub kind: ParamKind,
    /// The block it belongs to, an index into [`Graph::blocks`](crate::Graph::blocks).
    pub block: usize,
    /// How it starts where no weights are loaded.
    pub init: Init,
}

impl Param {
    pub(crate) fn new(name: String, shape: Vec<usize>, kind: ParamKind, block: usize, init: Init) -> Self {
        Self { name, shape, kind, block, init }
    }

    /// Elements.
    #[allow(clippy::len_without_is_empty)] // No parameter is empty.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// What a buffer of it holds.
    pub fn layout(&self) -> Layout {
        match (self.kind, self.shape.as_slice()) {
            (ParamKind::ConvWeight, &[o, i, h, w]) => Layout::ConvWeight([o, i, h, w]),
            _ => Layout::Plain(self.len()),
        }
    }
}
