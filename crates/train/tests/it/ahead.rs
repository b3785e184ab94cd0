//! The next batch goes to the device before the loss of the one it works on is waited for.

use std::sync::{Arc, Mutex};

use defrost_exec::{
    Clip, Engine, ExecError, Graph, Images, KernelTime, ParamStore, Phase, Plan, Rate, Room, Rule, Session,
    StepOutput, TrainBatch,
};
use defrost_ndarray::CpuEngine;
use defrost_policy::PhaseSpec;
use defrost_tensor::HostTensor;

use crate::tiny::{self, bare, job};

type Log = Arc<Mutex<Vec<&'static str>>>;
type R<T> = Result<T, ExecError>;

/// A CPU whose sessions log what they are asked.
struct Logged(CpuEngine, Log);

impl Engine for Logged {
    fn device(&self) -> String {
        self.0.device()
    }

    fn room(&self) -> Room {
        self.0.room()
    }

    fn open(&self, graph: Arc<Graph>, params: &ParamStore) -> R<Box<dyn Session>> {
        Ok(Box::new(LoggedSession(self.0.open(graph, params)?, Arc::clone(&self.1))))
    }
}

struct LoggedSession(Box<dyn Session>, Log);

macro_rules! logged {
    ($($name:ident(&$($own:ident)+ $(, $arg:ident: $ty:ty)*) -> $ret:ty;)*) => {
        impl Session for LoggedSession {
            $(fn $name(&$($own)+ $(, $arg: $ty)*) -> $ret {
                logged!(@ $($own)+).1.lock().unwrap().push(stringify!($name));
                logged!(@ $($own)+).0.$name($($arg),*)
            })*
        }
    };
    (@ mut $own:ident) => { $own };
    (@ $own:ident) => { $own };
}

logged! {
    graph(&self) -> &Arc<Graph>;
    begin(&mut self, phase: Phase) -> R<()>;
    plan(&mut self, n: usize) -> R<&Plan>;
    stage(&mut self, batch: &TrainBatch<'_>) -> R<()>;
    start(&mut self, rule: Rule, rates: &[Rate]) -> R<()>;
    finish(&mut self) -> R<StepOutput>;
    forward_backward(&mut self, batch: &TrainBatch<'_>) -> R<StepOutput>;
    grad_norm(&mut self) -> R<f64>;
    clip(&mut self, clip: Clip) -> R<f64>;
    apply(&mut self, rule: Rule, rates: &[Rate]) -> R<()>;
    infer(&mut self, n: usize, images: Images<'_>) -> R<Vec<f32>>;
    features(&mut self, n: usize, images: Images<'_>) -> R<Vec<f32>>;
    stages(&mut self, n: usize, images: Images<'_>) -> R<Vec<Vec<f32>>>;
    params(&self) -> R<ParamStore>;
    set_params(&mut self, params: &ParamStore) -> R<()>;
    set_average(&mut self, start: Option<&ParamStore>) -> R<()>;
    average(&mut self, new: f32) -> R<()>;
    averaged(&self) -> R<Option<ParamStore>>;
    swap_average(&mut self) -> ();
    grads(&self) -> R<Vec<(String, HostTensor)>>;
    optimizer(&self) -> R<Vec<(String, HostTensor)>>;
    set_optimizer(&mut self, state: &[(String, HostTensor)]) -> R<()>;
    set_profiling(&mut self, on: bool) -> ();
    profile(&self) -> Vec<KernelTime>;
}

/// Trains an epoch of three batches in phases of a recipe and says in which order steps were made.
fn steps(recipe: defrost_policy::Recipe) -> Vec<&'static str> {
    let log = Log::default();
    let dir = tempfile::tempdir().unwrap();
    let mut run = tiny::new_run(dir.path());
    let job = job(recipe);
    let engine = Logged(tiny::engine(), Arc::clone(&log));
    defrost_train::fit(&engine, &job, &mut run, tiny::options()).unwrap();
    let log = log.lock().unwrap();
    log.iter().copied().filter(|call| ["stage", "start", "finish", "clip", "apply"].contains(call)).collect()
}

#[test]
fn the_next_batch_is_staged_before_the_loss_is_waited_for() {
    let phase = || PhaseSpec::new("head", 1, "head").lr(1e-2).optimizer(tiny::sgd(0.9));
    // 44 images in batches of 16: three steps an epoch. The CPU steps parameters as gradients are made.
    let epoch = ["stage", "start", "stage", "finish", "start", "stage", "finish", "start", "finish"];
    assert_eq!(steps(bare().batch_size(16).phase(phase()).phase(phase())), [epoch, epoch].concat());

    // Two batches a step, the second step of one.
    let several = phase().accumulate(32);
    let epoch = [
        "stage", "start", "stage", "finish", "start", "stage", "finish", "apply", "start", "finish", "apply",
    ];
    assert_eq!(steps(bare().batch_size(16).phase(several)), epoch);
}
