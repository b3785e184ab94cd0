//! `inspect` and `convert`: what a weight file is, and the same in another format.

use std::path::{Path, PathBuf};

use defrost::graph::ParamStore;
use defrost::tensor::HostTensor;
use defrost::weights::{NamedTensors, Precision, read, safetensors};
use defrost::zoo::{Arch, Geometry, ModelSpec};
use serde_json::Value;

use crate::folder::{SHORT, photos};
use crate::{run, stderr, stdout};

/// A file that a real tool wrote.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights/tests/fixtures").join(name)
}

/// Fresh weights of `spec` under its published names.
fn fresh(spec: &ModelSpec) -> NamedTensors {
    let store = ParamStore::init(&spec.build().unwrap(), 1);
    store.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
}

fn inspect(here: &Path, file: &str) -> Value {
    serde_json::from_str(&stdout(&run(here, &["inspect", file, "--json"], 0))).unwrap()
}

#[test]
fn inspect_says_the_format_and_the_tensors_of_every_kind_of_file() {
    let temp = tempfile::tempdir().unwrap();
    for (file, format, tensor) in [
        ("torch.safetensors", "safetensors", "bn1.running_var"),
        ("f16.npy", "NumPy .npy", "arr_0"),
        ("stored.npz", "NumPy .npz", "arr_1"),
        ("keras_model.h5", "Keras HDF5", "stem/kernel"),
        ("keras_only.weights.h5", "Keras 3 .weights.h5", "stem/kernel"),
        ("keras_model.keras", "Keras 3 .keras", "second/bias"),
        ("state.pth", "PyTorch checkpoint", "conv1.weight"),
        ("fastai_stage1.pth", "PyTorch checkpoint", "0.0.weight"),
        ("state_legacy.pth", "legacy PyTorch checkpoint", "conv1.weight"),
        ("recipe_py2.pkl", "pickle", "mean value"),
    ] {
        let file = fixture(file).display().to_string();
        let text = stdout(&run(temp.path(), &["inspect", &file], 0));
        assert!(text.contains(format) && text.contains(tensor), "{file}:\n{text}");
        let json = inspect(temp.path(), &file);
        assert_eq!((json["format"].as_str(), &json["fits"]), (Some(format), &Value::Array(vec![])), "{file}");
        assert!(json["tensors"].as_array().unwrap().iter().any(|t| t["name"] == tensor), "{file}");
    }
    let evil = fixture("evil.pth").display().to_string();
    let text = stderr(&run(temp.path(), &["inspect", &evil], 1));
    assert!(text.contains("evil.pth") && text.contains("posix.system"), "{text}");
    assert!(stderr(&run(temp.path(), &["inspect", "nowhere.pth"], 1)).contains("nowhere.pth"));
}

#[test]
fn inspect_tells_networks_apart() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    let write = |name: &str, tensors: &NamedTensors| {
        safetensors::write(here.join(name), tensors, Precision::F32).unwrap();
    };
    write("half.safetensors", &fresh(&ModelSpec::new(Arch::MobilenetV2, 37).with_width(0.5)));
    let json = inspect(here, "half.safetensors");
    let fit = &json["fits"][0];
    assert_eq!((fit["model"].as_str(), fit["width"].as_f64()), (Some("mobilenet_v2"), Some(0.5)));
    assert_eq!((fit["classes"].as_u64(), fit["preprocess"]["resize"].as_u64()), (Some(37), Some(256)));
    let layers = fit["layers"].as_array().unwrap();
    assert_eq!((layers.len(), layers[0]["outcome"].as_str()), (105, Some("matched")));
    run(here, &["inspect", "half.safetensors", "--strict"], 0);

    let mut body = fresh(&ModelSpec::new(Arch::Resnet18, 10));
    body.remove("fc.weight");
    body.remove("fc.bias");
    body.insert("extra", HostTensor::zeros([3]));
    write("body.safetensors", &body);
    let text = stdout(&run(here, &["inspect", "body.safetensors"], 0));
    for part in [
        "resnet18 without its head",
        "re-initialised  fc  weight bias",
        "left over         extra",
        "matched         conv1  weight",
    ] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    let text = stderr(&run(here, &["inspect", "body.safetensors", "--strict"], 1));
    assert!(text.contains("1 not in the network") && text.contains("the head new"), "{text}");
}

