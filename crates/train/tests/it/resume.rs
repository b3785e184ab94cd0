//! Interrupted anywhere, a run ends with the bits that it would have ended with.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use defrost_policy::{PhaseSpec, Rollback, Schedule, Thaw};
use defrost_train::{Aspect, Ending, Event, Folder, Job, Options, Outcome, Run, TrainError, resume};

use crate::tiny::{self, bare, engine, fit, job, new_run, options, recipe, weights};

/// Trains `job`, stopping after every step of `stops` counted from the run's start, and resuming each time.
pub(crate) fn interrupted(job: &Job, path: &Path, stops: &[usize]) -> Outcome {
    let steps = Cell::new(0);
    let mut run = new_run(path);
    for i in 0..=stops.len() {
        let stop = AtomicBool::new(false);
        let on_event = |e: &Event| {
            if let Event::Step(_) = e {
                steps.set(steps.get() + 1);
                stop.store(stops.get(i).is_some_and(|&at| steps.get() >= at), Ordering::Relaxed);
            }
        };
        let options = Options { stop: Some(&stop), on_event: Box::new(on_event), ..options() };
        let outcome = match i {
            0 => defrost_train::fit(&engine(), job, &mut run, options).unwrap(),
            _ => resume(&engine(), job, &mut run, options).unwrap(),
        };
        match outcome.ending {
            Ending::Done(_) => return outcome,
            _ => {
                drop(run);
                run = Run::open(path).unwrap();
            }
        }
    }
    panic!("the run was stopped more often than asked");
}

/// What must not depend on interruptions: all weights, and what was measured.
pub(crate) fn result(path: &Path, outcome: &Outcome) -> impl PartialEq + std::fmt::Debug + use<> {
    let folder = Folder::open(path).unwrap();
    let measured: Vec<_> = outcome
        .history
        .iter()
        .map(|e| {
            (
                e.phase,
                e.epoch,
                e.train_loss,
                e.train_accuracy,
                e.val_loss,
                e.metrics.clone(),
                e.rates.clone(),
                e.best,
            )
        })
        .collect();
    (weights(&folder, "last"), weights(&folder, "best"), measured, outcome.validation.clone())
}

pub(crate) fn check(job: &Job, stops: impl IntoIterator<Item = Vec<usize>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole");
    let want = result(&path, &fit(job, &path));
    for (i, stops) in stops.into_iter().enumerate() {
        let path = dir.path().join(format!("run-{i}"));
        let outcome = interrupted(job, &path, &stops);
        assert!(result(&path, &outcome) == want, "stopped after steps {stops:?}");
        // The metrics read as if nothing had happened.
        let epochs = |p: &Path| {
            let events = Folder::open(p).unwrap().events().unwrap();
            events
                .iter()
                .filter_map(|e| if let Event::Epoch(e) = e { Some(e.global_epoch) } else { None })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            epochs(&path),
            (0..outcome.history.len()).collect::<Vec<_>>(),
            "stopped after steps {stops:?}"
        );
    }
}

/// 44 images in batches of 8: 6 steps an epoch, 24 in all; the second phase begins with step 13.
#[test]
fn stopped_after_any_step_a_run_ends_with_the_same_bits() {
    let mut stops: Vec<_> = (1..24).map(|at| vec![at]).collect();
    stops.push((1..24).collect());
    check(&job(recipe()), stops);
}

#[test]
fn averages_accumulation_schedules_and_thaws_go_on_as_they_were() {
    let mut recipe = bare();
    recipe.ema = Some(tiny::ema(2, true));
    recipe.data.balance = true.into();
    (recipe.augment.mixup, recipe.augment.cutmix) = (0.2, 1.0);
    let mut thaw = Thaw::default();
    (thaw.every, thaw.lr_factor) = (1, 0.5);
    let mut gradual = PhaseSpec::new("gradual", 4, "head")
        .lr(1e-2)
        .optimizer(tiny::sgd(0.9))
        .schedule(Schedule::cosine())
        .thaw(thaw);
    gradual.accumulate = 16;
    let recipe = recipe.phase(gradual);
    // Three steps an epoch; thaws after the first and the second.
    check(&job(recipe), (1..12).map(|at| vec![at]).chain([(1..12).collect()]));
}

