//! Optimizers as data; the backends hold the steps.

use serde::{Deserialize, Deserializer, Serialize};

use crate::short::tagged;

/// The optimizer of a phase: `optimizer = "adam"` or `optimizer = { kind = "sgd", momentum = 0.9 }`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adam (Kingma and Ba 2015), weight decay as part of the gradient.
    Adam(Adam),
    /// AdamW (Loshchilov and Hutter 2019), weight decay decoupled: `p *= 1 - lr * decay`. The default.
    #[serde(rename = "adamw")]
    AdamW(AdamW),
    /// RMSprop (Tieleman and Hinton 2012), PyTorch's form.
    #[serde(rename = "rmsprop")]
    RmsProp(RmsProp),
    /// LAMB (You et al. 2020): AdamW with each layer's step scaled to its weights.
    Lamb(Lamb),
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::AdamW(AdamW::default())
    }
}

impl Optimizer {
    /// The name as written in a recipe.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sgd(_) => "sgd",
            Self::Adam(_) => "adam",
            Self::AdamW(_) => "adamw",
            Self::RmsProp(_) => "rmsprop",
            Self::Lamb(_) => "lamb",
        }
    }

    /// Weight decay of the parameters that are decayed.
    pub const fn weight_decay(&self) -> f64 {
        match self {
            Self::Sgd(o) => o.weight_decay,
            Self::Adam(o) => o.weight_decay,
            Self::AdamW(o) => o.weight_decay,
            Self::RmsProp(o) => o.weight_decay,
            Self::Lamb(o) => o.weight_decay,
        }
    }

    /// Whether normalisations and biases are decayed too.
    pub const fn decay_norm_and_bias(&self) -> bool {
        match self {
            Self::Sgd(o) => o.decay_norm_and_bias,
            Self::Adam(o) => o.decay_norm_and_bias,
            Self::AdamW(o) => o.decay_norm_and_bias,
            Self::RmsProp(o) => o.decay_norm_and_bias,
            Self::Lamb(o) => o.decay_norm_and_bias,
        }
    }

    /// Whether it has a momentum (Adam's first beta counts) that a schedule can change.
    pub const fn momentum(&self) -> f64 {
        match self {
            Self::Sgd(o) => o.momentum,
            Self::Adam(o) => o.betas[0],
            Self::AdamW(o) => o.betas[0],
            Self::RmsProp(o) => o.momentum,
            Self::Lamb(o) => o.betas[0],
        }
    }
}

pub(crate) fn optimizer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Optimizer, D::Error> {
    tagged(deserializer, "adamw")
}

/// Stochastic gradient descent with momentum (PyTorch's form: `v = momentum v + g`, `p -= lr v`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// Momentum, 0 for none.
    pub momentum: f64,
    /// Nesterov's: the step looks ahead, `p -= lr (g + momentum v)`.
    pub nesterov: bool,
    /// Added to the gradient, `g + decay p`.
    pub weight_decay: f64,
    /// Whether normalisations and biases are decayed too.
    pub decay_norm_and_bias: bool,
}

impl Default for Sgd {
    /// Momentum 0.9, no decay.
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: false, weight_decay: 0.0, decay_norm_and_bias: false }
    }
}

/// Parameters of [`Optimizer::Adam`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Added to the gradient, `g + decay p`.
    pub weight_decay: f64,
    /// Whether normalisations and biases are decayed too.
    pub decay_norm_and_bias: bool,
}

impl Default for Adam {
    /// 0.9, 0.999, 1e-8, no decay (PyTorch, Lasagne; Keras has eps 1e-7).
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, decay_norm_and_bias: false }
    }
}

/// Parameters of [`Optimizer::AdamW`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled: `p *= 1 - lr * decay`.
    pub weight_decay: f64,
    /// Whether normalisations and biases are decayed too.
    pub decay_norm_and_bias: bool,
}

impl Default for AdamW {
    /// 0.9, 0.999, 1e-8, decay 0.01 (PyTorch).
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, decay_norm_and_bias: false }
    }
}

/// Parameters of [`Optimizer::RmsProp`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RmsProp {
    /// Smoothing of the squared gradient.
    pub alpha: f64,
    /// Added to its root.
    pub eps: f64,
    /// Momentum, 0 for none.
    pub momentum: f64,
    /// Whether the variance (squared gradient less squared mean) is used.
    pub centered: bool,
    /// Added to the gradient, `g + decay p`.
    pub weight_decay: f64,
    /// Whether normalisations and biases are decayed too.
    pub decay_norm_and_bias: bool,
}

impl Default for RmsProp {
    /// 0.99, 1e-8, no momentum, no decay (PyTorch).
    fn default() -> Self {
        Self {
            alpha: 0.99,
            eps: 1e-8,
            momentum: 0.0,
            centered: false,
            weight_decay: 0.0,
            decay_norm_and_bias: false,
        }
    }
}

/// Parameters of [`Optimizer::Lamb`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lamb {
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Added to the step before it is scaled.
    pub weight_decay: f64,
    /// Norm to which all gradients together are scaled down before the step; 0 for none.
    pub max_grad_norm: f64,
    /// Whether normalisations and biases are decayed too.
    pub decay_norm_and_bias: bool,
}

impl Default for Lamb {
    /// 0.9, 0.999, 1e-6, decay 0.01, gradients to a norm of 1 (timm).
    fn default() -> Self {
        Self {
            betas: [0.9, 0.999],
            eps: 1e-6,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            decay_norm_and_bias: false,
        }
    }
}

/// Limits on gradients, applied before the step: `clip = { norm = 1.0 }` or `clip = { value = 0.5 }`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Clip {
    /// All gradients are scaled together if their 2-norm is greater (PyTorch's `clip_grad_norm_`).
    Norm(f64),
    /// Each value is cut to this range on either side.
    Value(f64),
}
