//! Limits on gradients.

/// What a gradient may be at most.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// All gradients together: `x *= min(1, max / (√squares + eps))`. PyTorch's `clip_grad_norm_` has an `eps` of 1e-6, timm's
    /// LAMB none. A norm that is no number makes the gradients none either.
    Norm {
        /// The largest 2-norm.
        max: f32,
        /// Added to the norm.
        eps: f32,
    },
    /// Each value alone: into `-max ..= max` (PyTorch's `clip_grad_value_`).
    Value {
        /// The largest absolute value.
        max: f32,
    },
}
