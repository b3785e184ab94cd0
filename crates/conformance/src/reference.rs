//! Whole steps in f64: the raw plan over the oracle, every value in a buffer of its own.

use std::collections::HashMap;

use defrost_exec::{Clip, Rate, Rule, Update};
use defrost_graph::{Graph, Instruction, Loss, Marking, NodeId, Origin, ParamId};
use defrost_plan::{Options, Plan, PlanError, Purpose};
use defrost_tensor::Call;

use crate::Oracle;
use crate::networks::{Batch, Network};

/// A network trained in f64. It plans every step anew and shares nothing between steps but weights and optimizer state.
pub(crate) struct Reference<'g> {
    graph: &'g Graph,
    loss: Loss,
    /// In the table's order.
    pub(crate) params: Vec<Vec<f64>>,
    optimizer: HashMap<ParamId, ([Vec<f64>; 3], u32)>,
    /// The planner's optional passes: none, unless a test looks for what they change.
    pub(crate) options: Options,
}

/// What a step computes before the optimizer.
pub(crate) struct Step {
    pub(crate) loss: f64,
    pub(crate) hits: f64,
    pub(crate) grads: Vec<(ParamId, Vec<f64>)>,
}

impl Step {
    /// The L2 norm of all gradients together.
    pub(crate) fn norm(&self) -> f64 {
        self.grads.iter().flat_map(|(_, g)| g).map(|g| g * g).sum::<f64>().sqrt()
    }

    /// Limits the gradients.
    pub(crate) fn clip(&mut self, clip: Clip) {
        let norm = self.norm();
        for grad in self.grads.iter_mut().flat_map(|(_, g)| g) {
            *grad = match clip {
                Clip::Norm(max) => *grad * (f64::from(max) / (norm + 1e-6)).min(1.0),
                Clip::Value(max) => grad.clamp(-f64::from(max), max.into()),
                other => unreachable!("the suite has no formula for {other:?}"),
            };
        }
    }
}

impl<'g> Reference<'g> {
    pub(crate) fn new(network: &'g Network) -> Self {
        let f64s = |(_, v): (&str, &defrost_tensor::HostTensor)| v.data().iter().map(|&v| v.into()).collect();
        let params = network.params().iter().map(f64s).collect();
        let (graph, loss) = (&network.graph, network.loss);
        Self { graph, loss, params, optimizer: HashMap::new(), options: Options::raw() }
    }

    /// Forward, loss, backward; the running statistics take in the batch.
    pub(crate) fn step(&mut self, marking: &Marking, batch: &Batch) -> Result<Step, PlanError> {
        let purpose = Purpose::Train(self.loss);
        let plan = Plan::new(self.graph, marking, batch.n, purpose, self.options)?;
        let values = self.run(&plan, batch);
        let of = |origin: Origin| {
            let (value, _) = plan.values.iter().find(|(_, info)| info.origin == origin)?;
            Some(values[value.index()].clone())
        };
        let stats = of(Origin::Stats).unwrap_or_default();
        let grad = |&id: &ParamId| (id, of(Origin::ParamGrad(id)).unwrap_or_default());
        for (id, param) in self.graph.param_ids().zip(&mut self.params) {
            if let Some(after) = of(Origin::Param(id)) {
                *param = after;
            }
        }
        Ok(Step { loss: stats[0], hits: stats[1], grads: plan.trained.iter().map(grad).collect() })
    }

    /// The network's outputs in evaluation mode.
    pub(crate) fn infer(&self, batch: &Batch) -> Result<Vec<f64>, PlanError> {
        let purpose = Purpose::Infer { until: self.graph.output() };
        let plan = Plan::new(self.graph, &Marking::frozen(self.graph), batch.n, purpose, self.options)?;
        Ok(self.run(&plan, batch).swap_remove(plan.output.index()))
    }

    /// For each stage, the mean over space of what its last node puts out in evaluation mode, `[n, c]`.
    pub(crate) fn stages(&self, batch: &Batch) -> Result<Vec<Vec<f64>>, PlanError> {
        let (graph, frozen) = (self.graph, Marking::frozen(self.graph));
        let ends = (0..graph.stages().len()).filter_map(|stage| {
            let inside = |id: &NodeId| graph.blocks()[graph.node(*id).block].stage == stage;
            graph.node_ids().skip(1).rfind(inside)
        });
        let mean = |until: NodeId| {
            let plan = Plan::new(graph, &frozen, batch.n, Purpose::Infer { until }, self.options)?;
            let values = self.run(&plan, batch).swap_remove(plan.output.index());
            let each = graph.node(until).shape.h * graph.node(until).shape.w;
            Ok(values.chunks_exact(each).map(|v| v.iter().sum::<f64>() / each as f64).collect())
        };
        ends.map(mean).collect()
    }

    /// One optimizer step by the gradients of `step`.
    pub(crate) fn update(&mut self, rule: Rule, rates: &[Rate], step: &Step) {
        let factor = match rule {
            Rule::Lamb { max_grad_norm: Some(max), .. } => (f64::from(max) / step.norm()).min(1.0),
            _ => 1.0,
        };
        for (&rate, (_, grad)) in rates.iter().zip(&step.grads) {
            self.apply(rule, rate, &grad.iter().map(|g| g * factor).collect());
        }
    }

    fn apply(&mut self, rule: Rule, rate: Rate, grad: &Vec<f64>) {
        let Rate { param: id, lr, weight_decay } = rate;
        let len = grad.len();
        let fresh = || ([vec![0.0; len], vec![0.0; len], vec![0.0; len]], 0);
        let (kept, step) = self.optimizer.entry(id).or_insert_with(fresh);
        *step += 1;
        let (step, mut squares) = (*step, vec![0.0; 2]);
        let (kept, squares) = (kept.each_mut().map(Some), Some(&mut squares));
        let param = &mut self.params[id.index()];
        let call: Call<_, _> = rule.call(Update { len, lr, weight_decay, step, grad, param, kept, squares });
        call.run(&Oracle).expect("the oracle does not fail");
    }

    /// Runs all of a plan. Returns every value; those that nothing wrote are NaN.
    fn run(&self, plan: &Plan, batch: &Batch) -> Vec<Vec<f64>> {
        let f64s = |values: &[f32]| values.iter().map(|&v| v.into()).collect();
        let initial = |(_, info): (_, &defrost_graph::ValueInfo)| match info.origin {
            Origin::Input => f64s(&batch.images),
            Origin::Targets => f64s(&batch.targets),
            Origin::TargetWeights => f64s(&batch.weights),
            Origin::Keys => f64s(&batch.keys),
            Origin::Param(id) => self.params[id.index()].clone(),
            _ => vec![f64::NAN; info.layout.len()],
        };
        let mut values: Vec<Vec<f64>> = plan.values.iter().map(initial).collect();
        for Instruction { call, .. } in plan.setup.iter().chain(plan.calls()) {
            let mut taken: Vec<_> =
                call.writes().iter().map(|w| std::mem::take(&mut values[w.index()])).collect();
            let mut writes = taken.iter_mut();
            let bound: Call<&Vec<f64>, &mut Vec<f64>> =
                call.map(&mut |r| &values[r.index()], &mut |_| writes.next().expect("one an operand"));
            bound.run(&Oracle).expect("the oracle does not fail");
            call.writes().iter().zip(taken).for_each(|(w, buf)| values[w.index()] = buf);
        }
        values
    }
}
