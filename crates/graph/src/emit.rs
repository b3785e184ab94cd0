//! Emission: operations turn themselves into calls over values.
//!
//! An [`Emitter`] holds the values and the calls of one program. The planner says which nodes to emit, forward and
//! backward, and in which order; each op says how, through the context it is given ([`Forward`], [`Backward`]).

use std::collections::HashMap;

use defrost_tensor::{Call, ElementLoss, Layout, PoolDesc, Shape4, call};

use crate::{Graph, Marking, NodeId, ParamId, Statistics};

/// An operand of a call in a program, by its place in [`Values`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Value(u32);

impl Value {
    /// The place in [`Values`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a value comes from, which decides who keeps its buffer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Origin {
    /// The batch.
    Input,
    /// The targets of the loss, `[n, classes]`.
    Targets,
    /// What each output's loss counts, `[n, classes]`: of losses that treat each output alone.
    TargetWeights,
    /// Two random keys an image, for dropout.
    Keys,
    /// What the loss reports, see [`call::SoftmaxCrossEntropy`].
    Stats,
    /// A parameter or buffer of the network.
    Param(ParamId),
    /// A parameter's gradient.
    ParamGrad(ParamId),
    /// Weights (first) or bias (second) of a convolution with a frozen normalisation folded in.
    Folded(NodeId, bool),
    /// What a node computes.
    Output(NodeId),
    /// What a node's forward pass keeps for its backward pass beside its output.
    Saved(NodeId),
    /// The gradient of what a node computes.
    Gradient(NodeId),
}

impl Origin {
    /// Whether the value lives only within a step, so that its memory can be shared by lifetime.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Output(_) | Self::Saved(_) | Self::Gradient(_))
    }
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ValueInfo {
    /// What its buffer holds.
    pub layout: Layout,
    /// Where it comes from.
    pub origin: Origin,
}

/// The values of a program.
#[derive(Clone, Debug, Default)]
pub struct Values(Vec<ValueInfo>);

impl Values {
    /// Adds a value.
    pub fn add(&mut self, layout: Layout, origin: Origin) -> Value {
        self.0.push(ValueInfo { layout, origin });
        Value(self.0.len() as u32 - 1)
    }

    /// What is known of `value`.
    pub fn info(&self, value: Value) -> &ValueInfo {
        &self.0[value.index()]
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All values in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (Value, &ValueInfo)> {
        self.0.iter().enumerate().map(|(i, info)| (Value(i as u32), info))
    }
}

/// Which part of a step a call belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Pass {
    /// Once, when frozen weights change: folding.
    Setup,
    /// Forward.
    Forward,
    /// The loss and its gradient.
    Loss,
    /// Forward once more: what the backward pass reads and nobody kept.
    Recompute,
    /// Backward.
    Backward,
}

/// One call of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// What runs.
    pub call: Call<Value, Value>,
    /// For which node.
    pub node: NodeId,
    /// In which part of the step.
    pub pass: Pass,
}

/// Where a gradient goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The value to write.
    pub value: Value,
    /// Whether something is there already, to be added to.
    pub accumulate: bool,
}

/// What a network is trained on.
///
/// Every loss is a sum; what makes a mean of it is in what it is given. The first two have one right class an image and
/// take weights as targets ([`call::SoftmaxCrossEntropy`]); the others treat each output alone and take a target and a
/// weight for each ([`call::ElementwiseLoss`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Loss {
    /// Softmax and cross-entropy against rows of targets.
    #[default]
    CrossEntropy,
    /// The focal loss on softmax (Lin et al. 2017) against rows of targets.
    Focal {
        /// The exponent, not negative; 2 in the paper.
        gamma: f32,
    },
    /// Binary cross-entropy on logits: several labels an image.
    BinaryCrossEntropy,
    /// The squared error: regression.
    MeanSquared,
    /// Huber's loss: regression with outliers.
    Huber {
        /// Where quadratic and linear meet; above 0.
        delta: f32,
    },
}

impl Loss {
    /// The loss of a single output where each is treated alone, so that each has a weight.
    pub const fn of_elements(self) -> Option<ElementLoss> {
        match self {
            Self::CrossEntropy | Self::Focal { .. } => None,
            Self::BinaryCrossEntropy => Some(ElementLoss::BinaryCrossEntropy),
            Self::MeanSquared => Some(ElementLoss::Squared),
            Self::Huber { delta } => Some(ElementLoss::Huber { delta }),
        }
    }
}

