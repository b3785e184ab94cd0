//! Losses with their gradients.

use defrost_tensor::call::{ElementwiseLoss, SoftmaxCrossEntropy};
use defrost_tensor::{ElementLoss, Layout, Shape4};

use super::{ROUNDING, SUMS, case, flags, plain};
use crate::{Case, Fill, Operand};

/// Rows and columns.
const SIZES: [(usize, usize); 7] = [(1, 2), (4, 10), (5, 3), (2, 1000), (33, 19), (257, 5), (1, 1)];

pub(super) fn push(cases: &mut Vec<Case>) {
    softmax(cases);
    softmax_hits(cases);
    elementwise(cases);
    elementwise_hits(cases);
}

fn softmax(cases: &mut Vec<Case>) {
    for (i, (n, classes)) in SIZES.into_iter().enumerate() {
        let layout = Layout::Activation(Shape4::vector(n, classes));
        let targets = [
            (Fill::OneHot { classes, weight: 1.0 }, "hard"),
            (Fill::OneHot { classes, weight: 0.37 / n as f64 }, "weighted"),
            (Fill::Soft { classes }, "soft"),
        ];
        for (j, (fill, what)) in targets.into_iter().enumerate() {
            let logits = [
                (Operand::uniform(layout, 0.0, 3.0), ""),
                (Operand::uniform(layout, 500.0, 900.0), " huge logits"),
                (Operand::filled(layout, Fill::Ties), " ties"),
                (Operand::uniform(layout, -40.0, 30.0), " low logits"),
            ];
            // A single row that is right beyond doubt has a gradient of 0 and nothing to measure its error by.
            let other = if n == 1 { 2 } else { 1 + (i + j) % 3 };
            let mut push = |gamma: f32, (logits, range): (Operand, &str), grad: bool| {
                let call = SoftmaxCrossEntropy {
                    n,
                    classes,
                    gamma,
                    logits,
                    targets: Operand::filled(layout, fill.clone()),
                    stats: Operand::result(plain(2), false),
                    grad: grad.then(|| Operand::result(layout, false)),
                };
                let focal = if gamma > 0.0 { format!(" gamma {gamma}") } else { String::new() };
                let flags = flags(&[(!grad, "without gradient")]);
                cases.push(case(format!("{n}x{classes} {what}{focal}{range}{flags}"), call, SUMS));
            };
            push(0.0, logits[0].clone(), true);
            push(0.0, logits[other].clone(), (i + j) % 3 != 1);
            // A single class has nothing to focus on: its loss and its gradient are 0.
            if classes > 1 {
                let gamma = [2.0, 0.5, 5.0, 1.0][(i + j) % 4];
                push(gamma, logits[0].clone(), (i + j) % 4 != 2);
                push([2.0, 0.5, 1.0][(i + j) % 3], logits[other].clone(), true);
            }
        }
    }
}

fn softmax_hits(cases: &mut Vec<Case>) {
    // Only the right class' logit is largest in row 0; equal logits in row 1, where the first counts; row 3 has no right
    // class, though its largest logit is where a search for the largest target ends.
    let logits = vec![0.0, 2.0, 1.0, 5.0, 5.0, 1.0, 0.0, 1.0, 1.0, 9.0, 1.0, 3.0];
    let targets = vec![0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0];
    let hits = SoftmaxCrossEntropy {
        n: 4,
        classes: 3,
        gamma: 0.0,
        logits: Operand::filled(plain(12), Fill::Repeat(logits)),
        targets: Operand::filled(plain(12), Fill::Repeat(targets)),
        stats: Operand::result(plain(2), false),
        grad: Some(Operand::result(plain(12), false)),
    };
    cases.push(case("hits", hits, ROUNDING));
}

fn elementwise(cases: &mut Vec<Case>) {
    let losses = [
        (ElementLoss::BinaryCrossEntropy, "binary cross-entropy"),
        (ElementLoss::Squared, "squared"),
        (ElementLoss::Huber { delta: 1.5 }, "huber 1.5"),
        (ElementLoss::Huber { delta: 0.25 }, "huber 0.25"),
    ];
    for (i, (n, classes)) in SIZES.into_iter().enumerate() {
        let layout = Layout::Activation(Shape4::vector(n, classes));
        for (j, (loss, what)) in losses.into_iter().enumerate() {
            let of_labels = loss == ElementLoss::BinaryCrossEntropy;
            let outputs = [
                (Operand::uniform(layout, 0.0, 3.0), ""),
                (Operand::uniform(layout, -10.0, 190.0), " far"),
                (Operand::filled(layout, Fill::Ties), " ties"),
            ];
            for (k, (x, range)) in outputs.into_iter().enumerate() {
                let targets = match of_labels {
                    true if k == 0 => Operand::filled(layout, Fill::OneHot { classes, weight: 1.0 }),
                    true => Operand::uniform(layout, 0.5, 0.5),
                    false if k == 2 => Operand::uniform(layout, 0.25, 1.0),
                    false => Operand::uniform(layout, -1.0, 5.0),
                };
                // Weights with many exact zeros, and of one size.
                let weights = match (i + j + k) % 3 {
                    0 if n * classes > 2 => Operand::filled(layout, Fill::Clamped),
                    1 => Operand::uniform(layout, 0.37 / n as f64, 0.0),
                    _ => Operand::uniform(layout, 1.0, 0.5),
                };
                // A far loss is so large that hits beside it are not seen.
                let grad = (i + j + k) % 4 != 3 || k == 1;
                let call = ElementwiseLoss {
                    n,
                    classes,
                    loss,
                    x,
                    targets,
                    weights,
                    stats: Operand::result(plain(2), false),
                    grad: grad.then(|| Operand::result(layout, false)),
                };
                let flags = flags(&[(!grad, "without gradient")]);
                cases.push(case(format!("{what} {n}x{classes}{range}{flags}"), call, SUMS));
            }
        }
    }
}

fn elementwise_hits(cases: &mut Vec<Case>) {
    // Right; wrong in one; right in all that counts, the rest is no number; nothing known; on the edge.
    let x = vec![2.0, -1.0, 2.0, 1.0, -1.0, f32::NAN, 3.0, 3.0, 0.0, 1e-6];
    let targets = vec![1.0, 0.0, 1.0, 0.0, 0.5, f32::NAN, 1.0, 1.0, 0.0, 0.6];
    let weights = vec![1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0];
    for (loss, name) in [(ElementLoss::BinaryCrossEntropy, "hits"), (ElementLoss::Squared, "no hits")] {
        let call = ElementwiseLoss {
            n: 5,
            classes: 2,
            loss,
            x: Operand::filled(plain(10), Fill::Repeat(x.clone())),
            targets: Operand::filled(plain(10), Fill::Repeat(targets.clone())),
            weights: Operand::filled(plain(10), Fill::Repeat(weights.clone())),
            stats: Operand::result(plain(2), false),
            grad: Some(Operand::result(plain(10), false)),
        };
        cases.push(case(name, call, ROUNDING));
    }
}
