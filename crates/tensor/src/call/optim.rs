//! Optimizer steps, and what is done to gradients before and to weights after them.

use crate::Limit;

call! {
    /// PyTorch's SGD: `g = grad + weight_decay · p`, `v = momentum · v + g`, `p -= lr · (nesterov ? g + momentum · v : v)`.
    Sgd {
        /// Elements.
        len: usize,
        /// Learning rate.
        lr: f32,
        /// Momentum; 0 for none, then `velocity` may be absent.
        momentum: f32,
        /// L2 penalty.
        weight_decay: f32,
        /// Nesterov's variant.
        nesterov: bool,
        ;
        reads {
            /// The gradient.
            grad,
        };
        writes {
            /// The parameter.
            param,
        };
        may_write {
            /// The momentum buffer.
            velocity,
        }
    }
}

call! {
    /// Adam (Kingma and Ba 2015) with bias correction as in PyTorch; AdamW (Loshchilov and Hutter 2019) where `decoupled`.
    Adam {
        /// Elements.
        len: usize,
        /// Learning rate.
        lr: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// Weight decay.
        weight_decay: f32,
        /// `p *= 1 - lr · weight_decay` before the step, instead of `grad += weight_decay · p`.
        decoupled: bool,
        /// This step's number, from 1.
        step: u32,
        ;
        reads {
            /// The gradient.
            grad,
        };
        writes {
            /// The parameter.
            param,
            /// First moment.
            first,
            /// Second moment.
            second,
        }
    }
}

call! {
    /// PyTorch's RMSprop (Tieleman and Hinton 2012; centred: Graves 2013): `g = grad + weight_decay · p`,
    /// `s = alpha · s + (1 - alpha) · g²`, `d = √s + eps`, `p -= lr · g / d`.
    ///
    /// With `mean`, `mean = alpha · mean + (1 - alpha) · g` and `d = √max(s - mean², 0) + eps` (PyTorch takes the root of
    /// what rounding makes negative). With `velocity`, `v = momentum · v + g / d` and `p -= lr · v`.
    RmsProp {
        /// Elements.
        len: usize,
        /// Learning rate.
        lr: f32,
        /// Smoothing of the squared gradient.
        alpha: f32,
        /// Added to the root.
        eps: f32,
        /// Momentum; read only with `velocity`.
        momentum: f32,
        /// L2 penalty.
        weight_decay: f32,
        ;
        reads {
            /// The gradient.
            grad,
        };
        writes {
            /// The parameter.
            param,
            /// The squared gradient's average.
            square,
        };
        may_write {
            /// The momentum buffer, where there is momentum.
            velocity,
            /// The gradient's average, where the variance is used instead of the square.
            mean,
        }
    }
}

call! {
    /// LAMB (You et al. 2020) as in timm: Adam's step for one layer, scaled to the layer's weights.
    ///
    /// `m = beta1 · m + (1 - beta1) · grad`, `v = beta2 · v + (1 - beta2) · grad²`,
    /// `u = (m / (1 - beta1^step)) / (√(v / (1 - beta2^step)) + eps) + weight_decay · p`, `p -= lr · r · u`. The trust ratio
    /// `r` is `‖p‖ / ‖u‖`, but 1 where either is 0 and where `weight_decay` is 0 (what is not decayed is not adapted).
    /// timm's clipping by `max_grad_norm` is a [`Clip`] of all gradients before.
    Lamb {
        /// Elements.
        len: usize,
        /// Learning rate.
        lr: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// Weight decay, part of what is scaled.
        weight_decay: f32,
        /// This step's number, from 1.
        step: u32,
        ;
        reads {
            /// The gradient.
            grad,
        };
        writes {
            /// The parameter.
            param,
            /// First moment.
            first,
            /// Second moment.
            second,
            /// Two numbers, `‖p‖²` before the step and `‖u‖²`: room for a device that needs several passes.
            squares,
        }
    }
}

call! {
    /// Limits a gradient in place. NaN stays.
    Clip {
        /// Elements.
        len: usize,
        /// How.
        limit: Limit,
        ;
        may_read {
            /// `Σ x²` over all that is limited together, from [`SumSquares`](super::SumSquares): given for a norm.
            squares,
        };
        writes {
            /// What is limited.
            x,
        }
    }
}

call! {
    /// `out += weight · (x - out)`: a moving average of weights.
    Lerp {
        /// Elements.
        len: usize,
        /// What `x` counts.
        weight: f32,
        ;
        reads {
            /// The new values.
            x,
        };
        writes {
            /// The average.
            out,
        }
    }
}
