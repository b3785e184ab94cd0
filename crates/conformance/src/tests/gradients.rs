//! Finite differences: each gradient of the oracle against its function, in f64.

use defrost_tensor::call::*;
use defrost_tensor::{Activation, ElementLoss, Kernels, NormDesc, PoolDesc, RunningVariance, Shape4};

use crate::cases::{conv_problems, pool_problems};
use crate::{Oracle, det_f64};

const RELU6: Activation = Activation::Relu6;

/// Checks `grad` against central differences of `f` at `x`: all elements of a small `x`, else about fifty of them.
fn check(what: &str, x: &[f64], grad: &[f64], f: impl Fn(&Vec<f64>) -> f64) {
    assert_eq!(x.len(), grad.len(), "{what}");
    let size = grad.iter().fold(1e-3_f64, |m, g| m.max(g.abs()));
    // The step balances the formula's error (h²) and the cancellation's (1e-16 / h).
    let h = 3e-6;
    let mut x = x.to_vec();
    for i in (0..x.len()).step_by((x.len() / 50).max(1)) {
        let there = x[i];
        x[i] = there + h;
        let above = f(&x);
        x[i] = there - h;
        let below = f(&x);
        x[i] = there;
        let difference = (above - below) / (2.0 * h);
        let error = (grad[i] - difference).abs() / size;
        assert!(error < 1e-6, "{what} [{i}]: the gradient is {}, the difference {difference}", grad[i]);
    }
}

fn numbers(name: &str, len: usize) -> Vec<f64> {
    det_f64(name, len, 0.0, 1.0)
}

fn around(name: &str, len: usize, centre: f64, bound: f64) -> Vec<f64> {
    det_f64(name, len, centre, bound)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What `run` writes into `len` elements.
fn written(len: usize, run: impl FnOnce(&mut Vec<f64>)) -> Vec<f64> {
    let mut out = vec![f64::NAN; len];
    run(&mut out);
    out
}

#[test]
fn convolutions() {
    for (desc, input) in conv_problems() {
        let output = desc.output(input).unwrap();
        let weights = desc.weight_shape().iter().product();
        if desc.macs(input).unwrap() > 200_000 {
            continue;
        }
        let (x, w, g) = (numbers("x", input.len()), numbers("w", weights), numbers("g", output.len()));
        let f = |x: &Vec<f64>, w: &Vec<f64>| {
            let out = written(output.len(), |out| {
                let activation = Activation::Identity;
                let (weight, bias, residual) = (w, None, None);
                Oracle.conv2d(Conv2d { desc, input, activation, x, weight, bias, residual, out }).unwrap();
            });
            dot(&out, &g)
        };
        let accumulate = false;
        let grad_x = written(input.len(), |grad_in| {
            let call = Conv2dGradInput { desc, input, accumulate, grad_out: &g, weight: &w, grad_in };
            Oracle.conv2d_grad_input(call).unwrap();
        });
        let grad_w = written(weights, |grad_weight| {
            let call = Conv2dGradWeight { desc, input, accumulate, x: &x, grad_out: &g, grad_weight };
            Oracle.conv2d_grad_weight(call).unwrap();
        });
        check(&format!("{desc:?} input"), &x, &grad_x, |x| f(x, &w));
        check(&format!("{desc:?} weight"), &w, &grad_w, |w| f(&x, w));
    }
}

#[test]
fn a_convolution_by_hand() {
    // A 2×2 window over a 2×3 image, one row of padding below (SAME): the weights and the bias can be read off.
    let desc = defrost_tensor::ConvDesc::new(1, 1, 2, 1, 0).with_padding(defrost_tensor::Padding::Same);
    let input = Shape4::new(1, 1, 2, 3);
    let (x, weight, bias) = (vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], vec![1.0, 10.0, 100.0, 1000.0], vec![0.5]);
    let residual = vec![0.0, 0.0, 0.0, 0.0, 0.0, -7.0];
    let out = written(6, |out| {
        let call = Conv2d {
            desc,
            input,
            activation: Activation::Relu,
            x: &x,
            weight: &weight,
            bias: Some(&bias),
            residual: Some(&residual),
            out,
        };
        Oracle.conv2d(call).unwrap();
    });
    assert_eq!(out, [5421.5, 6532.5, 603.5, 54.5, 65.5, 0.0]);
}

