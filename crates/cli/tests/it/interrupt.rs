//! Interrupted and resumed: nothing is lost, no bit differs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::folder::photos;
use crate::{defrost, run, stderr, stdout};

/// A run of the head, then of everything, a few steps each.
const ARGUMENTS: &[&str] =
    &["--image-size", "32", "--batch", "4", "--set", "phase.1.epochs=2", "--set", "phase.2.epochs=3"];

fn bytes(run: &Path, name: &str) -> Vec<u8> {
    std::fs::read(run.join("checkpoints").join(name)).unwrap()
}

/// Starts a run and sends `signal` after `steps` steps. Returns its exit code.
fn interrupt(here: &Path, steps: usize, signal: &str) -> Option<i32> {
    let arguments = [&["train", "photos", "--run", "cut", "--json"], ARGUMENTS].concat();
    let mut child =
        defrost(here).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut seen = 0;
    for line in lines {
        seen += usize::from(line.contains("\"event\":\"step\""));
        if seen == steps {
            seen += 1;
            let kill = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
            assert!(kill.unwrap().success());
        }
    }
    child.wait().unwrap().code()
}

#[test]
fn ctrl_c_saves_and_resuming_gives_the_same_bits() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 10);
    run(here, &[&["train", "photos", "--run", "whole", "--quiet", "--threads", "1"], ARGUMENTS].concat(), 0);
    // In the middle of the second phase's first epoch, then of its second, with another number of threads.
    assert_eq!(interrupt(here, 10, "-INT"), Some(130));
    let text = stdout(&run(here, &["train", "--resume", "cut", "--threads", "2"], 0));
    assert!(text.contains("best"), "{text}");
    for name in ["best.safetensors", "last.safetensors"] {
        assert!(bytes(&here.join("whole"), name) == bytes(&here.join("cut"), name), "{name} differs");
    }
    let again = run(here, &["train", "--resume", "cut"], 1);
    assert!(stderr(&again).contains("cut"), "{}", stderr(&again));
}

#[test]
fn killed_at_once_it_resumes_from_what_was_saved() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 10);
    run(here, &[&["train", "photos", "--run", "whole", "--quiet"], ARGUMENTS].concat(), 0);
    assert_eq!(interrupt(here, 11, "-KILL"), None);
    run(here, &["train", "--resume", "cut", "--quiet"], 0);
    assert!(bytes(&here.join("whole"), "best.safetensors") == bytes(&here.join("cut"), "best.safetensors"));
}

#[test]
fn a_run_is_not_resumed_with_other_data() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    photos(&here.join("photos"), 10);
    assert_eq!(interrupt(here, 9, "-TERM"), Some(130));
    std::fs::remove_file(here.join("photos/red/3.png")).unwrap();
    let output = run(here, &["train", "--resume", "cut"], 1);
    assert!(stderr(&output).contains("--accept data"), "{}", stderr(&output));
    run(here, &["train", "--resume", "cut", "--accept", "data", "--quiet"], 0);
}