/// The values and calls of one program while they are made.
#[derive(Debug)]
pub struct Emitter<'g> {
    graph: &'g Graph,
    marking: &'g Marking,
    batch: usize,
    training: bool,
    accumulate_params: bool,
    /// Whether what is emitted forward was emitted before.
    again: bool,
    /// Nodes that are computed again once a backward call reads them.
    lazy: Vec<bool>,
    values: Values,
    instructions: Vec<Instruction>,
    params: HashMap<ParamId, Value>,
    param_grads: HashMap<ParamId, Value>,
    keys: Option<Value>,
    outputs: Vec<Option<Value>>,
    saved: Vec<Vec<Value>>,
    grads: Vec<Option<Value>>,
    /// For each gradient value, how many nodes still wait to read it as theirs.
    waiting: HashMap<Value, usize>,
    needs_grad: Vec<bool>,
}

impl<'g> Emitter<'g> {
    /// An empty program for batches of `batch` images.
    ///
    /// `training` switches dropout on. `needs_grad` says for each node whether its output's gradient is of use. With
    /// `accumulate_params`, gradients of parameters are added to what their buffers hold.
    pub fn new(
        graph: &'g Graph,
        marking: &'g Marking,
        batch: usize,
        training: bool,
        needs_grad: Vec<bool>,
        accumulate_params: bool,
    ) -> Self {
        let nodes = graph.nodes().len();
        let mut values = Values::default();
        let input = values.add(Layout::Activation(graph.input_shape().with_batch(batch)), Origin::Input);
        let mut outputs = vec![None; nodes];
        outputs[Graph::INPUT.index()] = Some(input);
        Self {
            graph,
            marking,
            batch,
            training,
            accumulate_params,
            again: false,
            lazy: vec![false; nodes],
            values,
            instructions: Vec::new(),
            params: HashMap::new(),
            param_grads: HashMap::new(),
            keys: None,
            outputs,
            saved: vec![Vec::new(); nodes],
            grads: vec![None; nodes],
            waiting: HashMap::new(),
            needs_grad,
        }
    }

    /// Emits a node's forward calls. Its inputs must have been emitted.
    pub fn forward(&mut self, node: NodeId) {
        self.graph.node(node).op.forward(&mut Forward { emitter: self, node });
    }

    /// Emits the forward calls of `nodes`, which are in topological order, once more: what is emitted from here on reads
    /// new values, so that the old ones need not be kept until the backward pass. The new calls compute the same bits and
    /// leave running statistics alone. What ops save beside their outputs, a few numbers a channel, stays as it was.
    pub fn recompute(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.again = true;
        for node in nodes {
            self.outputs[node.index()] = None;
            let saved = std::mem::take(&mut self.saved[node.index()]);
            self.forward(node);
            self.saved[node.index()] = saved;
        }
        self.again = false;
    }

    /// From here on the backward pass does not read what these nodes computed: right before the first call that does, a node
    /// is emitted once more as in [`Emitter::recompute`], after those of its inputs that are among them.
    pub fn recompute_lazily(&mut self, nodes: Vec<bool>) {
        self.lazy = nodes;
    }

    /// What `node` computed, for a backward call to read.
    fn fetch(&mut self, node: NodeId) -> Value {
        if std::mem::take(&mut self.lazy[node.index()]) {
            let graph = self.graph;
            for &input in &graph.node(node).inputs {
                if self.lazy[input.index()] {
                    self.fetch(input);
                }
            }
            self.recompute([node]);
        }
        self.output(node)
    }

    /// Emits the loss over the network's output, with its gradient where something trains.
    pub fn loss(&mut self, loss: Loss) {
        let node = self.graph.output();
        let shape = self.graph.node(node).shape.with_batch(self.batch);
        let (n, classes) = (shape.n, shape.image_len());
        let logits = self.output(node);
        let grad = self.needs_grad[node.index()].then(|| {
            let grad = self.values.add(Layout::Activation(shape), Origin::Gradient(node));
            self.grads[node.index()] = Some(grad);
            self.waiting.insert(grad, 1);
            grad
        });
        let targets = self.values.add(Layout::Plain(n * classes), Origin::Targets);
        let stats = self.values.add(Layout::Plain(2), Origin::Stats);
        let call = match loss.of_elements() {
            Some(loss) => {
                let weights = self.values.add(Layout::Plain(n * classes), Origin::TargetWeights);
                call::ElementwiseLoss { n, classes, loss, x: logits, targets, weights, stats, grad }.into()
            }
            None => {
                let gamma = if let Loss::Focal { gamma } = loss { gamma } else { 0.0 };
                call::SoftmaxCrossEntropy { n, classes, gamma, logits, targets, stats, grad }.into()
            }
        };
        self.instructions.push(Instruction { call, node, pass: Pass::Loss });
    }

    /// Emits a node's backward calls, if its output's gradient is of use. Its consumers must have been emitted.
    pub fn backward(&mut self, node: NodeId) {
        if let Some(grad) = self.grads[node.index()] {
            self.graph.node(node).op.backward(&mut Backward { emitter: self, node, grad });
            self.release(grad);
        }
    }