#[test]
fn batch_norm_with_batch_statistics() {
    let shape = Shape4::new(3, 4, 2, 5);
    let other = around("norm residual", shape.len(), 0.5, 2.0);
    let ways = [Activation::Identity, Activation::Relu, RELU6].map(|a| [(a, None), (a, Some(&other))]);
    for (activation, residual) in ways.into_iter().flatten() {
        let desc = NormDesc::torch(4);
        let x = around("norm x", shape.len(), 2.0, 3.0);
        let (w, b, g) =
            (around("norm w", 4, 2.0, 1.0), around("norm b", 4, 3.0, 1.0), numbers("g", shape.len()));
        let forward = |x: &Vec<f64>, w: &Vec<f64>, b: &Vec<f64>, residual: Option<&Vec<f64>>| {
            let (mut mean, mut inv_std) = (vec![0.0; 4], vec![0.0; 4]);
            let out = written(shape.len(), |out| {
                let call = NormTrain {
                    desc,
                    shape,
                    activation,
                    x,
                    weight: w,
                    bias: b,
                    residual,
                    out,
                    mean: &mut mean,
                    inv_std: &mut inv_std,
                    running_mean: None,
                    running_var: None,
                };
                Oracle.norm_train(call).unwrap();
            });
            (out, mean, inv_std)
        };
        let f = |x: &Vec<f64>, w: &Vec<f64>, b: &Vec<f64>| dot(&forward(x, w, b, residual).0, &g);
        let (out, mean, inv_std) = forward(&x, &w, &b, residual);
        let mut grad_residual = vec![9.0; shape.len()];
        let (mut grad_in, mut grad_weight, mut grad_bias) =
            (vec![9.0; shape.len()], vec![9.0; 4], vec![9.0; 4]);
        let call = NormTrainGrad {
            desc,
            shape,
            activation,
            accumulate: false,
            accumulate_params: false,
            x: &x,
            weight: &w,
            mean: &mean,
            inv_std: &inv_std,
            grad_out: &g,
            bias: None,
            out: (activation != Activation::Identity).then_some(&out),
            grad_in: Some(&mut grad_in),
            grad_weight: Some(&mut grad_weight),
            grad_bias: Some(&mut grad_bias),
            grad_residual: Some(&mut grad_residual),
        };
        Oracle.norm_train_grad(call).unwrap();
        if let Some(residual) = residual {
            check("norm residual", residual, &grad_residual, |r| dot(&forward(&x, &w, &b, Some(r)).0, &g));
        }
        check("norm input", &x, &grad_in, |x| f(x, &w, &b));
        check("norm weight", &w, &grad_weight, |w| f(&x, w, &b));
        check("norm bias", &b, &grad_bias, |b| f(&x, &w, b));
    }
}

#[test]
fn running_statistics_take_in_the_batch() {
    // Numbers 1 to 4: mean 2.5, variance 1.25 biased and 5/3 unbiased.
    let x = vec![1.0, 2.0, 3.0, 4.0];
    for (running_variance, var) in [(RunningVariance::Biased, 1.25), (RunningVariance::Unbiased, 5.0 / 3.0)] {
        let (mut mean, mut inv_std, mut out) = (vec![0.0], vec![0.0], vec![0.0; 4]);
        let (mut running_mean, mut running_var) = (vec![1.0], vec![2.0]);
        let call = NormTrain {
            desc: NormDesc { channels: 1, eps: 0.0, momentum: 0.25, running_variance },
            shape: Shape4::new(2, 1, 1, 2),
            activation: Activation::Identity,
            x: &x,
            weight: &vec![1.0],
            bias: &vec![0.0],
            residual: None,
            out: &mut out,
            mean: &mut mean,
            inv_std: &mut inv_std,
            running_mean: Some(&mut running_mean),
            running_var: Some(&mut running_var),
        };
        Oracle.norm_train(call).unwrap();
        assert_eq!((mean[0], inv_std[0]), (2.5, 1.0 / 1.25_f64.sqrt()));
        assert_eq!((running_mean[0], running_var[0]), (0.75 + 0.25 * 2.5, 1.5 + 0.25 * var));
    }
}

