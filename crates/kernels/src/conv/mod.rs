//! Convolutions: forward, and the gradients of input and weights.
//!
//! Forward and input gradient are the same thing here, a *gather*: each position of the target sums products of source
//! positions and weights. The input gradient with stride `s` is `s · s` gathers, one for each remainder of the position,
//! each with the taps that reach it; so no position is visited for nothing and nothing is scattered.

mod dense;
mod depthwise;
mod gather;
mod narrow;
#[cfg(test)]
mod tests;
mod weight;
mod winograd;

use defrost_tensor::{Activation, ConvDesc, ConvKind, Pads, Shape4, ShapeError};

use crate::Threads;
use gather::Gather;
use narrow::Narrow;
use winograd::Plane;

/// Which algorithms a convolution may use.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Algorithm {
    /// The fastest: Winograd's for 3×3 windows at stride 1, whose results are off by up to about 10⁻⁵ of the largest.
    #[default]
    Auto,
    /// Sums of products as the definition has them.
    Direct,
}

/// A convolution with the shapes of its input and output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvShape {
    desc: ConvDesc,
    input: Shape4,
    output: Shape4,
    pads: Pads,
    algorithm: Algorithm,
    half: bool,
}

impl ConvShape {
    /// `desc` over an input of shape `input`.
    ///
    /// # Errors
    /// As [`ConvDesc::output`].
    pub fn new(desc: ConvDesc, input: Shape4) -> Result<Self, ShapeError> {
        let (output, pads) = (desc.output(input)?, desc.pads(input.h, input.w));
        Ok(Self { desc, input, output, pads, algorithm: Algorithm::default(), half: false })
    }

    /// The same convolution by other algorithms.
    pub fn with_algorithm(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// The same convolution with the operands of its products rounded to bfloat16 (its sums stay f32), forward and for both
    /// gradients, where the machine has such products and the convolution is no Winograd's nor depthwise.
    pub fn with_half(self, half: bool) -> Self {
        Self { half, ..self }
    }

    /// Whether sums over this many channels are of rounded products.
    fn halves(&self, channels: usize) -> bool {
        self.half && self.desc.groups == 1 && channels.is_multiple_of(2)
    }

    /// The output's shape.
    pub fn output(&self) -> Shape4 {
        self.output
    }

    fn weight_len(&self) -> usize {
        self.desc.fan_in() * self.desc.out_channels
    }

    fn depthwise(&self) -> bool {
        self.desc.kind() == ConvKind::Depthwise
    }
}

/// What happens to a convolution's sums before they are stored: `activation(sum + bias + residual)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One value an output channel.
    pub bias: Option<&'a [f32]>,
    /// As the output.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

/// The values between which an activation keeps its argument: all activations so far are clamps.
pub(crate) fn bounds(activation: Activation) -> (f32, f32) {
    match activation {
        Activation::Relu => (0.0, f32::INFINITY),
        Activation::Relu6 => (0.0, 6.0),
        _ => (f32::NEG_INFINITY, f32::INFINITY),
    }
}

/// Floats of workspace that [`forward`] needs.
pub fn forward_workspace(threads: &Threads, shape: &ConvShape) -> usize {
    if let Some(plane) = Plane::forward(shape) {
        return winograd::workspace(threads, &plane);
    }
    match Narrow::new(shape) {
        _ if shape.depthwise() => 0,
        Some(narrow) => narrow.len() + dense::workspace(threads, &Gather::narrow(shape, &narrow)),
        None => dense::workspace(threads, &Gather::forward(shape)),
    }
}

/// `out = activation(conv(x, weight) + bias + residual)`.
///
/// # Panics
/// Where a slice has another length than its shape says.
pub fn forward(
    threads: &Threads,
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    epilogue: &Epilogue<'_>,
    out: &mut [f32],
    workspace: &mut [f32],
) {
    assert_eq!((x.len(), weight.len()), (shape.input.len(), shape.weight_len()), "input and weights");
    assert_eq!(out.len(), shape.output.len(), "output");
    assert!(epilogue.bias.is_none_or(|b| b.len() == shape.output.c), "bias");
    assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual");
    if let Some(plane) = Plane::forward(shape) {
        winograd::run(threads, &plane, x, weight, epilogue, false, out, workspace);
    } else if shape.depthwise() {
        depthwise::run(threads, &Gather::forward(shape), x, weight, epilogue, false, out);
    } else if let Some(narrow) = Narrow::new(shape) {
        let (padded, workspace) = workspace.split_at_mut(narrow.len());
        narrow.pad(threads, shape, x, padded);
        let gather = Gather::narrow(shape, &narrow);
        dense::run(threads, &gather, padded, weight, epilogue, false, out, workspace);
    } else {
        dense::run(threads, &Gather::forward(shape), x, weight, epilogue, false, out, workspace);
    }
}

/// Floats of workspace that [`grad_input`] needs.
pub fn grad_input_workspace(threads: &Threads, shape: &ConvShape) -> usize {
    match Plane::grad_input(shape) {
        Some(plane) => winograd::workspace(threads, &plane),
        None if shape.depthwise() => 0,
        None => dense::workspace(threads, &Gather::grad_input(shape)),
    }
}

/// The gradient with respect to the input; added to `grad_in` where `accumulate`.
///
/// # Panics
/// Where a slice has another length than its shape says.
pub fn grad_input(
    threads: &Threads,
    shape: &ConvShape,
    grad_out: &[f32],
    weight: &[f32],
    accumulate: bool,
    grad_in: &mut [f32],
    workspace: &mut [f32],
) {
    assert_eq!(
        (grad_out.len(), weight.len()),
        (shape.output.len(), shape.weight_len()),
        "gradient and weights"
    );
    assert_eq!(grad_in.len(), shape.input.len(), "input gradient");
    let none = Epilogue::default();
    if let Some(plane) = Plane::grad_input(shape) {
        return winograd::run(threads, &plane, grad_out, weight, &none, accumulate, grad_in, workspace);
    }
    let gather = Gather::grad_input(shape);
    if shape.depthwise() {
        depthwise::run(threads, &gather, grad_out, weight, &none, accumulate, grad_in);
    } else {
        dense::run(threads, &gather, grad_out, weight, &none, accumulate, grad_in, workspace);
    }
}

/// Floats of workspace that [`grad_weight`] needs.
pub fn grad_weight_workspace(threads: &Threads, shape: &ConvShape) -> usize {
    match Plane::forward(shape) {
        Some(plane) => winograd::weight_workspace(threads, &plane),
        None if shape.depthwise() => depthwise::grad_weight_workspace(shape),
        None => weight::workspace(threads, shape),
    }
}

/// The gradient with respect to the weights; added to `grad_weight` where `accumulate`.
///
/// # Panics
/// Where a slice has another length than its shape says.
pub fn grad_weight(
    threads: &Threads,
    shape: &ConvShape,
    x: &[f32],
    grad_out: &[f32],
    accumulate: bool,
    grad_weight: &mut [f32],
    workspace: &mut [f32],
) {
    assert_eq!((x.len(), grad_out.len()), (shape.input.len(), shape.output.len()), "input and gradient");
    assert_eq!(grad_weight.len(), shape.weight_len(), "weight gradient");
    if let Some(plane) = Plane::forward(shape) {
        winograd::run_weight(threads, &plane, x, grad_out, accumulate, grad_weight, workspace);
    } else if shape.depthwise() {
        depthwise::grad_weight(threads, shape, x, grad_out, accumulate, grad_weight, workspace);
    } else {
        weight::run(threads, shape, x, grad_out, accumulate, grad_weight, workspace);
    }
}