    /// Emits the mean over space of what a node computes, `[n, c, 1, 1]`; the node's own value where that is one already.
    ///
    /// # Panics
    /// Where the node has not been emitted.
    pub fn mean(&mut self, node: NodeId) -> Value {
        let (x, input) = (self.output(node), self.graph.node(node).shape.with_batch(self.batch));
        if (input.h, input.w) == (1, 1) {
            return x;
        }
        let out = self.values.add(Layout::Activation(Shape4 { h: 1, w: 1, ..input }), Origin::Saved(node));
        let call = call::AvgPool { desc: PoolDesc::GLOBAL, input, x, out }.into();
        self.instructions.push(Instruction { call, node, pass: Pass::Forward });
        out
    }

    /// The value a node computes.
    ///
    /// # Panics
    /// Where the node has not been emitted.
    pub fn output(&self, node: NodeId) -> Value {
        self.outputs[node.index()].expect("nodes are emitted in topological order")
    }

    /// How many calls there are so far.
    pub fn position(&self) -> usize {
        self.instructions.len()
    }

    /// The values and the calls.
    pub fn finish(self) -> (Values, Vec<Instruction>) {
        (self.values, self.instructions)
    }

    fn param(&mut self, id: ParamId) -> Value {
        let layout = self.graph.param(id).layout();
        *self.params.entry(id).or_insert_with(|| self.values.add(layout, Origin::Param(id)))
    }

    fn keys(&mut self) -> Value {
        let layout = Layout::Plain(2 * self.batch);
        *self.keys.get_or_insert_with(|| self.values.add(layout, Origin::Keys))
    }

    fn new_grad(&mut self, node: NodeId) -> Value {
        let layout = Layout::Activation(self.graph.node(node).shape.with_batch(self.batch));
        let value = self.values.add(layout, Origin::Gradient(node));
        self.waiting.insert(value, 1);
        self.grads[node.index()] = Some(value);
        value
    }

    fn release(&mut self, grad: Value) {
        if let Some(count) = self.waiting.get_mut(&grad) {
            *count -= 1;
        }
    }

    fn len(&self, value: Value) -> usize {
        self.values.info(value).layout.len()
    }
}

/// What an op's forward emission sees.
#[derive(Debug)]
pub struct Forward<'a, 'g> {
    emitter: &'a mut Emitter<'g>,
    node: NodeId,
}

impl Forward<'_, '_> {
    /// Whether the step trains (dropout is on).
    pub fn training(&self) -> bool {
        self.emitter.training
    }

    /// What this normalisation does with statistics in this phase, here.
    pub fn statistics(&self) -> Statistics {
        match self.emitter.marking.statistics(self.node) {
            _ if !self.emitter.training => Statistics::Running,
            Statistics::BatchUpdating if self.emitter.again => Statistics::Batch,
            statistics => statistics,
        }
    }

    /// How many inputs there are.
    pub fn inputs(&self) -> usize {
        self.emitter.graph.node(self.node).inputs.len()
    }

    /// Input `i`.
    pub fn input(&self, i: usize) -> Value {
        self.emitter.output(self.emitter.graph.node(self.node).inputs[i])
    }

    /// The shape of input `i`, batch included.
    pub fn input_shape(&self, i: usize) -> Shape4 {
        let graph = self.emitter.graph;
        graph.node(graph.node(self.node).inputs[i]).shape.with_batch(self.emitter.batch)
    }

    /// The output's shape, batch included.
    pub fn output_shape(&self) -> Shape4 {
        self.emitter.graph.node(self.node).shape.with_batch(self.emitter.batch)
    }

    /// The output, a new value at the first call.
    pub fn output(&mut self) -> Value {
        let (node, layout) = (self.node, Layout::Activation(self.output_shape()));
        let emitter = &mut *self.emitter;
        *emitter.outputs[node.index()].get_or_insert_with(|| emitter.values.add(layout, Origin::Output(node)))
    }

    /// Makes the output the same value as `value`: the op does nothing in this phase.
    pub fn pass_through(&mut self, value: Value) {
        self.emitter.outputs[self.node.index()] = Some(value);
    }

    /// A parameter or buffer.
    pub fn param(&mut self, id: ParamId) -> Value {
        self.emitter.param(id)
    }

    /// A new value that the backward pass finds again as [`Backward::saved`], numbered from 0.
    pub fn save(&mut self, layout: Layout) -> Value {
        let value = self.emitter.values.add(layout, Origin::Saved(self.node));
        self.emitter.saved[self.node.index()].push(value);
        value
    }

    /// The images' random keys.
    pub fn keys(&mut self) -> Value {
        self.emitter.keys()
    }

