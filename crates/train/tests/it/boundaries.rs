//! Every kind of boundary within a run, each interrupted after every one of its steps: the bits stay the same.

use std::sync::Arc;

use defrost_policy::{
    Metric, Mode, PhaseSpec, Plateau, Recipe, Rollback, Schedule, Start, Suggestion, Sweep, Thaw, Unit,
    Warmup,
};
use defrost_train::{Event, Folder, Job};

use crate::resume::check;
use crate::tiny::{self, bare, fit, job};

/// 44 images in batches of 16: three steps an epoch.
fn short() -> Recipe {
    bare().batch_size(16)
}

fn phase(name: &str, epochs: usize, train: &str) -> PhaseSpec {
    PhaseSpec::new(name, epochs, train).lr(1e-2).optimizer(tiny::sgd(0.9))
}

/// The run makes this decision (or all of them), and makes it however it is interrupted.
fn decides(job: &Job, wanted: &[(&str, &str)]) {
    let dir = tempfile::tempdir().unwrap();
    let outcome = fit(job, dir.path());
    let events = Folder::open(dir.path()).unwrap().events().unwrap();
    let decisions: Vec<_> =
        events.iter().filter_map(|e| if let Event::Decision(d) = e { Some(d) } else { None }).collect();
    for (what, reason) in wanted {
        let made = |d: &&defrost_train::Decision| d.what.contains(what) && d.reason.contains(reason);
        assert_eq!(decisions.iter().filter(|d| made(d)).count(), 1, "{what}: {reason}: {decisions:#?}");
    }
    assert!(decisions.iter().all(|d| !d.reason.is_empty() && !d.reason.contains('\n')));
    let steps = 3 * outcome.history.len();
    check(job, (1..steps).map(|at| vec![at]).chain([(1..steps).collect()]));
}

/// What is validated says nothing of what is learned: the loss rises sooner or later.
fn overfitting(recipe: Recipe) -> Job {
    let mut job = job(recipe);
    job.val = Arc::new(tiny::shuffled(21, 3));
    job
}

#[test]
fn thaws_at_epochs_and_one_after_another_from_the_last_stage() {
    let mut thaw = Thaw::default();
    (thaw.at, thaw.unit, thaw.lr_factor) = (vec![1, 3], Unit::Stage, 0.5);
    let job = job(short().phase(phase("gradual", 4, "head").thaw(thaw)));
    decides(
        &job,
        &[
            ("thaw body", "body thaws: epoch 1 is over; rates x 0.5"),
            ("thaw stem", "stem thaws: epoch 3 is over"),
        ],
    );
}

#[test]
fn a_thaw_on_a_plateau_from_the_best_weights() {
    let mut thaw = Thaw::default();
    let mut plateau = Plateau::default();
    // Only a gain that is out of reach counts, so that it comes at a known epoch.
    (plateau.patience, plateau.min_delta) = (2, 100.0);
    (thaw.plateau, thaw.restore_best) = (Some(plateau), true);
    let rising = phase("rising", 5, "head").lr(0.3).thaw(thaw);
    decides(
        &overfitting(short().phase(rising)),
        &[("thaw body", "loss has not improved for 2 epochs"), ("back to the weights", "next thaw")],
    );
}

#[test]
fn a_thaw_that_is_taken_back() {
    let (mut thaw, mut rollback) = (Thaw::default(), Rollback::default());
    (rollback.patience, rollback.metric, rollback.mode) = (2, Metric::Loss, Mode::Min);
    (thaw.at, thaw.lr_factor, thaw.rollback) = (vec![1], 300.0, Some(rollback));
    let mut recipe = short().phase(phase("risky", 5, "head").lr(5e-3).thaw(thaw));
    recipe.ema = Some(tiny::ema(1, true));
    decides(
        &overfitting(recipe),
        &[
            ("back to the weights of epoch 1", "thawing body made loss worse"),
            ("freeze body again", "after 2 epochs"),
        ],
    );
}

#[test]
fn rates_that_fall_on_a_plateau_and_an_early_end_with_the_best_weights() {
    let mut recipe = short().phase(phase("falls", 12, "all").lr(0.2).schedule(Schedule::Plateau {
        metric: Metric::Loss,
        mode: Mode::Auto,
        factor: 0.1,
        patience: 1,
        min_delta: 0.0,
        cooldown: 1,
        min_factor: 0.05,
    }));
    recipe.early_stopping = Some(tiny::patience(4));
    let recipe = recipe.phase(phase("after", 1, "head").lr(1e-3));
    decides(
        &overfitting(recipe),
        &[("rates times 0.1", "loss has not improved"), ("end of the phase", ""), ("back to", "ends with")],
    );
}

