//! How far a network moves, measured epoch by epoch, and that measuring leaves no trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use defrost_data::{Loader, LoaderOptions, Sampling};
use defrost_exec::{Engine as _, Images};
use defrost_graph::{Graph, ParamStore};
use defrost_policy::{Metric, PhaseSpec, Recipe, Selector};
use defrost_train::{Epoch, Event, Folder, Job, Options, Outcome, SourceTask, linear_cka};

use crate::tiny::{self, bare, engine, fit, job, weights};

/// Everything for an epoch, then the body and the head behind a frozen stem for two, then the head.
fn there_and_back() -> Recipe {
    let phase =
        |name: &str, epochs, train| PhaseSpec::new(name, epochs, train).lr(3e-2).optimizer(tiny::sgd(0.9));
    let mut body = phase("body", 2, "head");
    // The word `body` would be all that is no head.
    body.train = Selector::LastStages(2).into();
    let mut recipe = bare()
        .phase(phase("head", 1, "head"))
        .phase(phase("all", 1, "all"))
        .phase(body)
        .phase(phase("head again", 1, "head"));
    recipe.checkpoints.every_epoch = true;
    recipe
}

/// What the stages of `params` put out for the whole validation part, stage by stage.
fn features(job: &Job, params: &ParamStore) -> Vec<Vec<f32>> {
    let options = LoaderOptions {
        batch: job.val.len(),
        size: job.size(),
        sampling: Sampling::Sequential,
        threads: 0,
        ..LoaderOptions::eval()
    };
    let loader = Loader::new(Arc::clone(&job.val), job.eval.clone(), options).unwrap();
    let batch = loader.epoch(0).next().unwrap().unwrap();
    let mut session = engine().open(Arc::clone(&job.graph), params).unwrap();
    session.stages(batch.n, Images::Pixels(&batch.pixels, &job.pixels)).unwrap()
}

/// Compares an epoch's metrics with what its checkpoint's weights say.
fn check(job: &Job, folder: &Folder, epoch: &Epoch) {
    let name = format!("epoch-{:03}", epoch.global_epoch + 1);
    let (now, _) = folder.load(&name, &job.graph).unwrap();
    for (i, stage) in job.graph.stages().iter().enumerate() {
        let ids = job.graph.param_ids().filter(|&id| job.graph.stage_of(id) == i);
        let (mut moved, mut norm) = (0.0, 0.0);
        for id in ids.filter(|&id| job.graph.param(id).kind.is_trainable()) {
            let name = &job.graph.param(id).name;
            let (a, b) = (job.params.get(name).unwrap(), now.get(name).unwrap());
            for (a, b) in a.data().iter().zip(b.data()) {
                moved += (f64::from(*a) - f64::from(*b)).powi(2);
                norm += f64::from(*a).powi(2);
            }
        }
        let (got, want) = (epoch.metrics[&format!("drift.{}", stage.name)], (moved / norm).sqrt());
        assert!((got - want).abs() < 1e-9, "drift of {} in {name}: {got} instead of {want}", stage.name);
    }
    let (then, now) = (features(job, &job.params), features(job, &now));
    for (i, stage) in job.graph.stages().iter().enumerate().filter(|(_, s)| !s.head) {
        let want = linear_cka(&then[i], &now[i], job.val.len()).unwrap();
        let got = epoch.metrics[&format!("cka.{}", stage.name)];
        assert!((got - want).abs() < 1e-5, "similarity of {} in {name}: {got} instead of {want}", stage.name);
    }
    assert!(!epoch.metrics.contains_key("cka.head"), "a new head has nothing to be like");
}

fn run(job: &Job) -> (tempfile::TempDir, Outcome) {
    let dir = tempfile::tempdir().unwrap();
    let outcome = fit(job, dir.path());
    (dir, outcome)
}

#[test]
fn drift_and_similarity_are_those_of_each_epochs_weights() {
    for averaged in [false, true] {
        let mut recipe = there_and_back();
        recipe.ema = averaged.then(|| tiny::ema(1, false));
        let job = job(recipe);
        let (dir, outcome) = run(&job);
        let folder = Folder::open(dir.path()).unwrap();
        outcome.history.iter().for_each(|epoch| check(&job, &folder, epoch));
        let value = |epoch: usize, name: &str| outcome.history[epoch].metrics[name];
        // What is frozen has not moved, to the last bit; what trains has.
        assert_eq!((value(0, "drift.stem"), value(0, "cka.stem"), value(0, "cka.body")), (0.0, 1.0, 1.0));
        assert!(value(0, "drift.head") > 0.0 && value(1, "drift.stem") > 0.0 && value(1, "cka.body") < 1.0);
        if !averaged {
            assert_eq!(value(1, "drift.stem"), value(3, "drift.stem"), "the stem is frozen again");
            assert!(value(1, "drift.body") != value(3, "drift.body"));
            assert_eq!(value(3, "cka.body"), value(4, "cka.body"), "only the head trains");
        }
    }
}

