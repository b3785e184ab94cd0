//! Kernels that are wrong in one way each: the suite has to notice every one, and to blame nothing else.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use defrost_tensor::call::*;
use defrost_tensor::{Call, KernelError, Kernels, Layout, PixelScale, Shape4};

use crate::networks::networks;
use crate::plans::run_networks;
use crate::run::bind;
use crate::{Case, Expectation, Failure, Oracle, Report, cases, run_cases};

pub(super) type Values = Vec<Vec<f64>>;
pub(super) type Bound = Call<Layout, Layout>;
/// Runs a call in place of the oracle: the call, what it reads, what it writes.
pub(super) type Fault = fn(Bound, &mut Values, &mut Values);

/// The oracle with a fault.
pub(super) struct Broken {
    fault: Fault,
    calls: AtomicUsize,
    unsupported: &'static str,
}

impl Broken {
    pub(super) fn new(fault: Fault) -> Self {
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
pub(super) fn right(call: Bound, reads: &mut Values, writes: &mut Values) {
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
pub(super) fn blamed(report: &Report) -> HashSet<String> {
    report.failed().map(|o| o.case.split('/').next().unwrap_or_default().to_string()).collect()
}

/// Whether the oracle is done with it soon.
pub(super) fn is_small(case: &Case) -> bool {
    let macs = match &case.call {
        Call::Conv2d(c) => c.desc.macs(c.input),
        Call::Conv2dGradInput(c) => c.desc.macs(c.input),
        Call::Conv2dGradWeight(c) => c.desc.macs(c.input),
        _ => Ok(0),
    };
    macs.is_ok_and(|macs| macs < 30_000)
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
