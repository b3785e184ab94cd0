//! From a recipe's loss, optimizer and schedule to what one step of a session is given.

use defrost_augment::Key;
use defrost_augment::key::purpose;
use defrost_exec::{ExecError, Rate, Rule};
use defrost_graph::{Graph, Marking};
use defrost_plan::{Plan, Purpose};
use defrost_policy::{Clip, Group, Loss, Optimizer, Phase, Recipe, Recompute};

use crate::Result;
use crate::trainer::unsupported;

/// A recipe's loss as a device computes it. Smoothing and class weights are in the rows of [`Targets`](crate::Targets).
///
/// # Errors
/// [`TrainError::Unsupported`](crate::TrainError::Unsupported) for a loss that this version does not know.
pub fn device_loss(loss: &Loss) -> Result<defrost_graph::Loss> {
    use defrost_graph::Loss as Device;
    Ok(match loss {
        Loss::CrossEntropy { .. } => Device::CrossEntropy,
        Loss::Focal { gamma, .. } => Device::Focal { gamma: *gamma as f32 },
        Loss::BinaryCrossEntropy { .. } => Device::BinaryCrossEntropy,
        Loss::MeanSquared {} => Device::MeanSquared,
        Loss::Huber { delta } => Device::Huber { delta: *delta as f32 },
        other => {
            return Err(unsupported(&format!("the loss {}", other.name()), "this version does not know it"));
        }
    })
}

/// The update rule of `optimizer`, its momentum (Adam's first beta) replaced where the schedule sets one.
///
/// # Errors
/// [`TrainError::Unsupported`](crate::TrainError::Unsupported) for an optimizer that this version does not know.
pub fn rule(optimizer: &Optimizer, momentum: Option<f64>) -> Result<Rule> {
    // A schedule cannot give momentum to an optimizer that was asked to have none.
    let moving = |own: f64| momentum.filter(|_| own != 0.0).unwrap_or(own) as f32;
    let beta1 = |own: f64| momentum.unwrap_or(own) as f32;
    let adam = |betas: [f64; 2], eps: f64, decoupled| Rule::Adam {
        beta1: beta1(betas[0]),
        beta2: betas[1] as f32,
        eps: eps as f32,
        decoupled,
    };
    Ok(match optimizer {
        Optimizer::Sgd(o) => Rule::Sgd { momentum: moving(o.momentum), nesterov: o.nesterov },
        Optimizer::Adam(o) => adam(o.betas, o.eps, false),
        Optimizer::AdamW(o) => adam(o.betas, o.eps, true),
        Optimizer::RmsProp(o) => Rule::RmsProp {
            alpha: o.alpha as f32,
            eps: o.eps as f32,
            momentum: moving(o.momentum),
            centered: o.centered,
        },
        Optimizer::Lamb(o) => Rule::Lamb {
            beta1: beta1(o.betas[0]),
            beta2: o.betas[1] as f32,
            eps: o.eps as f32,
            max_grad_norm: Some(o.max_grad_norm as f32).filter(|max| *max > 0.0),
        },
        other => {
            return Err(unsupported(
                &format!("the optimizer `{}`", other.name()),
                "this version does not know it",
            ));
        }
    })
}

/// The planner's passes for a phase of `recipe` while it trains what `marking` says, in batches of `batch`: `plan`, with
/// gradients added up where a step has several batches, and with activations computed again where the recipe says so or
/// where the phase needs more than `memory` bytes otherwise.
///
/// # Errors
/// A phase that cannot be planned.
pub fn passes(
    recipe: &Recipe,
    graph: &Graph,
    (phase, marking): (&Phase, &Marking),
    batch: usize,
    plan: defrost_exec::Options,
    memory: Option<usize>,
) -> Result<defrost_exec::Options> {
    let several = batches_a_step(phase, recipe.batch_size) > 1;
    let plan = if several { plan.accumulating() } else { plan };
    let apply = plan.apply && uses_up(phase, recipe.batch_size)?;
    let plan = plan.applying(apply);
    let again = match (recipe.recompute, memory) {
        (Recompute::Always, _) => true,
        (Recompute::Auto, Some(memory)) => {
            let purpose = Purpose::Train(device_loss(&recipe.loss)?);
            let kept = Plan::new(graph, marking, batch, purpose, plan).map_err(ExecError::from)?;
            kept.memory(graph, rule(&phase.optimizer, None)?.state()).total() > memory
        }
        _ => false,
    };
    Ok(if again { plan.recomputing() } else { plan })
}

