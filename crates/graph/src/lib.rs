//! A network as data: nodes, parameter table, what is frozen, and how each operation turns into calls of kernels.
//!
//! The decision that shapes this crate: **the whole network is a static graph, known before anything runs, with the
//! names of the published weights.** Freezing is a fact about the whole network (where gradients stop, what a batch
//! normalisation does, what has to be saved), so it is decided on the whole network and not recorded while running.
//! No floats are computed here; the only values held are weights on their way to a backend ([`ParamStore`]).
//!
//! An operation is one file below `op`: its shape rule, its cost, the calls it makes forward and backward.

mod emit;
mod graph;
mod mark;
pub mod op;
mod param;
mod store;

pub use emit::{
    Backward, Emitter, Forward, Instruction, Loss, Origin, Pass, Target, Value, ValueInfo, Values,
};
pub use graph::{Block, Graph, GraphBuilder, GraphError, Node, NodeId, Stage};
pub use mark::{BnMode, Marking, ParamMask, Statistics};
pub use op::Op;
pub use param::{Init, Param, ParamId, ParamKind};
pub use store::ParamStore;

#[cfg(test)]
mod tests;
