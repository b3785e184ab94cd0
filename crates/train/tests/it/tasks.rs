//! Every loss and every optimizer, from a recipe to the files of a run.

use std::sync::Arc;

use defrost_data::{Dataset, TargetKind};
use defrost_policy::{
    Adam, ClassWeights, Clip, Lamb, Loss, Metric, Optimizer, PhaseSpec, Recipe, RmsProp, Schedule, Task,
};
use defrost_train::{Ending, Event, Folder, Job, TrainError};

use crate::resume::check;
use crate::tiny::{self, bare, engine, fit, new_run, options};

/// `data` as `task` wants it: of several labels "red", "green" and "not green"; three numbers of different size.
fn as_task(data: Dataset, task: Task) -> Dataset {
    let labels: Vec<u32> = data.samples().iter().map(|s| s.label).collect();
    let rows = |row: fn(u32) -> [f32; 3]| labels.iter().flat_map(|&l| row(l)).collect::<Vec<f32>>();
    let names = |names: [&str; 3]| names.map(String::from).to_vec();
    match task {
        Task::MultiLabel => {
            let truth = rows(|l| [l == 0, l == 1, l != 1].map(|is| f32::from(u8::from(is))));
            data.with_targets(TargetKind::Classes, names(["red", "green", "other"]), truth).unwrap()
        }
        Task::Regression => {
            let truth = rows(|l| [l as f32, 100.0 * l as f32, 5.0 - l as f32]);
            data.with_targets(TargetKind::Values, names(["place", "price", "rest"]), truth).unwrap()
        }
        _ => data,
    }
}

fn job(recipe: Recipe) -> Job {
    let task = recipe.loss.task();
    let mut job = tiny::job(recipe);
    job.train = Arc::new(as_task(tiny::data(44, 1), task));
    job.val = Arc::new(as_task(tiny::data(21, 2), task));
    job
}

/// A recipe for `loss` without phases, watching its task's own metric.
fn minimising(loss: Loss) -> Recipe {
    let monitor = loss.task().headline();
    let mut recipe = bare().loss(loss).monitor(monitor);
    recipe.data.standardize = recipe.loss.task() == Task::Regression;
    recipe
}

fn losses() -> [Loss; 5] {
    [
        Loss::CrossEntropy { label_smoothing: 0.1, class_weights: ClassWeights::Balanced },
        Loss::Focal { gamma: 2.0, class_weights: ClassWeights::Balanced },
        Loss::BinaryCrossEntropy { label_smoothing: 0.05 },
        Loss::MeanSquared {},
        Loss::Huber { delta: 0.5 },
    ]
}

fn optimizers() -> [Optimizer; 5] {
    [
        tiny::sgd(0.9),
        Optimizer::Adam(Adam::default()),
        Optimizer::RmsProp(RmsProp::default()),
        Optimizer::RmsProp(RmsProp {
            momentum: 0.9,
            centered: true,
            weight_decay: 1e-3,
            ..RmsProp::default()
        }),
        Optimizer::Lamb(Lamb::default()),
    ]
}

#[test]
fn every_loss_is_learned_and_measured() {
    for (loss, optimizer) in losses().into_iter().zip(optimizers()) {
        let (task, name) = (loss.task(), loss.name());
        let dir = tempfile::tempdir().unwrap();
        let lr = if matches!(optimizer, Optimizer::Sgd(_) | Optimizer::Lamb(_)) { 5e-2 } else { 1e-2 };
        let phase = PhaseSpec::new("all", 10, "all").lr(lr).optimizer(optimizer).schedule(Schedule::cosine());
        let job = job(minimising(loss.clone()).phase(phase));
        let outcome = fit(&job, dir.path());
        let (first, last) = (&outcome.history[0], outcome.history.last().unwrap());
        assert!(
            last.train_loss < 0.8 * first.train_loss,
            "{name}: {} after {}",
            last.train_loss,
            first.train_loss
        );
        assert!(last.val_loss < first.val_loss, "{name}");
        assert_eq!(last.train_accuracy.is_none(), task == Task::Regression, "{name}");
        let told = |m: Metric| match m {
            Metric::Loss => last.val_loss.is_some(),
            Metric::Accuracy => last.val_accuracy.is_some(),
            Metric::Top5 | Metric::TrainLoss => true,
            other => last.metrics.contains_key(other.name()),
        };
        assert!(task.metrics().iter().all(|&m| told(m)), "{name}: {:?}", last.metrics);

        let folder = Folder::open(dir.path()).unwrap();
        let validation = folder.validation().unwrap();
        let Ending::Done(done) = outcome.ending else { panic!("{name}") };
        let best = &outcome.history[done.best_epoch.unwrap()];
        assert_eq!((validation.task, validation.images), (task, 21), "{name}");
        assert_eq!(done.value, validation.metric(task.headline()), "{name}");
        assert_eq!(Some(validation.loss), best.val_loss, "{name}");
        // No epoch beats the best, whichever way is better.
        let of = |e: &defrost_train::Epoch| match task.headline() {
            Metric::Accuracy => e.val_accuracy.unwrap(),
            other => e.metrics[other.name()],
        };
        let less = task.headline().less_is_better();
        assert!(
            outcome.history.iter().all(|e| if less { of(e) >= of(best) } else { of(e) <= of(best) }),
            "{name}"
        );
        let about = folder.about("best").unwrap();
        assert_eq!((about.loss, about.scale.is_some()), (loss, task == Task::Regression), "{name}");
    }
}

