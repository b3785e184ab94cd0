//! Layers as PyTorch has them: a node with its parameters, named, initialised and in the published order.

use defrost_graph::{Graph, GraphBuilder, GraphError, Init, NodeId, ParamKind, op};
use defrost_tensor::{Activation, ConvDesc, NormDesc, PoolDesc, Shape4};

/// A network under construction; layers go behind the node added last unless an input is given.
pub(crate) struct Net {
    builder: GraphBuilder,
    at: NodeId,
    dropouts: u32,
    norm_momentum: Option<f32>,
}

/// How a dense layer starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LinearInit {
    /// PyTorch's default for weights and bias: uniform within `1 / sqrt(fan_in)`.
    FanInUniform,
    /// Normal weights, zero bias.
    Normal(f32),
    /// Zero weights, zero bias.
    Zero,
}

impl Net {
    /// With `norm_momentum`, every batch norm has it in place of its own.
    pub(crate) fn new(name: &str, input: Shape4, norm_momentum: Option<f32>) -> Self {
        Self { builder: GraphBuilder::new(name, input), at: Graph::INPUT, dropouts: 0, norm_momentum }
    }

    pub(crate) fn finish(self) -> Graph {
        self.builder.finish()
    }

    /// The node added last, or set last.
    pub(crate) fn at(&self) -> NodeId {
        self.at
    }

    /// Continues behind another node.
    pub(crate) fn go_to(&mut self, node: NodeId) {
        self.at = node;
    }

    /// The current node's shape for a batch of one.
    pub(crate) fn shape(&self) -> Shape4 {
        self.builder.shape(self.at)
    }

    pub(crate) fn stage(&mut self, name: &str, head: bool) {
        self.builder.stage(name, head);
    }

    pub(crate) fn block(&mut self, name: &str) {
        self.builder.block(name);
    }

    /// `nn.Conv2d`, started with `kaiming_normal_(mode="fan_out", nonlinearity="relu")` and a zero bias.
    pub(crate) fn conv(&mut self, name: &str, desc: ConvDesc, bias: bool) -> Result<(), GraphError> {
        // PyTorch's fan-out does not divide by the groups.
        let fan_out = desc.out_channels * desc.kernel[0] * desc.kernel[1];
        let init = Init::KaimingNormalFanOut { fan_out };
        let weight =
            self.builder.param(format!("{name}.weight"), desc.weight_shape(), ParamKind::ConvWeight, init)?;
        let bias = bias.then(|| {
            self.builder.param(
                format!("{name}.bias"),
                [desc.out_channels],
                ParamKind::Bias,
                Init::Constant(0.0),
            )
        });
        let op = op::Conv2d { desc, weight, bias: bias.transpose()? };
        self.at = self.builder.node(name, op, &[self.at])?;
        Ok(())
    }

    /// `nn.BatchNorm1d` or `2d`, started as the identity.
    pub(crate) fn norm(&mut self, name: &str, desc: NormDesc) -> Result<(), GraphError> {
        self.norm_starting_at(name, desc, 0.0)
    }

    /// The same with another shift at the start.
    pub(crate) fn norm_starting_at(
        &mut self,
        name: &str,
        desc: NormDesc,
        shift: f32,
    ) -> Result<(), GraphError> {
        let desc = NormDesc { momentum: self.norm_momentum.unwrap_or(desc.momentum), ..desc };
        let mut param = |leaf: &str, kind, value| {
            self.builder.param(format!("{name}.{leaf}"), [desc.channels], kind, Init::Constant(value))
        };
        let op = op::BatchNorm {
            desc,
            weight: param("weight", ParamKind::NormWeight, 1.0)?,
            bias: param("bias", ParamKind::NormBias, shift)?,
            running_mean: param("running_mean", ParamKind::RunningMean, 0.0)?,
            running_var: param("running_var", ParamKind::RunningVar, 1.0)?,
        };
        self.at = self.builder.node(name, op, &[self.at])?;
        Ok(())
    }

    /// `nn.Linear` with a bias.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        out_features: usize,
        init: LinearInit,
    ) -> Result<(), GraphError> {
        self.dense(name, out_features, init, true)
    }

    /// `nn.Linear` with `bias=False`.
    pub(crate) fn linear_without_bias(
        &mut self,
        name: &str,
        out_features: usize,
        init: LinearInit,
    ) -> Result<(), GraphError> {
        self.dense(name, out_features, init, false)
    }

    fn dense(
        &mut self,
        name: &str,
        out_features: usize,
        init: LinearInit,
        has_bias: bool,
    ) -> Result<(), GraphError> {
        let in_features = self.shape().c;
        let (of_weight, of_bias) = match init {
            LinearInit::FanInUniform => {
                (Init::FanInUniform { fan_in: in_features }, Init::FanInUniform { fan_in: in_features })
            }
            LinearInit::Normal(std) => (Init::Normal { std }, Init::Constant(0.0)),
            LinearInit::Zero => (Init::Constant(0.0), Init::Constant(0.0)),
        };
        let shape = [out_features, in_features];
        let weight =
            self.builder.param(format!("{name}.weight"), shape, ParamKind::LinearWeight, of_weight)?;
        let bias = has_bias
            .then(|| self.builder.param(format!("{name}.bias"), [out_features], ParamKind::Bias, of_bias))
            .transpose()?;
        let op = op::Linear { in_features, out_features, weight, bias };
        self.at = self.builder.node(name, op, &[self.at])?;
        Ok(())
    }

    pub(crate) fn activate(&mut self, name: &str, activation: Activation) -> Result<(), GraphError> {
        self.at = self.builder.node(name, op::Activate(activation), &[self.at])?;
        Ok(())
    }

    /// The current node plus `other`.
    pub(crate) fn add(&mut self, name: &str, other: NodeId) -> Result<(), GraphError> {
        self.at = self.builder.node(name, op::Add, &[self.at, other])?;
        Ok(())
    }

    /// The channels of all of `inputs`, one after the other.
    pub(crate) fn concat(&mut self, name: &str, inputs: &[NodeId]) -> Result<(), GraphError> {
        self.at = self.builder.node(name, op::Concat, inputs)?;
        Ok(())
    }

    pub(crate) fn max_pool(&mut self, name: &str, desc: PoolDesc) -> Result<(), GraphError> {
        self.at = self.builder.node(name, op::MaxPool(desc), &[self.at])?;
        Ok(())
    }

    pub(crate) fn avg_pool(&mut self, name: &str, desc: PoolDesc) -> Result<(), GraphError> {
        self.at = self.builder.node(name, op::AvgPool(desc), &[self.at])?;
        Ok(())
    }

    pub(crate) fn flatten(&mut self, name: &str) -> Result<(), GraphError> {
        self.at = self.builder.node(name, op::Flatten, &[self.at])?;
        Ok(())
    }

    pub(crate) fn dropout(&mut self, name: &str, rate: f32) -> Result<(), GraphError> {
        let op = op::Dropout { rate, layer: self.dropouts };
        self.dropouts += 1;
        self.at = self.builder.node(name, op, &[self.at])?;
        Ok(())
    }
}
