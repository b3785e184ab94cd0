//! What can go wrong in a session.

use defrost_graph::GraphError;
use defrost_plan::PlanError;
use defrost_tensor::KernelError;

/// Why a session could not do what it was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// There is no plan for it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The device failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The device has no room for a plan.
    #[error(
        "the {device} has no room for batches of {n}: the plan wants {wanted_mb} MB; {}",
        fits.map_or("no batch fits: take a smaller image size or network".to_owned(), |n| format!("`--batch {n}` fits"))
    )]
    NoRoom {
        /// The device's name.
        device: String,
        /// Images in a batch.
        n: usize,
        /// Megabytes of weights, gradients, optimizer state and activations together.
        wanted_mb: usize,
        /// The largest power of two that the device did have room for.
        fits: Option<usize>,
    },
    /// The values given are another network's.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An input of the wrong length.
    #[error("{what}: {got} values given, a batch of {n} needs {want}")]
    Length {
        /// Which input.
        what: &'static str,
        /// Images in the batch.
        n: usize,
        /// Values needed.
        want: usize,
        /// Values given.
        got: usize,
    },
    /// A training call before [`Session::begin`](crate::Session::begin).
    #[error("no phase has begun: say what trains first")]
    NoPhase,
    /// [`Session::start`](crate::Session::start) without a batch: none was staged since the last start, phase or failure.
    #[error("no batch is staged: give the next one before its step is started")]
    NothingStaged,
    /// [`Session::finish`](crate::Session::finish) without a step that was started.
    #[error("no step is started: there is no loss to read")]
    NothingStarted,
    /// Optimizer state under a name that is no parameter with a known ending.
    #[error("`{name}` is no optimizer state of this network")]
    OptimizerState {
        /// The name.
        name: String,
    },
}
