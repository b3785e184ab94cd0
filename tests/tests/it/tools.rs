//! Whole files of the tools, read as a user's: `tests/fixtures/make_tools.py` had timm, fastai and both Keras write them, and
//! a recipe of Lasagne, and says how weights and inputs are defined.

use std::io::Cursor;
use std::path::Path;

use defrost::zoo::{Arch, Geometry};
use defrost::{Inspection, Trained, inspect};
use defrost_conformance::det;
use indexmap::IndexMap;

#[derive(serde::Deserialize)]
struct File {
    arch: Arch,
    naming: String,
    width: f32,
    /// What the tool computes, a row a picture: logits, or probabilities where `softmax`.
    outputs: Vec<Vec<f64>>,
    #[serde(default)]
    softmax: bool,
    /// Whether the input is a picture of bytes.
    #[serde(default)]
    picture: Option<String>,
}

/// Unpacks the files of `tool` into `folder`; what the tool computes with each.
fn unpacked(tool: &str, folder: &Path) -> IndexMap<String, File> {
    let read = |end: &str| {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        std::fs::read(fixtures.join(format!("{tool}.{end}"))).unwrap()
    };
    zip::ZipArchive::new(Cursor::new(read("zip"))).unwrap().extract(folder).unwrap();
    serde_json::from_slice(&read("json")).unwrap()
}

/// Opens each file of `tool`, and compares what the network computes.
fn check(tool: &str, look: impl Fn(&str, &Inspection)) {
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in unpacked(tool, folder.path()) {
        let path = folder.path().join(&name);
        let about = inspect(&path).unwrap();
        let fit = about.fits.first().unwrap_or_else(|| panic!("{tool} {name} fits nothing"));
        assert_eq!(
            (fit.spec.arch, fit.spec.width, fit.spec.classes),
            (file.arch, file.width, 3),
            "{tool} {name}"
        );
        assert_eq!(fit.naming().to_string(), file.naming, "{tool} {name}");
        assert!(fit.has_head && fit.report.is_exact(), "{tool} {name}: {}", fit.report);
        look(&name, &about);
        if file.picture.is_some() {
            continue;
        }
        let trained = Trained::from_weights(&path, None, Some(64)).unwrap();
        let input = det(&format!("{name}/input"), [2, 3, 64, 64], 0.0, 2.0);
        let answers = trained.predict_array(2, input.data()).unwrap();
        let mut got: Vec<Vec<f32>> = answers.into_iter().map(|answer| answer.logits).collect();
        if file.softmax {
            got.iter_mut().for_each(|row| defrost::train::softmax(row));
        }
        close(&format!("{tool} {name}"), &got, &file.outputs);
    }
}

/// Whether outputs are the tool's, but for rounding.
fn close(name: &str, got: &[Vec<f32>], want: &[Vec<f64>]) {
    let largest = want.iter().flatten().fold(0.0, |m: f64, v| m.max(v.abs()));
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        let off = (f64::from(*got) - want).abs() / largest;
        assert!(off < 1e-4, "{name}: got {got}, the tool has {want}");
    }
}

#[test]
fn timm_as_on_the_hub_from_its_training_in_shards_and_from_several_machines() {
    check("timm", |name, about| {
        let fit = &about.fits[0];
        let cubic = fit.preprocess().interpolation == defrost::zoo::Interpolation::Bicubic;
        // The resnet has torchvision's names: nothing tells that it is timm's.
        assert_eq!(cubic, name != "parallel.pth", "{name}");
        assert_eq!(fit.is_assumed(), !name.starts_with("hub/"), "{name}: config.json lies on the hub alone");
        if name.starts_with("train/") {
            assert_eq!(about.metadata["arch"], "mobilenetv2_050", "{name}");
        }
    });
}

#[test]
fn fastai_with_and_without_its_optimizer() {
    check("fastai", |name, about| {
        let fit = &about.fits[0];
        assert_eq!(fit.spec.head.to_string(), "fastai:512:0.5", "{name}");
        assert_eq!((fit.preprocess().resize, fit.preprocess().crop), (224, 224), "{name}");
    });
}

#[test]
fn both_keras_whole_and_weights_alone() {
    for tool in ["keras2", "keras3"] {
        check(tool, |name, about| {
            let fit = &about.fits[0];
            let side = if name.ends_with("weights.h5") { 224 } else { 64 };
            assert_eq!((fit.spec.geometry, fit.preprocess().crop), (Geometry::Keras, side), "{tool} {name}");
        });
    }
}

/// The mean image is taken from each pixel, in blue, green, red.
#[test]
fn a_recipe_of_lasagne_takes_away_its_mean_image() {
    check("lasagne", |_, about| {
        let fit = &about.fits[0];
        assert_eq!(fit.spec.geometry, Geometry::Lasagne);
        let image = fit.preprocess().mean_image.as_ref().unwrap();
        assert_eq!(image.shape(), [3, 224, 224]);
    });
    let folder = tempfile::tempdir().unwrap();
    let want = unpacked("lasagne", folder.path()).swap_remove("resnet50.pkl").unwrap();
    let mut trained = Trained::from_weights(&folder.path().join("resnet50.pkl"), None, None).unwrap();
    // The script's pictures are of the network's size: nothing is resized.
    trained.model.preprocess = trained.model.preprocess.clone().with_size(224, 224);
    let shade = |turned: bool| {
        let at = move |x: u32, y: u32| if turned { (x, 223 - y) } else { (x, y) };
        image::RgbImage::from_fn(224, 224, |x, y| {
            let (x, y) = at(x, y);
            image::Rgb([0, 1, 2].map(|c| ((2 * y + x + 40 * c) % 256) as u8))
        })
    };
    let paths = [false, true].map(|turned| folder.path().join(format!("{turned}.png")));
    shade(false).save(&paths[0]).unwrap();
    shade(true).save(&paths[1]).unwrap();
    let answers = trained.predict(&paths).unwrap();
    let got: Vec<_> = answers.into_iter().map(|answer| answer.logits).collect();
    close("a picture", &got, &want.outputs);

    // It goes with the weights into what is written.
    let converted = folder.path().join("converted.safetensors");
    let tensors = inspect(&folder.path().join("resnet50.pkl")).unwrap().fits.swap_remove(0).into_tensors();
    defrost::weights::safetensors::write(&converted, &tensors, Default::default()).unwrap();
    let mut again = Trained::from_weights(&converted, None, None).unwrap();
    again.model.preprocess = again.model.preprocess.clone().with_size(224, 224);
    let got: Vec<_> = again.predict(&paths).unwrap().into_iter().map(|answer| answer.logits).collect();
    close("a picture, converted", &got, &want.outputs);
}
