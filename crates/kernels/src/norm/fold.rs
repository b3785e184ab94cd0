//! Folding of a normalisation into the convolution before it.

use defrost_tensor::NormDesc;

use super::{Affine, inv_std};

/// The operands of [`fold`], one value an output channel.
#[derive(Clone, Copy, Debug)]
pub struct Folded<'a> {
    /// The normalisation's scale and shift.
    pub affine: Affine<'a>,
    /// Running mean.
    pub running_mean: &'a [f32],
    /// Running variance.
    pub running_var: &'a [f32],
    /// The convolution's bias.
    pub bias: Option<&'a [f32]>,
}

/// Folds a normalisation by running statistics into the weights (output channels innermost) and bias of the convolution
/// before it: `s = norm_weight / sqrt(var + eps)`, `s · weight` and `norm_bias + s · (bias - mean)`.
///
/// # Panics
/// Where a slice has another length than the others say.
pub fn fold(
    desc: &NormDesc,
    weight: &[f32],
    norm: &Folded<'_>,
    folded_weight: &mut [f32],
    folded_bias: &mut [f32],
) {
    let c = desc.channels;
    assert_eq!((weight.len(), weight.len() % c), (folded_weight.len(), 0), "weights");
    assert_eq!((folded_bias.len(), norm.running_mean.len(), norm.running_var.len()), (c, c, c), "statistics");
    // The bias holds the scales first, and its own values once the weights are done.
    for (i, scale) in folded_bias.iter_mut().enumerate() {
        *scale = norm.affine.weight[i] * inv_std(desc, norm.running_var[i]);
    }
    for (out, w) in folded_weight.chunks_exact_mut(c).zip(weight.chunks_exact(c)) {
        for i in 0..c {
            out[i] = w[i] * folded_bias[i];
        }
    }
    for (i, b) in folded_bias.iter_mut().enumerate() {
        let centred = norm.bias.map_or(0.0, |b| b[i]) - norm.running_mean[i];
        *b = (f64::from(*b) * f64::from(centred) + f64::from(norm.affine.bias[i])) as f32;
    }
}
