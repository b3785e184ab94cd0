//! Batch normalisation by batch and by running statistics, and the gradients of both.

use defrost_tensor::call::{NormEval, NormEvalGrad, NormTrain, NormTrainGrad};
use defrost_tensor::{Activation, Layout, NormDesc, RunningVariance, Shape4};

use super::{ACTIVATIONS, SUMS, case, dims, flags, named, plain};
use crate::{Case, Fill, Operand};

const SHAPES: [Shape4; 10] = [
    Shape4::new(2, 3, 4, 5),
    Shape4::new(1, 19, 3, 3),
    Shape4::new(5, 33, 1, 1),
    Shape4::new(2, 64, 7, 7),
    Shape4::new(3, 8, 1, 400),
    Shape4::new(2, 16, 23, 29),
    Shape4::new(1, 257, 2, 2),
    Shape4::new(3, 1, 1, 1),
    Shape4::new(1, 24, 40, 33),
    Shape4::new(5, 1030, 1, 2),
];

/// Every combination of input, scale and shift gradient that a mask can ask for, but none at all.
const WANTED: [[bool; 3]; 7] = [
    [true, true, true],
    [true, false, false],
    [false, true, true],
    [true, true, false],
    [false, true, false],
    [true, false, true],
    [false, false, true],
];

pub(super) fn push(cases: &mut Vec<Case>) {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        let (torch, keras) = (NormDesc::torch(shape.c), NormDesc::keras_mobilenet(shape.c));
        let activation = ACTIVATIONS[i % 3];
        train(cases, torch, shape, Activation::Identity, true, Input::Spread);
        train(cases, keras, shape, activation, true, Input::Spread);
        train(cases, torch, shape, ACTIVATIONS[(i + 1) % 3], false, Input::Spread);
        eval(cases, torch, shape, Activation::Identity);
        eval(cases, keras, shape, ACTIVATIONS[1 + i % 2]);
        for (j, wanted) in WANTED.into_iter().enumerate() {
            let accumulate = [(false, false), (true, true), (true, false), (false, true)][(i + j) % 4];
            let activation = ACTIVATIONS[(i + j) % 3];
            train_grad(cases, torch, shape, activation, wanted, accumulate, Input::Spread);
            eval_grad(cases, torch, shape, activation, wanted, accumulate);
        }
    }
    // One number a channel: it is its own mean. Without running statistics this is legal.
    train(cases, NormDesc::torch(19), Shape4::vector(1, 19), Activation::Relu, false, Input::Spread);
    // What cancels: a variance of 0, and means far from 0, where E[x²] - E[x]² has lost all digits.
    let shape = Shape4::new(3, 19, 9, 11);
    for input in [Input::Constant, Input::Far, Input::VeryFar] {
        train(cases, NormDesc::torch(19), shape, Activation::Relu, true, input);
        train_grad(cases, NormDesc::torch(19), shape, Activation::Identity, WANTED[0], (false, false), input);
    }
}

/// What the input of a case looks like.
#[derive(Clone, Copy, PartialEq)]
enum Input {
    /// Mean and deviation of order 1.
    Spread,
    /// Some channels hold one number.
    Constant,
    /// 10 ± 0.1.
    Far,
    /// 100 ± 0.01.
    VeryFar,
}

impl Input {
    fn operand(self, shape: Shape4) -> Operand {
        let layout = Layout::Activation(shape);
        match self {
            Self::Spread => Operand::uniform(layout, 0.3, 2.0),
            Self::Constant => Operand::filled(layout, Fill::ConstantChannels),
            Self::Far => Operand::uniform(layout, 10.0, 0.1),
            Self::VeryFar => Operand::uniform(layout, 100.0, 0.01),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Spread => "",
            Self::Constant => " constant channels",
            Self::Far => " far mean",
            Self::VeryFar => " very far mean",
        }
    }

    /// A mean that is right to f32's last bit is off by up to 0.5 ulp, which `inv_std` magnifies.
    fn tolerance(self) -> f64 {
        match self {
            Self::Spread => SUMS,
            Self::Constant | Self::Far => 1e-4,
            Self::VeryFar => 4e-3,
        }
    }
}

fn train(
    cases: &mut Vec<Case>,
    desc: NormDesc,
    shape: Shape4,
    activation: Activation,
    running: bool,
    input: Input,
) {
    let c = shape.c;
    let biased = desc.running_variance == RunningVariance::Biased;
    let name = format!("{} {}{}", dims(shape), named(activation), input.name())
        + &flags(&[(running && biased, "biased"), (running && !biased, "unbiased")]);
    let call = NormTrain {
        desc,
        shape,
        activation,
        x: input.operand(shape),
        weight: Operand::uniform(plain(c), 1.5, 1.0),
        bias: Operand::uniform(plain(c), 1.0, 2.0),
        residual: None,
        out: Operand::result(Layout::Activation(shape), false),
        mean: Operand::result(plain(c), false),
        inv_std: Operand::result(plain(c), false),
        running_mean: running.then(|| Operand::new(plain(c))),
        running_var: running.then(|| Operand::uniform(plain(c), 1.0, 0.5)),
    };
    if input == Input::Spread {
        let residual = Some(Operand::uniform(Layout::Activation(shape), 0.5, 2.0));
        let call = NormTrain { residual, ..call.clone() };
        cases.push(case(format!("{name} residual"), call, input.tolerance()));
    }
    cases.push(case(name, call, input.tolerance()));
}

