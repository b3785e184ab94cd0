//! What loads, what is new, and what a misfit says.

use super::*;
use crate::{Geometry, Head};

fn spec(arch: Arch, classes: usize) -> ModelSpec {
    ModelSpec::new(arch, classes).with_image_size(32)
}

/// A file of weights for `spec`: every element of tensor `i` is `i / 10`.
fn file(spec: &ModelSpec) -> Vec<(String, HostTensor)> {
    let graph = spec.build().unwrap();
    let tensors = graph.params().iter().zip(1..);
    tensors.map(|(p, i)| (p.name.clone(), HostTensor::full(p.shape.clone(), i as f32 / 10.0))).collect()
}

fn with(head: HeadLoading) -> LoadOptions {
    LoadOptions::default().with_head(head)
}

#[test]
fn all_of_a_file_is_loaded_under_its_names() {
    let spec = spec(Arch::Resnet18, 10);
    let graph = spec.build().unwrap();
    let mut tensors = file(&spec);
    tensors.push(("bn1.num_batches_tracked".into(), HostTensor::zeros([])));
    tensors.reverse();
    let (store, report) = load(&graph, tensors.clone(), &with(HeadLoading::Required)).unwrap();
    assert!(report.is_complete() && report.reinitialised.is_empty() && report.adapted.is_none());
    assert_eq!(report.matched.len(), graph.params().len());
    assert_eq!(store.get("conv1.weight").unwrap().data()[0], 0.1);
    assert_eq!(store.get("fc.bias").unwrap().data()[9], graph.params().len() as f32 / 10.0);
    let parallel = tensors.into_iter().map(|(n, t)| (format!("module.{n}"), t)).collect();
    assert_eq!(load(&graph, parallel, &LoadOptions::default()).unwrap().0, store);
}

#[test]
fn a_head_is_new_for_other_classes_or_layers_or_on_request() {
    let tensors = file(&spec(Arch::MobilenetV2, 1000));
    let graph = spec(Arch::MobilenetV2, 5).build().unwrap();
    let (store, report) = load(&graph, tensors.clone(), &LoadOptions::default()).unwrap();
    assert_eq!(report.reinitialised, ["classifier.1.weight", "classifier.1.bias"]);
    assert_eq!(report.dropped, report.reinitialised);
    let fresh = ParamStore::init(&graph, 0);
    assert_eq!(store.get("classifier.1.weight"), fresh.get("classifier.1.weight"));
    assert_ne!(store.get("features.0.0.weight"), fresh.get("features.0.0.weight"));

    let same = spec(Arch::MobilenetV2, 1000).build().unwrap();
    let (_, report) = load(&same, tensors.clone(), &with(HeadLoading::New)).unwrap();
    assert_eq!(report.reinitialised.len(), 2);
    let error = load(&graph, tensors, &with(HeadLoading::Required)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the weights do not fit mobilenet_v2 (260 tensors do)\n  \
         of another shape: `classifier.1.weight` is [1000, 1280], must be [5, 1280], \
         `classifier.1.bias` is [1000], must be [5]\n  \
         these are weights of mobilenet_v2 for 1000 classes"
    );

    // VGG16 keeps its wide layers under the published head and loses them under another.
    let published = spec(Arch::Vgg16, 4).build().unwrap();
    let report = |graph: &Graph| {
        let shapes = published.params().iter().map(|p| (p.name.as_str(), p.shape.as_slice()));
        match_weights(graph, shapes, HeadLoading::IfFits)
    };
    let kept = report(&spec(Arch::Vgg16, 5).build().unwrap());
    assert!(kept.is_complete() && kept.matched.contains(&"classifier.3.weight".to_owned()));
    let pooled = Head::Pooled { hidden: vec![8], dropout: 0.0, batch_norm: false };
    let lost = report(&spec(Arch::Vgg16, 5).with_head(pooled).build().unwrap());
    assert!(lost.is_complete());
    assert_eq!((lost.reinitialised.len(), lost.dropped.len()), (4, 6));
    assert_eq!(lost.to_string(), "26 tensors loaded, 6 of another head left out, the head new");
}

#[test]
fn a_stem_is_adapted_to_other_channels() {
    let tensors = file(&spec(Arch::Resnet18, 5));
    let graph = spec(Arch::Resnet18, 5).with_in_channels(1).build().unwrap();
    let (store, report) = load(&graph, tensors.clone(), &LoadOptions::default()).unwrap();
    assert_eq!(report.adapted.as_deref(), Some("conv1.weight"));
    assert!((store.get("conv1.weight").unwrap().data()[0] - 0.3).abs() < 1e-6);
    let graph = spec(Arch::Resnet18, 5).with_in_channels(4).build().unwrap();
    let options = LoadOptions::default().with_tradition(Tradition::Fastai);
    let (store, _) = load(&graph, tensors, &options).unwrap();
    assert_eq!(store.get("conv1.weight").unwrap().data()[3 * 49..4 * 49], [0.0; 49]);
    // The other way round has no rule.
    let grey = file(&spec(Arch::Resnet18, 5).with_in_channels(1));
    let graph = spec(Arch::Resnet18, 5).build().unwrap();
    let error = load(&graph, grey, &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.ends_with("these are weights of resnet18 on grey images for 5 classes"), "{error}");
}

