//! Names, layouts and arithmetic of timm, fastai and Keras against those tools, and of Lasagne's recipe against its
//! description: `tests/fixtures/make_names.py` made the numbers and says how weights and inputs are defined.

use std::sync::Arc;

use defrost::Device;
use defrost::exec::Images;
use defrost::tensor::HostTensor;
use defrost::zoo::naming::{self, Naming};
use defrost::zoo::{self, Arch, Geometry, HeadLoading, LoadOptions, ModelSpec, match_weights};
use defrost_conformance::det;
use indexmap::IndexMap;

#[derive(serde::Deserialize)]
struct Entry {
    shapes: IndexMap<String, Vec<usize>>,
    logits: Option<Vec<Vec<f64>>>,
}

fn entries() -> IndexMap<String, Entry> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/names.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The architecture that an entry is of, and its width.
fn arch(entry: &str) -> (Arch, f32) {
    let last = entry.rsplit(' ').next().unwrap();
    let width = if last.ends_with("_050") { 0.5 } else { 1.0 };
    let plain = last.to_lowercase().replace("mobilenetv2", "mobilenet_v2");
    let arch = Arch::ALL.into_iter().find(|a| plain.trim_start_matches("tf_").starts_with(a.name()));
    (arch.unwrap_or_else(|| panic!("{entry}")), width)
}

/// The values that the script gives a tensor.
fn value(entry: &str, name: &str, shape: &[usize]) -> HostTensor {
    let leaf = name.rsplit(['.', '/']).next().unwrap();
    let keras = name.contains('/');
    let product = |part: &[usize]| part.iter().product::<usize>() as f64;
    let is_vector = shape.len() == 1;
    let (centre, bound) = match leaf {
        // VGG16 has no normalisation: all its vectors are biases.
        _ if entry == "lasagne vgg16" && is_vector => (0.0, 0.05),
        _ if leaf.starts_with("arr_") && is_vector => (1.0, 0.1),
        _ if leaf.starts_with("arr_") && shape.len() == 2 => (0.0, (6.0 / shape[0] as f64).sqrt()),
        "weight" | "gamma" | "running_var" | "moving_variance" if is_vector => (1.0, 0.1),
        "beta" | "running_mean" | "moving_mean" => (0.0, 0.1),
        // In PyTorch's names a normalisation's shift is a bias as well.
        "bias" if !keras && !is_dense(entry, name) => (0.0, 0.1),
        "bias" => (0.0, 0.05),
        _ if keras && name.contains("depthwise") => (0.0, (6.0 / product(&shape[..2])).sqrt()),
        _ if keras => (0.0, (6.0 / product(&shape[..shape.len() - 1])).sqrt()),
        _ => (0.0, (6.0 / product(&shape[1..])).sqrt()),
    };
    det(&format!("{entry}/{name}"), shape, centre, bound)
}

/// Whether the module of this bias is a dense layer: of the entries with logits, only published heads have such a bias.
fn is_dense(entry: &str, name: &str) -> bool {
    entry.starts_with("timm ") && matches!(name, "fc.bias" | "classifier.bias")
}

#[test]
fn every_name_of_the_tools_has_its_place_and_nothing_is_left_over() {
    for (entry, Entry { shapes, .. }) in entries() {
        let (arch, width) = arch(&entry);
        let tensors = shapes.iter().map(|(name, shape)| (name.clone(), HostTensor::zeros(shape.clone())));
        let named = naming::name(arch, tensors.collect()).unwrap();
        let want = match entry.split(' ').next().unwrap() {
            "fastai" => Naming::Fastai,
            "keras" => Naming::Keras,
            "lasagne" => Naming::Lasagne,
            _ if arch == Arch::Resnet18 || arch == Arch::Resnet50 => Naming::Torch,
            _ => Naming::Timm,
        };
        assert_eq!(named.naming, want, "{entry}");
        let spec = ModelSpec::new(arch, 5).with_image_size(64).with_width(width);
        let spec = spec.with_geometry(named.geometry).with_head(named.head.clone().unwrap_or_default());
        let shapes = named.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()));
        let report = match_weights(&spec.build().unwrap(), shapes, HeadLoading::Required);
        assert!(
            report.is_complete(),
            "{entry}: {report}, missing {:?}, left {:?}",
            report.missing,
            report.surplus
        );
    }
}

#[test]
fn networks_under_other_names_compute_what_their_tools_compute() {
    for (entry, Entry { shapes, logits }) in entries() {
        let Some(want) = logits else { continue };
        let (arch, _) = arch(&entry);
        let tensors = shapes.iter().map(|(name, shape)| (name.clone(), value(&entry, name, shape)));
        let named = naming::name(arch, tensors.collect()).unwrap();
        let geometry = if entry.contains(" tf_") { Geometry::Tensorflow } else { named.geometry };
        let spec = ModelSpec::new(arch, 5).with_image_size(64).with_geometry(geometry);
        let graph = Arc::new(spec.with_head(named.head.unwrap_or_default()).build().unwrap());
        let options = LoadOptions::default().with_head(HeadLoading::Required);
        let (params, _) = zoo::load(&graph, named.tensors, &options).unwrap();
        let mut session = Device::from_name("cpu").unwrap().open(graph, &params).unwrap();
        let input = det(&format!("{entry}/input"), [2, 3, 64, 64], 0.0, 2.0);
        let got = session.infer(2, Images::Array(input.data())).unwrap();
        let largest = want.iter().flatten().fold(0.0, |m: f64, v| m.max(v.abs()));
        for (got, want) in got.iter().zip(want.iter().flatten()) {
            let off = (f64::from(*got) - want).abs() / largest;
            assert!(off < 1e-4, "{entry}: got {got}, the tool has {want}");
        }
    }
}
