//! A run that is stopped anywhere and resumed, with another number of threads, ends with the same bits.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use defrost::train::{Ending, Event, Options, Outcome};
use defrost::{FineTune, Prepared, Start};

/// A short two-stage run with augmentation and dropout on a few emoji.
pub(crate) fn fine_tune(data: &Path, folder: &Path, threads: usize) -> FineTune {
    let mut run = FineTune::on(data).device(format!("cpu:{threads}")).into_folder(folder);
    for (key, value) in [
        ("data.image_size", "32"),
        ("batch_size", "6"),
        ("phase.1.epochs", "1"),
        ("phase.2.epochs", "2"),
        ("phase.2.norm", "auto"),
        ("model.head.dropout", "0.2"),
    ] {
        run = run.set(key, value).unwrap();
    }
    run
}

/// Trains; with `stop_at`, stops after so many steps. Also the losses of all steps.
pub(crate) fn train(run: Prepared, start: Start, stop_at: Option<usize>) -> (Outcome, Vec<f64>) {
    let (stop, mut losses) = (AtomicBool::new(false), Vec::new());
    let on_event = Box::new(|event: &Event| {
        if let Event::Step(step) = event {
            losses.push(step.loss);
            stop.fetch_or(Some(losses.len()) == stop_at, Ordering::Relaxed);
        }
    });
    let outcome = run.train(start, Options { stop: Some(&stop), on_event, ..Options::default() }).unwrap();
    assert_eq!(matches!(outcome.ending, Ending::Stopped(_)), stop_at.is_some());
    (outcome, losses)
}

/// Eight emoji of each of three classes in `folder`.
pub(crate) fn emoji(folder: &Path) {
    let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/emoji/val");
    for class in ["bird", "face", "tool"] {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        let mut files: Vec<_> =
            std::fs::read_dir(emoji.join(class)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        for file in files.iter().take(8) {
            std::fs::copy(file, folder.join(class).join(file.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn stopped_in_either_phase_a_run_resumes_to_the_same_bits() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    emoji(&data);
    let whole = temp.path().join("whole");
    train(fine_tune(&data, &whole, 1).prepare().unwrap(), Start::Fresh, None);
    let weights = |run: &Path| std::fs::read(run.join("checkpoints/last.safetensors")).unwrap();
    for steps in [2, 5, 8] {
        let cut = temp.path().join(format!("cut-{steps}"));
        let (outcome, _) = train(fine_tune(&data, &cut, 1).prepare().unwrap(), Start::Fresh, Some(steps));
        assert!(matches!(outcome.ending, Ending::Stopped(_)), "after {steps} steps");
        let (outcome, _) = train(fine_tune(&data, &cut, 2).prepare().unwrap(), Start::Resume, None);
        assert!(matches!(outcome.ending, Ending::Done(_)), "after {steps} steps");
        assert!(weights(&whole) == weights(&cut), "stopped after {steps} steps, other bits");
    }
}
