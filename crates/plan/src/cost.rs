//! What a call costs.

use defrost_tensor::Call;

/// Floating-point operations of a call: two a multiply-accumulate in convolutions and matrix products, padding counted
/// as work; everything else is counted as nothing beside them.
pub fn flops<R, W>(call: &Call<R, W>) -> u64 {
    2 * match call {
        Call::Conv2d(c) => c.desc.macs(c.input).unwrap_or(0),
        Call::Conv2dGradInput(c) => c.desc.macs(c.input).unwrap_or(0),
        Call::Conv2dGradWeight(c) => c.desc.macs(c.input).unwrap_or(0),
        Call::Gemm(c) => (c.m * c.n * c.k) as u64,
        _ => 0,
    }
}