#[test]
fn a_training_says_what_it_loads_and_keeps_or_refuses_what_it_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 4);
    let spec = ModelSpec::new(Arch::MobilenetV2, 2).with_width(0.35);
    let mut two = fresh(&spec);
    safetensors::write(here.join("two.safetensors"), &two, Precision::F32).unwrap();
    let nine = fresh(&ModelSpec::new(Arch::MobilenetV2, 9).with_width(0.35));
    safetensors::write(here.join("nine.safetensors"), &nine, Precision::F32).unwrap();
    two.insert("extra.weight", HostTensor::zeros([1]));
    safetensors::write(here.join("more.safetensors"), &two, Precision::F32).unwrap();
    let train = |weights: &str, more: &[&str], code| {
        let width = ["--set", "model.width=0.35", "--set", "phase.1.epochs=1"];
        let start = ["train", "photos", "--weights", weights, "--run", "run"];
        let _ = std::fs::remove_dir_all(here.join("run"));
        run(here, &[&start, SHORT, &width, more].concat(), code)
    };
    let text = stdout(&train("nine.safetensors", &[], 0));
    for part in [
        "260 matched: features.0.0 … ",
        "2 re-initialised: classifier.1",
        "2 left over: classifier.1",
        "new head for 2 classes",
    ] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    let record = std::fs::read_to_string(here.join("run/weights.txt")).unwrap();
    assert!(
        record.starts_with("nine.safetensors\n")
            && record.contains("re-initialised  classifier.1  weight bias"),
        "{record}"
    );

    let text = stdout(&train(
        "two.safetensors",
        &["--keep-head", "--strict-weights", "--set", "model.preprocess=tf"],
        0,
    ));
    assert!(
        text.contains("262 matched") && text.contains("its own head") && text.contains("mean 0.5000"),
        "{text}"
    );
    let checkpoint = read(here.join("run/checkpoints/best.safetensors")).unwrap();
    assert!(checkpoint.metadata["preprocess"].contains("0.5"), "{:?}", checkpoint.metadata);
    assert!(
        stderr(&train("nine.safetensors", &["--keep-head"], 1)).contains("for 9 classes, and the data has 2")
    );
    assert!(
        stderr(&train("nine.safetensors", &["--strict-weights"], 1))
            .contains("re-initialised: `classifier.1.weight`")
    );
    assert!(
        stderr(&train("more.safetensors", &["--strict-weights"], 1))
            .contains("not in the network: `extra.weight`")
    );
    assert!(stdout(&train("more.safetensors", &[], 0)).contains("1 left over: extra"));
    assert!(stderr(&train("two.safetensors", &["--set", "model.preprocess=tff"], 2)).contains("caffe"));

    // The file's class count is the network's, and the file says which network it is.
    let predict = [
        "predict",
        "--weights",
        "nine.safetensors",
        "--keep-head",
        "--image-size",
        "64",
        "photos/red/0.png",
        "--json",
    ];
    let json: Value = serde_json::from_str(&stdout(&run(here, &predict, 0))).unwrap();
    assert_eq!(json["guesses"].as_array().unwrap().len(), 5, "{json}");
}

#[test]
fn preprocessing_comes_with_a_published_file() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    let weights = fresh(&ModelSpec::new(Arch::MobilenetV2, 3));
    let sizes = |file: &str, tensors: &NamedTensors| {
        defrost::weights::pytorch::write(here.join(file), tensors, Precision::F16).unwrap();
        let p = &inspect(here, file)["fits"][0]["preprocess"];
        (
            p["resize"].as_u64().unwrap(),
            p["crop"].as_u64().unwrap(),
            p["interpolation"].as_str().unwrap().to_owned(),
        )
    };
    let bilinear = |resize| (resize, 224, "bilinear".to_owned());
    assert_eq!(sizes("mine.pth", &weights), bilinear(256));
    // Nothing tells V1's names from V2's: that it is assumed is said, and whoever knows better says so.
    let assumed = |file: &str| stdout(&run(here, &["inspect", file], 0)).contains("assumed");
    assert!(assumed("mine.pth"));
    run(here, &["convert", "mine.pth", "told.safetensors", "--preprocess", "torch_v2"], 0);
    assert_eq!(inspect(here, "told.safetensors")["fits"][0]["preprocess"]["resize"], 232);
    assert!(!assumed("told.safetensors"));
    run(here, &["convert", "told.safetensors", "again.safetensors", "--preprocess", "tf"], 0);
    assert_eq!(inspect(here, "again.safetensors")["fits"][0]["preprocess"]["mean"][0], 0.5);
    let text = stderr(&run(here, &["convert", "mine.pth", "a.pth", "--preprocess", "torch_v3"], 2));
    assert!(text.contains("torch_v2"), "{text}");
    assert_eq!(
        sizes("mobilenet_v2-7ebf99e0.pth", &weights),
        bilinear(232),
        "torchvision's V2, known by its name"
    );
    assert!(!assumed("mobilenet_v2-7ebf99e0.pth"));
    let config = r#"{"architecture": "mobilenetv2_100", "pretrained_cfg": {"input_size": [3, 192, 192],
        "interpolation": "bicubic", "crop_pct": 0.96, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}"#;
    std::fs::write(here.join("config.json"), config).unwrap();
    assert_eq!(sizes("mine.pth", &weights), (200, 192, "bicubic".into()), "timm's config beside the file");
    assert_eq!(sizes("mobilenet_v2-7ebf99e0.pth", &weights), bilinear(232));
}

