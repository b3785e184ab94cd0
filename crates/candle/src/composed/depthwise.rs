//! Depthwise convolutions: a sum over the window's taps, each one product of a channel with a number. candle runs them one
//! channel at a time.

use candle_core::{DType, Result, Tensor};

use super::Composed;
use super::conv::Shapes;

/// The weight of a tap, for broadcasting.
fn weight_of(weight: &Tensor, [i, j]: [usize; 2]) -> Result<Tensor> {
    // `[c, 1, kh, kw]` to `[1, c, 1, 1]`.
    weight.narrow(2, i, 1)?.narrow(3, j, 1)?.transpose(0, 1)
}

impl Composed {
    /// Sums are f32 whatever the activations are.
    pub(super) fn depthwise(&self, shapes: &Shapes, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let padded = shapes.pad(&x.to_dtype(DType::F32)?)?;
        let term = |tap| self.tap(shapes, &padded, tap)?.broadcast_mul(&weight_of(weight, tap)?);
        sum(shapes, term)?.to_dtype(self.activations)
    }

    pub(super) fn depthwise_grad_input(
        &self,
        shapes: &Shapes,
        grad: &Tensor,
        weight: &Tensor,
    ) -> Result<Tensor> {
        let grad = grad.to_dtype(DType::F32)?;
        let term = |tap| self.untap(shapes, &grad.broadcast_mul(&weight_of(weight, tap)?)?, tap);
        shapes.unpad(&sum(shapes, term)?)?.to_dtype(self.gradients)
    }

    pub(super) fn depthwise_grad_weight(&self, shapes: &Shapes, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (padded, grad) = (shapes.pad(&x.to_dtype(DType::F32)?)?, grad.to_dtype(DType::F32)?);
        let one = |tap| (self.tap(shapes, &padded, tap)? * &grad)?.sum((0, 2, 3));
        let taps = shapes.taps().map(one).collect::<Result<Vec<_>>>()?;
        Tensor::stack(&taps, 1)
    }
}

fn sum(shapes: &Shapes, term: impl Fn([usize; 2]) -> Result<Tensor>) -> Result<Tensor> {
    let mut taps = shapes.taps();
    let first = term(taps.next().expect("a window has a tap"))?;
    taps.try_fold(first, |sum, tap| sum + term(tap)?)
}
