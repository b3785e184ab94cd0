//! The one error type of this crate.

/// The result of writing a network as ONNX.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a network cannot be written as ONNX.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call that this crate does not translate.
    #[error("node `{node}`: {what} has no counterpart in ONNX here")]
    Unsupported {
        /// The node's name.
        node: String,
        /// The call, and what is special about it.
        what: String,
    },
    /// Values that are not the graph's.
    #[error("the values of parameter `{name}` are missing or have another shape than the network's")]
    Param {
        /// The parameter's name.
        name: String,
    },
    /// Preprocessing for another number of channels.
    #[error("the preprocessing is for {got} channels, the network takes {want}")]
    Channels {
        /// Channels of the preprocessing.
        got: usize,
        /// Channels of the network's input.
        want: usize,
    },
    /// Factors or summands for another number of columns.
    #[error("the scale of the numbers is for {got} columns, the network puts out {want}")]
    Columns {
        /// Columns of the scale.
        got: usize,
        /// Outputs of the network.
        want: usize,
    },
    /// More than a protobuf message can hold.
    #[error("the file would have {bytes} bytes, ONNX files of one piece end at 2 GiB")]
    TooLarge {
        /// The bytes.
        bytes: u64,
    },
    /// There is no plan of an evaluation.
    #[error(transparent)]
    Plan(#[from] defrost_plan::PlanError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] defrost_weights::Error),
}