#[test]
fn measuring_leaves_no_trace() {
    let train = |every: usize| {
        let mut recipe = there_and_back();
        recipe.ema = Some(tiny::ema(2, true));
        recipe.retention.every = every;
        let (dir, outcome) = run(&job(recipe));
        let losses: Vec<_> = outcome.history.iter().map(|e| (e.train_loss, e.val_loss)).collect();
        (weights(&Folder::open(dir.path()).unwrap(), "last"), losses, outcome.history)
    };
    let (with, without, some) = (train(1), train(0), train(2));
    assert!((&with.0, &with.1) == (&without.0, &without.1));
    let measured = |history: &[Epoch]| {
        history.iter().map(|e| e.metrics.keys().any(|m| m.starts_with("drift."))).collect::<Vec<_>>()
    };
    assert_eq!(measured(&with.2), [true; 5]);
    assert_eq!(measured(&without.2), [false; 5]);
    assert_eq!(measured(&some.2), [false, true, false, true, false]);
}

/// The tiny network as it was: with a head for other classes.
fn source(job: &Job) -> SourceTask {
    let mut params = ParamStore::init(&job.graph, 11);
    for (name, value) in job.params.iter().filter(|(name, _)| !name.starts_with("fc.")) {
        params.set(name, value.clone()).unwrap();
    }
    SourceTask {
        graph: Arc::clone(&job.graph),
        params,
        kept: ["fc.weight", "fc.bias"].map(String::from).to_vec(),
        data: Arc::new(tiny::data(30, 5)),
        pixels: job.pixels.clone(),
        eval: job.eval.clone(),
    }
}

#[test]
fn the_source_task_is_answered_through_its_own_head() {
    let mut job = job(there_and_back());
    job.source = Some(source(&job));
    let (dir, outcome) = run(&job);
    let folder = Folder::open(dir.path()).unwrap();
    let task = job.source.as_ref().unwrap();
    let accuracy = |body: &ParamStore| {
        let mut params = task.params.clone();
        for (name, value) in body.iter().filter(|(name, _)| !name.starts_with("fc.")) {
            params.set(name, value.clone()).unwrap();
        }
        let mut session = engine().open(Arc::clone(&task.graph) as Arc<Graph>, &params).unwrap();
        let options = LoaderOptions { size: job.size(), threads: 0, ..LoaderOptions::eval() };
        let loader = Loader::new(Arc::clone(&task.data), task.eval.clone(), options).unwrap();
        let outputs = defrost_train::evaluate(&mut *session, &loader, &task.pixels, &mut |_| ()).unwrap();
        outputs.metrics(&defrost_policy::Loss::default(), &[]).get(Metric::Accuracy).unwrap()
    };
    let start = folder.events().unwrap().into_iter().find_map(|e| match e {
        Event::Retention(start) => Some(start),
        _ => None,
    });
    let start = start.unwrap();
    assert_eq!((start.images, start.source_images), (21, 30));
    assert_eq!(start.source_accuracy, Some(accuracy(&job.params)));
    for epoch in &outcome.history {
        let (now, _) = folder.load(&format!("epoch-{:03}", epoch.global_epoch + 1), &job.graph).unwrap();
        assert_eq!(epoch.metrics["source_accuracy"], accuracy(&now));
    }
    assert_eq!(
        Some(outcome.history[0].metrics["source_accuracy"]),
        start.source_accuracy,
        "the body is frozen"
    );
}

#[test]
fn a_source_task_that_comes_with_resuming_is_measured_from_the_start() {
    let mut job = job(there_and_back());
    let stop = AtomicBool::new(false);
    let on_event = |e: &Event| {
        if matches!(e, Event::Epoch(_)) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let options_ = Options { stop: Some(&stop), on_event: Box::new(on_event), ..tiny::options() };
    let dir = tempfile::tempdir().unwrap();
    let mut run = tiny::new_run(dir.path());
    defrost_train::fit(&engine(), &job, &mut run, options_).unwrap();
    job.source = Some(source(&job));
    job.recipe.retention.source = Some("source".into());
    let outcome = defrost_train::resume(&engine(), &job, &mut run, tiny::options()).unwrap();
    let epochs = outcome.history.iter().map(|e| e.metrics.contains_key("source_accuracy"));
    assert!(epochs.enumerate().all(|(i, has)| has == (i > 0)), "{:?}", outcome.history);
    let folder = Folder::open(dir.path()).unwrap();
    let starts = folder.events().unwrap().into_iter().filter_map(|e| match e {
        Event::Retention(start) => Some(start.source_accuracy),
        _ => None,
    });
    let starts: Vec<_> = starts.collect();
    let whole = self::run(&job);
    let at_start =
        Folder::open(whole.0.path()).unwrap().events().unwrap().into_iter().find_map(|e| match e {
            Event::Retention(start) => start.source_accuracy,
            _ => None,
        });
    assert_eq!(starts, [None, at_start]);
    assert!(folder.recipe().unwrap().contains("source = \"source\""), "it goes on with it next time");
    let (last, same) =
        (tiny::weights(&folder, "last"), tiny::weights(&Folder::open(whole.0.path()).unwrap(), "last"));
    assert!(last == same, "and changes no bit");
}
