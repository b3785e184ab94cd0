//! Tables: one class, several labels, or numbers a picture, from a CSV file to predictions.

use std::path::Path;

use defrost::tensor::HostTensor;
use serde_json::Value;

use crate::export::{check_in_onnxruntime, metadata, model};
use crate::{run, stderr, stdout};

/// 24 pictures in `pictures/`: their colour is red or blue, every third is dark, and they have an `i`-th shade.
fn pictures(folder: &Path) {
    std::fs::create_dir_all(folder.join("pictures")).unwrap();
    for i in 0..24_u32 {
        let strength = if dark(i) { 70 } else { 230 };
        let colour = if red(i) { [strength, 20, 20] } else { [20, 20, strength] };
        let picture = image::RgbImage::from_fn(36, 36, |x, y| {
            image::Rgb(colour.map(|c: u8| c.saturating_add(((x + y + i) % 16) as u8)))
        });
        picture.save(folder.join(format!("pictures/{i}.png"))).unwrap();
    }
}

/// The middle of a picture as `seen.png`, of which nothing is resized for a network for 32 by 32, and as its input.
fn seen(folder: &Path) -> HostTensor {
    let picture = image::open(folder.join("pictures/1.png")).unwrap().to_rgb8();
    let middle = image::imageops::crop_imm(&picture, 2, 2, 32, 32).to_image();
    middle.save(folder.join("seen.png")).unwrap();
    let pixels: Vec<f32> = middle.as_raw().iter().map(|&b| f32::from(b)).collect();
    HostTensor::new([1, 32, 32, 3], pixels).unwrap()
}

fn red(i: u32) -> bool {
    i.is_multiple_of(2)
}

fn dark(i: u32) -> bool {
    i.is_multiple_of(3)
}

fn table(folder: &Path, name: &str, header: &str, row: impl Fn(u32) -> String) {
    let rows: String = (0..24).map(|i| format!("{i}.png,{}\n", row(i))).collect();
    std::fs::write(folder.join(name), format!("{header}\n{rows}")).unwrap();
}

/// What makes a run of a recipe of two phases short.
const SHORT: &[&str] = &[
    "--images",
    "pictures",
    "--image-size",
    "32",
    "--batch",
    "6",
    "--set",
    "phase.1.epochs=6",
    "--set",
    "phase.2.epochs=1",
    "--set",
    "model.head.hidden=[]",
    "--set",
    "model.head.kind=linear",
    "--set",
    "phase.1.lr=1e-2",
    "--set",
    "augment.train=[]",
];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn one_class_a_row() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    pictures(here);
    table(here, "labels.csv", "file,colour,split", |i| {
        format!("{},{}", if red(i) { "red" } else { "blue" }, if i % 4 < 3 { "train" } else { "val" })
    });
    let train = [
        "train",
        "labels.csv",
        "--recipe",
        "head",
        "--images",
        "pictures",
        "--image-size",
        "32",
        "--run",
        "run",
    ];
    let output =
        stdout(&run(here, &[&train[..], &["--batch", "6", "--set", "phase.1.epochs=2"]].concat(), 0));
    assert!(output.contains("images in `file`, classes in `colour`, parts in `split`"), "{output}");
    assert!(output.contains("2 classes, 18 in train/, 6 in val/"), "{output}");
    assert!(output.contains("defrost eval run labels.csv --images pictures"), "{output}");
    let eval = json(&stdout(&run(here, &["eval", "run", "labels.csv", "--images", "pictures", "--json"], 0)));
    assert_eq!((eval["images"].as_u64(), eval["task"].as_str()), (Some(6), Some("classification")));
    assert!(eval["metrics"]["f1_weighted"].as_f64().is_some(), "{eval}");
}

#[test]
fn several_labels_a_row() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    pictures(here);
    table(here, "tags.csv", "file,tags", |i| {
        let tags = [(red(i), "red"), (!red(i), "blue"), (dark(i), "dark")];
        tags.iter().filter(|(is, _)| *is).map(|(_, tag)| *tag).collect::<Vec<_>>().join(" ")
    });
    let train = ["train", "tags.csv", "--recipe", "t4-labels", "--run", "run"];
    let output = stdout(&run(here, &[&train[..], SHORT].concat(), 0));
    assert!(
        output.contains("labels in `tags` between ` `") && output.contains("new head for 3 labels"),
        "{output}"
    );
    assert!(output.contains("val mAP") && output.contains("best        mAP"), "{output}");
    let lines = std::fs::read_to_string(here.join("run/metrics.jsonl")).unwrap();
    let epoch = lines.lines().map(json).rfind(|l| l["event"] == "epoch").unwrap();
    for metric in ["map", "auc", "f1", "f1_micro"] {
        assert!(epoch["metrics"][metric].as_f64().is_some(), "{epoch}");
    }
    let report = std::fs::read_to_string(here.join("run/report.html")).unwrap();
    assert!(report.contains("average precision") || report.contains("Average precision"));

    // The same labels as columns of 0 and 1 measure the same.
    table(here, "columns.csv", "file,dark,note,red,blue", |i| {
        format!("{},x,{},{}", u8::from(dark(i)), u8::from(red(i)), u8::from(!red(i)))
    });
    let measure = |table| stdout(&run(here, &["eval", "run", table, "--images", "pictures", "--json"], 0));
    assert_eq!(json(&measure("tags.csv")), json(&measure("columns.csv")));
    let text = stdout(&run(here, &["eval", "run", "tags.csv", "--images", "pictures"], 0));
    assert!(text.contains("mAP") && text.contains("label") && text.contains("dark"), "{text}");

    let all = stdout(&run(here, &["predict", "run", "pictures/1.png", "--json", "--threshold", "0"], 0));
    let answer = json(&all);
    assert_eq!(
        (answer["labels"].as_array().unwrap().len(), answer["guesses"].as_array().unwrap().len()),
        (3, 3)
    );
    run(here, &["export", "run", "--preprocess-inside=nhwc-f32", "--probabilities", "-o", "tags.onnx"], 0);
    let input = seen(here);
    let answer = json(&stdout(&run(here, &["predict", "run", "seen.png", "--json"], 0)));
    let names = metadata(&model(&here.join("tags.onnx")), "classes");
    let of = |name: &Value| {
        let guess = answer["guesses"].as_array().unwrap().iter().find(|g| g["class"] == *name).unwrap();
        guess["probability"].as_f64().unwrap() as f32
    };
    let want: Vec<f32> = names.as_array().unwrap().iter().map(of).collect();
    check_in_onnxruntime(here, "tags", &input, &HostTensor::new([1, 3], want).unwrap());
    let none = stdout(&run(here, &["predict", "run", "pictures/1.png", "--threshold", "1"], 0));
    assert!(none.contains("no label (likeliest"), "{none}");
}

