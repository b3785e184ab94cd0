//! The report of made-up runs.

mod answers;
mod sample;

use std::fs;
use std::path::Path;

use defrost_train::{Epoch, Event, Place, Stopped, Validation};

use self::sample::Sample;
use super::*;

fn origin(folder: &Path, data: &Path) {
    let origin = Origin {
        command: "defrost train photos --seed 7".into(),
        started: "2026-11-21 10:04".into(),
        data: Some(data.to_owned()),
        versions: [("defrost".to_owned(), "0.0.0".to_owned())].into(),
        hashes: [("weights".to_owned(), "sha256:6bda608f".to_owned())].into(),
        ..Origin::default()
    };
    origin.write(folder).expect("a temporary folder");
}

fn page(folder: &Path) -> String {
    fs::read_to_string(write(folder).expect("a report")).expect("the report is a file")
}

/// What a browser would be made to load from elsewhere.
fn outside(html: &str) -> Vec<&str> {
    let all = ["src=\"", "href=\"", "url(", "@import", "://"];
    let found = all.iter().flat_map(|mark| {
        html.match_indices(mark).map(|(i, m)| html[i + m.len()..].get(..12).unwrap_or_default())
    });
    found.filter(|rest| !rest.starts_with("data:image/") && !rest.starts_with('#')).collect()
}

#[test]
fn a_report_tells_the_whole_run() {
    let (folder, data) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let sample = Sample::small();
    sample.write(folder.path());
    sample.pictures(data.path(), 40);
    origin(folder.path(), data.path());
    let html = page(folder.path());

    let percent = say::percent(sample.validation().accuracy.unwrap());
    assert!(html.contains(&format!(
        "mobilenet_v2 tells 4 classes apart in <em>{percent}</em> of 80 validation pictures."
    )));
    for id in ["curves", "confusion", "classes", "mistakes", "frozen", "data", "repeat"] {
        assert!(
            html.contains(&format!("<section id=\"{id}\"")) && html.contains(&format!("href=\"#{id}\"")),
            "{id}"
        );
    }
    for text in [
        "Learning rate",
        "aria-label=\"Training loss over 8",
        "1 · head",
        "2 · everything",
        "thaw everything",
        "Right answers by confidence",
        "Drift from the first weights",
        "Similarity of features to the first (linear CKA)",
        "Accuracy on the source task",
        "the best epoch retains 50",
        "cached up to",
        "features.0 … features.2",
        "has 11 images",
        "defrost train photos --seed 7",
        "sha256:6bda608f",
        "seed = 7",
        "data:image/jpeg;base64,",
        "2026-11-21 10:04",
        "finished",
        "<title>",
        "scope=\"col\"",
        "alt=\"shows ",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert!(html.matches("s-thaw").count() >= 3, "a thaw is marked in the curves");
    assert_eq!(outside(&html), Vec::<&str>::new());
}

#[test]
fn a_number_of_the_matrix_leads_to_its_pictures() {
    let folder = tempfile::tempdir().expect("a folder");
    Sample::small().write(folder.path());
    let html = page(folder.path());
    let links: Vec<_> = html
        .match_indices("href=\"#pair-")
        .map(|(i, _)| html[i + 7..].split('"').next().unwrap_or(""))
        .collect();
    assert!(links.len() > 4);
    for link in links {
        assert!(html.contains(&format!("id=\"{link}\"")), "{link} leads nowhere");
    }
}

#[test]
fn hostile_names_stay_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut sample = Sample::small();
    sample.classes[0] = "\" onload=\"alert(3)".into();
    sample.write(folder.path());
    let html = page(folder.path());
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert_eq!(html.matches("<script").count(), 1, "only the report's own script");
    assert!(!html.contains("\" onload=\"alert(3)"));
    let svg = confusion_svg(folder.path()).expect("a matrix");
    assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script"));
}

#[test]
fn an_interrupted_run_has_a_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let sample = Sample::small();
    let lines = sample.lines();
    let kept: Vec<_> = lines.lines().take(6).collect();
    let stopped = Event::Stopped(Stopped {
        reason: "interrupted".into(),
        at: Place { phase: 1, epoch: 1, step: 3 },
        resume: "runs/a".into(),
    });
    let stopped = serde_json::to_string(&stopped).expect("JSON");
    fs::write(
        folder.path().join("metrics.jsonl"),
        format!("{}\n{stopped}\n{{\"event\":\"epo", kept.join("\n")),
    )
    .expect("a file");
    let html = page(folder.path());
    assert!(html.contains("so far") && html.contains("defrost train --resume runs/a"));
    assert!(!html.contains("could not be understood"), "a half last line is no fault");
    assert!(!html.contains("id=\"confusion\""));

    // Killed before the first epoch, and nothing but a recipe.
    fs::write(folder.path().join("metrics.jsonl"), kept[0]).expect("a file");
    assert!(page(folder.path()).contains("has not finished <em>an epoch</em> yet"));
    fs::remove_file(folder.path().join("metrics.jsonl")).expect("a file");
    fs::write(folder.path().join("recipe.toml"), "[model]\narch = \"vgg16\"\n").expect("a file");
    assert!(page(folder.path()).contains("vgg16 has not finished"));
    assert!(matches!(curves_svg(folder.path()), Err(Error::Nothing(_))));
    assert!(matches!(confusion_svg(folder.path()), Err(Error::Nothing(_))));
}

