//! Matrix products and sums.

use defrost_tensor::call::{ChannelSum, Gemm, SumSquares};

use super::{Read, Write, apply, channel, target};

/// `c[i, j] = activation(Σ_p op(a)[i, p] · op(b)[p, j] + bias[j])`.
pub(super) fn gemm(call: Gemm<Read<'_>, Write<'_>>) {
    let Gemm { m, n, k, a, b, .. } = call;
    let c = target(call.c, m * n, call.accumulate);
    for i in 0..m {
        for j in 0..n {
            let a = |p: usize| if call.transpose_a { a[p * m + i] } else { a[i * k + p] };
            let b = |p: usize| if call.transpose_b { b[j * k + p] } else { b[p * n + j] };
            let product: f64 = (0..k).map(|p| a(p) * b(p)).sum();
            let bias = call.bias.map_or(0.0, |bias| bias[j]);
            c[i * n + j] = apply(call.activation, c[i * n + j] + product + bias);
        }
    }
}

pub(super) fn channel_sum(call: ChannelSum<Read<'_>, Write<'_>>) {
    let sum = target(call.sum, call.shape.c, call.accumulate);
    for (c, sum) in sum.iter_mut().enumerate() {
        *sum += channel(call.shape, c).map(|i| call.x[i]).sum::<f64>();
    }
}

pub(super) fn sum_squares(call: SumSquares<Read<'_>, Write<'_>>) {
    let sum = target(call.sum, 1, call.accumulate);
    sum[0] += call.x[..call.len].iter().map(|v| v * v).sum::<f64>();
}
