//! Probes that lead to a recipe, and runs that go on by another one.

use serde_json::Value;

use crate::folder::{SHORT, photos};
use crate::{run, stderr, stdout};

#[test]
fn probes_write_a_recipe_that_runs() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 8);
    let arguments =
        ["probe", "photos", "--image-size", "32", "--batch", "4", "--out", "probed.toml", "--plot", "p.svg"];
    let text = stdout(&run(here, &arguments, 0));
    for part in
        ["features.0", "features.18", "100.0 %", "cut ", "█", "defrost train photos --recipe probed.toml"]
    {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    assert!(std::fs::read_to_string(here.join("p.svg")).unwrap().starts_with("<svg"));
    let recipe = std::fs::read_to_string(here.join("probed.toml")).unwrap();
    assert!(recipe.starts_with("# By `defrost probe`"), "{recipe}");

    let json = stdout(&run(here, &[&arguments[..6], &["--json"]].concat(), 0));
    let json: Value = serde_json::from_str(&json).unwrap();
    let stages = json["probes"]["stages"].as_array().unwrap();
    assert_eq!((stages.len(), json["advice"]["of"].as_u64()), (19, Some(19)));
    // Red and blue are told apart from the first convolution on.
    assert_eq!((stages[0]["accuracy"].as_f64(), json["advice"]["freeze"].as_u64()), (Some(1.0), Some(1)));
    assert!(recipe.ends_with(json["recipe"].as_str().unwrap()));

    let train = ["train", "photos", "--recipe", "probed.toml", "--run", "run", "--set", "phase.1.epochs=1"];
    let text = stdout(&run(here, &[&train[..], &["--set", "phase.2.epochs=1"]].concat(), 0));
    assert!(text.contains("phase 1     head") && text.contains("phase 2     behind the cut"), "{text}");
    let output = run(here, &["probe", "photos", "--out", "nowhere/probed.toml", "--image-size", "32"], 2);
    assert!(stderr(&output).contains("nowhere"), "{}", stderr(&output));
}

#[test]
fn another_recipe_goes_on_where_a_run_ended() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 8);
    run(here, &[&["train", "photos", "--run", "run", "--quiet", "--save", "stage-1"], SHORT].concat(), 0);
    // A name that a checkpoint cannot have is told before anything trains.
    for name in ["../x", "best", "resume"] {
        let said = stderr(&run(here, &["train", "photos", "--run", "other", "--save", name], 2));
        assert!(
            said.contains(name) && said.contains("is not allowed") && !here.join("other").exists(),
            "{said}"
        );
    }
    let checkpoint = |name: &str| std::fs::read(here.join(format!("run/checkpoints/{name}.safetensors")));
    let stage = checkpoint("stage-1").unwrap();
    // Without another recipe there is nothing to go on with.
    let over = run(here, &["train", "--resume", "run"], 1);
    assert!(stderr(&over).contains("another `--recipe`"), "{}", stderr(&over));
    let next =
        ["train", "--resume", "run", "--recipe", "full", "--start", "stage-1", "--set", "phase.1.epochs=1"];
    let text = stdout(&run(here, &next, 0));
    for part in ["decided     phase `", "by hand", "start from checkpoint `stage-1`", "phase 2"] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    assert!(checkpoint("stage-1").unwrap() == stage, "what was saved stays");
    let loss = |run_: &str| {
        let json: Value =
            serde_json::from_str(&stdout(&run(here, &["eval", run_, "photos", "--json"], 0))).unwrap();
        json["loss"].as_f64().unwrap()
    };
    assert!(loss("run/stage-1") != loss("run"), "one checkpoint by its name, and the best");
    let recipe = std::fs::read_to_string(here.join("run/recipe.toml")).unwrap();
    assert!(recipe.contains("name = \"head + full\"") && recipe.contains("image_size = 32"), "{recipe}");
    let metrics = std::fs::read_to_string(here.join("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("\"event\":\"epoch\"").count(), 3);
    assert_eq!(metrics.matches("\"event\":\"done\"").count(), 1);
    let error = run(here, &["train", "--resume", "run", "--recipe", "head", "--start", "stage-9"], 2);
    assert!(stderr(&error).contains("stage-9"), "{}", stderr(&error));
}

#[test]
fn what_is_left_of_the_source_task_is_said_each_epoch() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 6);
    run(here, &[&["train", "photos", "--run", "first", "--quiet"], SHORT].concat(), 0);
    // The first run's task is the source of the second one's.
    std::fs::rename(here.join("photos"), here.join("source")).unwrap();
    for (from, to) in [("red", "warm"), ("blue", "cold")] {
        std::fs::create_dir_all(here.join("new")).unwrap();
        let folders = [here.join("source").join(from), here.join("new").join(to)];
        assert!(std::process::Command::new("cp").arg("-r").args(folders).status().unwrap().success());
    }
    let weights = ["--weights", "first", "--retain", "source"];
    let text = stdout(&run(here, &[&["train", "new", "--run", "second"], SHORT, &weights].concat(), 0));
    let (before, _) = text.split_once(" of 12 pictures before training").unwrap();
    let before = before.rsplit_once("source ").unwrap().1.trim();
    // Only the head trained, and the source's head is another one: nothing is lost.
    assert_eq!(text.matches(&format!("  source {before}  ")).count(), 2, "{text}");
    let report = std::fs::read_to_string(here.join("second/report.html")).unwrap();
    assert!(report.contains("Drift and retention") && report.contains("Accuracy on the source task"));
    std::fs::create_dir_all(here.join("source/green")).unwrap();
    let output = run(here, &[&["train", "new", "--run", "third"], SHORT, &weights].concat(), 1);
    assert!(stderr(&output).contains("do not say which"), "{}", stderr(&output));
}