#[test]
fn every_loss_and_optimizer_resumes_to_the_same_bits() {
    let clips = [Some(Clip::Norm(0.5)), None, Some(Clip::Value(0.05)), Some(Clip::Norm(1e-3)), None];
    for ((loss, optimizer), clip) in losses().into_iter().zip(optimizers()).zip(clips) {
        let mut recipe = minimising(loss);
        recipe.ema = Some(tiny::ema(1, true));
        recipe.augment.mixup = 0.4;
        let mut phase =
            PhaseSpec::new("all", 2, "all").lr(1e-3).optimizer(optimizer).schedule(Schedule::one_cycle());
        (phase.clip, phase.accumulate) = (clip, 16);
        // Three steps an epoch.
        check(&job(recipe.phase(phase)), [vec![1], vec![2], vec![3], vec![5], vec![1, 2, 4]]);
    }
}

#[test]
fn accumulated_batches_are_one_large_batch_for_every_loss() {
    for loss in losses() {
        let run = |batch, accumulate| {
            let dir = tempfile::tempdir().unwrap();
            let mut recipe = minimising(loss.clone());
            recipe.batch_size = batch;
            // Normalisations use their running statistics: no batch sees another.
            let mut phase = PhaseSpec::new("all", 2, "all").norm(defrost_policy::NormMode::AffineOnly);
            phase = phase.lr(1e-2).optimizer(tiny::sgd(0.9));
            (phase.accumulate, phase.clip) = (accumulate, Some(Clip::Norm(0.7)));
            let outcome = fit(&job(recipe.phase(phase)), dir.path());
            let params = Folder::open(dir.path()).unwrap().load("last", &tiny::graph()).unwrap().0;
            (params, outcome.history.iter().map(|e| e.train_loss).collect::<Vec<_>>())
        };
        let ((small, a), (large, b)) = (run(8, 16), run(16, 0));
        for ((name, a), (_, b)) in small.iter().zip(large.iter()) {
            let off = a.data().iter().zip(b.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 2e-6, "{}: {name} is off by {off}", loss.name());
        }
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{}: {a:?} {b:?}", loss.name());
    }
}

