//! Losses, each with its gradient.
//!
//! A loss is a sum. What makes a mean of it lies in its operands: in the targets of [`SoftmaxCrossEntropy`], in the
//! weights of [`ElementwiseLoss`].

use crate::ElementLoss;

call! {
    /// `stats = [Σ loss, hits]` with the focal loss `loss = -Σ_c t_c · (1 - p_c)^gamma · log p_c`, `p = softmax(z)` (Lin et
    /// al. 2017), which is cross-entropy where `gamma` is 0.
    ///
    /// With `a_c = t_c · (gamma · p_c · (1 - p_c)^(gamma - 1) · log p_c - (1 - p_c)^gamma)`, the gradient is
    /// `a - (Σ_c a_c) · p`; without `gamma` that is `(Σ_c t_c) · p - t`.
    ///
    /// Targets are rows of any weights: hard or soft labels, smoothing, class weights (the paper's alpha) and the division
    /// by the batch are in them; a weight of 0 contributes nothing, whatever the logit. A hit is a row whose largest logit
    /// (the first of equals) is where its target is largest; a row whose largest target is not above 0 has no right answer
    /// and is no hit.
    SoftmaxCrossEntropy {
        /// Rows.
        n: usize,
        /// Columns.
        classes: usize,
        /// The exponent of the focal loss, not negative; 0 for cross-entropy.
        gamma: f32,
        ;
        reads {
            /// `[n, classes]`.
            logits,
            /// `[n, classes]`.
            targets,
        };
        writes {
            /// Two numbers.
            stats,
        };
        may_write {
            /// `[n, classes]`.
            grad,
        }
    }
}

call! {
    /// `stats = [Σ w · loss(x, t), hits]` over all elements, and the gradient `w · loss'(x, t)`; see [`ElementLoss`].
    ///
    /// An element of weight 0 contributes nothing and has a gradient of 0, whatever its output and target: a label that is
    /// not known. Class weights, weights of samples and the division by the number of elements are in the weights.
    ///
    /// For binary cross-entropy a hit is a row with something of weight other than 0, all of which is right: the logit is
    /// above 0 exactly where the target is above ½. Numbers have no hits: it is 0.
    ElementwiseLoss {
        /// Rows.
        n: usize,
        /// Columns.
        classes: usize,
        /// The loss of an element.
        loss: ElementLoss,
        ;
        reads {
            /// The network's outputs, `[n, classes]`.
            x,
            /// `[n, classes]`.
            targets,
            /// `[n, classes]`.
            weights,
        };
        writes {
            /// Two numbers.
            stats,
        };
        may_write {
            /// `[n, classes]`.
            grad,
        }
    }
}
