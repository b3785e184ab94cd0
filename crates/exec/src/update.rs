//! An optimizer's rule as a call.

use defrost_tensor::{Call, call};

use crate::Rule;

/// What one step of a [`Rule`] works on, for one parameter: whatever a backend's operands are.
#[derive(Debug)]
pub struct Update<R, W> {
    /// Values of the parameter.
    pub len: usize,
    /// Learning rate.
    pub lr: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// The number of this step, from 1.
    pub step: u32,
    /// The gradient.
    pub grad: R,
    /// The parameter.
    pub param: W,
    /// What the rule keeps, as [`Rule`] says; what it does not keep may be there and is not touched.
    pub kept: [Option<W>; 3],
    /// Two numbers of working space, for a rule that [needs](Rule::needs_squares) them.
    pub squares: Option<W>,
}

impl Rule {
    /// Whether an [`Update`] needs `squares`.
    pub fn needs_squares(&self) -> bool {
        matches!(self, Self::Lamb { .. })
    }

    /// The call that makes the step.
    ///
    /// # Panics
    /// Where something is missing that the rule keeps or needs.
    pub fn call<R, W>(&self, update: Update<R, W>) -> Call<R, W> {
        let Update { len, lr, weight_decay, step, grad, param, kept, squares } = update;
        let ([first, second, third], keeps) = (kept, self.keeps());
        let only = |buffer: Option<W>, keeps: bool| buffer.filter(|_| keeps);
        let (first, second, third) = (only(first, keeps[0]), only(second, keeps[1]), only(third, keeps[2]));
        let kept = "an update brings what its rule keeps";
        match *self {
            Self::Sgd { momentum, nesterov } => {
                let velocity = first;
                call::Sgd { len, lr, momentum, weight_decay, nesterov, grad, param, velocity }.into()
            }
            Self::Adam { beta1, beta2, eps, decoupled } => call::Adam {
                len,
                lr,
                beta1,
                beta2,
                eps,
                weight_decay,
                decoupled,
                step,
                grad,
                param,
                first: first.expect(kept),
                second: second.expect(kept),
            }
            .into(),
            Self::RmsProp { alpha, eps, momentum, .. } => call::RmsProp {
                len,
                lr,
                alpha,
                eps,
                momentum,
                weight_decay,
                grad,
                param,
                square: second.expect(kept),
                velocity: first,
                mean: third,
            }
            .into(),
            Self::Lamb { beta1, beta2, eps, .. } => call::Lamb {
                len,
                lr,
                beta1,
                beta2,
                eps,
                weight_decay,
                step,
                grad,
                param,
                first: first.expect(kept),
                second: second.expect(kept),
                squares: squares.expect(kept),
            }
            .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_gets_what_its_rule_keeps_and_no_more() {
        let update = || Update {
            len: 3,
            lr: 0.1,
            weight_decay: 0.0,
            step: 1,
            grad: "grad",
            param: "param",
            kept: ["first", "second", "third"].map(Some),
            squares: Some("squares"),
        };
        let writes = |rule: Rule| rule.call(update()).writes().into_iter().collect::<Vec<_>>();
        assert_eq!(writes(Rule::Sgd { momentum: 0.0, nesterov: false }), ["param"]);
        assert_eq!(writes(Rule::Sgd { momentum: 0.9, nesterov: true }), ["param", "first"]);
        let rms = |momentum, centered| Rule::RmsProp { alpha: 0.9, eps: 1e-8, momentum, centered };
        assert_eq!(writes(rms(0.0, false)), ["param", "second"]);
        let bare = Update { kept: [None, Some("second"), None], ..update() };
        assert_eq!(
            rms(0.0, false).call(bare).writes(),
            ["param", "second"],
            "what it does not keep is missing"
        );
        assert_eq!(writes(rms(0.5, true)).len(), 4);
        let lamb = Rule::Lamb { beta1: 0.9, beta2: 0.99, eps: 1e-6, max_grad_norm: None };
        assert!(lamb.needs_squares() && writes(lamb).contains(&"squares"));
    }
}
