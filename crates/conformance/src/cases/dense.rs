//! Matrix products and sums.

use defrost_tensor::call::{ChannelSum, Gemm, SumSquares};
use defrost_tensor::{Activation, Layout, Shape4};

use super::{SUMS, case, dims, flags, named, plain};
use crate::{Case, Operand};

pub(super) fn push(cases: &mut Vec<Case>) {
    gemm(cases);
    reductions(cases);
}

fn gemm(cases: &mut Vec<Case>) {
    let sizes = [
        (1, 1, 1),
        (3, 5, 7),
        (1, 10, 512),
        (17, 33, 65),
        (5, 6, 1003),
        (64, 10, 512),
        (257, 130, 19),
        (2, 1000, 320),
        (31, 64, 1),
        (8, 1, 260),
    ];
    for (i, (m, n, k)) in sizes.into_iter().enumerate() {
        for (j, (transpose_a, transpose_b)) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            let epilogues = [
                (false, Activation::Identity, false),
                (true, Activation::Identity, false),
                (false, Activation::Identity, true),
                (true, Activation::Relu, false),
                (true, Activation::Relu6, false),
                (true, Activation::Identity, true),
            ];
            for (bias, activation, accumulate) in [epilogues[0], epilogues[1 + (i + j) % 5], epilogues[2]] {
                let name = format!("{m}x{n}x{k}")
                    + &flags(&[
                        (transpose_a, "a^T"),
                        (transpose_b, "b^T"),
                        (bias, "bias"),
                        (activation != Activation::Identity, &named(activation)),
                        (accumulate, "accumulate"),
                    ]);
                let call = Gemm {
                    m,
                    n,
                    k,
                    transpose_a,
                    transpose_b,
                    accumulate,
                    activation,
                    a: Operand::uniform(plain(m * k), 0.0, 2.0),
                    b: Operand::new(plain(k * n)),
                    bias: bias.then(|| Operand::uniform(plain(n), 1.0, 2.0)),
                    c: Operand::result(plain(m * n), accumulate),
                };
                if !cases.iter().any(|c| c.name == format!("gemm/{name}")) {
                    cases.push(case(name, call, SUMS));
                }
            }
        }
    }
    // A linear layer: the activation is a batch of vectors, whatever the backend makes of activations.
    for (n, c, classes) in [(5, 33, 10), (2, 1280, 7), (1, 19, 3)] {
        let (x, out) =
            (Layout::Activation(Shape4::vector(n, c)), Layout::Activation(Shape4::vector(n, classes)));
        let linear = Gemm {
            m: n,
            n: classes,
            k: c,
            transpose_a: false,
            transpose_b: true,
            accumulate: false,
            activation: Activation::Identity,
            a: Operand::new(x),
            b: Operand::new(plain(classes * c)),
            bias: Some(Operand::new(plain(classes))),
            c: Operand::result(out, false),
        };
        let name = format!("linear {c}->{classes} on {n}");
        cases.push(case(&name, linear, SUMS));
        for accumulate in [false, true] {
            let name = format!("{name}{}", flags(&[(accumulate, "accumulate")]));
            let grad_input = Gemm {
                m: n,
                n: c,
                k: classes,
                transpose_a: false,
                transpose_b: false,
                accumulate,
                activation: Activation::Identity,
                a: Operand::new(out),
                b: Operand::new(plain(classes * c)),
                bias: None,
                c: Operand::result(x, accumulate),
            };
            cases.push(case(format!("grad input of {name}"), grad_input, SUMS));
            let grad_weight = Gemm {
                m: classes,
                n: c,
                k: n,
                transpose_a: true,
                transpose_b: false,
                accumulate,
                activation: Activation::Identity,
                a: Operand::new(out),
                b: Operand::new(x),
                bias: None,
                c: Operand::result(plain(classes * c), accumulate),
            };
            cases.push(case(format!("grad weight of {name}"), grad_weight, SUMS));
        }
    }
}

fn reductions(cases: &mut Vec<Case>) {
    let shapes = [
        Shape4::new(1, 1, 1, 1),
        Shape4::new(2, 19, 3, 5),
        Shape4::vector(5, 33),
        Shape4::new(1, 257, 2, 2),
        Shape4::new(3, 16, 23, 29),
        Shape4::new(2, 8, 101, 7),
    ];
    for accumulate in [false, true] {
        let flag = flags(&[(accumulate, "accumulate")]);
        for shape in shapes {
            let x = Operand::uniform(Layout::Activation(shape), 0.1, 1.0);
            let sum = Operand::result(plain(shape.c), accumulate);
            cases.push(case(dims(shape) + &flag, ChannelSum { shape, accumulate, x, sum }, SUMS));
        }
        for layout in [
            plain(1),
            plain(7),
            plain(1003),
            plain(100_000),
            Layout::ConvWeight([33, 19, 3, 3]),
            Layout::ConvWeight([33, 1, 3, 3]),
        ] {
            let len = layout.len();
            let (x, sum) = (Operand::new(layout), Operand::result(plain(1), accumulate));
            let name =
                format!("{len}{}{flag}", flags(&[(matches!(layout, Layout::ConvWeight(_)), "conv weight")]));
            cases.push(case(name, SumSquares { len, accumulate, x, sum }, SUMS));
        }
    }
}