#[test]
fn batch_norm_with_running_statistics() {
    let shape = Shape4::new(2, 3, 4, 3);
    let other = around("eval residual", shape.len(), 0.5, 2.0);
    let ways = [Activation::Identity, Activation::Relu, RELU6].map(|a| [(a, None), (a, Some(&other))]);
    for (activation, residual) in ways.into_iter().flatten() {
        let desc = NormDesc::keras_mobilenet(3);
        let (x, g) = (around("eval x", shape.len(), 2.0, 4.0), numbers("eval g", shape.len()));
        let (w, b) = (around("eval w", 3, 2.0, 1.0), numbers("eval b", 3));
        let (running_mean, running_var) = (numbers("eval mean", 3), around("eval var", 3, 1.0, 0.5));
        let forward = |x: &Vec<f64>, w: &Vec<f64>, b: &Vec<f64>| {
            written(shape.len(), |out| {
                let call = NormEval {
                    desc,
                    shape,
                    activation,
                    x,
                    weight: w,
                    bias: b,
                    running_mean: &running_mean,
                    running_var: &running_var,
                    residual,
                    out,
                };
                Oracle.norm_eval(call).unwrap();
            })
        };
        let f = |x: &Vec<f64>, w: &Vec<f64>, b: &Vec<f64>| dot(&forward(x, w, b), &g);
        let out = forward(&x, &w, &b);
        let (mut grad_in, mut grad_weight, mut grad_bias) =
            (vec![9.0; shape.len()], vec![9.0; 3], vec![9.0; 3]);
        let call = NormEvalGrad {
            desc,
            shape,
            activation,
            accumulate: false,
            accumulate_params: false,
            weight: &w,
            running_mean: &running_mean,
            running_var: &running_var,
            grad_out: &g,
            x: Some(&x),
            out: (activation != Activation::Identity).then_some(&out),
            grad_in: Some(&mut grad_in),
            grad_weight: Some(&mut grad_weight),
            grad_bias: Some(&mut grad_bias),
        };
        Oracle.norm_eval_grad(call).unwrap();
        check("norm input", &x, &grad_in, |x| f(x, &w, &b));
        check("norm weight", &w, &grad_weight, |w| f(&x, w, &b));
        check("norm bias", &b, &grad_bias, |b| f(&x, &w, b));
    }
}

#[test]
fn a_folded_convolution_is_a_convolution_and_a_normalisation() {
    let conv = defrost_tensor::ConvDesc::new(4, 6, 3, 1, 1).with_groups(2);
    let (desc, input) = (NormDesc::torch(6), Shape4::new(2, 4, 5, 3));
    let output = conv.output(input).unwrap();
    let weights = conv.weight_shape().iter().product();
    let (x, weight, bias) = (numbers("x", input.len()), numbers("w", weights), numbers("b", 6));
    let (norm_weight, norm_bias) = (numbers("nw", 6), numbers("nb", 6));
    let (running_mean, running_var) = (numbers("mean", 6), around("var", 6, 1.0, 0.5));
    let convolved = |weight: &Vec<f64>, bias: &Vec<f64>| {
        written(output.len(), |out| {
            let (bias, residual, activation) = (Some(bias), None, Activation::Identity);
            Oracle
                .conv2d(Conv2d { desc: conv, input, activation, x: &x, weight, bias, residual, out })
                .unwrap();
        })
    };
    let (mut folded_weight, mut folded_bias) = (vec![0.0; weights], vec![0.0; 6]);
    let call = FoldNorm {
        desc,
        conv,
        weight: &weight,
        norm_weight: &norm_weight,
        norm_bias: &norm_bias,
        running_mean: &running_mean,
        running_var: &running_var,
        bias: Some(&bias),
        folded_weight: &mut folded_weight,
        folded_bias: &mut folded_bias,
    };
    Oracle.fold_norm(call).unwrap();
    let two_steps = convolved(&weight, &bias);
    let normalised = written(output.len(), |out| {
        let call = NormEval {
            desc,
            shape: output,
            activation: Activation::Identity,
            x: &two_steps,
            weight: &norm_weight,
            bias: &norm_bias,
            running_mean: &running_mean,
            running_var: &running_var,
            residual: None,
            out,
        };
        Oracle.norm_eval(call).unwrap();
    });
    for (a, b) in convolved(&folded_weight, &folded_bias).iter().zip(&normalised) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }
}

