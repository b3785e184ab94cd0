//! Fusion: activations, their gradients and residual sums move into the call that makes what they work on.

use defrost_graph::{Instruction, Value};
use defrost_tensor::{Activation, Call, call};

use crate::uses::Uses;

/// What [`fuse`] did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fused {
    /// Activations that moved into the call before them.
    pub activations: usize,
    /// Activation gradients that moved into the gradient of a normalisation after them.
    pub gradients: usize,
    /// Sums that moved into a convolution or a normalisation.
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

/// A convolution or a normalisation, then `add`: it adds the other branch itself, at the place of the sum.
fn residuals(instructions: &mut Vec<Instruction>, keep: &[Value]) -> usize {
    let uses = Uses::of(instructions);
    let mut gone = vec![false; instructions.len()];
    for at in 0..instructions.len() {
        let Call::Add(add) = instructions[at].call else { continue };
        let fusable = |value: Value| {
            let before = uses
                .only_writer(value)
                .filter(|&w| uses.reads(value) == 1 && !gone[w] && !keep.contains(&value))?;
            (instructions[before].pass == instructions[at].pass).then_some(before)
        };
        let joined = |value: Value, other: Value| {
            let before = fusable(value)?;
            Some((before, adding(instructions[before].call, other, &add)?))
        };
        // Of two the later one: the other branch is then surely there.
        let both = [joined(add.a, add.b), joined(add.b, add.a)];
        let Some((before, call)) = both.into_iter().flatten().max_by_key(|(before, _)| *before) else {
            continue;
        };
        instructions[at].call = call;
        gone[before] = true;
    }
    remove(instructions, &gone)
}

/// `call` with the `residual` that `add` adds to its result, where it can and does nothing after its own work yet.
fn adding(
    mut call: Call<Value, Value>,
    residual: Value,
    add: &call::Add<Value, Value>,
) -> Option<Call<Value, Value>> {
    let (taken, activation, out) = match &mut call {
        Call::Conv2d(c) => (&mut c.residual, &mut c.activation, &mut c.out),
        Call::NormTrain(c) => (&mut c.residual, &mut c.activation, &mut c.out),
        Call::NormEval(c) => (&mut c.residual, &mut c.activation, &mut c.out),
        _ => return None,
    };
    if taken.is_some() || *activation != Activation::Identity {
        return None;
    }
    (*taken, *activation, *out) = (Some(residual), add.activation, add.out);
    Some(call)
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

/// `activate_grad`, then the gradient of a normalisation, which takes it in.
///
/// Where it is the gradient of a residual block's sum, another branch reads it too: then the normalisation's gradient comes
/// first and writes it beside its own results.
fn gradients(instructions: &mut Vec<Instruction>) -> usize {
    let uses = Uses::of(instructions);
    let mut gone = vec![false; instructions.len()];
    for at in 0..instructions.len() {
        let Call::ActivateGrad(masked) = instructions[at].call else { continue };
        let readers = uses.readers(masked.grad_in);
        let Some(&reader) = readers.first().filter(|&&reader| reader > at) else { continue };
        // The gradient must still be what it was when the normalisation's gradient reads it, and what it is made into must
        // not be touched before.
        let changed = uses.writers(masked.grad_out).iter().any(|w| (at..=reader).contains(w));
        let added_to = uses.writers(masked.grad_in).iter().any(|&w| w != at && w <= reader);
        if masked.accumulate || changed || added_to {
            continue;
        }
        let alone = readers.len() == 1 && uses.only_writer(masked.grad_in).is_some();
        // Only the norm that computed the activation's value itself, and added nothing to it, knows it from its input.
        let forward = uses.only_writer(masked.out).map(|forward| &instructions[forward]);
        let own = forward.filter(|f| f.node == instructions[reader].node).and_then(|f| match f.call {
            Call::NormTrain(c) if c.residual.is_none() && c.activation == masked.activation => Some(c),
            _ => None,
        });
        match &mut instructions[reader].call {
            Call::NormTrainGrad(c)
                if c.grad_out == masked.grad_in && c.activation == Activation::Identity =>
            {
                (c.activation, c.out, c.grad_out) = (masked.activation, Some(masked.out), masked.grad_out);
                c.bias = own.filter(|own| own.x == c.x).map(|own| own.bias);
                c.grad_residual = (!alone).then_some(masked.grad_in);
            }
            Call::NormEvalGrad(c)
                if alone && c.grad_out == masked.grad_in && c.activation == Activation::Identity =>
            {
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