/// Whether a step of `phase` may use each gradient up as soon as it is made: nothing looks at all of them together.
///
/// # Errors
/// [`TrainError::Unsupported`](crate::TrainError::Unsupported) for an optimizer that this version does not know.
pub(crate) fn uses_up(phase: &Phase, batch: usize) -> Result<bool> {
    let limits = matches!(rule(&phase.optimizer, None)?, Rule::Lamb { max_grad_norm: Some(_), .. });
    Ok(phase.clip.is_none() && !limits && batches_a_step(phase, batch) == 1)
}

/// The limit on gradients, as a device has it.
///
/// # Errors
/// [`TrainError::Unsupported`](crate::TrainError::Unsupported) for a limit that this version does not know.
pub(crate) fn clip(clip: Clip) -> Result<defrost_exec::Clip> {
    match clip {
        Clip::Norm(max) => Ok(defrost_exec::Clip::Norm(max as f32)),
        Clip::Value(max) => Ok(defrost_exec::Clip::Value(max as f32)),
        _ => Err(unsupported("this limit on gradients", "this version does not know it")),
    }
}

/// The rates of all parameters that train, each group's multiplied by `factor`.
pub(crate) fn rates(marking: &Marking, groups: &[Group], factor: f64) -> Vec<Rate> {
    let of = |group: &Group| {
        let (lr, weight_decay) = ((group.lr * factor) as f32, group.weight_decay as f32);
        let trained: Vec<_> = group.params.iter().copied().filter(|&p| marking.params.trains(p)).collect();
        trained.into_iter().map(move |param| Rate { param, lr, weight_decay })
    };
    groups.iter().flat_map(of).collect()
}

/// Batches that make one step of `phase`.
pub(crate) fn batches_a_step(phase: &Phase, batch: usize) -> usize {
    phase.accumulate.div_ceil(batch.max(1)).max(1)
}

/// `[n, 2]`: for each sample two numbers below 2²⁴ that dropout draws from.
pub(crate) fn dropout_keys(seed: u64, epoch: usize, samples: &[usize]) -> Vec<f32> {
    let pair = |&sample: &usize| {
        let bits = Key::new(seed, epoch as u64, sample as u64).op(purpose::NETWORK).random().bits();
        [bits & 0xFF_FFFF, (bits >> 24) & 0xFF_FFFF].map(|v| v as f32)
    };
    samples.iter().flat_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use defrost_policy::{Lamb, RmsProp};

    use super::*;

    #[test]
    fn keys_belong_to_samples_wherever_they_stand() {
        let keys = dropout_keys(3, 1, &[5, 9]);
        assert_eq!(keys[2..], dropout_keys(3, 1, &[9]));
        assert_ne!(keys[2..], dropout_keys(3, 2, &[9]));
        assert!(keys.iter().all(|k| k.fract() == 0.0 && *k < 16_777_216.0));
    }

    #[test]
    fn a_schedule_moves_momentum_but_does_not_invent_it() {
        let plain = Optimizer::Sgd(defrost_policy::Sgd { momentum: 0.0, ..Default::default() });
        assert_eq!(rule(&plain, Some(0.95)).unwrap(), Rule::Sgd { momentum: 0.0, nesterov: false });
        let Rule::Adam { beta1, decoupled, .. } = rule(&Optimizer::default(), Some(0.85)).unwrap() else {
            panic!("the default is AdamW")
        };
        assert_eq!((beta1, decoupled), (0.85, true));
        let plain = Optimizer::RmsProp(RmsProp::default());
        assert!(matches!(
            rule(&plain, Some(0.9)).unwrap(),
            Rule::RmsProp { momentum: 0.0, centered: false, .. }
        ));
        let moving = Optimizer::RmsProp(RmsProp { momentum: 0.5, ..RmsProp::default() });
        assert!(matches!(rule(&moving, Some(0.75)).unwrap(), Rule::RmsProp { momentum: 0.75, .. }));
        let lamb = |max_grad_norm| Optimizer::Lamb(Lamb { max_grad_norm, ..Lamb::default() });
        assert!(matches!(
            rule(&lamb(1.0), Some(0.5)).unwrap(),
            Rule::Lamb { max_grad_norm: Some(1.0), beta1: 0.5, .. }
        ));
        assert!(matches!(rule(&lamb(0.0), None).unwrap(), Rule::Lamb { max_grad_norm: None, .. }));
    }
}