#[test]
fn a_misfit_lists_the_first_and_says_what_would_fit() {
    let graph = spec(Arch::Resnet18, 5).build().unwrap();
    let error =
        load(&graph, file(&spec(Arch::Resnet50, 9)), &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.starts_with("the weights do not fit resnet18 ("), "{error}");
    assert!(error.contains("`layer1.0.conv1.weight` is [64, 64, 1, 1], must be [64, 64, 3, 3]"), "{error}");
    assert!(
        error.contains(" more\n") && error.contains("not in the network: `layer1.0.conv3.weight`"),
        "{error}"
    );
    assert!(error.ends_with("these are weights of resnet50 for 9 classes"), "{error}");
    let half = file(&spec(Arch::MobilenetV2, 3).with_width(0.5));
    let error = load(&graph, half, &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.ends_with("these are weights of mobilenet_v2 (width 0.5) for 3 classes"), "{error}");
    let keras = file(&spec(Arch::Resnet50, 3).with_geometry(Geometry::Keras));
    let torch = spec(Arch::Resnet50, 3).build().unwrap();
    let error = load(&torch, keras, &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.ends_with("these are weights of resnet50 in keras geometry for 3 classes"), "{error}");
}

#[test]
fn strictness_is_about_missing_and_surplus() {
    let spec = spec(Arch::Resnet18, 5);
    let graph = spec.build().unwrap();
    let mut tensors = file(&spec);
    tensors.retain(|(n, _)| n != "layer1.0.bn1.bias");
    tensors.push(("extra".into(), HostTensor::zeros([1])));
    let error = load(&graph, tensors.clone(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("missing: `layer1.0.bn1.bias`\n  not in the network: `extra`"), "{error}");
    let loose = LoadOptions::default().with_partial(true);
    let (store, report) = load(&graph, tensors, &loose).unwrap();
    assert_eq!((report.missing, report.surplus), (vec!["layer1.0.bn1.bias".into()], vec!["extra".into()]));
    assert_eq!(store.get("layer1.0.bn1.bias").unwrap().data()[0], 0.0);
    let none = vec![("extra".to_owned(), HostTensor::zeros([1]))];
    assert!(matches!(load(&graph, none, &loose), Err(ZooError::DoesNotFit { .. })));
    assert!(matches!(load(&graph, Vec::new(), &loose), Err(ZooError::DoesNotFit { .. })));
}

#[test]
fn a_report_says_layer_by_layer_what_became_of_what() {
    let graph = spec(Arch::Resnet18, 5).with_in_channels(1).build().unwrap();
    let mut tensors = file(&spec(Arch::Resnet18, 9));
    tensors.push(("extra.weight".into(), HostTensor::zeros([1])));
    let (_, report) = load(&graph, tensors.clone(), &LoadOptions::default()).unwrap();
    let layers = report.layers();
    let row = |i: usize| (layers[i].layer.as_str(), layers[i].outcome, layers[i].tensors.join(" "));
    assert_eq!(row(0), ("conv1", Outcome::Adapted, "weight".into()));
    assert_eq!(row(1), ("bn1", Outcome::Matched, "weight bias running_mean running_var".into()));
    let n = layers.len();
    assert_eq!(row(n - 3), ("fc", Outcome::Reinitialised, "weight bias".into()));
    assert_eq!(row(n - 2), ("fc", Outcome::LeftOver, "weight bias".into()));
    assert_eq!(row(n - 1), ("extra", Outcome::LeftOver, "weight".into()));

    // A strict load accepts neither a new head nor anything that is left over.
    let strict = LoadOptions::default().with_strict(true);
    let error = load(&graph, tensors, &strict).unwrap_err().to_string();
    for part in [
        "re-initialised: `fc.weight`, `fc.bias`",
        "of another head: `fc.weight`",
        "not in the network: `extra.weight`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(load(&graph, file(&spec(Arch::Resnet18, 5)), &strict).is_ok());
}

#[test]
fn broken_files_are_refused_by_name() {
    let spec = spec(Arch::Resnet18, 5);
    let graph = spec.build().unwrap();
    let mut tensors = file(&spec);
    tensors.push(tensors[3].clone());
    let error = load(&graph, tensors.clone(), &LoadOptions::default()).unwrap_err();
    assert_eq!(error, ZooError::DuplicateTensor { name: "bn1.running_mean".into() });
    tensors.pop();
    tensors[2].1.data_mut()[5] = f32::NAN;
    let error = load(&graph, tensors, &LoadOptions::default()).unwrap_err();
    assert_eq!(error, ZooError::NotFinite { name: "bn1.bias".into(), at: 5 });
}
