//! The messages of a file.

use std::collections::HashSet;

use defrost_graph::{GraphBuilder, ParamStore};
use defrost_onnx::proto::{self, Extent, data_type};
use defrost_onnx::{Error, Input, Options, Output};
use defrost_tensor::{HostTensor, PixelScale, Shape4};
use defrost_zoo::{Arch, ModelSpec};
use prost::Message;

use crate::networks::{all, name, trained};

fn dims(info: &proto::ValueInfo) -> (i32, Vec<String>) {
    let tensor = info.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
    let dims = tensor.shape.as_ref().unwrap().dim.iter().map(|d| match d.value.as_ref().unwrap() {
        Extent::Value(v) => v.to_string(),
        Extent::Param(p) => p.clone(),
    });
    (tensor.elem_type, dims.collect())
}

fn decoded(graph: &defrost_graph::Graph, params: &ParamStore, options: &Options) -> proto::Model {
    proto::Model::decode(&*defrost_onnx::to_bytes(graph, params, options).unwrap()).unwrap()
}

#[test]
fn every_file_is_whole() {
    for spec in all(32, false) {
        let what = name(&spec);
        let graph = spec.build().unwrap();
        let params = ParamStore::zeros(&graph);
        for fold in [false, true] {
            let mut options = Options::default();
            options.fold = fold;
            let model = decoded(&graph, &params, &options);
            assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17), "{what}");
            let file = model.graph.unwrap();
            let [h, w] = spec.image_size;
            let image = ["N".into(), spec.in_channels.to_string(), h.to_string(), w.to_string()];
            assert_eq!(dims(&file.input[0]), (data_type::FLOAT, image.to_vec()), "{what}");
            let out = vec!["N".to_owned(), spec.classes.to_string()];
            assert_eq!((&*file.output[0].name, dims(&file.output[0])), ("logits", (1, out)), "{what}");

            // Every value is named once, before it is read, and every constant is used.
            let mut known: HashSet<_> = file.initializer.iter().map(|t| t.name.clone()).collect();
            assert_eq!(known.len(), file.initializer.len(), "{what}");
            known.insert("input".into());
            let mut read = HashSet::new();
            for node in &file.node {
                for input in &node.input {
                    assert!(known.contains(input), "{what}: `{}` reads `{input}` too early", node.name);
                    read.insert(input.clone());
                }
                assert!(known.insert(node.output[0].clone()), "{what}: two values `{}`", node.output[0]);
            }
            assert!(known.contains("logits") && read.contains("input"), "{what}");
            let unused: Vec<_> =
                file.initializer.iter().filter(|t| !read.contains(&t.name)).map(|t| &t.name).collect();
            assert!(unused.is_empty(), "{what}: {unused:?}");
            for t in &file.initializer {
                let size = if t.data_type == data_type::INT64 { 8 } else { 4 };
                assert_eq!(
                    t.raw_data.len() as i64,
                    size * t.dims.iter().product::<i64>(),
                    "{what}: {}",
                    t.name
                );
            }

            let count = |op: &str| file.node.iter().filter(|n| n.op_type == op).count();
            let norms = graph.nodes().iter().filter(|n| n.op.norm().is_some()).count();
            let convs = graph.nodes().iter().filter(|n| n.op.kind() == "conv2d").count();
            assert_eq!(count("Conv"), convs, "{what}");
            assert_eq!(count("Dropout"), 0, "{what}");
            if fold {
                // A normalisation behind a dense layer has no convolution to go into.
                assert!(count("BatchNormalization") <= 1, "{what}");
            } else {
                assert_eq!(count("BatchNormalization"), norms, "{what}");
                let names: HashSet<_> = file.initializer.iter().map(|t| &t.name).collect();
                let missing = graph.params().iter().filter(|p| !names.contains(&p.name)).count();
                assert_eq!(missing, 0, "{what}: every parameter under its published name");
            }
        }
    }
}

#[test]
fn a_file_says_what_belongs_to_it() {
    let graph = ModelSpec::new(Arch::Resnet18, 2).with_image_size(32).build().unwrap();
    let params = trained(&graph);
    let mut options = Options::default();
    options.metadata = vec![("classes".into(), r#"["cat","dög"]"#.into())];
    options.output = Output::Softmax;
    let model = decoded(&graph, &params, &options);
    assert_eq!(model.producer_name, "defrost");
    assert_eq!(
        model.metadata_props,
        [proto::Entry { key: "classes".into(), value: r#"["cat","dög"]"#.into() }]
    );
    let file = model.graph.unwrap();
    let last = file.node.last().unwrap();
    assert_eq!(
        (&*last.op_type, &*last.output[0], &*file.output[0].name),
        ("Softmax", "probabilities", "probabilities")
    );
    assert_eq!(file.name, "resnet18");
}

#[test]
fn what_cannot_be_written_is_said() {
    let graph = ModelSpec::new(Arch::MobilenetV2, 2).with_width(0.25).with_image_size(32).build().unwrap();
    let scale = PixelScale { scale: vec![1.0], shift: vec![0.0], reversed: false };
    let mut options = Options::default();
    options.input = Input::Pixels { scale, layout: Default::default(), element: Default::default() };
    let error = defrost_onnx::to_bytes(&graph, &ParamStore::zeros(&graph), &options).unwrap_err();
    assert!(matches!(error, Error::Channels { got: 1, want: 3 }), "{error}");

    // The values of another network.
    let other = ModelSpec::new(Arch::MobilenetV2, 3).with_width(0.25).with_image_size(32).build().unwrap();
    let error = defrost_onnx::to_bytes(&graph, &ParamStore::zeros(&other), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("classifier.1.weight"), "{error}");

    let mut b = GraphBuilder::new("odd", Shape4::new(1, 1, 5, 5));
    b.stage("all", false);
    let pool = defrost_tensor::PoolDesc::Adaptive { out: [2, 2] };
    b.node("pool", defrost_graph::op::MaxPool(pool), &[defrost_graph::Graph::INPUT]).unwrap();
    let graph = b.finish();
    let error = defrost_onnx::to_bytes(&graph, &ParamStore::zeros(&graph), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("`pool`") && error.to_string().contains("max_pool"), "{error}");
}

#[test]
fn a_file_is_written_whole() {
    let temp = tempfile::tempdir().unwrap();
    let graph = ModelSpec::new(Arch::MobilenetV2, 2).with_width(0.25).with_image_size(32).build().unwrap();
    let mut params = trained(&graph);
    params.set("classifier.1.bias", HostTensor::vector(vec![0.5, -0.25])).unwrap();
    let path = temp.path().join("model.onnx");
    let bytes = defrost_onnx::write(&path, &graph, &params, &Options::default()).unwrap();
    let file = std::fs::read(&path).unwrap();
    assert_eq!(file.len() as u64, bytes);
    let model = proto::Model::decode(&*file).unwrap().graph.unwrap();
    let bias = model.initializer.iter().find(|t| t.name == "classifier.1.bias").unwrap();
    assert_eq!(&bias.raw_data[..], [0.5f32.to_le_bytes(), (-0.25f32).to_le_bytes()].concat());
    assert!(
        defrost_onnx::write(temp.path().join("no/such/folder.onnx"), &graph, &params, &Options::default())
            .is_err()
    );
}
