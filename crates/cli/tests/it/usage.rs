//! What bad input gets: an exit code, and a message that says what to do.

#[cfg(feature = "wgpu")]
use crate::folder::SHORT;
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
    assert!(list(&["recipes", "p2"]).contains("name = \"p2-last-stage\""), "a short name");
    assert!(list(&["devices"]).contains("cpu"));
    assert!(list(&["--version"]).starts_with("defrost "));
    assert!(list(&["completions", "bash"]).contains("defrost"));
    assert!(list(&["train", "--help"]).contains("Examples:"));
}

#[cfg(all(feature = "wgpu", target_os = "linux"))]
#[test]
fn a_machine_without_gpus_says_what_is_missing() {
    let temp = tempfile::tempdir().unwrap();
    photos(&temp.path().join("photos"), 4);
    // Vulkan's loader then finds no driver.
    let bare = |arguments: &[&str]| {
        let mut command = crate::defrost(temp.path());
        command.args(arguments).env("VK_DRIVER_FILES", "none.json").env("VK_ICD_FILENAMES", "none.json");
        command.output().unwrap()
    };
    let output = bare(&["train", "photos", "--backend", "wgpu"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no GPU adapter") && text.contains("mesa-vulkan-drivers"), "{text}");
    let devices = stdout(&bare(&["devices"]));
    assert!(devices.starts_with("cpu ") && !devices.contains("wgpu"), "{devices}");
}

#[cfg(feature = "wgpu")]
#[test]
fn a_backend_is_asked_for_by_index_or_name() {
    if defrost::Device::list().len() == 1 {
        let required = std::env::var_os("DEFROST_REQUIRE_ADAPTER").is_some();
        assert!(!required, "no adapter");
        eprintln!("\n*** SKIPPED: this machine has no GPU adapter ***\n");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    photos(&temp.path().join("photos"), 4);
    let devices = stdout(&run(temp.path(), &["devices"], 0));
    assert!(devices.lines().any(|line| line.starts_with("wgpu:0 ")), "{devices}");
    let output = run(temp.path(), &["train", "photos", "--backend", "wgpu:no such card"], 2);
    let text = stderr(&output);
    assert!(text.contains("no adapter `no such card`") && text.contains("0: "), "{text}");
    // Trained on the GPU, asked on the CPU, and on the GPU by a part of its name.
    let train = [&["train", "photos", "--backend", "wgpu:0", "--run", "run"], SHORT].concat();
    assert!(stdout(&run(temp.path(), &train, 0)).contains("wgpu "));
    assert!(temp.path().join("run/report.html").exists());
    let name = &defrost::Device::list()[1].1;
    let by_name = format!("wgpu:{}", name.split(' ').next().unwrap());
    let accuracy = |device: &str| {
        let output = run(temp.path(), &["eval", "run", "photos", "--backend", device, "--json"], 0);
        serde_json::from_str::<serde_json::Value>(&stdout(&output)).unwrap()["accuracy"].as_f64().unwrap()
    };
    assert_eq!(accuracy("cpu"), accuracy(&by_name));
}