#[test]
fn schedules_start_again_and_change_at_their_epochs() {
    let mut restarts =
        phase("restarts", 3, "all").schedule(Schedule::Cosine { end: 0.0, cycles: 2, mult: 1.0 });
    restarts.warmup = Some(Warmup { epochs: 0.5, start: 0.1 });
    let steps = phase("steps", 2, "head").schedule(Schedule::MultiStep { at: vec![1], gamma: 0.1 });
    let mut one_cycle = phase("one cycle", 2, "all").schedule(Schedule::one_cycle());
    one_cycle.keep_state = true;
    one_cycle.accumulate = 32;
    let mut recipe = short().phase(restarts).phase(steps).phase(one_cycle);
    recipe.ema = Some(tiny::ema(2, false));
    decides(&job(recipe), &[]);
}

#[test]
fn phases_that_start_from_checkpoints_and_from_a_sweep() {
    let mut sweep = Sweep::default();
    (sweep.start, sweep.end, sweep.steps, sweep.apply) = (1e-3, 1e3, 12, Some(Suggestion::Minimum));
    let mut recipe = short()
        .phase(phase("head", 2, "head").save("stage-1"))
        .phase(phase("all", 2, "all").start(Start::Best { before: 1 }))
        .phase(phase("again", 1, "all").start(Start::Named("stage-1".into())).find_lr(sweep))
        .phase(phase("best", 1, "head").start(Start::Best { before: 0 }));
    recipe.checkpoints.every_epoch = true;
    decides(
        &job(recipe),
        &[
            ("start from checkpoint `stage-1`", "the recipe says so"),
            ("start from checkpoint `best`", ""),
            ("greatest rate", "`minimum` of the learning-rate finder"),
        ],
    );
}

#[test]
fn every_schedule_goes_on_as_it_was() {
    let plateau = || Schedule::Plateau {
        metric: Metric::TrainLoss,
        mode: Mode::Max,
        factor: 0.5,
        patience: 1,
        min_delta: 0.0,
        cooldown: 0,
        min_factor: 0.0,
    };
    let schedules = [
        Schedule::Constant {},
        Schedule::Step { every: 1, gamma: 0.5 },
        Schedule::MultiStep { at: vec![1, 2], gamma: 0.3 },
        Schedule::Exponential { gamma: 0.6 },
        Schedule::Polynomial { power: 2.0, end: 0.1 },
        Schedule::Cosine { end: 0.1, cycles: 2, mult: 2.0 },
        Schedule::one_cycle(),
        Schedule::FlatCosine { flat: 0.4, div_final: 1e3 },
        plateau(),
        Schedule::Table { factors: vec![(0, 1.0), (1, 0.1), (2, 0.01)] },
    ];
    for (i, schedule) in schedules.into_iter().enumerate() {
        // Three batches an epoch, two of them a step: an epoch ends in the middle of one.
        let mut warmed = phase("warmed", 3, "all").lr([1e-3, 1e-2]).schedule(schedule).accumulate(32);
        warmed.warmup = (i % 2 == 0).then_some(Warmup { epochs: 0.6, start: 0.1 });
        let mut recipe = short().phase(warmed).phase(phase("after", 1, "head"));
        recipe.ema = Some(tiny::ema(1 + i % 3, i % 2 == 1));
        check(&job(recipe), [vec![4], vec![8], (1..12).collect()]);
    }
}

#[test]
fn every_unit_and_moment_of_thawing_goes_on_as_it_was() {
    let units = [Unit::Stage, Unit::Block, Unit::Group, Unit::All];
    let mut thaws: Vec<_> = units.map(|unit| Thaw::by(unit).every(1).lr_factor(0.7)).into();
    thaws.push(Thaw::steps(["body.*", "stem.bn.*"]).at([1, 2]));
    let out_of_reach = Plateau::of(Metric::Loss, 1).min_delta(100.0);
    thaws.push(
        Thaw::by(Unit::Stage).on_plateau(out_of_reach).restore_best().rollback(Rollback::of(Metric::Loss, 1)),
    );
    for (i, thaw) in thaws.into_iter().enumerate() {
        let mut gradual = phase("gradual", 4, "head").schedule(Schedule::cosine()).thaw(thaw);
        gradual.accumulate = [0, 32][i % 2];
        let mut recipe = short().phase(gradual);
        recipe.ema = (i % 3 == 0).then(|| tiny::ema(2, false));
        let job = job(recipe);
        assert!(!job.phases[0].thaws.is_empty());
        check(&job, [vec![5], vec![7], (1..12).collect()]);
    }
}