#[test]
fn a_rollback_goes_back_to_the_same_weights_in_a_resumed_run() {
    let recipe = bare();
    let mut thaw = Thaw::default();
    thaw.at = vec![1];
    // The thaw makes it worse: the rates are absurd.
    thaw.lr_factor = 300.0;
    let mut rollback = Rollback::default();
    rollback.patience = 1;
    thaw.rollback = Some(rollback);
    let recipe =
        recipe.phase(PhaseSpec::new("risky", 4, "head").lr(5e-3).optimizer(tiny::sgd(0.9)).thaw(thaw));
    let job = job(recipe);
    let dir = tempfile::tempdir().unwrap();
    fit(&job, dir.path());
    let events = Folder::open(dir.path()).unwrap().events().unwrap();
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Decision(d) if d.what.contains("back to the weights of epoch 1"))),
        "{events:?}"
    );
    check(&job, (2..24).step_by(3).map(|at| vec![at]));
}

#[test]
fn early_stopping_counts_on_after_an_interruption() {
    let mut recipe = bare();
    recipe.early_stopping = Some(tiny::patience(2));
    let recipe = recipe.phase(PhaseSpec::new("all", 20, "all").lr(5e-2).optimizer(tiny::sgd(0.0)));
    let mut job = job(recipe);
    job.val = Arc::new(tiny::shuffled(21, 3));
    check(&job, [vec![5], vec![6, 12, 18], vec![7, 13, 20]]);
}

/// Lightning 6891, 8502, 21901; luxonis-train 358: mask, normalisation mode, rates and optimizer state come back.
#[test]
fn what_trains_after_a_thaw_trains_after_resuming() {
    let recipe = bare();
    let mut thaw = Thaw::default();
    (thaw.at, thaw.lr_factor) = (vec![1], 0.5);
    let recipe = recipe
        .phase(PhaseSpec::new("gradual", 3, "head").lr([1e-3, 1e-2]).optimizer(tiny::sgd(0.9)).thaw(thaw));
    let job = job(recipe);
    let dir = tempfile::tempdir().unwrap();
    // Stopped in the middle of the second epoch, with `body` thawed.
    let stop = AtomicBool::new(false);
    let on_event =
        |e: &Event| stop.store(matches!(e, Event::Step(s) if s.epoch == 1 && s.step == 2), Ordering::Relaxed);
    let options_ = Options { stop: Some(&stop), on_event: Box::new(on_event), ..options() };
    let mut run = new_run(dir.path());
    defrost_train::fit(&engine(), &job, &mut run, options_).unwrap();
    let at_stop = run.folder().state().unwrap();
    assert_eq!((at_stop.controller.step(), at_stop.at.epoch, at_stop.at.step), (1, 1, 2));
    let mut seen = None;
    let on_event = |e: &Event| {
        if let Event::PhaseStart(p) = e {
            seen.get_or_insert(p.clone());
        }
    };
    let options_ = Options { on_event: Box::new(on_event), ..options() };
    resume(&engine(), &job, &mut run, options_).unwrap();
    let phase = seen.unwrap();
    let state: Vec<_> =
        phase.stages.iter().map(|s| (s.stage.as_str(), s.trained > 0, s.norm.join(" "))).collect();
    assert_eq!(
        state,
        [
            ("stem", false, "frozen".to_owned()),
            ("body", true, "train".to_owned()),
            ("head", true, String::new())
        ]
    );
    let rates: Vec<_> = phase.groups.iter().filter(|g| !g.group.contains('(')).map(|g| g.lr).collect();
    let want = [10f64.powf(-2.5), 1e-2].map(|v| v / 2.0);
    assert_eq!(rates.len(), 2, "what is frozen has no rate");
    assert!(rates.iter().zip(want).all(|(a, b)| (a / b - 1.0).abs() < 1e-9), "{rates:?}");
}

