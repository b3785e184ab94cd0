//! Logits, losses, gradients and running statistics against torchvision, within ten times what is asked of the CPU.

use defrost::plan::Options;

use super::engine;
use crate::golden::Golden;

/// What a GPU may be off by, in terms of what a CPU may.
const SCALE: f64 = 10.0;

#[test]
fn residual_networks() {
    let Some(engine) = engine() else { return };
    let golden = Golden::on(engine.clone(), SCALE, "resnet18");
    golden.evaluation_and_gradients(Options::default());
    golden.evaluation_and_gradients(Options::raw());
    golden.three_stages("fc.", &["layer4."]);
    let golden = Golden::on(engine, SCALE, "resnet50");
    golden.evaluation_and_gradients(Options::default());
    golden.three_stages("fc.", &["layer4."]);
}

#[test]
fn mobile_networks() {
    let Some(engine) = engine() else { return };
    // Gradients where no ReLU6 flips by rounding; all else of both seeds.
    let other = Golden::on(engine.clone(), SCALE, "mobilenet_v2-other");
    other.evaluation_and_gradients(Options::default());
    let golden = Golden::on(engine.clone(), SCALE, "mobilenet_v2");
    golden.evaluation(Options::raw());
    let last = ["features.14", "features.15", "features.16", "features.17", "features.18"];
    golden.three_stages("classifier.", &last);
    let golden = Golden::on(engine, SCALE, "efficientnet_lite0");
    golden.evaluation_and_gradients(Options::default());
    golden.three_stages("_fc.", &["_blocks.13.", "_blocks.14.", "_blocks.15.", "_conv_head.", "_bn1."]);
}

#[test]
fn vgg16() {
    let Some(engine) = engine() else { return };
    let golden = Golden::on(engine, SCALE, "vgg16");
    golden.evaluation_and_gradients(Options::default());
    golden.three_stages("classifier.6.", &["classifier.", "features.24", "features.26", "features.28"]);
}
