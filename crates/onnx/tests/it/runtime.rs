//! A file's outputs in onnxruntime are those of the CPU backend.
//!
//! It needs a Python with `onnx`, `onnxruntime` and `numpy`: the one that `DEFROST_PYTHON` names, else `python3`. Without one
//! it says so on stderr and checks nothing. `DEFROST_ONNX=full` takes every network at its full size.

use std::fs;
use std::process::{Command, Stdio};

use defrost_onnx::{Element, Input, Layout, Options};
use defrost_tensor::HostTensor;
use defrost_weights::npy;
use defrost_zoo::Preprocess;

use crate::networks::{Noise, all, infer, infer_pixels, name, trained};

#[test]
fn onnxruntime_agrees() {
    let python = std::env::var("DEFROST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has =
        Command::new(&python).args(["-c", "import numpy, onnx, onnxruntime"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        eprintln!("NOT CHECKED against onnxruntime: `{python}` does not have it; name one in DEFROST_PYTHON");
        return;
    }
    let full = std::env::var("DEFROST_ONNX").is_ok_and(|v| v == "full");
    let temp = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/check_onnx.py");
    for (at, spec) in all(if full { 224 } else { 64 }, full).iter().enumerate() {
        let graph = spec.build().unwrap();
        let params = trained(&graph);
        let shape = graph.input_shape();
        let mut options = Options::default();
        // Each way of giving pictures, and normalisations that stay, somewhere on the way.
        options.fold = at % 4 != 1;
        let array = |shape: [usize; 4], values: Vec<f32>| HostTensor::new(shape, values).unwrap();
        let (input, logits) = if at % 2 == 0 {
            let images = Noise(3).take(2 * shape.image_len());
            let logits = infer(&graph, &params, 2, &images);
            (array([2, shape.c, shape.h, shape.w], images), logits)
        } else {
            let bytes: Vec<u8> =
                Noise(3).take(2 * shape.image_len()).iter().map(|v| ((v + 1.0) * 127.5) as u8).collect();
            let scale = Preprocess::torch().pixel_scale(shape.c);
            let logits = infer_pixels(&graph, &params, 2, &bytes, &scale);
            let element = if at % 4 == 1 { Element::U8 } else { Element::F32 };
            options.input = Input::Pixels { scale, layout: Layout::Nhwc, element };
            let values = bytes.iter().map(|&b| f32::from(b)).collect();
            (array([2, shape.h, shape.w, shape.c], values), logits)
        };
        let path = |end: &str| temp.path().join(format!("{at:02}-{}{end}", name(spec)));
        defrost_onnx::write(path(".onnx"), &graph, &params, &options).unwrap();
        npy::write(path(".input.npy"), &input).unwrap();
        npy::write(path(".logits.npy"), &HostTensor::new([2, graph.classes()], logits).unwrap()).unwrap();
        // One at a time: VGG16 has half a gigabyte.
        let status = Command::new(&python).arg(script).arg(path(".onnx")).status().unwrap();
        assert!(status.success(), "{}", name(spec));
        fs::remove_file(path(".onnx")).unwrap();
    }
}
