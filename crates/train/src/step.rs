//! From a recipe's optimizer and schedule to what one step of a session is given.

use defrost_augment::Key;
use defrost_augment::key::purpose;
use defrost_exec::{Rate, Rule};
use defrost_graph::Marking;
use defrost_policy::{Group, Optimizer, Phase};

use crate::{Result, TrainError};

/// The update rule of `optimizer`, its momentum (Adam's first beta) replaced where the schedule sets one.
///
/// # Errors
/// [`TrainError::Unsupported`] for an optimizer that backends do not have.
pub(crate) fn rule(optimizer: &Optimizer, momentum: Option<f64>) -> Result<Rule> {
    let adam = |betas: [f64; 2], eps: f64, decoupled| Rule::Adam {
        beta1: momentum.unwrap_or(betas[0]) as f32,
        beta2: betas[1] as f32,
        eps: eps as f32,
        decoupled,
    };
    match optimizer {
        Optimizer::Sgd(o) => {
            // A schedule cannot give momentum to an optimizer that was asked to have none.
            let moving = momentum.filter(|_| o.momentum != 0.0).unwrap_or(o.momentum);
            Ok(Rule::Sgd { momentum: moving as f32, nesterov: o.nesterov })
        }
        Optimizer::Adam(o) => Ok(adam(o.betas, o.eps, false)),
        Optimizer::AdamW(o) => Ok(adam(o.betas, o.eps, true)),
        other => Err(TrainError::Unsupported {
            what: format!("the optimizer `{}`", other.name()),
            why: "backends have `sgd`, `adam` and `adamw`".into(),
        }),
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
    }
}
