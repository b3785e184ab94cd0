//! Convolutions: 1×1 to 7×7, strides, paddings, dilations, groups, depthwise; each with its two gradients.

use defrost_tensor::call::{Conv2d, Conv2dGradInput, Conv2dGradWeight, FoldNorm};
use defrost_tensor::{Activation, ConvDesc, Layout, NormDesc, Padding, Shape4};

use super::{ROUNDING, SUMS, case, dims, flags, named, plain};
use crate::{Case, Operand};

/// The convolutions that are tried, each with an input's shape.
pub(crate) fn problems() -> Vec<(ConvDesc, Shape4)> {
    let conv = ConvDesc::new;
    let same = |i, o, k, s| conv(i, o, k, s, 0).with_padding(Padding::Same);
    let depthwise = |c, k, s, p| conv(c, c, k, s, p).with_groups(c);
    let at = Shape4::new;
    let mut list = Vec::new();
    // Pointwise: matrix products of every awkward size.
    list.extend([
        (conv(3, 8, 1, 1, 0), at(1, 3, 1, 1)),
        (conv(19, 33, 1, 1, 0), at(2, 19, 5, 7)),
        (conv(64, 257, 1, 1, 0), at(1, 64, 3, 3)),
        (conv(16, 24, 1, 1, 0), at(5, 16, 13, 17)),
        (conv(256, 64, 1, 1, 0), at(2, 256, 4, 4)),
        (conv(1, 1, 1, 1, 0), at(1, 1, 2, 3)),
        (conv(1024, 10, 1, 1, 0), at(3, 1024, 1, 1)),
        (same(12, 20, 1, 1), at(2, 12, 6, 5)),
    ]);
    // One tap with a stride: the shortcut of a residual block.
    list.extend([
        (conv(32, 64, 1, 2, 0), at(1, 32, 7, 8)),
        (conv(19, 33, 1, 2, 0), at(2, 19, 10, 9)),
        (conv(8, 8, 1, 2, 0), at(1, 8, 1, 1)),
        // Channels beyond any block of a sum, where most positions of the input meet no tap at all.
        (conv(8, 1030, 1, 2, 0), at(1, 8, 5, 4)),
        (conv(1030, 8, 1, 2, 0), at(1, 1030, 4, 5)),
        (conv(5, 7, 1, 1, 1), at(2, 5, 4, 3)),
        (same(6, 9, 1, 2), at(2, 6, 7, 8)),
    ]);
    // 3×3.
    list.extend([
        (conv(3, 8, 3, 1, 1), at(1, 3, 8, 8)),
        (conv(19, 33, 3, 1, 1), at(2, 19, 9, 7)),
        (conv(16, 32, 3, 2, 1), at(2, 16, 10, 9)),
        (conv(8, 8, 3, 1, 0), at(1, 8, 3, 3)),
        (conv(8, 16, 3, 1, 1), at(2, 8, 1, 1)),
        (conv(8, 16, 3, 2, 1), at(1, 8, 1, 2)),
        (conv(64, 128, 3, 1, 1), at(1, 64, 8, 8)),
        (conv(4, 257, 3, 1, 1), at(1, 4, 4, 5)),
        (conv(4, 8, 3, 1, 1), at(5, 4, 16, 16)),
        (conv(4, 8, 3, 1, 1), at(1, 4, 3, 347)),
        (conv(8, 8, 3, 2, 0), at(2, 8, 8, 8)),
        (conv(6, 5, 3, 3, 1), at(1, 6, 11, 10)),
        (conv(7, 9, 3, 1, 2), at(2, 7, 5, 4)),
        (conv(1, 1, 3, 1, 1), at(1, 1, 5, 5)),
        (conv(512, 32, 3, 1, 1), at(1, 512, 2, 2)),
        // As long a sum for the weights as in the first layer of a batch.
        (conv(3, 5, 3, 1, 1), at(2, 3, 72, 64)),
    ]);
    // TensorFlow's padding on even and odd sizes.
    list.extend([
        (same(3, 16, 3, 2), at(2, 3, 10, 10)),
        (same(3, 16, 3, 2), at(2, 3, 9, 11)),
        (same(5, 6, 3, 2), at(1, 5, 8, 7)),
        (same(5, 6, 3, 1), at(1, 5, 6, 7)),
        (same(6, 10, 5, 2), at(2, 6, 8, 8)),
        (same(6, 10, 5, 2), at(1, 6, 7, 9)),
        (same(3, 8, 7, 2), at(1, 3, 14, 12)),
        (same(4, 6, 2, 1), at(2, 4, 5, 5)),
        (same(4, 6, 3, 2).with_dilation(1), at(1, 4, 2, 1)),
    ]);
    // Larger and smaller windows.
    list.extend([
        (conv(3, 16, 7, 2, 3), at(2, 3, 33, 20)),
        (conv(3, 64, 7, 2, 3), at(1, 3, 32, 32)),
        (conv(3, 4, 7, 1, 3), at(1, 3, 2, 3)),
        (conv(6, 10, 5, 1, 2), at(2, 6, 7, 9)),
        (conv(6, 10, 5, 2, 2), at(1, 6, 12, 11)),
        (conv(8, 12, 2, 2, 0), at(2, 8, 6, 8)),
        (conv(3, 24, 4, 4, 0), at(2, 3, 12, 16)),
    ]);
    // Unequal sides, strides and paddings, and taps that lie apart.
    let oblong = |kernel, stride, padding: [usize; 2]| ConvDesc {
        kernel,
        stride,
        padding: Padding::Symmetric(padding),
        ..conv(5, 6, 1, 1, 0)
    };
    list.extend([
        (oblong([1, 7], [1, 1], [0, 3]), at(2, 5, 6, 9)),
        (oblong([7, 1], [1, 1], [3, 0]), at(2, 5, 6, 9)),
        (oblong([3, 2], [2, 1], [1, 0]), at(1, 5, 9, 6)),
        (oblong([3, 3], [1, 2], [1, 1]), at(1, 5, 6, 9)),
        (conv(5, 6, 3, 1, 2).with_dilation(2), at(2, 5, 8, 7)),
        (conv(5, 6, 3, 2, 2).with_dilation(2), at(1, 5, 9, 10)),
        (same(5, 6, 3, 1).with_dilation(3), at(1, 5, 8, 10)),
        (same(5, 6, 3, 2).with_dilation(2), at(1, 5, 8, 9)),
    ]);
    // Groups.
    list.extend([
        (conv(8, 12, 3, 1, 1).with_groups(2), at(2, 8, 6, 5)),
        (conv(16, 8, 1, 1, 0).with_groups(4), at(2, 16, 5, 3)),
        (conv(64, 64, 3, 1, 1).with_groups(32), at(1, 64, 5, 5)),
        (conv(3, 6, 3, 1, 1).with_groups(3), at(2, 3, 7, 6)),
        (conv(12, 6, 3, 2, 1).with_groups(6), at(2, 12, 7, 6)),
        (same(10, 14, 5, 2).with_groups(2), at(1, 10, 9, 8)),
        (conv(38, 38, 3, 2, 1).with_groups(2), at(2, 38, 6, 7)),
        (conv(6, 9, 3, 1, 2).with_groups(3).with_dilation(2), at(1, 6, 7, 5)),
    ]);
    // Depthwise.
    list.extend([
        (depthwise(3, 3, 1, 1), at(2, 3, 5, 4)),
        (depthwise(19, 3, 1, 1), at(1, 19, 7, 6)),
        (depthwise(33, 3, 2, 1), at(2, 33, 9, 8)),
        (depthwise(16, 3, 2, 1), at(1, 16, 8, 8)),
        (depthwise(96, 3, 1, 1), at(1, 96, 28, 15)),
        (depthwise(96, 3, 2, 1), at(2, 96, 13, 10)),
        (depthwise(64, 3, 1, 1), at(5, 64, 7, 7)),
        (depthwise(24, 3, 1, 1), at(2, 24, 1, 1)),
        (depthwise(24, 3, 2, 1), at(2, 24, 2, 1)),
        (depthwise(32, 3, 1, 0), at(1, 32, 3, 3)),
        (depthwise(8, 3, 1, 1), at(1, 8, 3, 347)),
        (same(19, 19, 3, 2).with_groups(19), at(2, 19, 8, 8)),
        (same(33, 33, 3, 2).with_groups(33), at(1, 33, 7, 9)),
        (same(16, 16, 3, 2).with_groups(16), at(1, 16, 10, 7)),
        (same(40, 40, 3, 1).with_groups(40), at(1, 40, 6, 6)),
        (depthwise(19, 5, 1, 2), at(2, 19, 8, 7)),
        (depthwise(17, 5, 2, 2), at(1, 17, 9, 8)),
        (same(16, 16, 5, 2).with_groups(16), at(1, 16, 8, 8)),
        (depthwise(9, 7, 1, 3), at(1, 9, 8, 9)),
        (depthwise(12, 1, 1, 0), at(2, 12, 5, 4)),
        (depthwise(12, 1, 2, 0), at(2, 12, 5, 4)),
        (depthwise(10, 3, 1, 2).with_dilation(2), at(2, 10, 7, 8)),
        (depthwise(257, 3, 1, 1), at(1, 257, 4, 4)),
    ]);
    list
}