fn train_grad(
    cases: &mut Vec<Case>,
    desc: NormDesc,
    shape: Shape4,
    activation: Activation,
    wanted: [bool; 3],
    (accumulate, accumulate_params): (bool, bool),
    input: Input,
) {
    let c = shape.c;
    let call = NormTrainGrad {
        desc,
        shape,
        activation,
        accumulate,
        accumulate_params,
        x: input.operand(shape),
        weight: Operand::uniform(plain(c), 1.5, 1.0),
        mean: Operand::filled(plain(c), Fill::MeanOf { read: 0 }),
        inv_std: Operand::filled(plain(c), Fill::InvStdOf { read: 0, eps: desc.eps.into() }),
        grad_out: Operand::new(Layout::Activation(shape)),
        bias: None,
        out: (activation != Activation::Identity)
            .then(|| Operand::filled(Layout::Activation(shape), Fill::Clamped)),
        grad_in: wanted[0].then(|| Operand::result(Layout::Activation(shape), accumulate)),
        grad_weight: wanted[1].then(|| Operand::result(plain(c), accumulate_params)),
        grad_bias: wanted[2].then(|| Operand::result(plain(c), accumulate_params)),
        grad_residual: None,
    };
    let name = format!("{} {}{}", dims(shape), named(activation), input.name())
        + &gradients(wanted, accumulate, accumulate_params);
    if input == Input::Spread {
        let grad_residual = Some(Operand::result(Layout::Activation(shape), false));
        let call = NormTrainGrad { grad_residual, ..call.clone() };
        cases.push(case(format!("{name} residual"), call, input.tolerance()));
    }
    if activation != Activation::Identity {
        let call = NormTrainGrad {
            bias: Some(Operand::uniform(plain(c), 1.0, 2.0)),
            out: Some(Operand::filled(Layout::Activation(shape), Fill::Normalised { activation })),
            ..call.clone()
        };
        cases.push(case(format!("{name} shift given"), call, input.tolerance()));
    }
    cases.push(case(name, call, input.tolerance()));
}

fn eval(cases: &mut Vec<Case>, desc: NormDesc, shape: Shape4, activation: Activation) {
    let c = shape.c;
    let call = NormEval {
        desc,
        shape,
        activation,
        x: Operand::uniform(Layout::Activation(shape), 0.0, 4.0),
        weight: Operand::uniform(plain(c), 1.5, 1.0),
        bias: Operand::uniform(plain(c), 1.0, 2.0),
        running_mean: Operand::new(plain(c)),
        running_var: Operand::uniform(plain(c), 1.0, 0.9),
        residual: None,
        out: Operand::result(Layout::Activation(shape), false),
    };
    let name = format!("{} {}", dims(shape), named(activation));
    let residual = Some(Operand::uniform(Layout::Activation(shape), 0.5, 2.0));
    cases.push(case(format!("{name} residual"), NormEval { residual, ..call.clone() }, SUMS));
    cases.push(case(name, call, SUMS));
}

fn eval_grad(
    cases: &mut Vec<Case>,
    desc: NormDesc,
    shape: Shape4,
    activation: Activation,
    wanted: [bool; 3],
    (accumulate, accumulate_params): (bool, bool),
) {
    let c = shape.c;
    let call = NormEvalGrad {
        desc,
        shape,
        activation,
        accumulate,
        accumulate_params,
        weight: Operand::uniform(plain(c), 1.5, 1.0),
        running_mean: Operand::new(plain(c)),
        running_var: Operand::uniform(plain(c), 1.0, 0.9),
        grad_out: Operand::new(Layout::Activation(shape)),
        x: wanted[1].then(|| Operand::uniform(Layout::Activation(shape), 0.0, 2.0)),
        out: (activation != Activation::Identity)
            .then(|| Operand::filled(Layout::Activation(shape), Fill::Clamped)),
        grad_in: wanted[0].then(|| Operand::result(Layout::Activation(shape), accumulate)),
        grad_weight: wanted[1].then(|| Operand::result(plain(c), accumulate_params)),
        grad_bias: wanted[2].then(|| Operand::result(plain(c), accumulate_params)),
    };
    let name =
        format!("{} {}", dims(shape), named(activation)) + &gradients(wanted, accumulate, accumulate_params);
    cases.push(case(name, call, SUMS));
}

fn gradients([input, weight, bias]: [bool; 3], accumulate: bool, accumulate_params: bool) -> String {
    flags(&[
        (input && !accumulate, "x"),
        (input && accumulate, "x+="),
        (weight && !accumulate_params, "weight"),
        (weight && accumulate_params, "weight+="),
        (bias && !accumulate_params, "bias"),
        (bias && accumulate_params, "bias+="),
    ])
}
