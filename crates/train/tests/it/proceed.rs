//! Thawing by hand: another recipe goes on with a run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use defrost_policy::{Metric, PhaseSpec, Recipe, Start};
use defrost_train::{
    Aspect, Ending, Event, Folder, Job, Options, Outcome, Place, Run, TrainError, phases_done, proceed,
    resume,
};

use crate::resume::result;
use crate::tiny::{self, bare, bits, engine, fit, job, new_run, options, recipe, weights};

/// Options that stop after step `step` of an epoch.
fn until<'a>(stop: &'a AtomicBool, phase: usize, epoch: usize, step: usize) -> Options<'a> {
    let there =
        move |e: &Event| matches!(e, Event::Step(s) if (s.phase, s.epoch, s.step) == (phase, epoch, step));
    let on_event = move |e: &Event| stop.store(there(e), Ordering::Relaxed);
    Options { stop: Some(stop), on_event: Box::new(on_event), ..options() }
}

fn go_on(job: &Job, path: &Path) -> Outcome {
    proceed(&engine(), job, &mut Run::open(path).unwrap(), options()).unwrap()
}

/// `next` after what the run of `own` in `path` has done.
fn joined(own: &Recipe, next: Recipe, path: &Path) -> Job {
    let at = Folder::open(path).unwrap().state().unwrap().at;
    job(next.like(own).after(own, phases_done(at)))
}

fn decisions(path: &Path) -> Vec<String> {
    let events = Folder::open(path).unwrap().events().unwrap();
    let line =
        |e: Event| if let Event::Decision(d) = e { Some(format!("{}: {}", d.what, d.reason)) } else { None };
    events.into_iter().filter_map(line).collect()
}

#[test]
fn phases_by_hand_give_the_bits_of_one_recipe_with_all_of_them() {
    let mut whole = recipe();
    whole.ema = Some(tiny::ema(2, true));
    whole.phases[0].save = Some("stage-1".into());
    let mut first = whole.clone();
    let mut second = whole.clone();
    second.phases = vec![first.phases.pop().unwrap()];
    let dir = tempfile::tempdir().unwrap();
    let (at_once, by_hand) = (dir.path().join("at-once"), dir.path().join("by-hand"));
    let want = result(&at_once, &fit(&job(whole), &at_once));

    fit(&job(first.clone()), &by_hand);
    let both = joined(&first, second, &by_hand);
    // Interrupted on its way, it goes on by the recipe that is now the run's own.
    let stop = AtomicBool::new(false);
    let mut run = Run::open(&by_hand).unwrap();
    let stopped = proceed(&engine(), &both, &mut run, until(&stop, 1, 0, 4)).unwrap();
    assert!(matches!(stopped.ending, Ending::Stopped(_)));
    let own = Recipe::from_toml(&run.folder().recipe().unwrap()).unwrap();
    assert_eq!(own, both.recipe);
    let outcome = resume(&engine(), &job(own), &mut run, options()).unwrap();
    assert!(result(&by_hand, &outcome) == want);
    assert_eq!(
        decisions(&by_hand),
        ["phase `all` begins: by hand: the run was resumed with another recipe after phase 1"]
    );
    let ends = |e: &Event| matches!(e, Event::Done(_));
    assert_eq!(run.folder().events().unwrap().iter().filter(|e| ends(e)).count(), 1, "one run, one end");
}

#[test]
fn a_phase_is_ended_by_hand_and_its_checkpoint_is_where_the_next_starts() {
    let own =
        bare().phase(PhaseSpec::new("head", 9, "head").lr(1e-2).optimizer(tiny::sgd(0.9)).save("stage-1"));
    let next = || {
        let all = PhaseSpec::new("all", 1, "all").lr(1e-2).optimizer(tiny::sgd(0.9));
        let again = PhaseSpec::new("again", 1, "head").lr(1e-30).start(Start::Named("stage-1".into()));
        bare().phase(all).phase(again.optimizer(tiny::sgd(0.0)))
    };
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let mut run = new_run(dir.path());
    defrost_train::fit(&engine(), &job(own.clone()), &mut run, until(&stop, 0, 1, 3)).unwrap();
    let at = run.folder().state().unwrap().at;
    assert_eq!(at, Place { phase: 0, epoch: 1, step: 3 });
    drop(run);
    let outcome = go_on(&joined(&own, next(), dir.path()), dir.path());
    let places: Vec<_> = outcome.history.iter().map(|e| (e.phase, e.epoch, e.global_epoch)).collect();
    assert_eq!(places, [(0, 0, 0), (1, 0, 1), (2, 0, 2)]);
    let folder = Folder::open(dir.path()).unwrap();
    assert_eq!(weights(&folder, "last"), weights(&folder, "stage-1"), "the last phase changes nothing");
    let said = decisions(dir.path());
    assert!(said[0].ends_with("after step 3 of epoch 2 of phase 1"), "{said:?}");
    assert!(said[1].starts_with("start from checkpoint `stage-1`"), "{said:?}");
}

#[test]
fn a_phase_without_an_epoch_leaves_its_steps_and_nothing_else() {
    let own = recipe();
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let mut run = new_run(dir.path());
    let started = job(own.clone());
    defrost_train::fit(&engine(), &started, &mut run, until(&stop, 0, 0, 2)).unwrap();
    drop(run);
    let next = bare().phase(PhaseSpec::new("all", 1, "all").lr(1e-30).optimizer(tiny::sgd(0.0)));
    let both = joined(&own, next, dir.path());
    assert_eq!(both.recipe.phases.len(), 1);
    go_on(&both, dir.path());
    let now = Folder::open(dir.path()).unwrap().load("last", &tiny::graph()).unwrap().0;
    let fc = |p: &defrost_graph::ParamStore| {
        bits(p).into_iter().filter(|(n, _)| n.starts_with("fc")).collect::<Vec<_>>()
    };
    assert_ne!(fc(&now), fc(&started.params), "two steps were done");
}

#[test]
fn only_the_recipe_may_be_another() {
    let own = recipe();
    let dir = tempfile::tempdir().unwrap();
    fit(&job(own.clone()), dir.path());
    let next = || bare().phase(PhaseSpec::new("more", 1, "all").lr(1e-3));
    let mut other = joined(&own, next(), dir.path());
    other.train = Arc::new(tiny::data(44, 9));
    let mut run = Run::open(dir.path()).unwrap();
    let error = proceed(&engine(), &other, &mut run, options()).unwrap_err();
    assert!(matches!(&error, TrainError::Different(d) if d[0].what == Aspect::Data), "{error}");
    assert_eq!(run.folder().recipe().unwrap(), "name = \"tiny\"\n", "what is refused changes nothing");
    let error = proceed(&engine(), &job(own.clone()), &mut run, options()).unwrap_err();
    assert!(matches!(error, TrainError::Finished { epochs: 4, .. }), "{error}");
    drop(run);

    // Epochs are compared by another metric from here on; what was measured before counts by it too.
    let by_loss = joined(&own, next().monitor(Metric::Loss), dir.path());
    let outcome = go_on(&by_loss, dir.path());
    let Ending::Done(done) = &outcome.ending else { panic!("{:?}", outcome.ending) };
    assert_eq!(done.metric, "loss");
    let best = done.best_epoch.unwrap();
    let before = Folder::open(dir.path()).unwrap().state().unwrap().best.unwrap();
    assert_eq!((before.global_epoch, Some(before.value)), (best, outcome.history[best].val_loss));
}
