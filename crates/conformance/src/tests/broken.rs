//! Kernels that are wrong in one way each: the suite has to notice every one, and to blame nothing else.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use defrost_tensor::call::*;
use defrost_tensor::{
    Activation, Call, ElementLoss, KernelError, Kernels, Layout, Limit, Padding, PixelScale, PoolDesc, Shape4,
};

use crate::networks::networks;
use crate::plans::run_networks;
use crate::run::bind;
use crate::{Case, Expectation, Failure, Oracle, Report, cases, run_cases};

type Values = Vec<Vec<f64>>;
type Bound = Call<Layout, Layout>;
/// Runs a call in place of the oracle: the call, what it reads, what it writes.
type Fault = fn(Bound, &mut Values, &mut Values);

/// The oracle with a fault.
struct Broken {
    fault: Fault,
    calls: AtomicUsize,
    unsupported: &'static str,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        Self { fault, calls: AtomicUsize::new(0), unsupported: "" }
    }

    fn run(&self, call: Call<&RefCell<Vec<f64>>, &mut RefCell<Vec<f64>>>) -> Result<(), KernelError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (mut read_cells, mut write_cells) = (Vec::new(), Vec::new());
        let call = call.map(
            &mut |r| {
                read_cells.push(r);
                Layout::Plain(0)
            },
            &mut |w| {
                write_cells.push(w);
                Layout::Plain(0)
            },
        );
        let mut reads = read_cells.iter().map(|r| r.borrow().clone()).collect();
        let mut writes: Values = write_cells.iter().map(|w| w.borrow().clone()).collect();
        (self.fault)(call, &mut reads, &mut writes);
        read_cells.iter().zip(reads).for_each(|(cell, values)| *cell.borrow_mut() = values);
        write_cells.iter().zip(writes).for_each(|(cell, values)| *cell.borrow_mut() = values);
        Ok(())
    }
}

/// The right result.
fn right(call: Bound, reads: &mut Values, writes: &mut Values) {
    bind(call, reads, writes).run(&Oracle).unwrap();
}

macro_rules! methods {
    ($($method:ident: $call:ident,)*) => {
        $(fn $method(&self, call: $call<&Self::Buf, &mut Self::Buf>) -> Result<(), KernelError> {
            self.run(call.into())
        })*
    };
}

impl Kernels for Broken {
    type Buf = RefCell<Vec<f64>>;

    fn device(&self) -> String {
        "broken".into()
    }

    fn supports(&self, call: &Call<Layout, Layout>) -> bool {
        call.name() != self.unsupported
    }

    fn alloc(&self, layout: Layout) -> Result<Self::Buf, KernelError> {
        Oracle.alloc(layout).map(RefCell::new)
    }

    fn upload(&self, layout: Layout, host: &[f32], dst: &mut Self::Buf) -> Result<(), KernelError> {
        Oracle.upload(layout, host, dst.get_mut())
    }

    fn upload_pixels(
        &self,
        shape: Shape4,
        pixels: &[u8],
        scale: &PixelScale,
        dst: &mut Self::Buf,
    ) -> Result<(), KernelError> {
        Oracle.upload_pixels(shape, pixels, scale, dst.get_mut())
    }

    fn download(&self, layout: Layout, src: &Self::Buf, host: &mut [f32]) -> Result<(), KernelError> {
        Oracle.download(layout, &src.borrow(), host)
    }

    fn fill(&self, len: usize, value: f32, dst: &mut Self::Buf) -> Result<(), KernelError> {
        Oracle.fill(len, value, dst.get_mut())
    }

