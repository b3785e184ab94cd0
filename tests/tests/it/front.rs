//! A front that runs in parts of the batch changes nothing of what a session computes.

use std::sync::Arc;

use defrost::Device;
use defrost::exec::{Images, Phase, Rate, Rule, Session, TrainBatch};
use defrost::graph::{Graph, Loss, Marking, ParamId, ParamMask};
use defrost::plan::Options;
use defrost::zoo::{Arch, ModelSpec};
use defrost_conformance::{det, golden_params};

const CLASSES: usize = 5;
const SIZE: usize = 64;

fn images(n: usize, step: usize) -> Vec<f32> {
    det(&format!("front/{step}"), [n, 3, SIZE, SIZE], 0.0, 2.0).into_data()
}

fn rates(graph: &Graph) -> Vec<Rate> {
    graph.param_ids().map(|param: ParamId| Rate { param, lr: 1e-2, weight_decay: 1e-2 }).collect()
}

const RULE: Rule = Rule::Sgd { momentum: 0.9, nesterov: false };

/// A batch's targets and keys.
fn rest(n: usize) -> (Vec<f32>, Vec<f32>) {
    let mut targets = vec![0.0; n * CLASSES];
    (0..n).for_each(|i| targets[i * CLASSES + i % CLASSES] = 1.0 / n as f32);
    (targets, (0..2 * n).map(|i| i as f32).collect())
}

fn step(session: &mut dyn Session, n: usize, images: Images<'_>) -> f64 {
    let (targets, keys) = rest(n);
    let batch = TrainBatch { n, images, targets: &targets, weights: &[], keys: &keys };
    let rates = rates(session.graph());
    session.step(&batch, RULE, &rates).unwrap().loss
}

/// All that a session gives, in one order: steps and evaluations by turns, batches of two sizes, features, stages, weights
/// loaded after a batch was staged.
fn everything(device: &str, graph: &Arc<Graph>, marking: &Marking, seed: &str, options: Options) -> Vec<f32> {
    let engine = Device::from_name(device).unwrap();
    let mut session = engine.open(Arc::clone(graph), &golden_params(graph, seed)).unwrap();
    session.begin(Phase { marking: marking.clone(), loss: Loss::CrossEntropy, options }).unwrap();
    let fronts = options.in_parts.is_some();
    let mut all = Vec::new();
    for (round, n) in [7, 8].into_iter().enumerate() {
        assert_eq!(session.plan(n).unwrap().front.is_some(), fronts, "batch of {n}");
        let (a, b) = (images(n, round), images(n, round + 10));
        all.push(step(&mut *session, n, Images::Array(&a)) as f32);
        all.extend(session.infer(n, Images::Array(&b)).unwrap());
        all.push(step(&mut *session, n, Images::Array(&b)) as f32);
        let features = session.features(n, Images::Array(&a)).unwrap();
        all.push(step(&mut *session, n, Images::Features(&features)) as f32);
        all.extend(session.infer(n, Images::Features(&features)).unwrap());
        all.extend(features);
        all.extend(session.stages(n, Images::Array(&a)).unwrap().concat());
        session.release();
        // What is staged is run with the weights that are there when it starts.
        let (targets, keys) = rest(n);
        session
            .stage(&TrainBatch { n, images: Images::Array(&a), targets: &targets, weights: &[], keys: &keys })
            .unwrap();
        session.set_params(&golden_params(graph, &format!("{seed}/{round}"))).unwrap();
        session.start(RULE, &rates(graph)).unwrap();
        all.push(session.finish().unwrap().loss as f32);
        if !options.apply {
            session.apply(RULE, &rates(graph)).unwrap();
        }
        all.extend(session.infer(n, Images::Array(&a)).unwrap());
    }
    all.extend(session.params().unwrap().iter().flat_map(|(_, value)| value.data().to_vec()));
    all
}

#[test]
fn parts_of_a_batch_give_what_the_whole_gives() {
    for arch in [Arch::Resnet18, Arch::MobilenetV2] {
        let graph = Arc::new(ModelSpec::new(arch, CLASSES).with_image_size(SIZE).build().unwrap());
        let stages = graph.stages().len();
        for thawed in [1, 2] {
            let mask = ParamMask::of(&graph, |id| graph.stage_of(id) + thawed >= stages);
            let marking = Marking::new(&graph, mask);
            let seed = arch.name();
            let options = Options::default().packing(true).applying(thawed == 1);
            for device in ["cpu:2,exact", "cpu:2"] {
                let [whole, parts] = [None, Some(0)]
                    .map(|above| everything(device, &graph, &marking, seed, options.in_parts(above)));
                assert_eq!(whole.len(), parts.len());
                // Sums may be in another order where a kernel chooses its way by how much there is to do: Winograd's.
                let bound = if device.contains("exact") { 0.0 } else { 1e-4 };
                for (i, (a, b)) in whole.iter().zip(&parts).enumerate() {
                    assert!(
                        (a - b).abs() <= bound * a.abs().max(1.0),
                        "{arch} on {device}, number {i}: {a}, {b}"
                    );
                }
            }
        }
    }
}
