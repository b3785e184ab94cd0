//! Activations that are computed again in the backward pass: the same run in less memory.

use defrost_graph::{Graph, GraphBuilder, Init, ParamKind, op};
use defrost_policy::{Loss, Metric, PhaseSpec, Recompute};
use defrost_tensor::{ConvDesc, PoolDesc, Shape4};
use defrost_train::{Event, Folder, fit, resume};

use crate::tiny::{bare, bits, conv_bn_relu, engine, job_for, new_run, options, sgd};

/// Six residual blocks and dropout.
fn deep() -> Graph {
    let mut b = GraphBuilder::new("deep", Shape4::new(1, 3, 8, 8));
    b.stage("stem", false);
    let mut x = conv_bn_relu(&mut b, "stem", ConvDesc::new(3, 4, 3, 1, 1), Graph::INPUT);
    b.stage("body", false);
    for i in 0..6 {
        let y = conv_bn_relu(&mut b, &format!("{i}.a"), ConvDesc::new(4, 4, 3, 1, 1), x);
        let y = conv_bn_relu(&mut b, &format!("{i}.b"), ConvDesc::new(4, 4, 3, 1, 1), y);
        x = b.node(format!("{i}.add"), op::Add, &[y, x]).unwrap();
    }
    let x = b.node("pool", op::AvgPool(PoolDesc::GLOBAL), &[x]).unwrap();
    let x = b.node("flatten", op::Flatten, &[x]).unwrap();
    b.stage("head", true);
    let x = b.node("dropout", op::Dropout { rate: 0.2, layer: 0 }, &[x]).unwrap();
    let weight =
        b.param("fc.weight", [3, 4], ParamKind::LinearWeight, Init::FanInUniform { fan_in: 4 }).unwrap();
    b.node("fc", op::Linear { in_features: 4, out_features: 3, weight, bias: None }, &[x]).unwrap();
    b.finish()
}

type Bits = Vec<(String, Vec<u32>)>;

/// The weights at the end, to the bit; the bytes that the phase was said to take; the decisions.
fn run(recompute: Recompute, memory: Option<usize>) -> (Bits, usize, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let phase = PhaseSpec::new("all", 2, "all").lr(1e-2).optimizer(sgd(0.9));
    let recipe = bare().loss(Loss::default()).monitor(Metric::Loss).recompute(recompute).phase(phase);
    let (mut bytes, mut decisions) = (0, Vec::new());
    let mut options = options();
    options.memory = memory;
    options.on_event = Box::new(|e| match e {
        Event::PhaseStart(start) => bytes = start.memory,
        Event::Decision(d) => decisions.push(format!("{}: {}", d.what, d.reason)),
        _ => {}
    });
    fit(&engine(), &job_for(recipe, deep()), &mut new_run(dir.path()), options).unwrap();
    let params = Folder::open(dir.path()).unwrap().load("last", &deep()).unwrap().0;
    (bits(&params), bytes, decisions)
}

#[test]
fn a_run_in_less_memory_has_the_same_bits() {
    let (kept, most, none) = run(Recompute::Never, Some(0));
    let (again, least, _) = run(Recompute::Always, None);
    assert_eq!(kept, again);
    assert!(least < most && none.is_empty(), "{least} of {most} bytes");
    // Only where memory asks for it, and then it is said why.
    let (enough, bytes, none) = run(Recompute::Auto, Some(most));
    assert_eq!((enough, bytes), (kept.clone(), most));
    assert!(none.is_empty());
    let (short, bytes, decisions) = run(Recompute::Auto, Some(most - 1));
    assert_eq!((short, bytes), (kept, least));
    assert!(decisions[0].starts_with("activations are computed again"), "{decisions:?}");
}

#[test]
fn an_interrupted_run_may_go_on_in_less_memory() {
    let whole = tempfile::tempdir().unwrap();
    let parts = tempfile::tempdir().unwrap();
    let phase = || PhaseSpec::new("all", 2, "all").lr(1e-2).optimizer(sgd(0.9));
    let job = |recompute| job_for(bare().recompute(recompute).phase(phase()), deep());
    fit(&engine(), &job(Recompute::Never), &mut new_run(whole.path()), options()).unwrap();

    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut first = options();
    first.stop = Some(&stop);
    first.on_event = Box::new(|e| {
        if matches!(e, Event::Step(step) if step.step == 2) {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    fit(&engine(), &job(Recompute::Never), &mut new_run(parts.path()), first).unwrap();
    let mut run = defrost_train::Run::open(parts.path()).unwrap();
    resume(&engine(), &job(Recompute::Always), &mut run, options()).unwrap();
    let weights = |path| bits(&Folder::open(path).unwrap().load("last", &deep()).unwrap().0);
    assert_eq!(weights(whole.path()), weights(parts.path()));
}