#[test]
fn another_run_is_not_mistaken_for_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(true);
    let mut run = new_run(dir.path());
    let first = job(recipe());
    defrost_train::fit(&engine(), &first, &mut run, Options { stop: Some(&stop), ..options() }).unwrap();
    let refused = |job: &Job, run: &mut Run, accept: Vec<Aspect>| match resume(
        &engine(),
        job,
        run,
        Options { accept, stop: Some(&AtomicBool::new(true)), ..options() },
    ) {
        Err(TrainError::Different(all)) => all.iter().map(|d| d.what).collect(),
        Err(e) => panic!("{e}"),
        Ok(_) => Vec::new(),
    };
    let mut other = first.clone();
    other.train = Arc::new(tiny::data(44, 9));
    assert_eq!(refused(&other, &mut run, vec![]), [Aspect::Data]);
    assert_eq!(refused(&other, &mut run, vec![Aspect::Data]), []);
    let mut slower = recipe();
    slower.phases[0].lr = 1e-4.into();
    assert_eq!(refused(&job(slower), &mut run, vec![Aspect::Data]), [Aspect::Recipe]);
    let mut renamed = recipe();
    renamed.about = "another description".into();
    renamed.retention.every = 3;
    assert_eq!(
        refused(&job(renamed), &mut run, vec![Aspect::Data]),
        [],
        "words and measures make no other run"
    );
    let text = TrainError::Different(first_difference()).to_string();
    assert!(text.contains("--accept data"), "{text}");
}

fn first_difference() -> Vec<defrost_train::Difference> {
    let a = defrost_train::Fingerprint { train: "a".into(), ..Default::default() };
    a.differences(&defrost_train::Fingerprint::default())
}

#[test]
fn a_finished_run_and_a_newer_file_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(recipe());
    fit(&job, dir.path());
    let mut run = Run::open(dir.path()).unwrap();
    assert!(matches!(
        resume(&engine(), &job, &mut run, options()),
        Err(TrainError::Finished { epochs: 4, .. })
    ));
    let path = run.folder().checkpoint_path("resume");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(13).position(|w| w == br#"\"format\":1,"#).unwrap();
    bytes[at + 11] = b'9';
    std::fs::write(&path, bytes).unwrap();
    let error = resume(&engine(), &job, &mut run, options()).unwrap_err();
    assert!(matches!(error, TrainError::NewerFormat { found: 9, .. }), "{error}");
}

/// A crash at any moment: the callback panics, nothing is saved on the way out.
#[test]
fn after_a_crash_at_any_event_a_run_ends_with_the_same_bits() {
    let mut recipe = recipe();
    recipe.early_stopping = Some(tiny::patience(2));
    let job = job(recipe);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole");
    let events = Cell::new(0);
    let counting = Options { on_event: Box::new(|_| events.set(events.get() + 1)), ..options() };
    let whole = defrost_train::fit(&engine(), &job, &mut new_run(&path), counting).unwrap();
    let want = result(&path, &whole);
    for (at, save_pause) in
        (3..events.get()).step_by(4).zip([Duration::ZERO, Duration::MAX].into_iter().cycle())
    {
        let path = dir.path().join(format!("crash-{at}"));
        let seen = Cell::new(0);
        let on_event = |_: &Event| {
            seen.set(seen.get() + 1);
            // Not a panic with its message and trace, which would be noise here.
            if seen.get() == at {
                std::panic::resume_unwind(Box::new("crash"));
            }
        };
        let options_ = Options { on_event: Box::new(on_event), save_pause, save_every: None, ..options() };
        let mut run = new_run(&path);
        let crashed =
            std::panic::AssertUnwindSafe(|| defrost_train::fit(&engine(), &job, &mut run, options_));
        assert!(std::panic::catch_unwind(crashed).is_err());
        drop(run);
        let outcome = resume(&engine(), &job, &mut Run::open(&path).unwrap(), options()).unwrap();
        assert!(result(&path, &outcome) == want, "crashed at event {at}");
    }
}
