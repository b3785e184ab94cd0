//! Optimizer steps, limits on gradients, averages of weights.

use defrost_tensor::call::{Adam, Clip, Lamb, Lerp, RmsProp, Sgd};
use defrost_tensor::{Layout, Limit};

use super::{ROUNDING, SUMS, case, plain};
use crate::{Case, Fill, Operand};

pub(super) fn push(cases: &mut Vec<Case>) {
    sgd(cases);
    adam(cases);
    rms_prop(cases);
    lamb(cases);
    clip(cases);
    lerp(cases);
}

/// What an optimizer steps over.
fn parameters() -> [(Layout, &'static str); 5] {
    [
        (plain(1), "1"),
        (plain(33), "33"),
        (plain(5003), "5003"),
        (Layout::ConvWeight([33, 19, 3, 3]), "conv weight"),
        (Layout::ConvWeight([19, 1, 3, 3]), "depthwise weight"),
    ]
}

fn sgd(cases: &mut Vec<Case>) {
    let settings = [
        (0.0, 0.0, false, "plain"),
        (0.9, 0.0, false, "momentum"),
        (0.9, 1e-2, false, "momentum decay"),
        (0.9, 1e-2, true, "nesterov decay"),
        (0.0, 0.1, false, "decay"),
    ];
    for (layout, size) in parameters() {
        for (momentum, weight_decay, nesterov, what) in settings {
            let call = Sgd {
                len: layout.len(),
                lr: 0.3,
                momentum,
                weight_decay,
                nesterov,
                grad: Operand::new(layout),
                param: Operand::new(layout),
                velocity: (momentum > 0.0).then(|| Operand::new(layout)),
            };
            cases.push(case(format!("{size} {what}"), call, ROUNDING));
        }
    }
}

fn adam(cases: &mut Vec<Case>) {
    let settings = [
        (0.0, false, 1, 1e-8, "first step"),
        (0.0, false, 2, 1e-8, "second step"),
        (0.1, false, 10, 1e-3, "decay"),
        (0.1, true, 10, 1e-8, "decoupled decay"),
        (0.01, true, 100_000, 1e-5, "late"),
    ];
    for (layout, size) in parameters() {
        for (weight_decay, decoupled, step, eps, what) in settings {
            // Before the first step the moments are 0.
            let moment = |centre, bound| {
                let scale = if step == 1 { 0.0 } else { 1.0 };
                Operand::uniform(layout, centre * scale, bound * scale)
            };
            let call = Adam {
                len: layout.len(),
                lr: 0.03,
                beta1: 0.9,
                beta2: 0.999,
                eps,
                weight_decay,
                decoupled,
                step,
                grad: Operand::new(layout),
                param: Operand::new(layout),
                first: moment(0.0, 0.5),
                second: moment(0.5, 0.49),
            };
            cases.push(case(format!("{size} {what}"), call, ROUNDING));
        }
    }
}

fn rms_prop(cases: &mut Vec<Case>) {
    let settings = [
        (0.0, false, 0.0, 1e-8, "plain"),
        (0.0, false, 0.1, 1e-2, "decay"),
        (0.9, false, 0.0, 1e-8, "momentum"),
        (0.0, true, 0.0, 1e-3, "centred"),
        (0.9, true, 0.01, 1e-8, "centred momentum decay"),
    ];
    for (layout, size) in parameters() {
        for (momentum, centered, weight_decay, eps, what) in settings {
            let call = RmsProp {
                len: layout.len(),
                lr: 0.03,
                alpha: 0.9,
                eps,
                momentum,
                weight_decay,
                grad: Operand::new(layout),
                param: Operand::new(layout),
                // Above the square of any mean: the variance is no difference of equals.
                square: Operand::uniform(layout, 0.6, 0.3),
                velocity: (momentum > 0.0).then(|| Operand::new(layout)),
                mean: centered.then(|| Operand::uniform(layout, 0.0, 0.4)),
            };
            cases.push(case(format!("{size} {what}"), call, ROUNDING));
        }
    }
}

fn lamb(cases: &mut Vec<Case>) {
    let settings = [
        (0.1, 1, 1e-6, 1.0, "first step"),
        (0.1, 2, 1e-3, 1.0, "second step"),
        (0.0, 7, 1e-6, 1.0, "without decay"),
        (0.01, 100_000, 1e-6, 1.0, "late"),
        (0.1, 3, 1e-6, 0.0, "from zero"),
    ];
    for (layout, size) in parameters().into_iter().chain([(plain(50_021), "50021")]) {
        for (weight_decay, step, eps, weights, what) in settings {
            let moment = |centre, bound| {
                let scale = if step == 1 { 0.0 } else { 1.0 };
                Operand::uniform(layout, centre * scale, bound * scale)
            };
            let call = Lamb {
                len: layout.len(),
                lr: 0.03,
                beta1: 0.9,
                beta2: 0.99,
                eps,
                weight_decay,
                step,
                grad: Operand::new(layout),
                param: Operand::uniform(layout, 0.0, weights),
                first: moment(0.0, 0.5),
                second: moment(0.5, 0.49),
                squares: Operand::result(plain(2), false),
            };
            cases.push(case(format!("{size} {what}"), call, SUMS));
        }
    }
}

fn clip(cases: &mut Vec<Case>) {
    let limits = [
        (Limit::Norm { max: 1.0, eps: 1e-6 }, 250.0, "norm"),
        (Limit::Norm { max: 0.5, eps: 0.0 }, 0.3, "norm just above"),
        (Limit::Norm { max: 5.0, eps: 1e-6 }, 24.9, "norm below"),
        (Limit::Norm { max: 1.0, eps: 1e-6 }, f32::INFINITY, "norm infinite"),
        (Limit::Value { max: 0.25 }, 0.0, "value"),
        (Limit::Value { max: 2.0 }, 0.0, "value below"),
    ];
    for (layout, size) in parameters() {
        for (limit, squares, what) in limits {
            let norm = matches!(limit, Limit::Norm { .. });
            let call = Clip {
                len: layout.len(),
                limit,
                squares: norm.then(|| Operand::filled(plain(1), Fill::Repeat(vec![squares]))),
                x: Operand::new(layout),
            };
            cases.push(case(format!("{size} {what}"), call, ROUNDING));
        }
    }
    let (limit, x) = (Limit::Value { max: 0.25 }, Operand::filled(plain(1003), Fill::SomeNan));
    cases.push(case("1003 value nan", Clip { len: 1003, limit, squares: None, x }, ROUNDING));
}

fn lerp(cases: &mut Vec<Case>) {
    for (layout, size) in parameters() {
        for weight in [0.0002, 0.3, 1.0] {
            let (x, out) = (Operand::new(layout), Operand::new(layout));
            cases.push(case(
                format!("{size} {weight}"),
                Lerp { len: layout.len(), weight, x, out },
                ROUNDING,
            ));
        }
    }
}
