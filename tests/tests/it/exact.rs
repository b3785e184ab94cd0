//! Gradients in f64 against PyTorch's in f64, where no rounding flips a ReLU: what is left is the arithmetic itself.

use std::sync::Arc;

use defrost::exec::{Images, Interpreter, Options, Phase, Session, TrainBatch};
use defrost::graph::{Loss, Marking, ParamId, ParamMask};
use defrost::zoo::{Arch, Head, ModelSpec};
use defrost_conformance::{Oracle, det, golden_params};
use serde_json::Value;

/// Sum, norm and first values of each gradient, relative to its norm or, where it is zero but for rounding, to the norm of
/// all gradients together.
fn check(golden: &str) {
    let json: Value = serde_json::from_str(golden).unwrap();
    let seed = json["seed"].as_str().unwrap();
    let classes = json["classes"].as_u64().unwrap() as usize;
    let spec = ModelSpec::new(Arch::EfficientnetLite0, classes)
        .with_image_size(64)
        .with_head(Head::Linear { dropout: 0.0 });
    let graph = Arc::new(spec.build().unwrap());
    let n = json["labels"].as_array().unwrap().len();
    let mut session =
        Interpreter::new(Arc::new(Oracle), Arc::clone(&graph), &golden_params(&graph, seed)).unwrap();
    let mask = ParamMask::of(&graph, |_: ParamId| true);
    let marking = Marking::new(&graph, mask);
    session.begin(Phase { marking, loss: Loss::CrossEntropy, options: Options::default() }).unwrap();
    let batch = det(&format!("{seed}/input"), [n, 3, 64, 64], 0.0, 2.0).into_data();
    let mut targets = vec![0.0; n * classes];
    for (i, label) in json["labels"].as_array().unwrap().iter().enumerate() {
        targets[i * classes + label.as_u64().unwrap() as usize] = 1.0 / n as f32;
    }
    let keys = vec![0.0; 2 * n];
    let batch = TrainBatch { n, images: Images::Array(&batch), targets: &targets, weights: &[], keys: &keys };
    let loss = session.forward_backward(&batch).unwrap().loss;
    let want = json["train_loss"].as_f64().unwrap();
    assert!((loss - want).abs() <= 1e-6 * want, "loss {loss}, PyTorch has {want}");
    let all = json["grads"].as_object().unwrap();
    let norm = |name: &str| all[name]["l2"].as_f64().unwrap();
    let floor = 1e-7 * all.keys().map(|name| norm(name).powi(2)).sum::<f64>().sqrt();
    let grads = session.grads().unwrap();
    assert_eq!(grads.len(), all.len());
    for (name, grad) in &grads {
        let bound = 1e-5 * norm(name) + floor;
        let values = || grad.data().iter().map(|&v| f64::from(v));
        let close = |part: &str, got: f64, want: &Value| {
            let off = (got - want.as_f64().unwrap()).abs();
            assert!(
                off <= bound,
                "{part} of {name}: got {got}, PyTorch has {want}: off by {off:.2e}, bound {bound:.2e}"
            );
        };
        close("norm", values().map(|v| v * v).sum::<f64>().sqrt(), &all[name]["l2"]);
        close("sum", values().sum(), &all[name]["sum"]);
        for (i, first) in all[name]["first"].as_array().unwrap().iter().enumerate() {
            close("first", f64::from(grad.data()[i]), first);
        }
    }
}

#[test]
fn efficientnet_lite0() {
    check(include_str!("../../golden/efficientnet_lite0-64-f64.json"));
}

/// The seed of the other networks, with which gradients in f32 leave the bound: a ReLU6 that flips by rounding, as this shows.
#[test]
fn efficientnet_lite0_from_the_seed_that_f32_rounds_away() {
    check(include_str!("../../golden/efficientnet_lite0-64-other-f64.json"));
}
