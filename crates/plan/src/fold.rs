//! Folding: a convolution and the frozen normalisation after it become one convolution.

use defrost_graph::{Instruction, Origin, Pass, Value, Values};
use defrost_tensor::{Call, Layout, call};

use crate::uses::Uses;

/// Folds each [`call::NormEval`] into the [`call::Conv2d`] that feeds it, where nobody else reads the convolution's
/// output and neither takes part in the backward pass. Returns the calls that compute the folded weights, to be run
/// once whenever the weights were changed.
///
/// `trains` says of a value whether it is a parameter that trains: then its normalisation is left alone. Values in
/// `keep` are read after the step and stay.
pub fn fold(
    values: &mut Values,
    instructions: &mut Vec<Instruction>,
    trains: &dyn Fn(&Values, Value) -> bool,
    keep: &[Value],
) -> Vec<Instruction> {
    let uses = Uses::of(instructions);
    let backward: Vec<_> = instructions.iter().filter(|i| i.pass == Pass::Backward).map(|i| i.node).collect();
    let mut setup = Vec::new();
    let mut gone = vec![false; instructions.len()];
    for at in 0..instructions.len() {
        let Call::NormEval(norm) = instructions[at].call else { continue };
        let Some(before) = uses.only_writer(norm.x).filter(|_| uses.reads(norm.x) == 1) else { continue };
        let Call::Conv2d(conv) = instructions[before].call else { continue };
        let params = [Some(conv.weight), conv.bias, Some(norm.weight), Some(norm.bias)];
        let frozen = !params.into_iter().flatten().any(|v| trains(values, v));
        let (node, norm_node) = (instructions[before].node, instructions[at].node);
        let gradient = backward.contains(&node) || backward.contains(&norm_node);
        if !frozen
            || gradient
            || keep.contains(&norm.x)
            || conv.residual.is_some()
            || conv.activation != Default::default()
        {
            continue;
        }
        let folded_weight =
            values.add(Layout::ConvWeight(conv.desc.weight_shape()), Origin::Folded(node, true));
        let folded_bias = values.add(Layout::Plain(conv.desc.out_channels), Origin::Folded(node, false));
        let call = call::FoldNorm {
            desc: norm.desc,
            conv: conv.desc,
            weight: conv.weight,
            norm_weight: norm.weight,
            norm_bias: norm.bias,
            running_mean: norm.running_mean,
            running_var: norm.running_var,
            bias: conv.bias,
            folded_weight,
            folded_bias,
        };
        setup.push(Instruction { call: call.into(), node, pass: Pass::Setup });
        let folded = call::Conv2d {
            weight: folded_weight,
            bias: Some(folded_bias),
            activation: norm.activation,
            out: norm.out,
            ..conv
        };
        instructions[before].call = folded.into();
        gone[at] = true;
    }
    let mut gone = gone.into_iter();
    instructions.retain(|_| !gone.next().unwrap_or(false));
    setup
}
