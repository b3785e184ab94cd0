//! The suite: every case.

mod conv;
mod dense;
mod elementwise;
mod loss;
mod norm;
mod optim;
mod pool;

use std::fmt::Display;

use defrost_tensor::{Activation, Call, Layout, Shape4};

#[cfg(test)]
pub(crate) use conv::problems as conv_problems;
#[cfg(test)]
pub(crate) use pool::problems as pool_problems;

use crate::{Case, Operand};

/// What rounding costs where each result takes a few operations.
const ROUNDING: f64 = 1e-6;
/// What it costs in sums of up to some ten thousand products.
const SUMS: f64 = 1e-5;

/// All cases, grouped by kernel. Shapes are chosen to hit what kernels treat apart: channels that no vector width
/// divides, rows beyond a block, one pixel, one image, odd sizes, windows that hang over the edge.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    conv::push(&mut cases);
    norm::push(&mut cases);
    pool::push(&mut cases);
    dense::push(&mut cases);
    loss::push(&mut cases);
    elementwise::push(&mut cases);
    optim::push(&mut cases);
    cases
}

fn case(name: impl Display, call: impl Into<Call<Operand, Operand>>, tolerance: f64) -> Case {
    let call = call.into();
    Case { name: format!("{}/{name}", call.name()), call, tolerance }
}

fn plain(len: usize) -> Layout {
    Layout::Plain(len)
}

/// The suffix of a case's name: what its flags add.
fn flags(pairs: &[(bool, &str)]) -> String {
    pairs.iter().filter(|(on, _)| *on).map(|(_, name)| format!(" {name}")).collect()
}

fn named(activation: Activation) -> String {
    format!("{activation:?}").to_lowercase()
}

fn dims(s: Shape4) -> String {
    format!("{}x{}x{}x{}", s.n, s.c, s.h, s.w)
}

const ACTIVATIONS: [Activation; 3] = [Activation::Identity, Activation::Relu, Activation::Relu6];
