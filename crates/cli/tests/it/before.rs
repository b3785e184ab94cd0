//! What is said before a training: learning rates, doubts, faults of a recipe.

use serde_json::Value;

use crate::folder::photos;
use crate::{run, stderr, stdout};

/// A small network from fresh weights.
const TINY: &[&str] =
    &["--image-size", "32", "--batch", "4", "--weights", "none", "--set", "model.width=0.25"];

#[test]
fn rates_are_found_and_drawn() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 8);
    let find = |more: &[&str], code| run(here, &[&["lr-find", "photos"], TINY, more].concat(), code);
    let json: Value = serde_json::from_str(&stdout(&find(&["--json", "--steps", "30"], 0))).unwrap();
    let points = json["points"].as_array().unwrap();
    assert!(points.len() > 6 && points[0]["lr"] == 1e-7, "{json}");
    let readings: Vec<_> =
        json["suggestions"].as_array().unwrap().iter().map(|s| s["reading"].as_str().unwrap()).collect();
    assert!(readings.contains(&"valley") && readings.contains(&"minimum"), "{readings:?}");
    let svg = std::fs::read_to_string(here.join("lr-find.svg")).unwrap();
    assert!(svg.contains("valley") && svg.starts_with("<svg"), "{}", &svg[..200.min(svg.len())]);

    let rest = ["--output", "plot.png", "--end", "1e-3", "--steps", "30"];
    let words = stdout(&find(&[&["--phase", "everything"], &rest[..]].concat(), 0));
    for part in ["phase `everything`", "valley", "steep", "minimum", "slide", "plot.png", "phase.2.find_lr"] {
        assert!(words.contains(part), "`{part}` is missing:\n{words}");
    }
    assert!(image::open(here.join("plot.png")).is_ok());
    // Nothing but the plots is left.
    let mut left: Vec<_> = std::fs::read_dir(here).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["lr-find.svg", "photos", "plot.png"]);

    for (more, part) in [
        (&["--phase", "3"][..], "1 (head), 2 (everything)"),
        (&["--start", "1", "--end", "0.1"], "less than --end"),
        (&["--steps", "3"], "at least 6"),
        (&["--output", "plot.txt"], ".svg or .png"),
    ] {
        let text = stderr(&find(more, 2));
        assert!(text.contains(part), "{more:?} does not say `{part}`:\n{text}");
    }
}

#[test]
fn doubts_are_told_by_the_lint_and_before_a_training() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos/train"), 8);
    photos(&here.join("photos/val"), 3);
    std::fs::create_dir_all(here.join("photos/train/green")).unwrap();
    let green = image::RgbImage::from_fn(40, 36, |x, y| image::Rgb([x as u8, 220, y as u8]));
    green.save(here.join("photos/train/green/0.png")).unwrap();
    std::fs::write(here.join("photos/train/red/text.txt"), b"no picture").unwrap();

    let odd: &[&str] = &[
        "--recipe",
        "full",
        "--image-size",
        "32",
        "--batch",
        "4",
        "--set",
        "phase.1.lr=0.01",
        "--set",
        "data.resize={ mode = \"squash\", crop = 1.0 }",
    ];
    let text = stdout(&run(here, &[&["lint", "photos"], odd].concat(), 1));
    for rule in [
        "random-head",
        "small-batch",
        "shared-images",
        "missing-classes",
        "imbalance",
        "preprocessing",
        "image-size",
        "data",
    ] {
        assert!(text.contains(&format!("[{rule}]")), "{rule}:\n{text}");
    }
    assert!(text.contains("green") && text.contains("squashed") && text.contains("/0.png"), "{text}");
    let json = stdout(&run(here, &[&["lint", "photos", "--json"], odd].concat(), 1));
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first["severity"], "warning");

    let before = stdout(&run(
        here,
        &[&["train", "photos", "--run", "run"], odd, &["--set", "phase.1.epochs=1"]].concat(),
        0,
    ));
    for rule in ["random-head", "shared-images"] {
        let line = before.lines().find(|l| l.contains(&format!("[{rule}]")));
        assert!(line.is_some_and(|l| l.trim_start().starts_with("warning")), "{rule}:\n{before}");
    }
    let json = stdout(&run(
        here,
        &[&["train", "photos", "--run", "two", "--json"], odd, &["--set", "phase.1.epochs=1"]].concat(),
        0,
    ));
    let warned = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["event"] == "warning" && event["message"].as_str().unwrap().contains("random")
    };
    assert!(json.lines().any(warned), "{json}");

    // Nothing to say of sound data and the default recipe.
    photos(&here.join("sound"), 24);
    let sound = ["lint", "sound", "--image-size", "128", "--batch", "8"];
    assert!(stdout(&run(here, &sound, 0)).contains("no warnings"));
    let other = [&sound[..], &["--set", "model.preprocess=caffe"]].concat();
    let text = stdout(&run(here, &other, 1));
    assert!(text.contains("[preprocessing]") && text.contains("blue first"), "{text}");
}

#[test]
fn a_fault_of_a_recipe_is_told_with_its_line_before_anything_loads() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    let text = |phase: &str| {
        format!(
            "seed = 1\n[model]\narch = \"mobilenet_v2\"\n[[phase]]\nname = \"a\"\nepochs = 3\n{phase}\nlr = 1e-3\n"
        )
    };
    for (phase, parts) in [
        ("train = \"featurs.18\"", ["mine.toml", "line 7", "features.18"]),
        ("train = { last_stages = 99 }", ["mine.toml", "line 7", "asks for more than there is"]),
        ("trian = \"head\"", ["mine.toml", "line 7", "did you mean `train`?"]),
        ("schedule = { kind = \"multi_step\", at = [2, 9] }", ["mine.toml", "line 7", "beyond the phase"]),
    ] {
        std::fs::write(here.join("mine.toml"), text(phase)).unwrap();
        for command in ["train", "lint", "lr-find", "plan"] {
            // No data is there to be read.
            let said = stderr(&run(here, &[command, "nowhere", "--recipe", "mine.toml"], 2));
            assert!(parts.iter().all(|part| said.contains(part)), "{command}, {phase}:\n{said}");
        }
    }
    // What an argument changed is in no line; everything else still is.
    let said = |phase: &str, arguments: &[&str]| {
        std::fs::write(here.join("mine.toml"), text(phase)).unwrap();
        stderr(&run(here, &[&["plan", "--classes", "3", "--recipe", "mine.toml"], arguments].concat(), 2))
    };
    assert!(
        said("train = \"featurs.18\"", &["--set", "seed=3"]).contains("mine.toml: line 7, `phase.1.train`")
    );
    let changed = said("train = \"head\"", &["--set", "phase.a.train=featurs.18"]);
    assert!(changed.contains("mine.toml: `phase.1.train`") && !changed.contains("line"), "{changed}");
    let network = text("train = \"head\"").replace("mobilenet_v2", "mobilnet_v2");
    std::fs::write(here.join("mine.toml"), network).unwrap();
    for command in [&["plan", "--classes", "3"][..], &["train", "nowhere"]] {
        let said = stderr(&run(here, &[command, &["--recipe", "mine.toml"]].concat(), 2));
        assert!(
            said.contains("mine.toml: line 3, `model.arch`") && said.contains("`mobilenet_v2`?"),
            "{said}"
        );
    }
}