/// `3x3/2 p1 g4 19->33 on 2x19x9x7`.
pub(crate) fn label(desc: &ConvDesc, input: Shape4) -> String {
    let two = |[a, b]: [usize; 2]| if a == b { a.to_string() } else { format!("({a},{b})") };
    let padding = match desc.padding {
        Padding::Symmetric(p) => format!("p{}", two(p)),
        _ => "same".into(),
    };
    let dilation = if desc.dilation == [1, 1] { String::new() } else { format!(" d{}", two(desc.dilation)) };
    let groups = if desc.groups == 1 { String::new() } else { format!(" g{}", desc.groups) };
    format!(
        "{}x{}/{} {padding}{dilation}{groups} {}->{} on {}",
        desc.kernel[0],
        desc.kernel[1],
        two(desc.stride),
        desc.in_channels,
        desc.out_channels,
        dims(input)
    )
}

pub(super) fn push(cases: &mut Vec<Case>) {
    for (i, (desc, input)) in problems().into_iter().enumerate() {
        forward(cases, i, desc, input);
        gradients(cases, desc, input);
    }
    fold(cases);
}

fn forward(cases: &mut Vec<Case>, i: usize, desc: ConvDesc, input: Shape4) {
    let output = desc.output(input).expect("the list's shapes fit");
    // Every problem plain and with an epilogue; which one goes round.
    let epilogues = [
        (Activation::Relu, true, true),
        (Activation::Relu6, true, false),
        (Activation::Identity, false, true),
        (Activation::Relu, true, false),
        (Activation::Relu6, false, true),
        (Activation::Identity, true, true),
        (Activation::Relu, false, false),
    ];
    for (activation, bias, residual) in [(Activation::Identity, false, false), epilogues[i % epilogues.len()]]
    {
        // Numbers large enough that ReLU6 clips some of them.
        let x = Operand::uniform(Layout::Activation(input), 0.0, 2.0);
        let name = label(&desc, input)
            + &flags(&[
                (bias, "bias"),
                (residual, "residual"),
                (activation != Activation::Identity, &named(activation)),
            ]);
        let call = Conv2d {
            desc,
            input,
            activation,
            x,
            weight: Operand::new(Layout::ConvWeight(desc.weight_shape())),
            bias: bias.then(|| Operand::uniform(plain(desc.out_channels), 0.5, 2.0)),
            residual: residual.then(|| Operand::uniform(Layout::Activation(output), 0.0, 3.0)),
            out: Operand::result(Layout::Activation(output), false),
        };
        cases.push(case(name, call, SUMS));
    }
}

