//! The embedded weights against Keras itself: `tests/fixtures/make_keras.py` made the numbers.

use std::sync::Arc;

use defrost::Device;
use defrost::exec::{Images, Phase};
use defrost::graph::{Loss, Marking, ParamMask};
use defrost::weights::safetensors;
use defrost::zoo::{self, Arch, Geometry, HeadLoading, LoadOptions, ModelSpec};
use defrost_conformance::det;
use serde_json::Value;

#[test]
fn the_embedded_network_computes_what_keras_computes() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
    let text = std::fs::read_to_string(format!("{fixtures}/keras_mobilenet_v2.json")).unwrap();
    let want = &serde_json::from_str::<Value>(&text).unwrap()["embedded"];
    let spec = ModelSpec::new(Arch::MobilenetV2, 19).with_image_size(160).with_geometry(Geometry::Keras);
    let graph = Arc::new(spec.build().unwrap());
    let body = safetensors::read_bytes(zoo::embedded()).unwrap();
    let head = safetensors::read(format!("{fixtures}/keras_mobilenet_v2_head.safetensors")).unwrap();
    let tensors = body.into_iter().chain(head).collect();
    let options = LoadOptions::default().with_head(HeadLoading::Required);
    let (params, report) = zoo::load(&graph, tensors, &options).unwrap();
    assert!(report.is_complete());

    let mut session = Device::from_name("cpu").unwrap().open(Arc::clone(&graph), &params).unwrap();
    let input = det("keras/input", [1, 3, 160, 160], 0.0, 1.0);
    let mut got = session.infer(1, Images::Array(input.data())).unwrap();
    defrost::train::softmax(&mut got);
    let numbers =
        |v: &Value| -> Vec<f64> { v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect() };
    for (i, want) in numbers(&want["probabilities"]).into_iter().enumerate() {
        assert!((f64::from(got[i]) - want).abs() < 1e-5, "class {i}: got {}, Keras has {want}", got[i]);
    }

    // The cut of a training of the head alone is what the body computes, pooled.
    let mask = ParamMask::of(&graph, |id| graph.param(id).name.starts_with("classifier."));
    let marking = Marking::new(&graph, mask);
    session.begin(Phase { marking, loss: Loss::default(), options: Default::default() }).unwrap();
    let features = session.features(1, Images::Array(input.data())).unwrap();
    let mut from_cut = session.infer(1, Images::Features(&features)).unwrap();
    defrost::train::softmax(&mut from_cut);
    assert_eq!(from_cut, got, "predictions may start from the cut");
    assert_eq!(features.len(), 1280);
    for (i, want) in numbers(&want["activations"]["out_relu"]["channel_means"]).into_iter().enumerate() {
        assert!(
            (f64::from(features[i]) - want).abs() < 1e-4,
            "channel {i}: got {}, Keras has {want}",
            features[i]
        );
    }
}