    methods! {
        conv2d: Conv2d,
        conv2d_grad_input: Conv2dGradInput,
        conv2d_grad_weight: Conv2dGradWeight,
        norm_train: NormTrain,
        norm_train_grad: NormTrainGrad,
        norm_eval: NormEval,
        norm_eval_grad: NormEvalGrad,
        fold_norm: FoldNorm,
        activate: Activate,
        activate_grad: ActivateGrad,
        add: Add,
        copy: Copy,
        max_pool: MaxPool,
        max_pool_grad: MaxPoolGrad,
        avg_pool: AvgPool,
        avg_pool_grad: AvgPoolGrad,
        gemm: Gemm,
        channel_sum: ChannelSum,
        flatten: Flatten,
        unflatten: Unflatten,
        copy_channels: CopyChannels,
        dropout: Dropout,
        softmax_cross_entropy: SoftmaxCrossEntropy,
        elementwise_loss: ElementwiseLoss,
        sgd: Sgd,
        adam: Adam,
        rms_prop: RmsProp,
        lamb: Lamb,
        clip: Clip,
        lerp: Lerp,
        sum_squares: SumSquares,
    }
}

/// The kernels of which a case failed.
fn blamed(report: &Report) -> HashSet<String> {
    report.failed().map(|o| o.case.split('/').next().unwrap_or_default().to_string()).collect()
}

