//! Every format, read from files of the tools it belongs to.

use defrost_weights::{
    Error, Format, NamedTensors, Precision, detect, keras, lasagne, npy, pytorch, read, safetensors,
};

use crate::{fill, fixture};

fn check(tensors: &NamedTensors, name: &str, shape: &[usize], seed: usize) {
    let tensor = tensors
        .get(name)
        .unwrap_or_else(|| panic!("{name} not in {:?}", tensors.names().collect::<Vec<_>>()));
    assert_eq!(tensor.shape(), shape, "{name}");
    assert_eq!(tensor.data(), fill(shape.iter().product(), seed), "{name}");
}

fn names(tensors: &NamedTensors) -> Vec<&str> {
    tensors.names().collect()
}

/// The error inside the one that names the file.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Error {
    match result.unwrap_err() {
        Error::File { source, path } => {
            assert!(path.exists());
            *source
        }
        other => panic!("no file is named: {other}"),
    }
}

#[test]
fn formats_are_told_apart_by_content() {
    for (name, format) in [
        ("torch.safetensors", Format::Safetensors),
        ("f16.npy", Format::Npy),
        ("stored.npz", Format::Npz),
        ("keras_model.h5", Format::KerasHdf5),
        ("keras2_weights.h5", Format::KerasHdf5),
        ("keras2_latest.h5", Format::KerasHdf5),
        ("keras_only.weights.h5", Format::KerasWeights),
        ("keras_model.keras", Format::KerasArchive),
        ("state.pth", Format::PyTorch),
        ("fastai_stage1.pth", Format::PyTorch),
        ("state_legacy.pth", Format::PyTorchLegacy),
        ("recipe_py2.pkl", Format::Pickle),
        ("recipe_py2_protocol0.pkl", Format::Pickle),
        ("recipe_py3_protocol5.pkl", Format::Pickle),
    ] {
        assert_eq!(detect(fixture(name)).unwrap(), format, "{name}");
        assert!(!read(fixture(name)).unwrap().is_empty(), "{name}");
    }
    for name in ["make_fixtures.py", "keras_weights.json", "not_keras.h5"] {
        assert!(matches!(refused(detect(fixture(name))), Error::Unknown { .. }), "{name}");
    }
    let temp = tempfile::tempdir().unwrap();
    for (name, what) in [("state.pth", "a zip archive"), ("torch.safetensors", "a safetensors file")] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let short = temp.path().join(name);
        std::fs::write(&short, &whole[..whole.len() / 4]).unwrap();
        let said = read(&short).unwrap_err().to_string();
        assert!(said.contains(what) && said.contains("cut short"), "{said}");
    }
    let missing = read(fixture("missing.pth")).unwrap_err().to_string();
    assert!(missing.contains("missing.pth"), "{missing}");
    assert!(read(fixture("")).is_err(), "a folder");
}

#[test]
fn numpy_files() {
    let one = |name| npy::read(fixture(name)).unwrap();
    let f = one("be_f64_fortran.npy");
    assert_eq!((f.shape(), f.data()), (&[2, 3, 4][..], &fill(24, 1)[..]));
    assert_eq!(one("f16.npy").data(), fill(5, 2));
    let scalar = one("scalar_i64.npy");
    assert_eq!((scalar.shape(), scalar.data()), (&[][..], &[-3.0][..]));
    assert_eq!(one("bool.npy").data(), [1.0, 0.0, 1.0]);

    let all = npy::read_npz(fixture("stored.npz")).unwrap();
    check(&all, "arr_0", &[4, 3], 3);
    check(&all, "arr_1", &[2], 4);
    check(&all, "named", &[3, 2], 5);
    let all = npy::read_npz(fixture("deflated.npz")).unwrap();
    check(&all, "arr_0", &[40, 30], 6);
    assert_eq!(names(&all), ["arr_0", "arr_1"]);
    let objects = refused(npy::read_npz(fixture("objects.npz"))).to_string();
    assert!(objects.contains("`arr_0`") && objects.contains("`|O`"), "{objects}");
}

