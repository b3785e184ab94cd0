//! Published files that are too large for the repository, read as a user's: `cargo xtask fetch` brings them into
//! `.cache/weights`. Without them these tests say so and check nothing.

use std::path::{Path, PathBuf};

use defrost::Trained;
use defrost::zoo::{Arch, Geometry};
use defrost_conformance::det;
use serde_json::Value;

/// A file that `cargo xtask fetch` brings.
fn fetched(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/weights").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {name} is not there; `cargo xtask fetch` brings it");
    None
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

#[test]
fn a_classifier_of_keras_says_what_keras_says() {
    let Some(path) = fetched("dog_breed_mobilenetv2.h5") else { return };
    let trained = Trained::from_weights(&path, None, None).unwrap();
    let spec = &trained.model.spec;
    assert_eq!((spec.arch, spec.geometry), (Arch::MobilenetV2, Geometry::Keras));
    assert_eq!((spec.classes, spec.image_size), (19, [160, 160]), "the file's own classes and image size");
    assert_eq!(trained.model.preprocess.mean, [0.5; 3]);
    assert!(trained.model.report.as_ref().unwrap().is_exact());

    let want = numbers(&json("keras_mobilenet_v2.json")["original"]["probabilities"]);
    let input = det("keras/input", [1, 3, 160, 160], 0.0, 1.0);
    let answer = trained.predict_array(1, input.data()).unwrap().remove(0);
    let mut got = answer.logits;
    defrost::train::softmax(&mut got);
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!((f64::from(*got) - want).abs() < 1e-5, "class {i}: got {got}, Keras has {want}");
    }
}

#[test]
fn lite0_computes_what_its_package_computes() {
    let Some(path) = fetched("efficientnet-lite0-57934424.pth") else { return };
    let trained = Trained::from_weights(&path, None, None).unwrap();
    let input = det("lite0/input", [1, 3, 224, 224], 0.0, 1.0);
    let got = trained.predict_array(1, input.data()).unwrap().remove(0).logits;
    let want = numbers(&json("lite0.json")["logits"]);
    assert_eq!((got.len(), want.len()), (1000, 1000));
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!((f64::from(*got) - want).abs() < 2e-4, "class {i}: got {got}, the package has {want}");
    }
}

#[test]
fn lite0_knows_well_known_photographs() {
    let Some(path) = fetched("efficientnet-lite0-57934424.pth") else { return };
    let trained = Trained::from_weights(&path, None, None).unwrap();
    // A launch is no class of ImageNet: the tower beside the rocket is seen first by a hair, the rocket second to fourth.
    let photos: [(&str, &[&str], f32); 5] = [
        ("chelsea.jpg", &["tabby", "tiger cat", "Egyptian cat"], 0.9),
        ("coffee.jpg", &["espresso", "cup", "coffee mug"], 0.9),
        ("rocket.jpg", &["missile", "projectile", "space shuttle"], 0.25),
        // A pavilion of the Summer Palace, and a dahlia, which is no class of ImageNet.
        ("china.jpg", &["palace", "bell cote", "monastery"], 0.5),
        ("flower.jpg", &["daisy"], 0.2),
    ];
    let paths: Vec<_> = photos.iter().map(|(file, ..)| fixture("photos").join(file)).collect();
    for ((file, sensible, least), answer) in photos.iter().zip(trained.predict(&paths).unwrap()) {
        let first = &answer.guesses[..5];
        let share: f32 =
            first.iter().filter(|g| sensible.contains(&g.class.as_str())).map(|g| g.probability).sum();
        assert!(share > *least, "{file}: {first:?}");
        assert!(*file == "rocket.jpg" || sensible.contains(&first[0].class.as_str()), "{file}: {first:?}");
    }
}
