//! Losses of single outputs.

/// A loss of one output `x` against one target `t`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ElementLoss {
    /// Binary cross-entropy on a logit, `max(x, 0) - x · t + log(1 + exp(-|x|))` with the gradient `σ(x) - t` (PyTorch's
    /// `binary_cross_entropy_with_logits`). Targets are in `0 ..= 1`.
    BinaryCrossEntropy,
    /// `(x - t)²` (PyTorch's `mse_loss`).
    Squared,
    /// `½ (x - t)²` up to a distance of `delta`, beyond it `delta · (|x - t| - ½ delta)` (Huber 1964; PyTorch's
    /// `huber_loss`).
    Huber {
        /// Where the two meet; above 0.
        delta: f32,
    },
}