#[test]
fn gradients_are_limited_and_their_norm_is_told() {
    // One step of plain SGD at rate 1: the weights move by the gradient.
    let step = |clip: Option<Clip>| {
        let dir = tempfile::tempdir().unwrap();
        let mut recipe = minimising(Loss::default());
        recipe.batch_size = 44;
        let plain =
            Optimizer::Sgd(defrost_policy::Sgd { momentum: 0.0, weight_decay: 0.0, ..Default::default() });
        let mut phase = PhaseSpec::new("all", 1, "all").lr(1.0).optimizer(plain);
        phase.clip = clip;
        let (job, mut norm) = (job(recipe.phase(phase)), None);
        let mut options = options();
        options.on_event = Box::new(|e| {
            if let Event::Step(step) = e {
                norm = step.grad_norm;
            }
        });
        let outcome = defrost_train::fit(&engine(), &job, &mut new_run(dir.path()), options).unwrap();
        let after = Folder::open(dir.path()).unwrap().load("last", &tiny::graph()).unwrap().0;
        let moved: Vec<f32> = (job.graph.params().iter())
            .filter(|p| p.kind.is_trainable())
            .flat_map(|p| {
                let (a, b) = (job.params.get(&p.name).unwrap().data(), after.get(&p.name).unwrap().data());
                a.iter().zip(b).map(|(a, b)| b - a).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(outcome.history[0].grad_norm, norm);
        (moved, norm)
    };
    let length = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let (free, none) = step(None);
    assert_eq!(none, None);
    let (short, norm) = step(Some(Clip::Norm(0.01)));
    assert!(
        (length(&free) - norm.unwrap()).abs() < 1e-4 && norm.unwrap() > 0.1,
        "{norm:?} {}",
        length(&free)
    );
    assert!((length(&short) - 0.01).abs() < 1e-5, "{}", length(&short));
    let (flat, same) = step(Some(Clip::Value(0.01)));
    assert_eq!(same, norm);
    for (flat, free) in flat.iter().zip(&free) {
        assert!((flat - free.clamp(-0.01, 0.01)).abs() < 1e-6, "{flat} {free}");
    }
}

#[test]
fn numbers_may_be_learned_as_they_are() {
    let run = |standardize| {
        let dir = tempfile::tempdir().unwrap();
        let mut recipe = minimising(Loss::MeanSquared {}).phase(PhaseSpec::new("head", 3, "head").lr(1e-2));
        recipe.data.standardize = standardize;
        fit(&job(recipe), dir.path());
        Folder::open(dir.path()).unwrap().validation().unwrap()
    };
    let (scaled, plain) = (run(true), run(false));
    // Three numbers of deviation 1 each against one of deviation 82.
    assert!(scaled.loss < 1.5 && plain.loss > 1000.0, "{} {}", scaled.loss, plain.loss);
    for v in [scaled, plain] {
        let error: f64 = v.measured.iter().map(|m| f64::from((m.truth[1] - m.prediction[1]).abs())).sum();
        assert!((v.per_value[1].mae - error / 21.0).abs() < 1e-3, "answers are in the data's units");
        assert_eq!(v.per_value[1].name, "price");
    }
}

#[test]
fn a_loss_for_other_data_is_refused_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = minimising(Loss::Huber { delta: 1.0 }).phase(PhaseSpec::new("head", 1, "head"));
    let mut job = job(recipe);
    job.train = Arc::new(as_task(tiny::data(44, 1), Task::MultiLabel));
    let error = defrost_train::fit(&engine(), &job, &mut new_run(dir.path()), options()).unwrap_err();
    assert!(matches!(error, TrainError::WrongTask { loss: "huber", .. }), "{error}");
    assert!(error.to_string().contains("--set loss=binary_cross_entropy"), "{error}");
}

#[test]
fn what_is_measured_and_kept_is_the_average_of_the_weights() {
    let run = |ema| {
        let dir = tempfile::tempdir().unwrap();
        let mut recipe = minimising(Loss::default()).monitor(Metric::Loss);
        recipe = recipe.phase(PhaseSpec::new("all", 2, "all").lr(3e-2).optimizer(tiny::sgd(0.9)));
        recipe.ema = ema;
        let outcome = fit(&job(recipe), dir.path());
        let folder = Folder::open(dir.path()).unwrap();
        (outcome, folder.load("last", &tiny::graph()).unwrap().0, folder.validation().unwrap())
    };
    let ((averaged, mean, validation), (live, last, _)) = (run(Some(tiny::ema(1, false))), run(None));
    let (a, b) = (&averaged.history, &live.history);
    assert_eq!(a[1].train_loss, b[1].train_loss, "the average does not touch what trains");
    assert_ne!(a[1].val_loss, b[1].val_loss);
    let best = a.iter().rfind(|e| e.best).unwrap();
    assert_eq!(Some(validation.loss), best.val_loss);
    // Twelve steps at 0.9: most of the way from the start to the weights is behind the average.
    let start = tiny::job(bare().phase(PhaseSpec::new("all", 1, "all"))).params;
    let distance = |a: &defrost_graph::ParamStore| {
        let (a, b) = (a.get("fc.weight").unwrap().data(), start.get("fc.weight").unwrap().data());
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    assert!(distance(&mean) < distance(&last) && distance(&mean) > 0.0);
}
