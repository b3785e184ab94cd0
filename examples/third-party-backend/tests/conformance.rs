//! The suite that every backend passes, with what this one does not do; and a training through the engine.

use std::sync::Arc;

use defrost_conformance::{Expectation, golden_params, residual_network, run_all, run_plans};
use defrost_exec::{
    Engine, ExecError, Images, Loss, Marking, Options, ParamMask, Phase, Rate, Rule, TrainBatch,
};
use third_party_backend::{Loops, LoopsEngine};

#[test]
fn every_call_is_right_or_declared() {
    let missing = Expectation { prefix: "lerp", reason: "left out of the example" };
    let report = run_all(&Loops, 1.0, &[missing]);
    assert!(report.passed(), "{report}");
}

#[test]
fn whole_networks_are_right() {
    let report = run_plans(&Arc::new(Loops), 1.0, &[]);
    assert!(report.passed(), "{report}");
}

#[test]
fn the_head_of_a_network_learns() {
    let graph = Arc::new(residual_network());
    let (n, classes) = (5, graph.classes());
    let mut session = LoopsEngine.open(Arc::clone(&graph), &golden_params(&graph, "loops")).unwrap();
    let mask = ParamMask::of(&graph, |id| graph.param(id).name.starts_with("fc."));
    let rates: Vec<_> = mask.iter().map(|param| Rate { param, lr: 0.1, weight_decay: 0.0 }).collect();
    let marking = Marking::new(&graph, mask);
    session.begin(Phase { marking, loss: Loss::CrossEntropy, options: Options::default() }).unwrap();
    let image = graph.input_shape().with_batch(n);
    let images: Vec<f32> = (0..image.len()).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    let mut targets = vec![0.0; n * classes];
    (0..n).for_each(|i| targets[i * classes + i % classes] = 1.0 / n as f32);
    let images = Images::Array(&images);
    let batch = TrainBatch { n, images, targets: &targets, weights: &[], keys: &[] };
    let mut step = || {
        let loss = session.forward_backward(&batch)?.loss;
        session.reduce()?;
        session.apply(Rule::Sgd { momentum: 0.9, nesterov: false }, &rates)?;
        Ok::<_, ExecError>(loss)
    };
    let losses: Vec<_> = (0..20).map(|_| step().unwrap()).collect();
    assert!(losses[19] < 0.7 * losses[0], "{losses:?}");
}