#[test]
fn convert_goes_through_every_format_and_back() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    let spec = ModelSpec::new(Arch::MobilenetV2, 5).with_width(0.35);
    let mut start = fresh(&spec);
    start.insert("features.0.1.num_batches_tracked", HostTensor::full([], 3.0));
    defrost::weights::pytorch::write(here.join("a.pth"), &start, Precision::F32).unwrap();
    for pair in [
        ["a.pth", "b.safetensors"],
        ["b.safetensors", "c.npz"],
        ["c.npz", "d.pth"],
        ["d.pth", "e.safetensors"],
    ] {
        let text = stdout(&run(here, &["convert", pair[0], pair[1]], 0));
        assert!(text.contains("mobilenet_v2 (width 0.35) for 5 classes"), "{text}");
        let got = read(here.join(pair[1])).unwrap();
        assert!(got.iter().eq(start.iter()), "{pair:?}: other tensors or another order");
    }
    let metadata = read(here.join("e.safetensors")).unwrap().metadata;
    assert_eq!((metadata["model"].as_str(), metadata["geometry"].as_str()), ("mobilenet_v2", "torch"));

    // What belongs to the weights goes with them.
    let keras = fresh(&spec.with_geometry(Geometry::Keras));
    let mut keras_file = keras;
    keras_file.metadata.extend([("geometry".into(), "keras".into()), ("preprocess".into(), "tf".into())]);
    safetensors::write(here.join("keras.safetensors"), &keras_file, Precision::F32).unwrap();
    for pair in [["keras.safetensors", "keras.pth"], ["keras.pth", "keras.npz"]] {
        run(here, &[&["convert"], &pair[..]].concat(), 0);
    }
    run(here, &["convert", "keras.npz", "half.safetensors", "--precision", "f16"], 0);
    let fit = inspect(here, "half.safetensors")["fits"][0].clone();
    assert_eq!((fit["geometry"].as_str(), fit["preprocess"]["mean"][0].as_f64()), (Some("keras"), Some(0.5)));
    assert!(
        std::fs::metadata(here.join("half.safetensors")).unwrap().len() * 3
            < 2 * std::fs::metadata(here.join("keras.safetensors")).unwrap().len()
    );

    let usage = |arguments: &[&str]| stderr(&run(here, arguments, 2));
    assert!(usage(&["convert", "a.pth", "a.h5"]).contains(".safetensors, .pth or .npz"));
    assert!(usage(&["convert", "a.pth", "a.npz", "--precision", "f16"]).contains("--precision"));
    assert!(usage(&["convert", "a.pth", "a.pth", "--precision", "f8"]).contains("f8"));
}

#[test]
fn a_file_that_fits_nothing_or_is_damaged_is_told_with_the_nearest_network() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    let spec = ModelSpec::new(Arch::Resnet18, 3);
    let write = |name: &str, tensors: &NamedTensors| {
        safetensors::write(here.join(name), tensors, Precision::F32).unwrap();
    };
    let with = |name: &str, shape: &[usize], value: f32| {
        let tensor = HostTensor::new(shape.to_vec(), vec![value; shape.iter().product()]).unwrap();
        let mut tensors: NamedTensors = fresh(&spec).into_iter().filter(|(n, _)| n != name).collect();
        tensors.insert(name.to_owned(), tensor);
        tensors
    };
    write("other.safetensors", &with("layer1.0.conv1.weight", &[5, 5, 1, 1], 0.0));
    write("nan.safetensors", &with("layer1.0.bn1.weight", &[64], f32::NAN));
    let wrong = "`layer1.0.conv1.weight` is [5, 5, 1, 1], must be [64, 64, 3, 3]";
    let text = stdout(&run(here, &["inspect", "other.safetensors"], 0));
    assert!(text.contains("most like   the weights do not fit resnet18 (101 tensors do)"), "{text}");
    assert!(text.contains(wrong), "{text}");
    // A weight file in which nothing of a network is found is not like any.
    let h5 = fixture("keras_model.h5").display().to_string();
    assert!(!stdout(&run(here, &["inspect", &h5], 0)).contains("most like"));
    photos(&here.join("photos"), 1);
    let picture = std::fs::read_dir(here.join("photos/red")).unwrap().next().unwrap().unwrap().path();
    let picture = picture.display().to_string();
    for (arguments, parts) in [
        (&["--weights", "other.safetensors"][..], [wrong, "other.safetensors"]),
        (&["--weights", "other.safetensors", "--model", "vgg16"], ["do not fit vgg16", "missing"]),
        (&["--weights", h5.as_str(), "--model", "vgg16"], ["do not fit vgg16", "stem/kernel"]),
        (
            &["--weights", "nan.safetensors"],
            ["nan.safetensors", "`layer1.0.bn1.weight` holds values that are not"],
        ),
    ] {
        let error = stderr(&run(here, &[&["predict"], arguments, &[picture.as_str()]].concat(), 1));
        assert!(parts.iter().all(|part| error.contains(part)), "{arguments:?}: {error}");
    }
    assert!(
        stdout(&run(here, &["inspect", "nan.safetensors"], 0)).contains("damage      tensor `layer1.0.bn1")
    );
    assert!(stderr(&run(here, &["inspect", "--strict", "nan.safetensors"], 1)).contains("not finite"));
    assert!(stderr(&run(here, &["convert", "nan.safetensors", "out.pth"], 1)).contains("not finite"));
    assert!(!here.join("out.pth").exists());
}