#[test]
fn numbers_a_row() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    pictures(here);
    table(here, "numbers.csv", "file,brightness,note,year", |i| {
        format!("{},n,{}", if dark(i) { 0.2 } else { 0.9 }, if red(i) { 1900 } else { 2000 })
    });
    let train = [
        "train",
        "numbers.csv",
        "--recipe",
        "t4-regression",
        "--run",
        "run",
        "--set",
        "data.standardize=true",
    ];
    let output = stdout(&run(here, &[&train[..], SHORT].concat(), 0));
    assert!(
        output.contains("numbers in `brightness`, `year`") && output.contains("new head for 2 numbers"),
        "{output}"
    );
    assert!(output.contains("val MAE") && !output.contains("train   "), "{output}");
    let eval =
        json(&stdout(&run(here, &["eval", "run", "numbers.csv", "--images", "pictures", "--json"], 0)));
    assert_eq!(
        (&eval["task"], eval["images"].as_u64(), &eval["accuracy"]),
        (&"regression".into(), Some(24), &Value::Null)
    );
    assert!(eval["per_value"][1]["mae"].as_f64().unwrap() < 50.0, "better than any one year: {eval}");
    assert!(stdout(&run(here, &["eval", "run", "numbers.csv", "--images", "pictures"], 0)).contains("RMSE"));
    let answer = json(&stdout(&run(here, &["predict", "run", "pictures/1.png", "--json"], 0)));
    let year = answer["values"]["year"].as_f64().unwrap();
    assert!((1800.0..2100.0).contains(&year), "in years, not in deviations: {answer}");
    assert!(stdout(&run(here, &["predict", "run", "pictures/1.png"], 0)).contains("brightness 0."));
    // An exported file gives the same: what the numbers were standardised by is in the network.
    run(here, &["export", "run", "--preprocess-inside=nhwc-f32", "-o", "numbers.onnx"], 0);
    let network = model(&here.join("numbers.onnx")).graph.unwrap();
    let last: Vec<_> = network.node.iter().rev().take(2).map(|n| n.op_type.as_str()).collect();
    assert_eq!((&*network.output[0].name, &last[..]), ("values", &["Add", "Mul"][..]));
    let summand = network.initializer.iter().find(|t| t.name == "values.summand").unwrap();
    let mean: Vec<f32> =
        summand.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert!((mean[0] - 0.667).abs() < 0.1 && (mean[1] - 1950.0).abs() < 20.0, "{mean:?}");
    let input = seen(here);
    let answer = json(&stdout(&run(here, &["predict", "run", "seen.png", "--json"], 0)));
    let want = ["brightness", "year"].map(|name| answer["values"][name].as_f64().unwrap() as f32);
    let want = HostTensor::new([1, 2], want.to_vec()).unwrap();
    check_in_onnxruntime(here, "numbers", &input, &want);
    assert!(stderr(&run(here, &["export", "run", "--probabilities"], 2)).contains("numbers"));
    let report = std::fs::read_to_string(here.join("run/report.html")).unwrap();
    assert!(report.contains("MAE"));
}

#[test]
fn tables_that_do_not_fit_are_explained() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    pictures(here);
    table(here, "two.csv", "file,a,b", |i| format!("x{},y{}", i % 2, i % 3));
    table(here, "ages.csv", "file,age", |i| format!("{}.5", i + 20));
    std::fs::create_dir_all(here.join("empty")).unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["train", "none.csv"], 1, "expected a table with a header line"),
        (&["train", "two.csv", "--images", "pictures"], 2, "--set data.targets="),
        (&["train", "two.csv", "--images", "pictures", "--set", "data.image=path"], 2, "no column `path`"),
        (
            &["train", "two.csv", "--images", "pictures", "--recipe", "t4-regression"],
            2,
            "holds a number to predict",
        ),
        (&["train", "ages.csv", "--images", "pictures"], 1, "--recipe t4-regression"),
        (&["train", "ages.csv", "--images", "pictures", "--recipe", "t4-labels"], 1, "labels"),
        (&["train", "ages.csv", "--images", "empty", "--recipe", "t4-regression"], 1, "--images"),
        (&["train", "pictures", "--images", "pictures"], 2, "is no table"),
        (
            &["train", "two.csv", "--recipe", "t4-regression", "--set", "monitor=accuracy"],
            2,
            "a regression has the metrics",
        ),
    ];
    for (arguments, code, part) in cases {
        let text = stderr(&run(here, arguments, *code));
        assert!(text.contains(part), "defrost {arguments:?} does not name `{part}`:\n{text}");
    }
}
