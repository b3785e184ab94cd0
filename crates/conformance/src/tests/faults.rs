//! One fault after the other in each kernel: the suite has to blame the kernel that has it, and no other.

use defrost_tensor::call::*;
use defrost_tensor::{Activation, Call, ElementLoss, Limit, Padding, PoolDesc, Shape4};

use super::broken::{Broken, Fault, blamed, is_small, right};
use crate::{cases, run_cases};

#[test]
fn every_fault_is_found_in_its_kernel() {
    let faults: [(&str, Fault); 51] = [
        ("conv2d", |call, r, w| match call {
            // The residual is dropped: what is left of the operands keeps its order.
            Call::Conv2d(mut c) => {
                if c.residual.take().is_some() {
                    r.pop();
                }
                right(c.into(), r, w);
            }
            _ => right(call, r, w),
        }),
        ("conv2d", |mut call, r, w| {
            if let Call::Conv2d(c) = &mut call {
                c.activation = Activation::Identity;
            }
            right(call, r, w);
        }),
        // TensorFlow's padding with the odd row above.
        ("conv2d", |mut call, r, w| {
            if let Call::Conv2d(c) = &mut call {
                let pads = c.desc.pads(c.input.h, c.input.w);
                if pads.top != pads.bottom {
                    shift_rows(&mut r[0], c.input);
                }
            }
            right(call, r, w);
        }),
        ("conv2d_grad_input", |mut call, r, w| {
            if let Call::Conv2dGradInput(c) = &mut call {
                c.accumulate = false;
            }
            right(call, r, w);
        }),
        ("conv2d_grad_input", |mut call, r, w| {
            if let Call::Conv2dGradInput(c) = &mut call {
                c.accumulate = true;
            }
            right(call, r, w);
        }),
        ("conv2d_grad_weight", |mut call, r, w| {
            if let Call::Conv2dGradWeight(c) = &mut call {
                c.accumulate = false;
            }
            right(call, r, w);
        }),
        // Padding that moves by one where the output's size does not show it.
        ("conv2d_grad_weight", |mut call, r, w| {
            if let Call::Conv2dGradWeight(c) = &mut call {
                let output = c.desc.output(c.input);
                if let Padding::Symmetric([v, h]) = c.desc.padding {
                    let off = c.desc.with_padding(Padding::Symmetric([v + 1, h]));
                    if off.output(c.input) == output {
                        c.desc = off;
                    }
                }
            }
            right(call, r, w);
        }),
        ("norm_train", |mut call, r, w| {
            if let Call::NormTrain(c) = &mut call {
                c.desc.running_variance = defrost_tensor::RunningVariance::Biased;
            }
            right(call, r, w);
        }),
        ("norm_train", |call, r, w| match call {
            Call::NormTrain(mut c) => {
                if c.residual.take().is_some() {
                    r.pop();
                }
                right(c.into(), r, w);
            }
            _ => right(call, r, w),
        }),
        // E[x²] - E[x]² in f32.
        ("norm_train", |call, r, w| {
            right(call, r, w);
            if let Call::NormTrain(c) = call {
                let m = c.shape.rows() as f32;
                for (ch, inv_std) in w[2].iter_mut().enumerate() {
                    let (mut sum, mut squares) = (0.0_f32, 0.0_f32);
                    for (i, &x) in r[0].iter().enumerate() {
                        if i / c.shape.area() % c.shape.c == ch {
                            sum += x as f32;
                            squares += (x * x) as f32;
                        }
                    }
                    let var = (squares / m - (sum / m).powi(2)).max(0.0);
                    *inv_std = (1.0 / (var + c.desc.eps).sqrt()).into();
                }
            }
        }),
        ("norm_train_grad", |mut call, r, w| {
            if let Call::NormTrainGrad(c) = &mut call {
                c.activation = Activation::Identity;
            }
            right(call, r, w);
        }),
        // The statistics taken as constants.
        ("norm_train_grad", |call, r, w| {
            right(call, r, w);
            if let Call::NormTrainGrad(c) = call
                && c.grad_in.is_some()
                && !c.accumulate
                && c.out.is_none()
            {
                for (i, grad) in w[0].iter_mut().enumerate() {
                    let ch = i / c.shape.area() % c.shape.c;
                    *grad = r[4][i] * r[1][ch] * r[3][ch];
                }
            }
        }),
        ("norm_train_grad", |mut call, r, w| {
            if let Call::NormTrainGrad(c) = &mut call {
                c.accumulate_params = c.accumulate;
            }
            right(call, r, w);
        }),
        // What was added gets all of the gradient, past the activation too.
        ("norm_train_grad", |call, r, w| {
            right(call, r, w);
            if let Call::NormTrainGrad(NormTrainGrad { grad_residual: Some(_), .. }) = call {
                w.last_mut().into_iter().flatten().zip(&r[4]).for_each(|(out, grad)| *out = *grad);
            }
        }),
        ("norm_eval", |mut call, r, w| {
            if let Call::NormEval(c) = &mut call {
                c.desc.eps *= 2.0;
            }
            right(call, r, w);
        }),
        // The residual past the activation.
        ("norm_eval", |call, r, w| match call {
            Call::NormEval(mut c) => {
                let residual = c.residual.take().and_then(|_| r.pop()).unwrap_or_default();
                right(c.into(), r, w);
                w[0].iter_mut().zip(&residual).for_each(|(out, v)| *out += v);
            }
            _ => right(call, r, w),
        }),
        ("norm_eval_grad", |mut call, r, w| {
            if let Call::NormEvalGrad(c) = &mut call {
                c.accumulate_params = false;
            }
            right(call, r, w);
        }),
        ("fold_norm", |call, r, w| match call {
            Call::FoldNorm(mut c) => {
                if c.bias.take().is_some() {
                    r.pop();
                }
                right(c.into(), r, w);
            }
            _ => right(call, r, w),
        }),
        ("activate", |mut call, r, w| {
            if let Call::Activate(c) = &mut call
                && c.activation == Activation::Relu6
            {
                c.activation = Activation::Relu;
            }
            right(call, r, w);
        }),
        // max(x, 0) of NaN is 0 on most machines.
        ("activate", |call, r, w| {
            right(call, r, w);
            if let Call::Activate(c) = call
                && c.activation == Activation::Relu
            {
                w[0].iter_mut().zip(&r[0]).for_each(|(out, x)| *out = x.max(0.0));
            }
        }),
        // A gradient that passes at the upper kink.
        ("activate_grad", |mut call, r, w| {
            if let Call::ActivateGrad(c) = &mut call
                && c.activation == Activation::Relu6
            {
                c.activation = Activation::Relu;
            }
            right(call, r, w);
        }),
        ("add", |mut call, r, w| {
            if let Call::Add(c) = &mut call {
                c.activation = Activation::Identity;
            }
            right(call, r, w);
        }),
        ("copy", |mut call, r, w| {
            if let Call::Copy(c) = &mut call {
                c.accumulate = false;
            }
            right(call, r, w);
        }),
        // Padding that counts as 0.
        ("max_pool", |call, r, w| {
            right(call, r, w);
            if let Call::MaxPool(MaxPool { desc: PoolDesc::Window { padding: [1, 1], .. }, .. }) = call {
                w[0].iter_mut().for_each(|v| *v = v.max(0.0));
            }
        }),
        // The last of equals.
        ("max_pool_grad", |call, r, w| {
            if let Call::MaxPoolGrad(c) = &call
                && !c.accumulate
            {
                r.iter_mut().for_each(|v| v.reverse());
                right(call, r, w);
                r.iter_mut().for_each(|v| v.reverse());
                w[0].reverse();
            } else {
                right(call, r, w);
            }
        }),
        // Padding that counts in the mean.
        ("avg_pool", |call, r, w| {
            right(call, r, w);
            if let Call::AvgPool(AvgPool { desc: PoolDesc::Window { padding: [1, 1], .. }, .. }) = call {
                w[0][0] *= 0.5;
            }
        }),
        ("avg_pool_grad", |mut call, r, w| {
            if let Call::AvgPoolGrad(c) = &mut call {
                c.accumulate = false;
            }
            right(call, r, w);
        }),
        ("gemm", |mut call, r, w| {
            if let Call::Gemm(c) = &mut call
                && c.m == c.k
            {
                c.transpose_a = !c.transpose_a;
            }
            if let Call::Gemm(c) = &mut call {
                c.activation = Activation::Identity;
            }
            right(call, r, w);
        }),
        ("channel_sum", |mut call, r, w| {
            if let Call::ChannelSum(c) = &mut call {
                c.shape.n = 1;
            }
            right(call, r, w);
        }),
        // The rows of a backend that stores `n, h, w, c`.
        ("flatten", |call, r, w| {
            right(call, r, w);
            if let Call::Flatten(c) = call {
                let s = c.input;
                for (i, out) in w[0].iter_mut().enumerate() {
                    let (n, rest) = (i / s.image_len(), i % s.image_len());
                    *out = r[0][n * s.image_len() + rest % s.c * s.area() + rest / s.c];
                }
            }
        }),
        ("unflatten", |mut call, r, w| {
            if let Call::Unflatten(c) = &mut call {
                c.accumulate = false;
            }
            right(call, r, w);
        }),
        ("dropout", |mut call, r, w| {
            if let Call::Dropout(c) = &mut call {
                c.layer = 0;
            }
            right(call, r, w);
        }),
        ("softmax_cross_entropy", |call, r, w| {
            right(call, r, w);
            if let Call::SoftmaxCrossEntropy(SoftmaxCrossEntropy { grad: Some(_), .. }) = call {
                let sum: f64 = r[1].iter().sum();
                w[1].iter_mut().for_each(|g| *g /= sum);
            }
        }),
        // Probability where the paper has what is left of it.
        ("softmax_cross_entropy", |mut call, r, w| {
            if let Call::SoftmaxCrossEntropy(c) = &mut call {
                c.gamma *= 0.5;
            }
            right(call, r, w);
        }),
        // Rows without a target that count as hits where the first class is largest.
        ("softmax_cross_entropy", |call, r, w| {
            right(call, r, w);
            if let Call::SoftmaxCrossEntropy(c) = call {
                let first = |row: &[f64]| row.iter().all(|v| *v <= row[0]);
                let rows = r[0].chunks(c.classes).zip(r[1].chunks(c.classes)).take(c.n);
                let bare = rows.filter(|(z, t)| t.iter().all(|t| *t == 0.0) && first(z));
                w[0][1] += bare.count() as f64;
            }
        }),
        ("elementwise_loss", |call, r, w| {
            r[2].iter_mut().for_each(|w| *w = if *w == 0.0 { 0.5 } else { *w });
            right(call, r, w);
        }),
        ("elementwise_loss", |mut call, r, w| {
            if let Call::ElementwiseLoss(c) = &mut call
                && c.loss == ElementLoss::Squared
            {
                c.loss = ElementLoss::Huber { delta: 1e9 };
            }
            right(call, r, w);
        }),
        ("elementwise_loss", |mut call, r, w| {
            if let Call::ElementwiseLoss(c) = &mut call
                && let ElementLoss::Huber { delta } = &mut c.loss
            {
                *delta *= 2.0;
            }
            right(call, r, w);
        }),
        // Hits by element instead of by row.
        ("elementwise_loss", |call, r, w| {
            right(call, r, w);
            if let Call::ElementwiseLoss(c) = call
                && c.loss == ElementLoss::BinaryCrossEntropy
            {
                let hit = |i: &usize| (r[0][*i] > 0.0) == (r[1][*i] > 0.5);
                w[0][1] = (0..c.n * c.classes).filter(hit).count() as f64;
            }
        }),
        ("copy_channels", |mut call, r, w| {
            if let Call::CopyChannels(c) = &mut call {
                c.accumulate = false;
            }
            right(call, r, w);
        }),
        // The target's other channels zeroed.
        ("copy_channels", |call, r, w| {
            if let Call::CopyChannels(c) = &call
                && !c.accumulate
            {
                w[0].fill(0.0);
            }
            right(call, r, w);
        }),
        ("sgd", |mut call, r, w| {
            if let Call::Sgd(c) = &mut call {
                c.nesterov = false;
            }
            right(call, r, w);
        }),
        ("adam", |mut call, r, w| {
            if let Call::Adam(c) = &mut call {
                c.decoupled = false;
            }
            right(call, r, w);
        }),
        ("rms_prop", |mut call, r, w| {
            if let Call::RmsProp(c) = &mut call {
                c.momentum = 0.0;
            }
            right(call, r, w);
        }),
        // The epsilon below the root.
        ("rms_prop", |mut call, r, w| {
            if let Call::RmsProp(c) = &mut call {
                c.eps = c.eps.sqrt();
            }
            right(call, r, w);
        }),
        // Bias correction left out.
        ("lamb", |mut call, r, w| {
            if let Call::Lamb(c) = &mut call {
                c.step = 1_000_000;
            }
            right(call, r, w);
        }),
        // What is not decayed is adapted too.
        ("lamb", |mut call, r, w| {
            if let Call::Lamb(c) = &mut call
                && c.weight_decay == 0.0
            {
                c.weight_decay = 1e-30;
            }
            right(call, r, w);
        }),
        // Scaled up where it is small.
        ("clip", |call, r, w| {
            if let Call::Clip(Clip { limit: Limit::Norm { max, eps }, .. }) = call {
                let factor = f64::from(max) / (r[0][0].sqrt() + f64::from(eps));
                w[0].iter_mut().for_each(|x| *x *= factor);
            } else {
                right(call, r, w);
            }
        }),
        ("clip", |call, r, w| {
            right(call, r, w);
            if let Call::Clip(Clip { limit: Limit::Value { max }, .. }) = call {
                w[0].iter_mut().for_each(|x| *x = x.min(max.into()));
            }
        }),
        ("lerp", |mut call, r, w| {
            if let Call::Lerp(c) = &mut call {
                c.weight = 1.0 - c.weight;
            }
            right(call, r, w);
        }),
        ("sum_squares", |mut call, r, w| {
            if let Call::SumSquares(c) = &mut call {
                c.accumulate = false;
            }
            right(call, r, w);
        }),
    ];
    let all: Vec<_> = cases().into_iter().filter(is_small).collect();
    for (i, (kernel, fault)) in faults.into_iter().enumerate() {
        let cases: Vec<_> = all.iter().filter(|c| c.call.name() == kernel).cloned().collect();
        let report = run_cases(&Broken::new(fault), &cases, 1.0, &[]);
        assert_eq!(blamed(&report), [kernel.to_string()].into(), "fault {i} of {kernel}: {report}");
    }
}

/// Moves the image down by one row.
fn shift_rows(x: &mut [f64], shape: Shape4) {
    for channel in x.chunks_mut(shape.area()) {
        channel.rotate_right(shape.w);
    }
}
