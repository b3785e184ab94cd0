//! What bad input gets: an exit code, and a message that says what to do.

use crate::folder::photos;
use crate::{run, stderr, stdout};

#[test]
fn bad_words_end_with_2_and_the_nearest_good_one() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 4);
    let cases: &[(&[&str], &str)] = &[
        (&["train", "photos", "--recipe", "two-stag"], "two-stage"),
        (&["train", "photos", "--set", "phase.1.epoch=3"], "epochs"),
        (&["train", "photos", "--set", "phase.1.lr=-1"], "lr"),
        (&["train", "photos", "--set", "batch_size"], "KEY=VALUE"),
        (&["train", "photos", "--model", "resnet8"], "resnet18"),
        (&["train", "photos", "--device", "gpu"], "cpu"),
        (&["train"], "<DATA>"),
        (&["train", "photos", "--image-size", "8"], "at least 32"),
        (&["trian", "photos"], "train"),
        (&["predict", "run"], "IMAGE"),
    ];
    for (arguments, part) in cases {
        let text = stderr(&run(here, arguments, 2));
        assert!(text.contains(part), "defrost {arguments:?} does not name `{part}`:\n{text}");
    }
    std::fs::write(here.join("bad.toml"), "seed = 1\n[data]\nimage_sise = 64\n").unwrap();
    let text = stderr(&run(here, &["train", "photos", "--recipe", "bad.toml"], 2));
    assert!(text.contains("bad.toml") && text.contains("line 3") && text.contains("image_size"), "{text}");
}

#[test]
fn bad_data_and_files_end_with_1_and_a_reason() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 4);
    std::fs::create_dir_all(here.join("empty")).unwrap();
    std::fs::create_dir_all(here.join("one/only")).unwrap();
    std::fs::copy(here.join("photos/red/0.png"), here.join("one/only/0.png")).unwrap();
    std::fs::write(here.join("file"), b"text").unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["train", "nowhere"], "nowhere"),
        (&["train", "file"], "file"),
        (&["train", "empty"], "empty"),
        (&["train", "one"], "only"),
        (&["train", "photos", "--model", "resnet18"], "--weights"),
        (&["train", "photos", "--weights", "missing.safetensors"], "missing.safetensors"),
        (&["eval", "nowhere", "photos"], "nowhere"),
        (&["predict", "nowhere", "x.png"], "nowhere"),
    ];
    for (arguments, part) in cases {
        let text = stderr(&run(here, arguments, 1));
        assert!(text.contains(part), "defrost {arguments:?} does not name `{part}`:\n{text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn what_there_is_can_be_listed() {
    let temp = tempfile::tempdir().unwrap();
    let list = |arguments: &[&str]| stdout(&run(temp.path(), arguments, 0));
    assert!(list(&["models"]).contains("resnet50"));
    assert!(list(&["recipes"]).contains("two-stage"));
    assert!(list(&["recipes", "head"]).contains("[[phase]]"));
    assert!(list(&["devices"]).contains("cpu"));
    assert!(list(&["--version"]).starts_with("defrost "));
    assert!(list(&["completions", "bash"]).contains("defrost"));
    assert!(list(&["train", "--help"]).contains("Examples:"));
}