    /// Adds a call.
    pub fn push(&mut self, call: impl Into<Call<Value, Value>>) {
        let pass = if self.emitter.again { Pass::Recompute } else { Pass::Forward };
        self.emitter.instructions.push(Instruction { call: call.into(), node: self.node, pass });
    }
}

/// What an op's backward emission sees.
#[derive(Debug)]
pub struct Backward<'a, 'g> {
    emitter: &'a mut Emitter<'g>,
    node: NodeId,
    grad: Value,
}

impl Backward<'_, '_> {
    /// The output's gradient.
    pub fn grad_out(&self) -> Value {
        self.grad
    }

    /// What this normalisation did with statistics in the forward pass.
    pub fn statistics(&self) -> Statistics {
        if self.emitter.training { self.emitter.marking.statistics(self.node) } else { Statistics::Running }
    }

    /// How many inputs there are.
    pub fn inputs(&self) -> usize {
        self.emitter.graph.node(self.node).inputs.len()
    }

    /// Input `i`. Asking for it keeps it alive until here, or has it computed again: ask only if a call reads it.
    pub fn input(&mut self, i: usize) -> Value {
        self.emitter.fetch(self.emitter.graph.node(self.node).inputs[i])
    }

    /// The shape of input `i`, batch included.
    pub fn input_shape(&self, i: usize) -> Shape4 {
        let graph = self.emitter.graph;
        graph.node(graph.node(self.node).inputs[i]).shape.with_batch(self.emitter.batch)
    }

    /// The output. Asking for it keeps it alive until here, or has it computed again.
    pub fn output(&mut self) -> Value {
        self.emitter.fetch(self.node)
    }

    /// The output's shape, batch included.
    pub fn output_shape(&self) -> Shape4 {
        self.emitter.graph.node(self.node).shape.with_batch(self.emitter.batch)
    }

    /// What the forward pass saved, numbered from 0.
    pub fn saved(&self, i: usize) -> Value {
        self.emitter.saved[self.node.index()][i]
    }

    /// A parameter or buffer.
    pub fn param(&mut self, id: ParamId) -> Value {
        self.emitter.param(id)
    }

    /// The images' random keys.
    pub fn keys(&mut self) -> Value {
        self.emitter.keys()
    }

    /// Where the gradient of input `i` goes, or `None` if nobody wants it.
    pub fn grad_input(&mut self, i: usize) -> Option<Target> {
        let input = self.emitter.graph.node(self.node).inputs[i];
        if !self.emitter.needs_grad[input.index()] {
            return None;
        }
        let Some(old) = self.emitter.grads[input.index()] else {
            return Some(Target { value: self.emitter.new_grad(input), accumulate: false });
        };
        Some(Target { value: self.own(input, old), accumulate: true })
    }

    /// Gives `value` to input `i` as (a summand of) its gradient, without a call where that is possible.
    pub fn pass_grad(&mut self, i: usize, value: Value) {
        let input = self.emitter.graph.node(self.node).inputs[i];
        if !self.emitter.needs_grad[input.index()] {
            return;
        }
        if let Some(old) = self.emitter.grads[input.index()] {
            let (len, out) = (self.emitter.len(value), self.own(input, old));
            self.push(call::Copy { len, accumulate: true, x: value, out });
        } else {
            self.emitter.grads[input.index()] = Some(value);
            *self.emitter.waiting.entry(value).or_insert(0) += 1;
        }
    }

    /// The gradient `old` of `input` as a value that only `input` holds: a copy where others still read it.
    fn own(&mut self, input: NodeId, old: Value) -> Value {
        if old != self.grad && self.emitter.waiting.get(&old) == Some(&1) {
            return old;
        }
        self.emitter.release(old);
        let out = self.emitter.new_grad(input);
        let len = self.emitter.len(old);
        self.push(call::Copy { len, accumulate: false, x: old, out });
        out
    }

    /// Where the gradient of a parameter goes, or `None` if it is frozen.
    pub fn grad_param(&mut self, id: ParamId) -> Option<Target> {
        if !self.emitter.marking.params.trains(id) {
            return None;
        }
        let layout = self.emitter.graph.param(id).layout();
        let emitter = &mut *self.emitter;
        let shared = emitter.param_grads.contains_key(&id);
        let value = *emitter
            .param_grads
            .entry(id)
            .or_insert_with(|| emitter.values.add(layout, Origin::ParamGrad(id)));
        Some(Target { value, accumulate: shared || emitter.accumulate_params })
    }

    /// Adds a call.
    pub fn push(&mut self, call: impl Into<Call<Value, Value>>) {
        let instruction = Instruction { call: call.into(), node: self.node, pass: Pass::Backward };
        self.emitter.instructions.push(instruction);
    }
}