#[test]
fn broken_files_are_named_and_the_rest_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let sample = Sample::small();
    sample.write(folder.path());
    let garbage = format!("nonsense\n{}{{\"event\":\"of a later version\",\"x\":1}}\n", sample.lines());
    fs::write(folder.path().join("metrics.jsonl"), garbage).expect("a file");
    let mut validation = sample.validation();
    validation.confusion.pop();
    fs::write(folder.path().join("validation.json"), serde_json::to_string(&validation).expect("JSON"))
        .expect("a file");
    fs::write(folder.path().join("recipe.toml"), "name = ").expect("a file");
    fs::write(folder.path().join("classes.json"), "7").expect("a file");
    let html = page(folder.path());
    for text in
        ["1\u{a0}line of metrics.jsonl", "not 4 by 4", "recipe.toml is no TOML", "classes.json is no list"]
    {
        assert!(html.contains(text), "{text}");
    }
    assert!(html.contains("id=\"curves\""));

    // Places that do not exist must not be looked at.
    let mut validation = sample.validation();
    validation.worst.push(99_999);
    validation.predictions[3].prediction = 77;
    fs::write(folder.path().join("validation.json"), serde_json::to_string(&validation).expect("JSON"))
        .expect("a file");
    assert!(page(folder.path()).contains("id=\"mistakes\""));
}

#[test]
fn without_an_origin_the_command_follows_from_the_files() {
    let folder = tempfile::tempdir().expect("a folder");
    Sample::small().write(folder.path());
    let put = |name: &str, content: &str| fs::write(folder.path().join(name), content).expect("a file");
    put("data.json", "{\"path\":\"/my photos/it's\"}");
    fs::create_dir(folder.path().join("checkpoints")).expect("a folder");
    put("checkpoints/best.safetensors", "abc");
    let run = Run::read(folder.path()).expect("a run");
    assert!(
        run.origin.command.starts_with("defrost train '/my photos/it'\\''s' --recipe "),
        "{}",
        run.origin.command
    );
    // FIPS 180-2, appendix B.1.
    let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(run.origin.hashes["best weights"], abc);
    assert!(page(folder.path()).contains(abc));
}

#[test]
fn a_sweep_of_rates_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let sample = Sample::small();
    let points: Vec<_> = (0..40)
        .map(|i| format!("{{\"lr\":{},\"loss\":{}}}", 1e-5 * 1.3f64.powi(i), 2.0 - f64::from(i) / 40.0))
        .collect();
    let sweep = format!(
        "{{\"event\":\"lr_find\",\"phase\":0,\"points\":[{}],\"suggestions\":[{{\"reading\":\"valley\",\"lr\":1e-3,\"at_lr\":1e-3,\"at_loss\":1.5}}],\"applied\":\"valley\"}}",
        points.join(",")
    );
    fs::write(folder.path().join("metrics.jsonl"), format!("{}{sweep}\n", sample.lines())).expect("a file");
    let html = page(folder.path());
    assert!(html.contains("Loss by learning rate") && html.contains("valley 1e-3"));
    assert!(html.contains("Before phase 1: the reading “valley” sets its rates."));
}

#[test]
fn what_is_told_twice_counts_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let sample = Sample::small();
    let mut events = sample.events();
    let Event::Start(mut again) = events[0].clone() else { panic!("a run starts with its start") };
    again.resumed = Some(Place { phase: 1, epoch: 0, step: 0 });
    let tail = events.split_off(5);
    let lines = |events: &[Event]| {
        events.iter().map(|e| serde_json::to_string(e).expect("JSON") + "\n").collect::<String>()
    };
    let repeated = lines(&tail);
    let all = format!("{}{}{}{repeated}", lines(&events), lines(&tail[..3]), lines(&[Event::Start(again)]));
    fs::write(folder.path().join("metrics.jsonl"), all).expect("a file");
    let run = Run::read(folder.path()).expect("a run");
    assert_eq!((run.epochs.len(), run.thaws.len(), run.decisions.len(), run.warnings.len()), (8, 1, 1, 1));
    assert_eq!((run.resumed, run.phases.len()), (1, 2));
    assert!(run.done.is_some());
}

