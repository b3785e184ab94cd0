//! Matrix products, reductions and the loss.

use defrost_tensor::call::{ChannelSum, Gemm, SoftmaxCrossEntropy, SumSquares};

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

/// PyTorch's `cross_entropy` with probabilities as targets and `reduction="sum"`:
/// `log softmax(z) = z - max z - log Σ exp(z - max z)`.
pub(super) fn softmax_cross_entropy(call: SoftmaxCrossEntropy<Read<'_>, Write<'_>>) {
    let SoftmaxCrossEntropy { n, classes, mut grad, .. } = call;
    let (mut loss, mut hits) = (0.0, 0.0);
    for row in (0..n).map(|i| i * classes..(i + 1) * classes) {
        let (logits, targets) = (&call.logits[row.clone()], &call.targets[row.clone()]);
        let max = logits[first_largest(logits)];
        let log_sum = logits.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
        let weight: f64 = targets.iter().sum();
        for (c, i) in row.enumerate() {
            let log_softmax = logits[c] - max - log_sum;
            loss -= targets[c] * log_softmax;
            if let Some(grad) = &mut grad {
                grad[i] = weight * log_softmax.exp() - targets[c];
            }
        }
        if first_largest(logits) == first_largest(targets) {
            hits += 1.0;
        }
    }
    call.stats[..2].copy_from_slice(&[loss, hits]);
}

fn first_largest(row: &[f64]) -> usize {
    (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best }).unwrap_or(0)
}