#[test]
fn activations() {
    for activation in [Activation::Identity, Activation::Relu, RELU6] {
        let (x, g) = (around("act x", 60, 3.0, 5.0), numbers("act g", 60));
        let f = |x: &Vec<f64>| {
            written(60, |out| Oracle.activate(Activate { activation, len: 60, x, out }).unwrap())
        };
        let out = f(&x);
        let grad = written(60, |grad_in| {
            let call =
                ActivateGrad { activation, len: 60, accumulate: false, out: &out, grad_out: &g, grad_in };
            Oracle.activate_grad(call).unwrap();
        });
        check(&format!("{activation:?}"), &x, &grad, |x| dot(&f(x), &g));
    }
}

#[test]
fn pools() {
    for (desc, input) in pool_problems().into_iter().filter(|(_, s)| s.len() < 3000) {
        let output = desc.output(input).unwrap();
        let (x, g) = (numbers("pool x", input.len()), numbers("pool g", output.len()));
        let max = |x: &Vec<f64>| {
            let out = written(output.len(), |out| Oracle.max_pool(MaxPool { desc, input, x, out }).unwrap());
            dot(&out, &g)
        };
        let avg = |x: &Vec<f64>| {
            let out = written(output.len(), |out| Oracle.avg_pool(AvgPool { desc, input, x, out }).unwrap());
            dot(&out, &g)
        };
        let accumulate = false;
        let max_grad = written(input.len(), |grad_in| {
            Oracle
                .max_pool_grad(MaxPoolGrad { desc, input, accumulate, x: &x, grad_out: &g, grad_in })
                .unwrap();
        });
        let avg_grad = written(input.len(), |grad_in| {
            Oracle.avg_pool_grad(AvgPoolGrad { desc, input, accumulate, grad_out: &g, grad_in }).unwrap();
        });
        check(&format!("max {desc:?}"), &x, &max_grad, max);
        check(&format!("avg {desc:?}"), &x, &avg_grad, avg);
    }
}

