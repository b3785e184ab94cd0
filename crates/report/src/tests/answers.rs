//! Reports of runs of several labels an image, and of numbers.

use std::fs;
use std::path::Path;

use defrost_policy::Task;
use defrost_train::{ClassScore, LabelAnswer, Labelled, Measured, Validation, ValueScore};

use super::page;

fn picture(path: &Path) {
    let pixels = image::RgbImage::from_fn(24, 24, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, 40]));
    pixels.save(path).expect("a picture");
}

/// A run on a table `data.csv` whose pictures are in a folder of their own, with this validation.
fn run(validation: &Validation, epoch: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let (folder, images) = (dir.path().join("run"), dir.path().join("pictures"));
    fs::create_dir_all(&folder).expect("a folder");
    fs::create_dir_all(&images).expect("a folder");
    picture(&images.join("a.png"));
    let table = dir.path().join("data.csv");
    fs::write(&table, "file,x\n").expect("a table");
    let data = serde_json::json!({ "path": table, "images": images });
    fs::write(folder.join("data.json"), data.to_string()).expect("a file");
    fs::write(folder.join("recipe.toml"), "seed = 7\n").expect("a file");
    let epoch = format!(
        "{{\"event\":\"epoch\",\"phase\":0,\"epoch\":0,\"global_epoch\":0,\"train_loss\":0.7,\"val_loss\":0.5,{epoch},\
         \"rates\":[],\"seconds\":1.0,\"val_seconds\":0.1,\"images_per_second\":20.0,\"best\":true}}\n"
    );
    fs::write(folder.join("metrics.jsonl"), epoch).expect("a file");
    fs::write(folder.join("validation.json"), serde_json::to_string(validation).expect("JSON"))
        .expect("a file");
    let html = page(&folder);
    (dir, html)
}

#[test]
fn labels_have_their_scores_and_worst_answers() {
    let score = |class: &str, ap| ClassScore {
        class: class.into(),
        images: 2,
        predicted: 1,
        hits: 1,
        precision: 1.0,
        recall: 0.5,
        f1: 2.0 / 3.0,
        average_precision: ap,
        auc: Some(0.75),
    };
    let answer = |class, truth, said| LabelAnswer { class, truth, said, probability: 0.625 };
    let v = Validation {
        task: Task::MultiLabel,
        checkpoint: "best".into(),
        epoch: Some(0),
        classes: vec!["red".into(), "<b>dark</b>".into()],
        images: 3,
        loss: 0.5,
        metrics: [("map".to_owned(), 0.8125), ("f1".to_owned(), 0.5), ("accuracy".to_owned(), 0.25)].into(),
        accuracy: Some(0.25),
        per_class: vec![score("red", Some(0.9)), score("<b>dark</b>", None)],
        labelled: vec![Labelled {
            path: "a.png".into(),
            loss: 2.0,
            labels: vec![answer(0, false, true), answer(1, true, false)],
        }],
        // One that is not there: a file may be broken.
        worst: vec![0, 7],
        ..Validation::default()
    };
    let (_dir, html) = run(&v, "\"val_accuracy\":0.25,\"metrics\":{\"map\":0.8125,\"f1_micro\":0.6}");
    for text in [
        "mean average precision of <em>81.2\u{a0}%</em> for 2\u{a0}labels on 3 validation pictures.",
        "<section id=\"labels\"",
        "average precision",
        "&lt;b&gt;dark&lt;/b&gt;",
        "data-v=\"0.900000\"",
        "<section id=\"mistakes\"",
        "data:image/jpeg;base64,",
        "Validation mAP: from 81.2",
        "All right",
        "data.csv --images",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert!(!html.contains("id=\"confusion\"") && !html.contains("<b>dark"));
}

#[test]
fn numbers_are_drawn_over_their_truths() {
    let score =
        |name: &str, mae| ValueScore { name: name.into(), mae, rmse: 4.5, r2: 0.875, mean: 40.0, std: 12.0 };
    let measured = |path: &str, truth: f32, said: f32| Measured {
        path: path.into(),
        truth: vec![truth, 1.0],
        prediction: vec![said, 1.5],
    };
    let v = Validation {
        task: Task::Regression,
        checkpoint: "best".into(),
        epoch: Some(0),
        classes: vec!["age".into(), "weight".into()],
        images: 2,
        loss: 0.25,
        metrics: [("mae".to_owned(), 3.25), ("rmse".to_owned(), 4.5), ("r2".to_owned(), 0.875)].into(),
        per_value: vec![score("age", 3.25), score("weight", 0.125)],
        measured: vec![measured("a.png", 31.0, 52.0), measured("gone.png", 64.0, 65.0)],
        worst: vec![0, 1],
        ..Validation::default()
    };
    let (_dir, html) = run(&v, "\"metrics\":{\"mae\":3.25,\"r2\":0.875}");
    for text in [
        "is off by <em>3.250</em> on average over 2 numbers on 2 validation pictures.",
        "<section id=\"numbers\"",
        "age: answers over truths",
        "aria-label=\"weight: 2\u{a0}answers over their truths, from 1.000 to 1.500",
        "<section id=\"mistakes\"",
        "Validation MAE: from 3.250",
        "1\u{a0}picture could not be read",
        "data:image/jpeg;base64,",
        "R²",
    ] {
        assert!(html.contains(text), "{text}");
    }
    // Rows that do not fit are left out, not a reason to have no report.
    let broken = Validation { measured: vec![Measured::default()], ..v };
    let (_dir, html) = run(&broken, "\"metrics\":{\"mae\":3.25}");
    assert!(!html.contains("id=\"numbers\"") && html.contains("is off by"));
}