fn check_state(state: &NamedTensors) {
    check(state, "conv1.weight", &[4, 3, 3, 3], 20);
    check(state, "bn1.weight", &[4], 21);
    check(state, "bn1.running_var", &[4], 22);
    check(state, "fc.weight", &[2, 4], 23);
    check(state, "fc.bias", &[2], 24);
    check(state, "half.weight", &[3, 2], 25);
    assert_eq!(state.get("bn1.num_batches_tracked").unwrap().data(), [17.0]);
}

#[test]
fn torch_state_dicts_of_both_layouts_and_safetensors() {
    for name in ["state.pth", "state_legacy.pth"] {
        let state = pytorch::read(fixture(name)).unwrap();
        check_state(&state);
        assert_eq!(
            names(&state),
            [
                "conv1.weight",
                "bn1.weight",
                "bn1.running_var",
                "bn1.num_batches_tracked",
                "fc.weight",
                "fc.bias",
                "half.weight"
            ]
        );
    }
    let theirs = safetensors::read(fixture("torch.safetensors")).unwrap();
    check_state(&theirs);
    assert_eq!(theirs.metadata["format"], "pt");
}

#[test]
fn a_checkpoint_is_searched_for_its_model() {
    for name in ["wrapped.pth", "wrapped_legacy.pth"] {
        let all = pytorch::read(fixture(name)).unwrap();
        assert_eq!(
            names(&all),
            ["transposed", "rows", "columns", "parameter", "expanded", "empty"],
            "{name}"
        );
        let source = fill(15, 27);
        let transposed: Vec<f32> = (0..15).map(|i| source[(i % 3) * 5 + i / 3]).collect();
        let tensor = all.get("transposed").unwrap();
        assert_eq!((tensor.shape(), tensor.data()), (&[5, 3][..], &transposed[..]), "{name}");
        let shared = fill(24, 26);
        assert_eq!(all.get("rows").unwrap().data(), &shared[8..16], "{name}");
        let columns: Vec<f32> = (0..6).flat_map(|r| [shared[r * 4 + 1], shared[r * 4 + 2]]).collect();
        assert_eq!(all.get("columns").unwrap().data(), columns, "{name}");
        check(&all, "parameter", &[2, 2], 28);
        assert_eq!(all.get("expanded").unwrap().data(), [fill(3, 29), fill(3, 29)].concat(), "{name}");
        assert_eq!(all.get("empty").unwrap().shape(), [0, 3], "{name}");
        let text = |key: &str| all.metadata[key].as_str();
        assert_eq!((text("epoch"), text("arch"), text("best_acc1")), ("12", "resnet18", "0.75"));
    }
    let parts = pytorch::read(fixture("parts.pth")).unwrap();
    check(&parts, "encoder.w", &[2], 31);
    check(&parts, "decoder.w", &[2], 32);
    let module = pytorch::read(fixture("module.pth")).unwrap();
    check(&module, "0.weight", &[3, 2, 1, 1], 33);
    check(&module, "1.0.running_var", &[3], 38);
}

#[test]
fn fastai_files_keep_the_numbered_names() {
    for name in ["fastai_stage1.pth", "fastai_model_only.pth"] {
        let all = pytorch::read(fixture(name)).unwrap();
        check(&all, "0.0.weight", &[2, 3, 3, 3], 50);
        check(&all, "0.1.running_mean", &[2], 54);
        check(&all, "1.2.weight", &[2, 2], 57);
        assert_eq!(all.len(), 8, "{name}: {:?}", names(&all));
    }
}

#[test]
fn what_no_weight_file_needs_is_refused_by_name() {
    let evil = refused(pytorch::read(fixture("evil.pth")));
    assert!(matches!(&evil, Error::Global { global, .. } if global == "posix.system"), "{evil}");
    let evil = refused(lasagne::read(fixture("evil.pkl")));
    assert!(matches!(&evil, Error::Global { global, .. } if global == "posix.system"), "{evil}");
    let complex = refused(pytorch::read(fixture("complex.pth"))).to_string();
    assert!(complex.contains("`w`") && complex.contains("ComplexFloat"), "{complex}");
    let sparse = refused(pytorch::read(fixture("sparse.pth"))).to_string();
    assert!(sparse.contains("sparse"), "{sparse}");
}

