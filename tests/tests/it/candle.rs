//! The device `candle`: on the CPU the bits of the device `cpu`, which the goldens check; and a run of what its GPUs compute.

use std::path::Path;
use std::sync::Arc;

use defrost::Start;
use defrost::candle::{CandleEngine, CandleKernels, CandleOptions, Place};
use defrost::device::Device;
use defrost::exec::{Engine, Images, Options, Phase, Rate, Rule, TrainBatch};
use defrost::graph::{Loss, Marking, ParamMask};
use defrost::zoo::{Arch, Head, ModelSpec};

use crate::golden::{mobile_networks, residual_networks, vgg};
use crate::resume::{emoji, fine_tune};
use defrost_conformance::{det, golden_params};

/// How far the losses of a run's first epoch may lie apart on the CPU and on what GPUs do, relative to 1 + the loss
/// (`docs/backends.md`).
const BOUND: f64 = 1e-3;

/// What candle's GPUs compute, run on the CPU.
fn composed() -> CandleEngine {
    let mut options = CandleOptions::new(Place::Cpu { threads: None });
    options.composed = true;
    CandleEngine::with_kernels(Arc::new(CandleKernels::new(&options).unwrap()))
}

/// Logits, gradients and weights after a step of training of a whole network, in bits.
fn step(device: &str, arch: &str) -> Vec<(String, Vec<u32>)> {
    let (n, classes, size) = (2, 5, 64);
    let spec = ModelSpec::new(arch.parse::<Arch>().unwrap(), classes)
        .with_image_size(size)
        .with_head(Head::Linear { dropout: 0.2 });
    let graph = Arc::new(spec.build().unwrap());
    let engine = Device::from_name(device).unwrap();
    let mut session = engine.open(Arc::clone(&graph), &golden_params(&graph, "candle")).unwrap();
    let mask = ParamMask::of(&graph, |_| true);
    let rates: Vec<_> = mask.iter().map(|param| Rate { param, lr: 1e-3, weight_decay: 1e-4 }).collect();
    let marking = Marking::new(&graph, mask);
    session.begin(Phase { marking, loss: Loss::CrossEntropy, options: Options::default() }).unwrap();
    let images = det("candle/images", [n, 3, size, size], 0.0, 2.0).into_data();
    let images = Images::Array(&images);
    let mut targets = vec![0.0; n * classes];
    (0..n).for_each(|i| targets[i * classes + i] = 1.0 / n as f32);
    let batch = TrainBatch { n, images, targets: &targets, weights: &[], keys: &[1.0, 2.0, 3.0, 4.0] };
    session.forward_backward(&batch).unwrap();
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let mut all: Vec<_> =
        session.grads().unwrap().iter().map(|(n, t)| (format!("gradient of {n}"), bits(t.data()))).collect();
    session.reduce().unwrap();
    session.apply(Rule::Sgd { momentum: 0.9, nesterov: true }, &rates).unwrap();
    all.extend(session.params().unwrap().iter().map(|(n, t)| (n.to_string(), bits(t.data()))));
    all.push(("logits".into(), bits(&session.infer(n, images).unwrap())));
    all
}

#[test]
fn every_network_has_the_bits_of_the_cpu() {
    for arch in ["resnet18", "resnet50", "mobilenet_v2", "vgg16", "efficientnet_lite0"] {
        for (cpu, candle) in step("cpu:2", arch).iter().zip(&step("candle:cpu:2", arch)) {
            assert!(cpu == candle, "{arch}: other bits in {} ({})", cpu.0, candle.0);
        }
    }
}

/// Trains into `folder` on `device`; with `stop_at`, stops after so many steps. The losses of all steps.
fn train(
    data: &Path,
    folder: &Path,
    device: Box<dyn Engine>,
    start: Start,
    stop_at: Option<usize>,
) -> Vec<f64> {
    let mut prepared = fine_tune(data, folder, 2).prepare().unwrap();
    prepared.engine = device;
    crate::resume::train(prepared, start, stop_at).1
}

#[test]
fn runs_move_between_devices_and_agree() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let data = at("data");
    emoji(&data);
    let device = |name: &str| Device::from_name(name).unwrap();
    let cpu = train(&data, &at("cpu"), device("cpu:2"), Start::Fresh, None);
    let weights = |name: &str| std::fs::read(at(name).join("checkpoints/last.safetensors")).unwrap();

    for (name, first, then) in [("there", "cpu:2", "candle:cpu:1"), ("back", "candle:cpu:2", "cpu:1")] {
        train(&data, &at(name), device(first), Start::Fresh, Some(5));
        train(&data, &at(name), device(then), Start::Resume, None);
        assert!(weights("cpu") == weights(name), "{first}, then {then}: other bits");
    }

    let composed = composed();
    // An epoch of the head alone, then two of more: a third of the steps each.
    let epoch = cpu.len() / 3;
    let gpu = train(&data, &at("gpu"), Box::new(composed), Start::Fresh, Some(epoch));
    let apart = |(cpu, gpu): (&f64, &f64)| (cpu - gpu).abs() / (1.0 + cpu);
    let most = cpu[..epoch].iter().zip(&gpu).map(apart).fold(0.0, f64::max);
    assert!(gpu.len() == epoch && most <= BOUND, "apart by {most:.1e}: {cpu:?} {gpu:?}");
    // What a GPU's way has begun, the CPU ends.
    train(&data, &at("gpu"), device("cpu:2"), Start::Resume, None);
}

/// Goldens whose gradients a ReLU that flips by rounding moves by more than the bound. Of the 131,072 values behind VGG16's
/// `features.17` one is 0 on `cpu` and not here, and its weight's gradient is off by 2 % of its norm; all values before
/// its last layer are within 4e-6 of the largest, as those of `cpu,exact` are. In the two mobile networks gradients are off by as
/// much, and so are PyTorch's own between f32 and f64 with most seeds.
const FLIPS: &[&str] = &["vgg16", "mobilenet_v2-other", "efficientnet_lite0"];

// torchvision's numbers are those of `golden.rs`, where `candle:cpu` is held to the bounds of `cpu`.

#[test]
fn residual() {
    residual_networks(&(Arc::new(composed()) as Arc<dyn Engine>));
}

#[test]
fn mobile() {
    mobile_networks(&(Arc::new(composed()) as Arc<dyn Engine>), FLIPS);
}

#[test]
fn vgg16() {
    vgg(&(Arc::new(composed()) as Arc<dyn Engine>), FLIPS);
}
