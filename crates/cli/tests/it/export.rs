//! A run for other programs.

use std::path::Path;
use std::process::{Command, Stdio};

use defrost::export::onnx::proto;
use defrost::tensor::HostTensor;
use defrost::weights::{npy, safetensors};
use prost::Message;
use serde_json::Value;

use crate::folder::{SHORT, photos};
use crate::{run, stderr, stdout};

pub(crate) fn model(path: &Path) -> proto::Model {
    proto::Model::decode(&*std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn metadata(model: &proto::Model, key: &str) -> Value {
    let entry = model.metadata_props.iter().find(|e| e.key == key).unwrap();
    serde_json::from_str(&entry.value).unwrap()
}

#[test]
fn a_run_becomes_onnx_and_a_weight_file() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 6);
    run(here, &[&["train", "photos", "--run", "run", "--quiet"], SHORT].concat(), 0);

    assert_eq!(stdout(&run(here, &["export", "run"], 0)).trim(), "run/model.onnx");
    let plain = model(&here.join("run/model.onnx"));
    assert_eq!(metadata(&plain, "classes"), serde_json::json!(["blue", "red"]));
    let steps = metadata(&plain, "preprocess");
    assert_eq!(
        (&steps["inside"], &steps["crop"], &steps["channels"], steps["mean"].as_array().map(Vec::len)),
        (&false.into(), &serde_json::json!([32, 32]), &"RGB".into(), Some(3))
    );
    assert_eq!(metadata(&plain, "spec")["arch"], "mobilenet_v2");
    assert!(plain.metadata_props.iter().any(|e| e.key == "task" && e.value == "classification"));

    let inside =
        ["export", "run", "--preprocess-inside", "--probabilities", "--no-fold", "-o", "inside.onnx"];
    run(here, &inside, 0);
    let inside = model(&here.join("inside.onnx"));
    assert_eq!(metadata(&inside, "preprocess")["inside"], true);
    let nodes = inside.graph.unwrap().node;
    assert_eq!((&*nodes[0].op_type, &*nodes.last().unwrap().op_type), ("Cast", "Softmax"));
    assert!(nodes.iter().any(|n| n.op_type == "BatchNormalization"));

    // The weights are the checkpoint's; half of them weigh half.
    run(here, &["export", "run", "-o", "cats.safetensors"], 0);
    run(here, &["export", "run", "--format", "safetensors", "--precision", "f16"], 0);
    let (full, best) = ("cats.safetensors", "run/checkpoints/best.safetensors");
    let read = |name: &str| safetensors::read(here.join(name)).unwrap();
    let (full, best, half) = (read(full), read(best), read("run/model.safetensors"));
    assert!(full.iter().eq(best.iter()) && full.metadata["classes"] == best.metadata["classes"]);
    assert!(full.names().any(|n| n == "features.0.1.num_batches_tracked"));
    assert!(half.names().eq(full.names()) && !half.iter().eq(full.iter()));
    run(here, &["predict", "--weights", "run/model.safetensors", "photos/red/1.png"], 0);

    for (arguments, part) in [
        (&["export", "run", "-o", "a.safetensors", "--probabilities"][..], "ONNX"),
        (&["export", "run", "--precision", "f16"], "safetensors"),
    ] {
        assert!(stderr(&run(here, arguments, 2)).contains(part));
    }
    run(here, &["export"], 2);
    assert!(stderr(&run(here, &["export", "photos"], 1)).contains("photos"));
}

/// Whether the file `stem.onnx` puts out `want` for `input` in onnxruntime. Where no Python has it, this says so and checks
/// nothing (`DEFROST_PYTHON` names one).
pub(crate) fn check_in_onnxruntime(here: &Path, stem: &str, input: &HostTensor, want: &HostTensor) {
    let python = std::env::var("DEFROST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has =
        Command::new(&python).args(["-c", "import numpy, onnx, onnxruntime"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        eprintln!("NOT CHECKED against onnxruntime: `{python}` does not have it; name one in DEFROST_PYTHON");
        return;
    }
    npy::write(here.join(format!("{stem}.input.npy")), input).unwrap();
    npy::write(here.join(format!("{stem}.logits.npy")), want).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../onnx/tests/check_onnx.py");
    let file = format!("{stem}.onnx");
    let status = Command::new(&python).current_dir(here).args([script, &file]).status().unwrap();
    assert!(status.success(), "{stem}");
}

/// The whole way: what `predict` says of pictures is what onnxruntime says of the same pictures, prepared in the file. For
/// labels and numbers see the tests of tables.
#[test]
fn onnxruntime_answers_as_predict_does() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 6);
    run(here, &[&["train", "photos", "--run", "run", "--quiet"], SHORT].concat(), 0);
    // Of the network's size already, so that nothing is resized.
    let mut pixels = Vec::new();
    for i in 0..2u8 {
        let shade = |x: u32, y: u32| image::Rgb([(x * 7) as u8, (y * 8) as u8, (x * y) as u8 ^ (i * 90)]);
        let picture = image::RgbImage::from_fn(32, 32, shade);
        picture.save(here.join(format!("{i}.png"))).unwrap();
        pixels.extend(picture.as_raw().iter().map(|&b| f32::from(b)));
    }
    // The whole picture: 32 of 32, not of 36.
    let weights = here.join("run/checkpoints/best.safetensors");
    let mut tensors = safetensors::read(&weights).unwrap();
    let mut preprocess: Value = serde_json::from_str(&tensors.metadata["preprocess"]).unwrap();
    preprocess["resize"] = preprocess["crop"].clone();
    tensors.metadata.insert("preprocess".into(), preprocess.to_string());
    safetensors::write(&weights, &tensors, Default::default()).unwrap();

    run(here, &["export", "run", "--preprocess-inside", "-o", "a.onnx"], 0);
    run(here, &["predict", "run", "0.png", "1.png", "--logits", "a.logits.npy"], 0);
    let input = HostTensor::new([2, 32, 32, 3], pixels).unwrap();
    let want = npy::read(here.join("a.logits.npy")).unwrap();
    check_in_onnxruntime(here, "a", &input, &want);
}
