//! What trains: a mask over parameters and a mode for every batch normalisation.

use std::fmt;

use crate::{Graph, NodeId, ParamId};

/// Which parameters an optimizer may change, a bit for each of a graph's table. Buffers are never set.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ParamMask(Vec<bool>);

impl ParamMask {
    /// Nothing trains.
    pub fn none(graph: &Graph) -> Self {
        Self(vec![false; graph.params().len()])
    }

    /// Everything that can train does.
    pub fn all(graph: &Graph) -> Self {
        Self(graph.params().iter().map(|p| p.kind.is_trainable()).collect())
    }

    /// The trainable parameters that `choose` accepts, by id.
    pub fn of(graph: &Graph, mut choose: impl FnMut(ParamId) -> bool) -> Self {
        let ids = graph.param_ids().map(|id| graph.param(id).kind.is_trainable() && choose(id));
        Self(ids.collect())
    }

    /// Whether `id` trains.
    pub fn trains(&self, id: ParamId) -> bool {
        self.0[id.index()]
    }

    /// The ids that train, in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = ParamId> + '_ {
        self.0.iter().enumerate().filter(|(_, t)| **t).map(|(i, _)| ParamId(i as u32))
    }

    /// How many train.
    pub fn count(&self) -> usize {
        self.0.iter().filter(|t| **t).count()
    }
}

/// What a batch normalisation does with statistics: two of its three bits.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Statistics {
    /// Normalise by the running statistics and leave them alone.
    Running,
    /// Normalise by the batch and leave the running statistics alone.
    Batch,
    /// Normalise by the batch and let the running statistics take it in.
    BatchUpdating,
}

/// The legal combinations of a batch normalisation's three bits: does the affine part train, are batch or running
/// statistics used, are the running ones updated. (Using and updating the running ones at once has no meaning.)
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum BnMode {
    /// Affine fixed, running statistics used and kept: Keras' `trainable = False`, PyTorch's `eval()` without gradients.
    Frozen,
    /// Affine trains on fixed running statistics: Keras' `base(x, training=False)` after thawing.
    AffineOnly,
    /// Everything trains: PyTorch's `train()`.
    Train,
    /// Affine fixed, batch statistics used, running ones drift: PyTorch's `requires_grad = False` alone. A trap.
    Drifting,
    /// Affine trains, batch statistics used, running ones kept.
    TrainKeepingRunning,
    /// Affine fixed, batch statistics used, running ones kept.
    BatchOnly,
}

impl BnMode {
    /// The name of a combination.
    pub const fn of(affine_trains: bool, statistics: Statistics) -> Self {
        match (affine_trains, statistics) {
            (false, Statistics::Running) => Self::Frozen,
            (true, Statistics::Running) => Self::AffineOnly,
            (true, Statistics::BatchUpdating) => Self::Train,
            (false, Statistics::BatchUpdating) => Self::Drifting,
            (true, Statistics::Batch) => Self::TrainKeepingRunning,
            (false, Statistics::Batch) => Self::BatchOnly,
        }
    }
}

impl fmt::Display for BnMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Frozen => "frozen",
            Self::AffineOnly => "affine only",
            Self::Train => "train",
            Self::Drifting => "drifting",
            Self::TrainKeepingRunning => "train, keep running",
            Self::BatchOnly => "batch only",
        })
    }
}

/// Everything a planner must know of a phase: what trains and what batch normalisation does. Policies write it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Marking {
    /// What trains.
    pub params: ParamMask,
    statistics: Vec<Statistics>,
}

impl Marking {
    /// Nothing trains, every normalisation runs on its running statistics.
    pub fn frozen(graph: &Graph) -> Self {
        Self { params: ParamMask::none(graph), statistics: vec![Statistics::Running; graph.nodes().len()] }
    }

    /// `params` train; a normalisation uses and updates batch statistics where its scale trains, else it is frozen.
    pub fn new(graph: &Graph, params: ParamMask) -> Self {
        let statistics = graph.node_ids().map(|id| {
            let trains = graph.node(id).op.params().iter().any(|&p| params.trains(p));
            if graph.node(id).op.norm().is_some() && trains {
                Statistics::BatchUpdating
            } else {
                Statistics::Running
            }
        });
        Self { statistics: statistics.collect(), params }
    }

    /// What the normalisation `node` does with statistics.
    pub fn statistics(&self, node: NodeId) -> Statistics {
        self.statistics[node.index()]
    }

    /// Changes what the normalisation `node` does with statistics.
    pub fn set_statistics(&mut self, node: NodeId, statistics: Statistics) {
        self.statistics[node.index()] = statistics;
    }

    /// The mode of a normalisation, `None` for other nodes.
    pub fn bn_mode(&self, graph: &Graph, node: NodeId) -> Option<BnMode> {
        let op = &graph.node(node).op;
        op.norm()?;
        Some(BnMode::of(op.params().iter().any(|&p| self.params.trains(p)), self.statistics(node)))
    }
}
