//! The graph: nodes in topological order, blocks and stages, the parameter table.

use std::sync::Arc;

use defrost_tensor::{Shape4, ShapeError};

use crate::op::Input;
use crate::{Init, Op, Param, ParamId, ParamKind};

/// A node of a [`Graph`], by its place in topological order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// The place in [`Graph::nodes`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operation of the network.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Node {
    /// As in `layer1.0.conv1`.
    pub name: String,
    /// What it does.
    pub op: Arc<dyn Op>,
    /// Where its inputs come from; all come earlier.
    pub inputs: Vec<NodeId>,
    /// The output's shape for a batch of one.
    pub shape: Shape4,
    /// An index into [`Graph::blocks`].
    pub block: usize,
}

/// A residual block or the like: the unit of layer-wise rates.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Block {
    /// As in `layer1.0`.
    pub name: String,
    /// An index into [`Graph::stages`].
    pub stage: usize,
}

/// A run of blocks: the unit of freezing, and a row of the plan.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stage {
    /// As in `layer1`.
    pub name: String,
    /// Whether this is the head, which is new for new classes.
    pub head: bool,
}

/// What is wrong with a graph or with values for it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// An operation does not fit its inputs.
    #[error("node `{node}`: {source}")]
    Shape {
        /// The node's name.
        node: String,
        /// What does not fit.
        source: ShapeError,
    },
    /// A parameter that the graph does not have.
    #[error("the network has no parameter `{name}`")]
    NoSuchParam {
        /// The name asked for.
        name: String,
    },
    /// A value of another shape than the parameter's.
    #[error("parameter `{name}` has shape {want:?}, the value given has {got:?}")]
    ParamShape {
        /// The parameter's name.
        name: String,
        /// The graph's shape.
        want: Vec<usize>,
        /// The value's shape.
        got: Vec<usize>,
    },
    /// Two parameters of one name.
    #[error("two parameters are called `{name}`")]
    DuplicateParam {
        /// The name.
        name: String,
    },
}

/// A whole network as data. Built by [`GraphBuilder`]; it never changes afterwards.
#[derive(Clone, Debug)]
pub struct Graph {
    name: String,
    nodes: Vec<Node>,
    params: Vec<Param>,
    blocks: Vec<Block>,
    stages: Vec<Stage>,
}

impl Graph {
    /// The node that stands for the network's input.
    pub const INPUT: NodeId = NodeId(0);

    /// The architecture's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All nodes in topological order; the first is the input, the last the output.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All ids of nodes in topological order.
    pub fn node_ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The node whose value is the network's output.
    pub fn output(&self) -> NodeId {
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// The input's shape for a batch of one.
    pub fn input_shape(&self) -> Shape4 {
        self.nodes[0].shape
    }

    /// Classes, or values, that the network puts out.
    pub fn classes(&self) -> usize {
        self.node(self.output()).shape.image_len()
    }

    /// The parameter table in the published order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// All ids of parameters and buffers in the published order.
    pub fn param_ids(&self) -> impl ExactSizeIterator<Item = ParamId> + use<> {
        (0..self.params.len() as u32).map(ParamId)
    }

    /// One parameter.
    pub fn param(&self, id: ParamId) -> &Param {
        &self.params[id.index()]
    }

    /// The parameter called `name`.
    pub fn find_param(&self, name: &str) -> Option<ParamId> {
        self.params.iter().position(|p| p.name == name).map(|i| ParamId(i as u32))
    }

    /// Blocks from the input to the output.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Stages from the input to the output.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The stage a parameter belongs to, an index into [`Graph::stages`].
    pub fn stage_of(&self, id: ParamId) -> usize {
        self.blocks[self.param(id).block].stage
    }

    /// The shape of each of a node's inputs for a batch of `n`.
    pub fn input_shapes(&self, id: NodeId, n: usize) -> Vec<Shape4> {
        self.node(id).inputs.iter().map(|&i| self.node(i).shape.with_batch(n)).collect()
    }

    /// Multiply-accumulates of one image's forward pass.
    pub fn macs(&self) -> u64 {
        self.node_ids().map(|id| self.node(id).op.macs(&self.input_shapes(id, 1))).sum()
    }
}

/// Builds a [`Graph`] from the input to the output.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: Graph,
}

impl GraphBuilder {
    /// A graph whose input is `input` (its `n` is ignored). Open a stage before the first node.
    pub fn new(name: impl Into<String>, input: Shape4) -> Self {
        let input = Node {
            name: "input".into(),
            op: Arc::new(Input),
            inputs: Vec::new(),
            shape: input.with_batch(1),
            block: 0,
        };
        let (nodes, params, blocks, stages) = (vec![input], Vec::new(), Vec::new(), Vec::new());
        Self { graph: Graph { name: name.into(), nodes, params, blocks, stages } }
    }

    /// Opens a stage, with one block of its name that lasts until the next call of [`GraphBuilder::block`].
    pub fn stage(&mut self, name: impl Into<String>, head: bool) {
        let name = name.into();
        self.graph.stages.push(Stage { name: name.clone(), head });
        self.graph.blocks.push(Block { name, stage: self.graph.stages.len() - 1 });
    }

    /// Opens a block of the current stage.
    pub fn block(&mut self, name: impl Into<String>) {
        let stage = self.graph.stages.len().saturating_sub(1);
        let block = Block { name: name.into(), stage };
        let current = self.graph.blocks.len().saturating_sub(1);
        let used = self.graph.nodes[1..].iter().any(|n| n.block == current)
            || self.graph.params.iter().any(|p| p.block == current);
        // A stage's own first block is dropped if nothing went into it.
        match self.graph.blocks.last_mut() {
            Some(last) if last.stage == stage && !used => *last = block,
            _ => self.graph.blocks.push(block),
        }
    }

    /// Adds a parameter to the table; the order of calls is the published order.
    ///
    /// # Errors
    /// [`GraphError::DuplicateParam`].
    pub fn param(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Vec<usize>>,
        kind: ParamKind,
        init: Init,
    ) -> Result<ParamId, GraphError> {
        let name = name.into();
        if self.graph.find_param(&name).is_some() {
            return Err(GraphError::DuplicateParam { name });
        }
        let block = self.graph.blocks.len().saturating_sub(1);
        self.graph.params.push(Param::new(name, shape.into(), kind, block, init));
        Ok(ParamId(self.graph.params.len() as u32 - 1))
    }

    /// Adds a node.
    ///
    /// # Errors
    /// [`GraphError::Shape`], naming the node, where the operation does not fit its inputs.
    pub fn node(
        &mut self,
        name: impl Into<String>,
        op: impl Op + 'static,
        inputs: &[NodeId],
    ) -> Result<NodeId, GraphError> {
        let name = name.into();
        let shapes: Vec<_> = inputs.iter().map(|&i| self.graph.node(i).shape).collect();
        let shape = op.output(&shapes).map_err(|source| GraphError::Shape { node: name.clone(), source })?;
        let block = self.graph.blocks.len().saturating_sub(1);
        self.graph.nodes.push(Node { name, op: Arc::new(op), inputs: inputs.to_vec(), shape, block });
        Ok(self.graph.output())
    }

    /// The output's shape of a node added before, for a batch of one.
    pub fn shape(&self, id: NodeId) -> Shape4 {
        self.graph.node(id).shape
    }

    /// The graph; its output is the node added last.
    pub fn finish(self) -> Graph {
        self.graph
    }
}
