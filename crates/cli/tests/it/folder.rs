//! From a folder of pictures to predictions.

use std::path::Path;

use serde_json::Value;

use crate::{run, stderr, stdout};

/// Two classes of pictures, red and blue with stripes.
pub(crate) fn photos(folder: &Path, each: u8) {
    for (class, colour) in [("red", [220, 30, 30]), ("blue", [30, 30, 220])] {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for i in 0..each {
            let shade = |x: u32, y: u32| {
                colour.map(|c: u8| c.saturating_add(((x * 5 + y * u32::from(i)) % 30) as u8))
            };
            let picture = image::RgbImage::from_fn(40, 36, |x, y| image::Rgb(shade(x, y)));
            picture.save(folder.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
}

/// What makes a run short.
pub(crate) const SHORT: &[&str] =
    &["--recipe", "head", "--image-size", "32", "--batch", "4", "--set", "phase.1.epochs=2"];

#[test]
fn a_folder_becomes_a_classifier() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 8);
    std::fs::write(here.join("photos/red/broken.png"), b"this is no picture").unwrap();

    let train = [&["train", "photos", "--run", "run"], SHORT].concat();
    let output = run(here, &train, 0);
    let text = stdout(&output);
    assert!(
        !text.contains('\x1b') && !text.contains('\r'),
        "no control characters without a terminal:\n{text}"
    );
    for part in [
        "16 images, 2 classes",
        "epoch   2/2",
        "best",
        "defrost predict run",
        "1 files, listed in run/skipped.txt",
    ] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    for file in ["recipe.toml", "metrics.jsonl", "classes.json", "report.html", "validation.json"] {
        assert!(here.join("run").join(file).is_file(), "{file}");
    }
    assert!(std::fs::read_to_string(here.join("run/skipped.txt")).unwrap().contains("broken.png"));
    for name in ["best", "last"] {
        assert!(here.join(format!("run/checkpoints/{name}.safetensors")).is_file(), "{name}");
    }

    let eval: Value =
        serde_json::from_str(&stdout(&run(here, &["eval", "run", "photos", "--json"], 0))).unwrap();
    assert!(eval["accuracy"].as_f64().unwrap() >= 0.9 && eval["loss"].as_f64().unwrap() < 0.7, "{eval}");
    assert!(stdout(&run(here, &["eval", "run", "photos"], 0)).contains("precision"));

    let answers =
        stdout(&run(here, &["predict", "run", "photos/red/1.png", "photos/blue/2.png", "--json"], 0));
    let classes: Vec<_> = answers
        .lines()
        .map(|l| {
            serde_json::from_str::<Value>(l).unwrap()["guesses"][0]["class"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(classes, ["red", "blue"]);

    // One broken picture among many: the others are answered.
    let output = run(here, &["predict", "run", "photos/red/broken.png", "photos/red/1.png", "--top", "1"], 1);
    assert!(stdout(&output).contains("red/1.png  red") && stderr(&output).contains("broken.png"));
    run(here, &["train", "photos", "--strict", "--run", "strict"], 1);
    // A folder that is a run already is not written over.
    let again = run(here, &train, 1);
    assert!(stderr(&again).contains("run"), "{}", stderr(&again));
}

#[test]
fn answers_are_means_over_views() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 6);
    let tta = ["--set", "augment.test_time=flip"];
    run(here, &[&["train", "photos", "--run", "run", "--quiet"], SHORT, &tta].concat(), 0);
    let logits = |more: &[&str]| {
        run(here, &[&["predict", "run", "photos/red/1.png", "--logits", "o.npy"], more].concat(), 0);
        defrost::weights::npy::read(here.join("o.npy")).unwrap().data().to_vec()
    };
    let probabilities = |more: &[&str]| {
        let mut row = logits(more);
        defrost::train::softmax(&mut row);
        row
    };
    // Of the network's size: neither resized nor cut, so that a mirror image differs in nothing else.
    let path = here.join("photos/red/1.png");
    image::open(&path).unwrap().crop_imm(0, 0, 32, 32).save(&path).unwrap();
    let (recipe, plain, flip) =
        (logits(&[]), probabilities(&["--tta", "plain"]), probabilities(&["--tta", "flip"]));
    assert_eq!(recipe, logits(&["--tta", "flip"]), "the recipe's views where no others are asked for");
    // The mirror image's answer by itself, of a picture that is a mirror image.
    image::open(&path).unwrap().fliph().save(&path).unwrap();
    let mirrored = probabilities(&["--tta", "plain"]);
    for i in 0..2 {
        let mean = (plain[i] + mirrored[i]) / 2.0;
        assert!((flip[i] - mean).abs() < 1e-5, "{flip:?} is not the mean of {plain:?} and {mirrored:?}");
    }
    // Three random views and the plain one, the same each time.
    assert_eq!(logits(&["--tta", "3"]), logits(&["--tta", "3"]));
    let measured = |tta: &str| stdout(&run(here, &["eval", "run", "photos", "--json", "--tta", tta], 0));
    let loss = |tta: &str| serde_json::from_str::<Value>(&measured(tta)).unwrap()["loss"].as_f64().unwrap();
    assert_ne!(loss("ten_crop"), loss("plain"));
    assert!((loss("ten_crop") - loss("plain")).abs() < 0.2);
    let text = stderr(&run(here, &["eval", "run", "photos", "--tta", "ten_crp"], 2));
    assert!(text.contains("did you mean `ten_crop`?"), "{text}");
}

#[test]
fn raw_outputs_of_a_weight_file_are_a_runs_own() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 6);
    run(here, &[&["train", "photos", "--run", "run", "--quiet"], SHORT].concat(), 0);
    let weights = "run/checkpoints/best.safetensors";
    run(here, &["predict", "run", "photos/red/1.png", "--logits", "a.npy"], 0);
    run(here, &["predict", "--weights", weights, "photos/red/1.png", "--logits", "b.npy"], 0);
    let read = |name: &str| defrost::weights::npy::read(here.join(name)).unwrap();
    assert_eq!(read("a.npy"), read("b.npy"));
    assert_eq!(read("a.npy").shape(), [1, 2]);

    // An array is taken as it is: the picture with the preprocessing done by hand.
    let picture = image::open(here.join("photos/red/1.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (40, 36));
    let array = defrost::tensor::HostTensor::zeros([3, 3, 32, 32]);
    defrost::weights::npy::write(here.join("in.npy"), &array).unwrap();
    run(
        here,
        &["predict", "--model", "mobilenet_v2", "--weights", weights, "in.npy", "--logits", "c.npy"],
        0,
    );
    let logits = read("c.npy");
    assert_eq!(logits.shape(), [3, 2]);
    assert_eq!(logits.data()[..2], logits.data()[2..4], "equal arrays, equal answers");
    let wrong = defrost::tensor::HostTensor::zeros([1, 3, 16, 16]);
    defrost::weights::npy::write(here.join("wrong.npy"), &wrong).unwrap();
    let output = run(here, &["predict", "--weights", weights, "wrong.npy"], 1);
    assert!(stderr(&output).contains("[n, 3, 32, 32]"), "{}", stderr(&output));
}

#[test]
fn a_plan_is_a_table_of_stages() {
    let temp = tempfile::tempdir().unwrap();
    let text = stdout(&run(temp.path(), &["plan", "--classes", "16"], 0));
    let frozen = text.lines().find(|l| l.trim_start().starts_with("features.0 ")).unwrap();
    assert!(frozen.contains("frozen") && frozen.trim_end().ends_with('-'), "{frozen}");
    assert!(text.contains("20,496 of 2,244,368 parameters"), "{text}");
    let json = stdout(&run(temp.path(), &["plan", "--classes", "16", "--json"], 0));
    let json: Value = serde_json::from_str(&json).unwrap();
    let stage = &json[0]["stages"][0];
    assert_eq!((stage["backward_flops"].as_u64(), stage["saved_bytes"].as_u64()), (Some(0), Some(0)));
    assert!(json[1]["peak_bytes"].as_u64() > json[0]["peak_bytes"].as_u64());

    let again = ["plan", "--classes", "16", "--recipe", "full", "--set"];
    let plan = |how: &str, json: &[&str]| stdout(&run(temp.path(), &[&again[..], &[how], json].concat(), 0));
    assert!(plan("recompute=always", &[]).contains("(computed again in the backward pass)"));
    let peak = |how| {
        serde_json::from_str::<Value>(&plan(how, &["--json"])).unwrap()[0]["peak_bytes"].as_u64().unwrap()
    };
    assert!(5 * peak("recompute=always") < 4 * peak("recompute=never"));
}
