//! What is frozen costs nothing and changes in no bit, on every network; threads change no bit either.

use std::sync::Arc;

use defrost::Device;
use defrost::exec::{Images, Phase, Rate, Rule, TrainBatch};
use defrost::graph::{Graph, Loss, Marking, ParamId, ParamMask, ParamStore, Pass};
use defrost::plan::{Options, Plan, Purpose};
use defrost::zoo::{Arch, ModelSpec};
use defrost_conformance::det;

const CLASSES: usize = 5;

fn graph(arch: Arch) -> Arc<Graph> {
    Arc::new(ModelSpec::new(arch, CLASSES).with_image_size(32).build().unwrap())
}

/// The last `n` stages train.
fn last_stages(graph: &Graph, n: usize) -> Marking {
    let first = graph.stages().len() - n;
    Marking::new(graph, ParamMask::of(graph, |id| graph.stage_of(id) >= first))
}

/// Three steps of AdamW; the weights and the optimizer's state afterwards.
fn train(graph: &Arc<Graph>, marking: &Marking, threads: usize) -> (ParamStore, Vec<String>) {
    let engine = Device::from_name(&format!("cpu:{threads}")).unwrap();
    let mut session = engine.open(Arc::clone(graph), &ParamStore::init(graph, 7)).unwrap();
    let phase = Phase { marking: marking.clone(), loss: Loss::default(), options: Options::default() };
    session.begin(phase).unwrap();
    let n = 3;
    let images = det("freezing/input", [n, 3, 32, 32], 0.0, 2.0);
    let mut targets = vec![0.0; n * CLASSES];
    (0..n).for_each(|i| targets[i * CLASSES + i] = 1.0 / n as f32);
    let rates: Vec<_> =
        graph.param_ids().map(|param: ParamId| Rate { param, lr: 1e-3, weight_decay: 1e-2 }).collect();
    for step in 0..3 {
        let keys: Vec<f32> = (0..2 * n).map(|i| (100 * step + i) as f32).collect();
        let batch = TrainBatch {
            n,
            images: Images::Array(images.data()),
            targets: &targets,
            weights: &[],
            keys: &keys,
        };
        assert!(session.forward_backward(&batch).unwrap().loss.is_finite());
        session.apply(Rule::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: true }, &rates).unwrap();
    }
    let state = session.optimizer().unwrap().into_iter().map(|(name, _)| name).collect();
    (session.params().unwrap(), state)
}

#[test]
fn frozen_parts_keep_every_bit_and_cost_no_backward_work() {
    for arch in Arch::ALL {
        let graph = graph(arch);
        let marking = last_stages(&graph, 2);
        let frozen = |name: &str| !marking.params.trains(graph.find_param(name).unwrap());
        let (after, optimizer) = train(&graph, &marking, 2);
        let before = ParamStore::init(&graph, 7);
        let last = graph.stages().len() - 2;
        for ((name, a), (_, b)) in after.iter().zip(before.iter()) {
            let id = graph.find_param(name).unwrap();
            if graph.stage_of(id) < last {
                assert_eq!(a, b, "{arch}: {name} is frozen");
            } else if graph.param(id).kind.is_trainable() {
                assert_ne!(a, b, "{arch}: {name} trains");
            }
        }
        assert!(optimizer.iter().all(|name| !frozen(name.rsplit_once('.').unwrap().0)), "{arch}");

        let plan =
            Plan::new(&graph, &marking, 3, Purpose::Train(Loss::default()), Options::default()).unwrap();
        for row in &plan.stages(&graph, &marking)[..last] {
            let cost = (row.backward_flops, row.saved_bytes, row.trained);
            assert_eq!(cost, (0, 0, 0), "{arch}: {} is frozen", row.stage);
        }
        let backward = plan.calls().filter(|i| i.pass == Pass::Backward);
        assert!(
            backward.into_iter().all(|i| graph.blocks()[graph.node(i.node).block].stage >= last),
            "{arch}"
        );
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for arch in [Arch::MobilenetV2, Arch::Resnet18] {
        let graph = graph(arch);
        let all = Marking::new(&graph, ParamMask::all(&graph));
        let (one, _) = train(&graph, &all, 1);
        for threads in [2, 3] {
            let (more, _) = train(&graph, &all, threads);
            let differs =
                one.iter().zip(more.iter()).find(|((_, a), (_, b))| a != b).map(|((name, _), _)| name);
            assert_eq!(differs, None, "{arch} on {threads} threads");
        }
    }
}

#[test]
fn frozen_normalisations_are_folded_once_a_phase() {
    let graph = graph(Arch::Resnet18);
    let norms = graph.node_ids().filter(|&id| graph.node(id).op.norm().is_some()).count() as u64;
    let engine = Device::from_name("cpu:2").unwrap();
    let mut session = engine.open(Arc::clone(&graph), &ParamStore::init(&graph, 7)).unwrap();
    let n = 3;
    let images = det("freezing/input", [n, 3, 32, 32], 0.0, 2.0);
    let mut targets = vec![0.0; n * CLASSES];
    (0..n).for_each(|i| targets[i * CLASSES + i] = 1.0 / n as f32);
    let rates: Vec<_> =
        graph.param_ids().map(|param: ParamId| Rate { param, lr: 1e-3, weight_decay: 0.0 }).collect();
    // Where the head alone trains, evaluations fold nothing anew after a step; where a stage does, each folds.
    for (stages, folds) in [(1, norms), (2, 3 * norms)] {
        let options = Options::default();
        session
            .begin(Phase { marking: last_stages(&graph, stages), loss: Loss::default(), options })
            .unwrap();
        session.set_profiling(true);
        let mut before = Vec::new();
        for step in 0..3 {
            let outputs = session.infer(n, Images::Array(images.data())).unwrap();
            assert_ne!(outputs, before, "step {step} has changed what the network says");
            before = outputs;
            let keys: Vec<f32> = (0..2 * n).map(|i| (100 * step + i) as f32).collect();
            let images = Images::Array(images.data());
            let batch = TrainBatch { n, images, targets: &targets, weights: &[], keys: &keys };
            session.step(&batch, Rule::Sgd { momentum: 0.0, nesterov: false }, &rates).unwrap();
        }
        let times = session.profile();
        let folded: u64 = times.iter().filter(|t| t.kernel == "fold_norm").map(|t| t.calls).sum();
        assert_eq!(folded, folds, "{stages} stages train");
    }
}