#[test]
fn regression_has_no_matrix() {
    let folder = tempfile::tempdir().expect("a folder");
    let sample = Sample::small();
    let lines: String = sample
        .events()
        .into_iter()
        .map(|e| match e {
            Event::Epoch(e) => Event::Epoch(Epoch { val_accuracy: None, ..e }),
            e => e,
        })
        .map(|e| serde_json::to_string(&e).expect("JSON") + "\n")
        .collect();
    fs::write(folder.path().join("metrics.jsonl"), lines).expect("a file");
    let validation = Validation { images: 80, loss: 0.25, ..Validation::default() };
    fs::write(folder.path().join("validation.json"), serde_json::to_string(&validation).expect("JSON"))
        .expect("a file");
    let html = page(folder.path());
    assert!(html.contains("reaches a loss of <em>0.250</em> on 80 validation pictures"));
    assert!(!html.contains("id=\"confusion\"") && html.contains("id=\"curves\""));
    assert_eq!(curves_svg(folder.path()).expect("a plot").matches("<svg").count(), 1);
}

#[test]
fn epochs_that_were_not_measured_leave_gaps() {
    let folder = tempfile::tempdir().expect("a folder");
    let sample = Sample::small();
    let lines = |events: Vec<Event>| -> String {
        events.iter().map(|e| serde_json::to_string(e).expect("JSON") + "\n").collect()
    };
    let measured = |e: &Epoch| [1, 2, 6, 7].contains(&e.global_epoch);
    let events = sample.events().into_iter().map(|e| match e {
        Event::Epoch(e) if !measured(&e) => {
            Event::Epoch(Epoch { val_loss: None, val_accuracy: None, val_seconds: 0.0, best: false, ..e })
        }
        e => e,
    });
    fs::write(folder.path().join("metrics.jsonl"), lines(events.collect())).expect("a file");
    let run = Run::read(folder.path()).expect("a run");
    let says = |e: usize| say::number(run.epochs[&e].val_loss.expect("measured"));
    let svg = curves_svg(folder.path()).expect("a plot");
    assert!(svg.contains(&format!("Validation loss: from {} to {}.", says(1), says(7))), "{svg}");
    let html = page(folder.path());
    assert!(html.contains("<td>–</td>") && html.contains("id=\"curves\""), "{html}");
    assert!(html.contains("classes apart in"), "{html}");
}

#[test]
fn ten_thousand_pictures_of_a_thousand_classes_stay_below_five_megabytes() {
    let (folder, data) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let classes = (0..1000).map(|i| format!("a class with a rather long name, number {i}")).collect();
    let sample = Sample { classes, images: 10, epochs: [5, 8] };
    sample.write(folder.path());
    sample.pictures(data.path(), 160);
    origin(folder.path(), data.path());
    let html = page(folder.path());
    assert!(html.len() < 5_000_000, "{} bytes", html.len());
    let pictures = html.matches("data:image/jpeg").count();
    assert!(pictures > 60, "{pictures} pictures, of noise, which JPEG compresses worst");
    assert!(html.contains("24 most confused are shown"));
    assert!(html.contains("number 999"), "every class is in the table");
}

#[test]
fn plots_stand_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    Sample::small().write(folder.path());
    let finder: Vec<_> = (0..60)
        .map(|i| {
            let x = f64::from(i) / 59.0;
            (
                1e-6 * 1e6f64.powf(x),
                2.5 - 1.5 * (3.0 * x - 1.2).clamp(0.0, 1.0) + if x > 0.85 { 400.0 * (x - 0.85) } else { 0.0 },
            )
        })
        .collect();
    let finder = lr_find_svg(&finder, &[("steepest", 2e-4), ("valley", 4e-4)]).expect("a plot");
    assert!(finder.contains("steepest 2e-4") && finder.contains("1e-4"));
    for svg in
        [curves_svg(folder.path()).expect("a plot"), confusion_svg(folder.path()).expect("a plot"), finder]
    {
        assert!(svg.starts_with("<svg viewBox=") && svg.trim_end().ends_with("</svg>"));
        assert!(
            svg.contains("xmlns=")
                && svg.contains("prefers-color-scheme:dark")
                && svg.contains("role=\"img\"")
        );
    }
    assert!(matches!(lr_find_svg(&[(1e-3, 2.0)], &[]), Err(Error::Nothing(_))));
    assert!(matches!(lr_find_svg(&[(0.0, 2.0), (-1.0, f64::NAN)], &[]), Err(Error::Nothing(_))));
}

#[test]
fn a_folder_without_a_run_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(write(folder.path()), Err(Error::NotARun(_))));
    assert!(!folder.path().join(FILE).exists());
}