fn gradients(cases: &mut Vec<Case>, desc: ConvDesc, input: Shape4) {
    let output = desc.output(input).expect("the list's shapes fit");
    let weight = Layout::ConvWeight(desc.weight_shape());
    for accumulate in [false, true] {
        let name = label(&desc, input) + &flags(&[(accumulate, "accumulate")]);
        let grad_input = Conv2dGradInput {
            desc,
            input,
            accumulate,
            grad_out: Operand::new(Layout::Activation(output)),
            weight: Operand::new(weight),
            grad_in: Operand::result(Layout::Activation(input), accumulate),
        };
        cases.push(case(&name, grad_input, SUMS));
        let grad_weight = Conv2dGradWeight {
            desc,
            input,
            accumulate,
            x: Operand::new(Layout::Activation(input)),
            grad_out: Operand::new(Layout::Activation(output)),
            grad_weight: Operand::result(weight, accumulate),
        };
        cases.push(case(&name, grad_weight, SUMS));
    }
}

fn fold(cases: &mut Vec<Case>) {
    let descs = [
        ConvDesc::new(3, 8, 7, 2, 3),
        ConvDesc::new(19, 33, 1, 1, 0),
        ConvDesc::new(33, 33, 3, 1, 1).with_groups(33),
        ConvDesc::new(8, 12, 3, 1, 1).with_groups(4),
        ConvDesc::new(16, 257, 3, 1, 1),
    ];
    for conv in descs {
        let c = conv.out_channels;
        for (desc, bias) in [(NormDesc::torch(c), false), (NormDesc::keras_mobilenet(c), true)] {
            let weight = Layout::ConvWeight(conv.weight_shape());
            let call = FoldNorm {
                desc,
                conv,
                weight: Operand::new(weight),
                norm_weight: Operand::new(plain(c)),
                norm_bias: Operand::new(plain(c)),
                running_mean: Operand::new(plain(c)),
                running_var: Operand::uniform(plain(c), 1.0, 0.9),
                bias: bias.then(|| Operand::new(plain(c))),
                folded_weight: Operand::result(weight, false),
                folded_bias: Operand::result(plain(c), false),
            };
            let name = format!("{}->{c} g{}{}", conv.in_channels, conv.groups, flags(&[(bias, "bias")]));
            cases.push(case(name, call, ROUNDING));
        }
    }
}