#[test]
fn every_fault_is_found_in_its_kernel() {
    let faults: [(&str, Fault); 48] = [
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
        ("norm_eval", |mut call, r, w| {
            if let Call::NormEval(c) = &mut call {
                c.desc.eps *= 2.0;
            }
            right(call, r, w);
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

/// Whether the oracle is done with it soon.
fn is_small(case: &Case) -> bool {
    let macs = match &case.call {
        Call::Conv2d(c) => c.desc.macs(c.input),
        Call::Conv2dGradInput(c) => c.desc.macs(c.input),
        Call::Conv2dGradWeight(c) => c.desc.macs(c.input),
        _ => Ok(0),
    };
    macs.is_ok_and(|macs| macs < 30_000)
}

/// Moves the image down by one row.
fn shift_rows(x: &mut [f64], shape: Shape4) {
    for channel in x.chunks_mut(shape.area()) {
        channel.rotate_right(shape.w);
    }
}

#[test]
fn each_result_of_each_case_is_compared() {
    // Whatever a call writes, one element of it is off: every case has to fail.
    let report = run_cases(
        &Broken::new(|call, r, w| {
            right(call, r, w);
            spoil(w.last_mut().unwrap().iter_mut().rev());
        }),
        &cases(),
        1.0,
        &[],
    );
    let passed: Vec<_> = report.outcomes.iter().filter(|o| o.failures.is_empty()).map(|o| &o.case).collect();
    assert!(passed.is_empty(), "{passed:?}");
}

/// Changes the first number that is one.
fn spoil<'a>(mut values: impl Iterator<Item = &'a mut f64>) {
    match values.find(|v| !v.is_nan()) {
        Some(value) => *value += 0.2 + 0.2 * value.abs(),
        None => unreachable!("a case wants nothing but NaN"),
    }
}

#[test]
fn a_changed_operand_and_changing_bits_are_found() {
    let few = &cases()[..3];
    let report = run_cases(
        &Broken::new(|call, r, w| {
            right(call, r, w);
            r[1][0] += 1.0;
        }),
        few,
        1.0,
        &[],
    );
    assert!(report.failed().all(|o| o.failures == [Failure::ReadChanged { read: 1 }]), "{report}");
    assert_eq!(report.failed().count(), 3);

    thread_local!(static CALLS: Cell<u32> = const { Cell::new(0) });
    let report = run_cases(
        &Broken::new(|call, r, w| {
            right(call, r, w);
            CALLS.with(|calls| calls.set(calls.get() + 1));
            w[0][0] += 1e-6 * f64::from(CALLS.with(Cell::get) % 3);
        }),
        few,
        1.0,
        &[],
    );
    assert!(report.failed().all(|o| o.failures.contains(&Failure::NotRepeatable { write: 0 })), "{report}");
    assert_eq!(report.failed().count(), 3);
}

#[test]
fn a_kernel_that_takes_the_buffer_for_the_operand_is_found() {
    let cases: Vec<_> = cases().into_iter().filter(|c| c.call.name() == "sum_squares").collect();
    let report = run_cases(
        &Broken::new(|mut call, r, w| {
            if let Call::SumSquares(c) = &mut call {
                c.len = r[0].len();
            }
            right(call, r, w);
        }),
        &cases,
        1.0,
        &[],
    );
    let plain = cases.iter().filter(|c| !c.name.contains("conv weight")).count();
    assert_eq!(report.failed().count(), plain, "{report}");
    assert!(report.failed().all(|o| matches!(o.failures[..], [Failure::LongerBuffer { .. }])), "{report}");
}

#[test]
fn a_panic_fails_its_case_alone() {
    let report = run_cases(&Broken::new(|_, _, _| panic!("out of range")), &cases()[..1], 1.0, &[]);
    assert_eq!(report.outcomes[0].failures, [Failure::Panic("out of range".into())]);
}

#[test]
fn unsupported_cases_are_declared_on_both_sides() {
    let cases: Vec<_> = cases().into_iter().filter(|c| ["sgd", "adam"].contains(&c.call.name())).collect();
    let kernels = Broken { unsupported: "adam", ..Broken::new(right) };
    let expect = [Expectation { prefix: "adam/", reason: "no second moments" }];
    let report = run_cases(&kernels, &cases, 1.0, &expect);
    assert!(report.passed(), "{report}");
    assert!(report.outcomes.iter().all(|o| o.unsupported.is_some() == o.case.starts_with("adam/")));
    assert!(kernels.calls.load(Ordering::Relaxed) > 0);

    let undeclared = run_cases(&kernels, &cases, 1.0, &[]);
    assert_eq!(blamed(&undeclared), ["adam".to_string()].into());
    assert!(undeclared.failed().all(|o| o.failures == [Failure::Undeclared]));

    let cured = run_cases(&Broken::new(right), &cases, 1.0, &expect);
    assert_eq!(blamed(&cured), ["adam".to_string()].into());

    let stale = [Expectation { prefix: "conv3d/", reason: "no such kernel" }];
    let report = run_cases(&Oracle, &cases, 1.0, &stale);
    assert!(!report.passed() && report.failed().count() == 0, "{report}");
    assert!(report.to_string().contains("conv3d/"));
}

#[test]
fn runs_that_differ_in_a_bit_are_told_apart() {
    let cases: Vec<_> = cases().into_iter().filter(|c| c.call.name() == "sum_squares").collect();
    let [a, b] = [Broken::new(right), Broken::new(right)].map(|k| run_cases(&k, &cases, 1.0, &[]));
    assert!(a.differing(&b).is_empty());
    let other = Broken::new(|call, r, w| {
        right(call, r, w);
        if matches!(call, Call::SumSquares(SumSquares { len: 2.., .. })) {
            w[0][0] *= 1.0 + 3e-7;
        }
    });
    let other = run_cases(&other, &cases, 1.0, &[]);
    assert!(other.passed(), "{other}");
    let differing = a.differing(&other);
    assert!(!differing.contains(&"sum_squares/1"));
    assert_eq!(differing.len(), cases.iter().filter(|c| !c.name.starts_with("sum_squares/1 ")).count() - 1);
}

#[test]
fn a_fault_shows_in_whole_networks() {
    let faults: [Fault; 4] = [
        right,
        // A gradient that is overwritten where two branches meet.
        |mut call, r, w| {
            if let Call::Conv2dGradInput(c) = &mut call {
                c.accumulate = false;
            }
            right(call, r, w);
        },
        |mut call, r, w| {
            if let Call::NormTrain(c) = &mut call {
                c.desc.momentum *= 1.01;
            }
            right(call, r, w);
        },
        |mut call, r, w| {
            if let Call::Sgd(c) = &mut call {
                c.weight_decay = 0.0;
            }
            right(call, r, w);
        },
    ];
    for (i, fault) in faults.into_iter().enumerate() {
        let residual = networks().into_iter().filter(|n| n.name == "residual").collect();
        let report = run_networks(&Arc::new(Broken::new(fault)), residual, 1e-4, &[]);
        assert_eq!(report.passed(), i == 0, "fault {i}: {report}");
        let whole = report.outcomes.iter().find(|o| o.case == "plan/residual/everything/all passes").unwrap();
        assert_eq!(whole.failures.is_empty(), i == 0, "fault {i}: {report}");
    }
}