#[test]
fn pools_by_hand() {
    let (desc, input) = (PoolDesc::square(3, 2, 1), Shape4::new(1, 1, 3, 3));
    let x = vec![-1.0, -2.0, -2.0, -4.0, -5.0, f64::NAN, -7.0, -7.0, -9.0];
    let max = written(4, |out| Oracle.max_pool(MaxPool { desc, input, x: &x, out }).unwrap());
    assert_eq!((max[0], max[2]), (-1.0, -4.0));
    assert!(max[1].is_nan() && max[3].is_nan());
    let x = vec![1.0; 9];
    let avg = written(4, |out| Oracle.avg_pool(AvgPool { desc, input, x: &x, out }).unwrap());
    assert_eq!(avg, [1.0; 4]);
    // Ties: the first of each window, which for all four windows of 2×2 is its upper left element.
    let grad = written(9, |grad_in| {
        let (accumulate, grad_out) = (false, &vec![1.0, 2.0, 3.0, 4.0]);
        Oracle.max_pool_grad(MaxPoolGrad { desc, input, accumulate, x: &x, grad_out, grad_in }).unwrap();
    });
    assert_eq!(grad, [1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn matrix_products() {
    let (m, n, k) = (3, 4, 5);
    for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
        let gemm =
            |[m, n, k]: [usize; 3], [transpose_a, transpose_b]: [bool; 2], a: &Vec<f64>, b: &Vec<f64>| {
                written(m * n, |c| {
                    let (accumulate, activation, bias) = (false, Activation::Identity, None);
                    let call =
                        Gemm { m, n, k, transpose_a, transpose_b, accumulate, activation, a, b, bias, c };
                    Oracle.gemm(call).unwrap();
                })
            };
        let (a, b, g) = (numbers("a", m * k), numbers("b", k * n), numbers("gemm g", m * n));
        let f = |a: &Vec<f64>, b: &Vec<f64>| dot(&gemm([m, n, k], [transpose_a, transpose_b], a, b), &g);
        // d op(a) = g · op(b)^T and d op(b) = op(a)^T · g, transposed where the operand is.
        let grad_a = if transpose_a {
            gemm([k, m, n], [transpose_b, true], &b, &g)
        } else {
            gemm([m, k, n], [false, !transpose_b], &g, &b)
        };
        let grad_b = if transpose_b {
            gemm([n, k, m], [true, transpose_a], &g, &a)
        } else {
            gemm([k, n, m], [!transpose_a, false], &a, &g)
        };
        check("gemm a", &a, &grad_a, |a| f(a, &b));
        check("gemm b", &b, &grad_b, |b| f(&a, b));
    }
}

#[test]
fn softmax_cross_entropy() {
    let (n, classes) = (4, 5);
    let (logits, targets) = (around("z", 20, 0.0, 3.0), around("t", 20, 0.4, 0.4));
    let run = |gamma: f32, logits: &Vec<f64>| {
        let (mut stats, mut grad) = (vec![0.0; 2], vec![0.0; 20]);
        let (targets, stats_out, grad_out) = (&targets, &mut stats, Some(&mut grad));
        let call =
            SoftmaxCrossEntropy { n, classes, gamma, logits, targets, stats: stats_out, grad: grad_out };
        Oracle.softmax_cross_entropy(call).unwrap();
        (stats[0], grad)
    };
    for gamma in [0.0, 0.5, 1.0, 2.0, 5.0] {
        check(&format!("gamma {gamma}"), &logits, &run(gamma, &logits).1, |z| run(gamma, z).0);
    }
    // Equal logits: the loss is log of the classes.
    let (mut stats, logits, targets) = (vec![0.0; 2], vec![7.0; 4], vec![0.0, 1.0, 0.0, 0.0]);
    let call = SoftmaxCrossEntropy {
        n: 1,
        classes: 4,
        gamma: 0.0,
        logits: &logits,
        targets: &targets,
        stats: &mut stats,
        grad: None,
    };
    Oracle.softmax_cross_entropy(call).unwrap();
    assert!((stats[0] - 4.0_f64.ln()).abs() < 1e-15 && stats[1] == 0.0);
}

#[test]
fn losses_of_elements() {
    let (n, classes) = (4, 5);
    let (x, targets) = (around("x", 20, 0.0, 3.0), around("t", 20, 0.5, 0.5));
    let weights: Vec<f64> = around("w", 20, 0.5, 1.0).into_iter().map(|w| w.max(0.0)).collect();
    for loss in [ElementLoss::BinaryCrossEntropy, ElementLoss::Squared, ElementLoss::Huber { delta: 1.5 }] {
        let run = |x: &Vec<f64>| {
            let (mut stats, mut grad) = (vec![0.0; 2], vec![0.0; 20]);
            let (targets, weights, stats_out, grad_out) = (&targets, &weights, &mut stats, Some(&mut grad));
            let call =
                ElementwiseLoss { n, classes, loss, x, targets, weights, stats: stats_out, grad: grad_out };
            Oracle.elementwise_loss(call).unwrap();
            (stats[0], grad)
        };
        check(&format!("{loss:?}"), &x, &run(&x).1, |x| run(x).0);
    }
}

#[test]
fn concatenated_channels() {
    let (a, b) = (Shape4::new(2, 3, 2, 3), Shape4::new(2, 2, 2, 3));
    let both = Shape4 { c: 5, ..a };
    let copy = |input: Shape4, output: Shape4, from, to, channels, x: &Vec<f64>, out: &mut Vec<f64>| {
        let accumulate = false;
        let call = CopyChannels { input, output, from, to, channels, accumulate, x, out };
        Oracle.copy_channels(call).unwrap();
    };
    let (x, y, g) = (numbers("cat a", a.len()), numbers("cat b", b.len()), numbers("cat g", both.len()));
    let f = |x: &Vec<f64>, y: &Vec<f64>| {
        let cat = written(both.len(), |out| {
            copy(a, both, 0, 0, 3, x, out);
            copy(b, both, 0, 3, 2, y, out);
        });
        dot(&cat, &g)
    };
    let grad_x = written(a.len(), |out| copy(both, a, 0, 0, 3, &g, out));
    let grad_y = written(b.len(), |out| copy(both, b, 3, 0, 2, &g, out));
    check("concat a", &x, &grad_x, |x| f(x, &y));
    check("concat b", &y, &grad_y, |y| f(&x, y));
}

#[test]
fn dropout_flatten_and_sums() {
    let shape = Shape4::vector(3, 20);
    let (x, g, keys) = (numbers("drop x", 60), numbers("drop g", 60), vec![5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
    let dropout = |x: &Vec<f64>| {
        let (rate, layer, accumulate) = (0.4, 2, false);
        written(60, |out| {
            Oracle.dropout(Dropout { shape, rate, layer, accumulate, x, keys: &keys, out }).unwrap();
        })
    };
    assert!(dropout(&x).iter().filter(|v| **v == 0.0).count() > 10);
    check("dropout", &x, &dropout(&g), |x| dot(&dropout(x), &g));

    let input = Shape4::new(3, 2, 2, 5);
    let flatten = |x: &Vec<f64>| written(60, |out| Oracle.flatten(Flatten { input, x, out }).unwrap());
    let grad =
        written(60, |out| Oracle.unflatten(Unflatten { input, accumulate: false, x: &g, out }).unwrap());
    check("flatten", &x, &grad, |x| dot(&flatten(x), &g));

    // A bias' gradient is the channels' sum of the output's.
    let bias = numbers("bias", 2);
    let sum = written(2, |sum| {
        Oracle.channel_sum(ChannelSum { shape: input, accumulate: false, x: &g, sum }).unwrap();
    });
    check("channel sum", &bias, &sum, |b| g.iter().enumerate().map(|(i, g)| g * b[i / 10 % 2]).sum());
}

#[test]
fn optimizers_by_hand() {
    let grad = vec![2.0];
    for (nesterov, want) in [(false, 1.0 - 0.5 * 4.5), (true, 1.0 - 0.5 * (2.5 + 0.5 * 4.5))] {
        let (mut param, mut velocity) = (vec![1.0], vec![4.0]);
        let call = Sgd {
            len: 1,
            lr: 0.5,
            momentum: 0.5,
            weight_decay: 0.5,
            nesterov,
            grad: &grad,
            param: &mut param,
            velocity: Some(&mut velocity),
        };
        Oracle.sgd(call).unwrap();
        assert_eq!((param[0], velocity[0]), (want, 4.5));
    }
    // Adam's first step from zero moments is lr · sign(g), whatever the gradient's size.
    for (decoupled, want) in [(false, 1.0 - 0.25), (true, 1.0 - 0.25 * 0.5 - 0.25)] {
        let (mut param, mut first, mut second) = (vec![1.0], vec![0.0], vec![0.0]);
        let call = Adam {
            len: 1,
            lr: 0.25,
            beta1: 0.9,
            beta2: 0.999,
            eps: 0.0,
            weight_decay: 0.5,
            decoupled,
            step: 1,
            grad: &grad,
            param: &mut param,
            first: &mut first,
            second: &mut second,
        };
        Oracle.adam(call).unwrap();
        assert!((param[0] - want).abs() < 1e-12, "{}", param[0]);
    }
}
