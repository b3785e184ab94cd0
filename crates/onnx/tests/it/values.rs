//! A file's outputs by ONNX' rules are those of the CPU backend.

use defrost_graph::op::{AvgPool, Concat, Flatten, Linear, MaxPool};
use defrost_graph::{Graph, GraphBuilder, Init, ParamKind, ParamStore};
use defrost_onnx::{Element, Input, Layout, Options, Output};
use defrost_tensor::{PixelScale, PoolDesc, Shape4};
use defrost_zoo::{Arch, Geometry, ModelSpec, Preprocess};

use crate::evaluate::{Array, evaluate};
use crate::networks::{Noise, all, infer, infer_pixels, name, trained};

fn near(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
    let size = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(size > 1e-2 && size < 30.0, "{what}: outputs of size {size} show nothing");
    assert!(worst < 1e-4, "{what}: off by {worst} of {size}");
}

fn check(what: &str, graph: &Graph, params: &ParamStore, options: &Options) {
    let shape = graph.input_shape();
    let images = Noise(3).take(2 * shape.image_len());
    let want = infer(graph, params, 2, &images);
    let model = defrost_onnx::model(graph, params, options).unwrap();
    let got = evaluate(&model, Array(vec![2, shape.c, shape.h, shape.w], images));
    near(what, &got.1, &want);
    let (first, second) = want.split_at(want.len() / 2);
    let spread = first.iter().zip(second).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(spread > 1e-2, "{what}: both images give the same, which shows nothing");
}

#[test]
fn every_network_geometry_and_head() {
    // VGG16 is one network in all geometries.
    let once = |s: &ModelSpec| s.arch != Arch::Vgg16 || s.geometry == Geometry::Torch;
    for spec in all(32, false).into_iter().filter(once) {
        let graph = spec.build().unwrap();
        check(&name(&spec), &graph, &trained(&graph), &Options::default());
    }
}

#[test]
fn normalisations_that_stay() {
    let mut options = Options::default();
    options.fold = false;
    for (arch, geometry) in [(Arch::Resnet18, Geometry::Torch), (Arch::MobilenetV2, Geometry::Keras)] {
        let spec = ModelSpec::new(arch, 4).with_geometry(geometry).with_image_size(33);
        let graph = spec.build().unwrap();
        check(&name(&spec), &graph, &trained(&graph), &options);
    }
}

/// Pools that no published network has: both means and maxima of the last features, windows of several sizes, a last window
/// that is cut.
#[test]
fn pools_of_every_kind() {
    let mut b = GraphBuilder::new("pools", Shape4::new(1, 3, 11, 9));
    b.stage("all", false);
    let partial = PoolDesc::Window { kernel: [3, 2], stride: [2, 2], padding: [1, 0], ceil: true };
    let x = b.node("maximum", MaxPool(partial), &[Graph::INPUT]).unwrap();
    let x = b.node(
        "mean",
        AvgPool(PoolDesc::Window { kernel: [2; 2], stride: [1; 2], padding: [1; 2], ceil: true }),
        &[x],
    );
    let x = x.unwrap();
    let odd = b.node("odd", AvgPool(PoolDesc::Adaptive { out: [4, 3] }), &[x]).unwrap();
    let even = b.node("even", AvgPool(PoolDesc::Adaptive { out: [2, 3] }), &[odd]).unwrap();
    let max = b.node("max", MaxPool(PoolDesc::GLOBAL), &[even]).unwrap();
    let avg = b.node("avg", AvgPool(PoolDesc::GLOBAL), &[even]).unwrap();
    let both = b.node("both", Concat, &[max, avg]).unwrap();
    let flat = b.node("flat", Flatten, &[both]).unwrap();
    let init = Init::Normal { std: 1.0 };
    let weight = b.param("fc.weight", vec![4, 6], ParamKind::LinearWeight, init).unwrap();
    let linear = Linear { in_features: 6, out_features: 4, weight, bias: None };
    b.node("fc", linear, &[flat]).unwrap();
    let graph = b.finish();
    check("pools", &graph, &ParamStore::init(&graph, 1), &Options::default());
}