/// The variables of the small Keras model by name, shape and seed.
fn check_keras(all: &NamedTensors) {
    check(all, "stem/kernel", &[3, 3, 3, 2], 60);
    check(all, "stem/bias", &[2], 61);
    check(all, "stem_bn/gamma", &[2], 62);
    check(all, "stem_bn/moving_variance", &[2], 65);
    check(all, "dw/kernel", &[3, 3, 2, 1], 66);
    check(all, "dw_bn/beta", &[2], 67);
    check(all, "dw_bn/moving_mean", &[2], 68);
    check(all, "first/kernel", &[2, 3], 70);
    check(all, "second/bias", &[4], 73);
    assert_eq!(all.len(), 14, "{:?}", names(all));
}

#[test]
fn keras_3_writes_one_model_in_three_ways() {
    let archive = keras::read_archive(fixture("keras_model.keras")).unwrap();
    check_keras(&archive);
    assert_eq!(names(&archive)[..3], ["stem/kernel", "stem/bias", "stem_bn/gamma"]);
    assert!(archive.metadata["model_config"].contains("\"small\""));
    assert!(archive.metadata["keras_version"].starts_with("3."));
    let whole = keras::read_hdf5(fixture("keras_model.h5")).unwrap();
    check_keras(&whole);
    assert!(whole.metadata["model_config"].contains("\"small\""));

    // Without a configuration nobody can say what the three variables of a batch norm are.
    let only = keras::read_weights(fixture("keras_only.weights.h5")).unwrap();
    check(&only, "second/bias", &[4], 73);
    check(&only, "stem_bn/moving_variance", &[2], 65);
    check(&only, "dw/kernel", &[3, 3, 2, 1], 66);
    check(&only, "dw_bn/0", &[2], 67);
    assert_eq!(only.len(), 14);
}

#[test]
fn keras_2_names_of_all_ages() {
    let all = keras::read_hdf5(fixture("keras2_weights.h5")).unwrap();
    check(&all, "conv/kernel", &[3, 3, 2, 4], 80);
    check(&all, "conv/bias", &[4], 81);
    check(&all, "a/kernel", &[1, 1, 4, 2], 82);
    check(&all, "b/kernel", &[2, 2], 83);
    check(&all, "old_conv/kernel", &[1, 1, 2, 2], 84);
    check(&all, "old_bn/moving_variance", &[2], 87);
    assert_eq!(all.metadata["keras_version"], "2.2.4");
    let all = keras::read_hdf5(fixture("keras2_latest.h5")).unwrap();
    assert_eq!(names(&all), ["dense/kernel", "dense_1/kernel"]);
    check(&all, "dense_1/kernel", &[16, 8], 89);
    assert!(keras::read_hdf5(fixture("not_keras.h5")).is_err());
    assert!(keras::read_weights(fixture("cycle.weights.h5")).is_err());
}

#[test]
fn lasagne_recipes() {
    for name in ["recipe_py3_protocol2.pkl", "recipe_py3_protocol4.pkl", "recipe_py3_protocol5.pkl"] {
        let all = lasagne::read(fixture(name)).unwrap();
        assert_eq!(names(&all), ["arr_0", "arr_1", "mean_image"], "{name}");
        check(&all, "arr_0", &[2, 3, 3, 3], 8);
        check(&all, "arr_1", &[2], 9);
        check(&all, "mean_image", &[3, 2, 2], 10);
        assert_eq!(all.metadata["synset_words"], "tench\ngoldfish", "{name}");
    }
    let all = lasagne::read(fixture("recipe_list.pkl")).unwrap();
    check(&all, "arr_1", &[2, 3], 12);
    let all = lasagne::read(fixture("recipe_py2.pkl")).unwrap();
    check(&all, "arr_0", &[2, 3], 13);
    check(&all, "mean value", &[3], 15);
    assert_eq!(all.metadata["model type"], "vgg16");
    assert!(all.metadata["synset words"].ends_with("goldfish"));
    check(&lasagne::read(fixture("recipe_py2_protocol0.pkl")).unwrap(), "arr_0", &[2, 3], 16);
}

#[test]
fn everything_read_can_be_written_as_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.safetensors");
    for name in ["state.pth", "keras_model.h5", "stored.npz", "recipe_py2.pkl"] {
        let all = read(fixture(name)).unwrap();
        safetensors::write(&path, &all, Precision::F32).unwrap();
        assert_eq!(read(&path).unwrap(), all, "{name}");
    }
}
