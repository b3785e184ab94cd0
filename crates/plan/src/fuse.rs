//! Fusion: activations, their gradients and residual sums move into the call that makes what they work on.

use defrost_graph::{Instruction, Value};
use defrost_tensor::{Activation, Call};

use crate::uses::Uses;

/// What [`fuse`] did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fused {
    /// Activations that moved into the call before them.
    pub activations: usize,
    /// Activation gradients that moved into the normalisation gradient after them.
    pub gradients: usize,
    /// Sums that moved into a convolution.
    pub residuals: usize,
}

/// Fuses what fits. The result computes the same numbers with fewer passes over memory. Values in `keep` are read after
/// the step and stay.
pub fn fuse(instructions: &mut Vec<Instruction>, keep: &[Value]) -> Fused {
    let residuals = residuals(instructions, keep);
    let activations = activations(instructions, keep);
    let gradients = gradients(instructions);
    Fused { activations, gradients, residuals }
}

/// `conv` then `add`: the convolution adds the other branch itself, at the place of the sum.
fn residuals(instructions: &mut Vec<Instruction>, keep: &[Value]) -> usize {
    let uses = Uses::of(instructions);
    let mut gone = vec![false; instructions.len()];
    for at in 0..instructions.len() {
        let Call::Add(add) = instructions[at].call else { continue };
        let fusable = |value: Value| {
            let before = uses
                .only_writer(value)
                .filter(|&w| uses.reads(value) == 1 && !gone[w] && !keep.contains(&value))?;
            match instructions[before].call {
                Call::Conv2d(conv) if conv.residual.is_none() && conv.activation == Activation::Identity => {
                    Some((before, conv))
                }
                _ => None,
            }
        };
        // Of two convolutions the later one: the other branch is then surely there.
        let a = fusable(add.a).map(|(before, conv)| (before, conv, add.b));
        let b = fusable(add.b).map(|(before, conv)| (before, conv, add.a));
        let Some((before, mut conv, residual)) = a.into_iter().chain(b).max_by_key(|(before, ..)| *before)
        else {
            continue;
        };
        if residual == conv.out {
            continue;
        }
        (conv.residual, conv.activation, conv.out) = (Some(residual), add.activation, add.out);
        instructions[at].call = conv.into();
        gone[before] = true;
    }
    remove(instructions, &gone)
}

/// A call with an identity epilogue, then `activate`.
fn activations(instructions: &mut Vec<Instruction>, keep: &[Value]) -> usize {
    let uses = Uses::of(instructions);
    let mut gone = vec![false; instructions.len()];
    for at in 0..instructions.len() {
        let Call::Activate(activate) = instructions[at].call else { continue };
        let alone = uses.reads(activate.x) == 1 && !keep.contains(&activate.x);
        let Some(before) = uses.only_writer(activate.x).filter(|_| alone) else { continue };
        let (activation, out) = match &mut instructions[before].call {
            Call::Conv2d(c) => (&mut c.activation, &mut c.out),
            Call::NormTrain(c) => (&mut c.activation, &mut c.out),
            Call::NormEval(c) => (&mut c.activation, &mut c.out),
            Call::Add(c) => (&mut c.activation, &mut c.out),
            Call::Gemm(c) if !c.accumulate => (&mut c.activation, &mut c.c),
            _ => continue,
        };
        if *activation == Activation::Identity && *out == activate.x {
            (*activation, *out) = (activate.activation, activate.out);
            gone[at] = true;
        }
    }
    remove(instructions, &gone)
}

/// `activate_grad`, then the gradient of a normalisation that took the activation in.
fn gradients(instructions: &mut Vec<Instruction>) -> usize {
    let uses = Uses::of(instructions);
    let mut gone = vec![false; instructions.len()];
    for at in 0..instructions.len() {
        let Call::ActivateGrad(masked) = instructions[at].call else { continue };
        let &[reader] = uses.readers(masked.grad_in) else { continue };
        // The gradient must still be what it was when the normalisation's gradient reads it.
        let changed = uses.writers(masked.grad_out).iter().any(|w| (at..=reader).contains(w));
        if masked.accumulate || changed || uses.only_writer(masked.grad_in).is_none() {
            continue;
        }
        // Only the norm that computed the activation's value itself can undo it.
        let Some(forward) = uses.only_writer(masked.out) else { continue };
        let (taken, x, bias) = match &instructions[forward].call {
            Call::NormTrain(c) => (c.activation, c.x, c.bias),
            Call::NormEval(c) => (c.activation, c.x, c.bias),
            _ => continue,
        };
        let node = instructions[forward].node;
        if taken != masked.activation || instructions[reader].node != node {
            continue;
        }
        match &mut instructions[reader].call {
            Call::NormTrainGrad(c) if c.grad_out == masked.grad_in && c.x == x => {
                (c.activation, c.out, c.grad_out) = (masked.activation, Some(masked.out), masked.grad_out);
                c.bias = Some(bias);
            }
            Call::NormEvalGrad(c) if c.grad_out == masked.grad_in => {
                (c.activation, c.out, c.grad_out) = (masked.activation, Some(masked.out), masked.grad_out);
            }
            _ => continue,
        }
        gone[at] = true;
    }
    remove(instructions, &gone)
}

fn remove(instructions: &mut Vec<Instruction>, gone: &[bool]) -> usize {
    let mut it = gone.iter();
    instructions.retain(|_| !it.next().copied().unwrap_or(false));
    gone.iter().filter(|g| **g).count()
}