#[test]
fn pictures_are_prepared_inside() {
    let noise = Noise(5).take(2 * 32 * 37 * 3);
    let bytes: Vec<u8> = noise.iter().map(|v| ((v + 1.0) * 127.5) as u8).collect();
    for (preprocess, geometry) in
        [(Preprocess::torch(), Geometry::Torch), (Preprocess::caffe(), Geometry::Keras)]
    {
        let mut spec = ModelSpec::new(Arch::Resnet50, 3).with_geometry(geometry);
        spec.image_size = [32, 37];
        let graph = spec.build().unwrap();
        let params = trained(&graph);
        let scale = preprocess.pixel_scale(3);
        // Caffe's numbers reach to 150: the network is not made for them, and its outputs grow with them.
        let scale = match scale.reversed {
            true => {
                let smaller =
                    |values: &[f32]| values.iter().zip([0.01, 0.02, 0.03]).map(|(v, f)| v * f).collect();
                let (factors, shift) = (smaller(&scale.scale), smaller(&scale.shift));
                PixelScale { scale: factors, shift, ..scale }
            }
            false => scale,
        };
        let want = infer_pixels(&graph, &params, 2, &bytes, &scale);
        for (layout, element) in [(Layout::Nhwc, Element::U8), (Layout::Nchw, Element::F32)] {
            let mut options = Options::default();
            options.input = Input::Pixels { scale: scale.clone(), layout, element };
            options.output = Output::Logits;
            let floats: Vec<f32> = bytes.iter().map(|&b| f32::from(b)).collect();
            let input = match layout {
                Layout::Nhwc => Array(vec![2, 32, 37, 3], floats),
                _ => {
                    let plane = |i: usize, c: usize| (0..32 * 37).map(move |at| (i * 32 * 37 + at) * 3 + c);
                    let order = (0..2).flat_map(|i| (0..3).flat_map(move |c| plane(i, c)));
                    Array(vec![2, 3, 32, 37], order.map(|at| floats[at]).collect())
                }
            };
            let model = defrost_onnx::model(&graph, &params, &options).unwrap();
            near(&format!("{geometry} {layout:?} {element:?}"), &evaluate(&model, input).1, &want);
        }
    }
}

#[test]
fn probabilities_are_the_logits_softmax_or_logistic_function() {
    let spec = ModelSpec::new(Arch::MobilenetV2, 4).with_width(0.25).with_image_size(32);
    let graph = spec.build().unwrap();
    let params = trained(&graph);
    let images = Noise(9).take(3 * 32 * 32);
    let logits = infer(&graph, &params, 1, &images);
    let of = |output: Output| {
        let mut options = Options::default();
        options.output = output;
        let model = defrost_onnx::model(&graph, &params, &options).unwrap();
        evaluate(&model, Array(vec![1, 3, 32, 32], images.clone())).1
    };
    let sum: f32 = logits.iter().map(|v| v.exp()).sum();
    near("softmax", &of(Output::Softmax), &logits.iter().map(|v| v.exp() / sum).collect::<Vec<_>>());
    near(
        "sigmoid",
        &of(Output::Sigmoid),
        &logits.iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect::<Vec<_>>(),
    );
    let output = Output::Values { factor: vec![2.0, 1.0, -1.0, 0.5], summand: vec![0.0, 1.0, 2.0, 19.0] };
    let want = [2.0 * logits[0], logits[1] + 1.0, 2.0 - logits[2], 0.5 * logits[3] + 19.0];
    near("values", &of(output), &want);
    let mut options = Options::default();
    options.output = Output::Values { factor: vec![1.0; 3], summand: vec![0.0; 4] };
    let error = defrost_onnx::model(&graph, &params, &options).unwrap_err().to_string();
    assert!(error.contains("3 columns") && error.contains("4"), "{error}");
}

/// A summand a pixel: what a mean image becomes.
#[test]
fn a_mean_image_is_taken_away_inside() {
    let spec = ModelSpec::new(Arch::Resnet18, 3).with_image_size(32);
    let graph = spec.build().unwrap();
    let params = trained(&graph);
    let bytes: Vec<u8> = Noise(6).take(2 * 32 * 32 * 3).iter().map(|v| ((v + 1.0) * 127.5) as u8).collect();
    let shift = Noise(7).take(3 * 32 * 32);
    let scale = PixelScale { scale: vec![0.01, 0.02, 0.03], shift, reversed: true };
    let want = infer_pixels(&graph, &params, 2, &bytes, &scale);
    let plain = PixelScale { shift: vec![0.0; 3], ..scale.clone() };
    let off =
        infer_pixels(&graph, &params, 2, &bytes, &plain).into_iter().zip(&want).map(|(a, b)| (a - b).abs());
    assert!(off.fold(0.0, f32::max) > 0.1, "the image counts");
    let mut options = Options::default();
    options.input = Input::Pixels { scale, layout: Layout::Nhwc, element: Element::U8 };
    let model = defrost_onnx::model(&graph, &params, &options).unwrap();
    let floats = bytes.iter().map(|&b| f32::from(b)).collect();
    near("a mean image", &evaluate(&model, Array(vec![2, 32, 32, 3], floats)).1, &want);
}
