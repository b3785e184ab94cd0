//! What a run does and leaves behind.

use std::sync::Arc;

use defrost_augment::Pipeline;
use defrost_policy::{Metric, PhaseSpec, Suggestion, Sweep};
use defrost_train::{Ending, Event, Folder, TrainError};

use crate::tiny::{self, bare, bits, engine, fit, job, new_run, options, recipe, weights};

#[test]
fn a_run_learns_and_leaves_everything_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe();
    recipe.phases[1].epochs = 6;
    recipe.phases[1].lr = 0.1.into();
    let job = job(recipe);
    let outcome = fit(&job, dir.path());
    let first = outcome.history.first().unwrap();
    let last = outcome.history.last().unwrap();
    assert!(last.train_loss < 0.7 * first.train_loss, "{} after {}", last.train_loss, first.train_loss);
    assert_eq!(outcome.history.len(), 8);
    let Ending::Done(done) = outcome.ending else { panic!("{:?}", outcome.ending) };
    assert!(done.accuracy.unwrap() > 0.6, "{done:?}");

    let folder = Folder::open(dir.path()).unwrap();
    assert_eq!(folder.checkpoints(), ["best", "last"]);
    let events = folder.events().unwrap();
    let count = |f: fn(&Event) -> bool| events.iter().filter(|e| f(e)).count();
    assert_eq!(count(|e| matches!(e, Event::PhaseStart(_))), 2);
    assert_eq!(count(|e| matches!(e, Event::Epoch(_))), 8);
    assert_eq!(count(|e| matches!(e, Event::Step(_))), 0, "steps are for the callback");
    assert!(matches!(events.last(), Some(Event::Done(_))));
    let phases: Vec<_> =
        events.iter().filter_map(|e| if let Event::PhaseStart(p) = e { Some(p) } else { None }).collect();
    assert!(phases[0].cached && !phases[1].cached, "{phases:?}");
    assert_eq!(phases[0].cut, "flatten");
    assert_eq!((phases[0].trained, phases[1].first_epoch), (21, 2));

    // The best epoch's weights give what the best epoch measured, image by image.
    let validation = folder.validation().unwrap();
    let best = &outcome.history[done.best_epoch.unwrap()];
    assert!(best.best);
    assert_eq!(validation.accuracy, best.val_accuracy);
    assert_eq!(Some(validation.loss), best.val_loss);
    assert_eq!(validation.confusion.iter().flatten().sum::<usize>(), 21);
    assert_eq!(validation.classes, tiny::CLASSES);
    assert_eq!(folder.about("best").unwrap().epoch, done.best_epoch);
}

#[test]
fn torchs_names_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    fit(&job(recipe()), dir.path());
    let folder = Folder::open(dir.path()).unwrap();
    let bytes = std::fs::read(folder.checkpoint_path("best")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tracked = &header["stem.bn.num_batches_tracked"];
    assert_eq!(
        (tracked["dtype"].as_str(), tracked["shape"].as_array().map(Vec::len)),
        (Some("I64"), Some(0))
    );
    assert_eq!(header["body.conv.weight"]["shape"], serde_json::json!([6, 4, 3, 3]));
    let about = folder.about("best").unwrap();
    assert_eq!((about.model.as_str(), about.classes), ("tiny", tiny::CLASSES.map(String::from).to_vec()));
    assert!(about.metrics["accuracy"] > 0.0);
}

#[test]
fn what_is_frozen_stays_as_it_was_to_the_bit() {
    for (views, decay) in [(1, false), (0, false), (0, true)] {
        let dir = tempfile::tempdir().unwrap();
        let mut recipe = recipe();
        recipe.phases.truncate(1);
        recipe.data.views = views;
        recipe.ema = decay.then(|| tiny::ema(1, false));
        let job = job(recipe);
        fit(&job, dir.path());
        let before = bits(&job.params);
        for ((name, before), (_, after)) in
            before.iter().zip(weights(&Folder::open(dir.path()).unwrap(), "last"))
        {
            assert_eq!(*before == after, !name.starts_with("fc."), "{name} with {views} views");
        }
    }
}

#[test]
fn cached_features_change_nothing_where_nothing_is_random() {
    let run = |views| {
        let dir = tempfile::tempdir().unwrap();
        let mut recipe = recipe();
        recipe.phases.truncate(1);
        recipe.phases[0].epochs = 3;
        recipe.augment.train = Pipeline(Vec::new());
        recipe.data.views = views;
        let outcome = fit(&job(recipe), dir.path());
        let losses: Vec<_> =
            outcome.history.iter().map(|e| (e.train_loss, e.val_loss, e.val_accuracy)).collect();
        (weights(&Folder::open(dir.path()).unwrap(), "last"), losses)
    };
    assert_eq!(run(1), run(0));
}

#[test]
fn features_in_a_file_give_the_same_bits_as_features_in_memory() {
    let run = |memory| {
        let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut recipe = recipe();
        recipe.phases.truncate(1);
        recipe.data.views = 2;
        recipe.data.cache_memory = memory;
        recipe.data.cache_folder = Some(folder.path().join("new").display().to_string());
        let mut reason = String::new();
        let mut options = options();
        options.on_event = Box::new(|e| {
            if let Event::PhaseStart(p) = e {
                reason = p.cache_reason.clone();
            }
        });
        defrost_train::fit(&engine(), &job(recipe), &mut new_run(dir.path()), options).unwrap();
        (weights(&Folder::open(dir.path()).unwrap(), "last"), reason, folder.path().join("new").exists())
    };
    let (in_memory, in_file) = (run(1), run(0));
    assert_eq!(in_memory.0, in_file.0);
    assert!(!in_memory.1.contains("in a file") && in_file.1.ends_with("in a file"), "{}", in_file.1);
    assert_eq!((in_memory.2, in_file.2), (false, true));
}

#[test]
fn a_cache_over_its_budget_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut phases = Vec::new();
    let mut options = options();
    let recipe = recipe().cache(0, 0);
    options.on_event = Box::new(|e| {
        if let Event::PhaseStart(p) = e {
            phases.push((p.cached, p.cache_reason.clone()));
        }
    });
    defrost_train::fit(&engine(), &job(recipe), &mut new_run(dir.path()), options).unwrap();
    assert!(!phases[0].0 && phases[0].1.contains("more than"), "{phases:?}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe();
    // The second phase is far too fast.
    recipe.phases[1] = PhaseSpec::new("all", 20, "all").lr(1e30).optimizer(tiny::sgd(0.9));
    let error = defrost_train::fit(&engine(), &job(recipe), &mut new_run(dir.path()), options()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, TrainError::NotFinite { .. } | TrainError::Exploded { .. }), "{text}");
    assert!(text.contains("in phase 2") && text.contains("phase.2.lr") && text.contains("`best`"), "{text}");
    let folder = Folder::open(dir.path()).unwrap();
    for name in ["best", "last"] {
        let (params, about) = folder.load(name, &tiny::graph()).unwrap();
        assert!(params.iter().all(|(_, v)| v.is_finite()), "{name}");
        assert_eq!(about.phase, Some(0), "{name}");
    }
    assert_eq!(folder.state().unwrap().at.phase, 1, "the run can be resumed from the end of the first phase");
    assert!(
        matches!(folder.events().unwrap().last(), Some(Event::Stopped(s)) if s.reason.contains("phase.2.lr"))
    );
}

#[test]
fn broken_starting_weights_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(recipe());
    let mut weight = job.params.get("body.conv.weight").unwrap().clone();
    weight.data_mut()[3] = f32::NAN;
    job.params.set("body.conv.weight", weight).unwrap();
    let error =
        defrost_train::fit(&engine(), &job, &mut new_run(dir.path()), options()).unwrap_err().to_string();
    assert!(error.contains("`body.conv.weight` of the starting weights"), "{error}");
}

#[test]
fn early_stopping_ends_a_phase_with_its_best_weights() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe();
    recipe.phases = vec![PhaseSpec::new("all", 50, "all").lr(3e-2).optimizer(tiny::sgd(0.0)).save("mine")];
    recipe.early_stopping = Some(tiny::patience(2));
    recipe.monitor = Metric::Loss;
    // Labels that mean nothing: what is learned cannot carry over.
    let mut job = job(recipe);
    job.val = Arc::new(tiny::shuffled(21, 3));
    let outcome = fit(&job, dir.path());
    assert!(outcome.history.len() < 50, "{} epochs", outcome.history.len());
    let folder = Folder::open(dir.path()).unwrap();
    let events = folder.events().unwrap();
    assert!(events.iter().any(|e| matches!(e, Event::Decision(d) if d.what.contains("back to the weights"))));
    assert_eq!(weights(&folder, "best"), weights(&folder, "last"));
    assert_eq!(weights(&folder, "best"), weights(&folder, "mine"));
    let left = std::fs::read_dir(folder.path().join("checkpoints")).unwrap();
    assert!(left.flatten().all(|f| !f.file_name().to_string_lossy().starts_with("restore-")));
}

#[test]
fn class_weights_and_accumulation_are_what_a_larger_batch_is() {
    // Two batches of 8 make the same step as one of 16, up to rounding, where no batch statistics are used.
    let run = |batch, accumulate| {
        let dir = tempfile::tempdir().unwrap();
        let mut recipe = recipe();
        recipe.phases.truncate(1);
        recipe.phases[0].accumulate = accumulate;
        recipe.batch_size = batch;
        recipe.loss = defrost_policy::Loss::CrossEntropy {
            label_smoothing: 0.1,
            class_weights: defrost_policy::ClassWeights::Table([("red".to_owned(), 3.0)].into()),
        };
        fit(&job(recipe), dir.path());
        Folder::open(dir.path()).unwrap().load("last", &tiny::graph()).unwrap().0
    };
    let (small, large) = (run(8, 16), run(16, 0));
    let (a, b) = (small.get("fc.weight").unwrap().data(), large.get("fc.weight").unwrap().data());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?}\n{b:?}");
    assert_ne!(bits(&small), bits(&run(8, 0)));
}

#[test]
fn named_checkpoints_are_where_later_phases_start() {
    let dir = tempfile::tempdir().unwrap();
    let head = || PhaseSpec::new("head", 1, "head").lr(1e-2).optimizer(tiny::sgd(0.9));
    let mut recipe = bare();
    recipe.checkpoints.every_epoch = true;
    recipe = recipe
        .phase(head().save("stage-1"))
        .phase(PhaseSpec::new("all", 1, "all").lr(1e-2).optimizer(tiny::sgd(0.9)))
        .phase(head().lr(1e-30).start(defrost_policy::Start::Named("stage-1".into())));
    fit(&job(recipe), dir.path());
    let folder = Folder::open(dir.path()).unwrap();
    assert_eq!(weights(&folder, "last"), weights(&folder, "stage-1"), "the last phase changes nothing");
    assert_ne!(weights(&folder, "epoch-002"), weights(&folder, "stage-1"));
    assert!(
        matches!(folder.load("stage-2", &tiny::graph()), Err(TrainError::NoCheckpoint { known, .. }) if known.len() == 6)
    );
}

#[test]
fn a_last_batch_of_one_is_left_out_where_it_has_no_statistics() {
    let warned = |graph| {
        let dir = tempfile::tempdir().unwrap();
        let mut warnings = Vec::new();
        let mut job = tiny::job_for(recipe(), graph);
        job.train = Arc::new(tiny::data(33, 1));
        let mut options = options();
        options.on_event = Box::new(|e| {
            if let Event::Warning { message } = e {
                warnings.push(message.clone());
            }
        });
        let outcome = defrost_train::fit(&engine(), &job, &mut new_run(dir.path()), options).unwrap();
        (warnings.join(" "), outcome.history.len())
    };
    let (warnings, epochs) = warned(tiny::graph_with_vector_norm());
    assert!(
        warnings.contains("the last batch of each epoch, of 1, is left out") && epochs == 4,
        "{warnings}"
    );
    // 64 values a channel are enough of one image.
    assert_eq!(warned(tiny::graph()), (String::new(), 4));
}

#[test]
fn what_does_not_fit_is_refused_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = new_run(dir.path());
    let mut job = job(recipe());
    job.val = Arc::new(tiny::data(0, 1));
    job.train = Arc::new(tiny::data(0, 1));
    let error = defrost_train::fit(&engine(), &job, &mut run, options()).unwrap_err();
    assert!(matches!(error, TrainError::NoImages { .. }), "{error}");
    job.train = Arc::new(tiny::grey(10));
    let error = defrost_train::fit(&engine(), &job, &mut run, options()).unwrap_err().to_string();
    assert!(error.contains("channels"), "{error}");
}

/// fastai 2892 and 2233, Lightning 6675.
#[test]
fn a_sweep_of_rates_leaves_no_trace_and_keeps_ratios() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = bare().phase(PhaseSpec::new("all", 2, "all").lr([1e-4, 1e-2]).optimizer(tiny::sgd(0.9)));
    let without = {
        let path = dir.path().join("without");
        fit(&job(recipe.clone()), &path);
        weights(&Folder::open(path).unwrap(), "last")
    };
    let mut sweep = Sweep::default();
    (sweep.start, sweep.end, sweep.steps) = (1e-3, 1e7, 20);
    recipe.phases[0].find_lr = Some(sweep.clone());
    let path = dir.path().join("with");
    fit(&job(recipe.clone()), &path);
    let folder = Folder::open(path).unwrap();
    assert_eq!(weights(&folder, "last"), without);
    let events = folder.events().unwrap();
    let found = events.iter().find_map(|e| if let Event::LrFind(f) = e { Some(f) } else { None }).unwrap();
    assert!(found.points.len() > 6 && found.applied.is_none(), "{found:?}");
    assert!(found.points.last().unwrap().loss > 2.0 * found.points[0].loss, "such rates diverge: {found:?}");

    // Optimizer state too, and where the sweep comes to a phase that has some.
    let job = job(recipe.clone());
    let mut session = defrost_exec::Engine::open(&engine(), job.graph.clone(), &job.params).unwrap();
    let state = job.graph.params().iter().filter(|p| p.kind.is_trainable()).flat_map(|p| {
        let value = defrost_tensor::HostTensor::full(p.shape.clone(), 0.25);
        [
            (format!("{}.first", p.name), value),
            (format!("{}.step", p.name), defrost_tensor::HostTensor::vector(vec![3.0])),
        ]
    });
    session.set_optimizer(&state.collect::<Vec<_>>()).unwrap();
    let (params, before) = (session.params().unwrap(), session.optimizer().unwrap());
    defrost_train::lr_find(&mut *session, &job, &job.phases[0], &sweep, &options()).unwrap();
    assert_eq!(bits(&session.params().unwrap()), bits(&params));
    assert_eq!(session.optimizer().unwrap(), before);

    sweep.apply = Some(Suggestion::Minimum);
    recipe.phases[0].find_lr = Some(sweep);
    let path = dir.path().join("applied");
    let job = tiny::job(recipe);
    fit(&job, &path);
    let events = Folder::open(path).unwrap().events().unwrap();
    let found = events.iter().find_map(|e| if let Event::LrFind(f) = e { Some(f) } else { None }).unwrap();
    let phase =
        events.iter().find_map(|e| if let Event::PhaseStart(p) = e { Some(p) } else { None }).unwrap();
    let suggested = found.suggestions.iter().find(|s| s.reading == "minimum").unwrap().lr;
    let scale = suggested / 1e-2;
    for (now, then) in phase.groups.iter().zip(&job.phases[0].groups) {
        assert!((now.lr / (then.lr * scale) - 1.0).abs() < 1e-9, "{now:?}");
    }
}

/// A picture of 8 x 8 pixels of one colour, as the simplest kind of file.
fn bmp([r, g, b]: [u8; 3]) -> Vec<u8> {
    let mut bytes = b"BM\xf6\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x08\0\0\0\x08\0\0\0\x01\0\x18\0".to_vec();
    bytes.resize(54, 0);
    bytes.extend([b, g, r].repeat(64));
    bytes
}

#[test]
fn a_picture_that_is_lost_in_the_run_is_told_of_once_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    for (part, n) in [("train", 8), ("val", 3)] {
        for (c, class) in tiny::CLASSES.iter().enumerate() {
            let folder = photos.join(part).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for i in 0..n {
                let mut colour = [i as u8; 3];
                colour[c] = 200;
                std::fs::write(folder.join(format!("{i}.bmp")), bmp(colour)).unwrap();
            }
        }
    }
    let splits = defrost_data::Splits::open(&photos, &Default::default()).unwrap();
    let mut job = job(recipe());
    (job.train, job.val) = (Arc::new(splits.train), Arc::new(splits.val));
    std::fs::write(photos.join("train/red/3.bmp"), "no picture any more").unwrap();
    let run = dir.path().join("run");
    let outcome = fit(&job, &run);
    assert_eq!(outcome.history.len(), 4);
    let folder = Folder::open(&run).unwrap();
    let told = |e: &Event| matches!(e, Event::Warning { message } if message.contains("red/3.bmp"));
    assert_eq!(folder.events().unwrap().iter().filter(|e| told(e)).count(), 1);
    let listed = std::fs::read_to_string(folder.skipped_path()).unwrap();
    assert!(listed.lines().count() == 1 && listed.contains("3.bmp: no image"), "{listed}");
}

#[test]
fn what_was_measured_last_is_not_measured_again_and_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = bare().phase(PhaseSpec::new("all", 3, "all").lr(3e-2).optimizer(tiny::sgd(0.9)));
    recipe.monitor = Metric::Loss;
    let job = job(recipe);
    let path = dir.path().join("run");
    let mut run = new_run(&path);
    let count = std::cell::Cell::new(0);
    let counting = || defrost_train::Options {
        on_event: Box::new(|e| {
            count.set(count.get() + usize::from(matches!(e, Event::Validating(v) if v.done == v.images)))
        }),
        ..options()
    };
    defrost_train::fit(&engine(), &job, &mut run, counting()).unwrap();
    assert_eq!(count.replace(0), 3, "once an epoch");
    let folder = Folder::open(&path).unwrap();
    let said = std::fs::read(folder.validation_path()).unwrap();
    // A process that only has the files asks the best weights once more.
    std::fs::remove_file(folder.validation_path()).unwrap();
    let outcome = defrost_train::resume(&engine(), &job, &mut run, counting()).unwrap();
    assert_eq!(count.get(), 1);
    assert!(outcome.validation.is_some());
    assert_eq!(std::fs::read(folder.validation_path()).unwrap(), said);
}

#[test]
fn epochs_that_are_not_measured_say_nothing_of_validation() {
    let dir = tempfile::tempdir().unwrap();
    let phase = |name, epochs| PhaseSpec::new(name, epochs, "all").lr(1e-2).optimizer(tiny::sgd(0.9));
    let every = |every| job(bare().validate_every(every).phase(phase("a", 5)).phase(phase("b", 2)));
    let measured = |every_epochs| {
        let job = every(every_epochs);
        let path = dir.path().join(format!("every-{every_epochs}"));
        let outcome = fit(&job, &path);
        for e in &outcome.history {
            let whole = e.val_accuracy.is_some() && e.metrics.contains_key("f1");
            assert_eq!((e.val_loss.is_some(), e.val_seconds > 0.0), (whole, whole), "{e:?}");
            assert!(whole || !e.best, "{e:?}");
        }
        let best = outcome.history.iter().filter(|e| e.best).map(|e| e.global_epoch).next_back();
        assert_eq!(Folder::open(&path).unwrap().about("best").unwrap().epoch, best);
        assert_eq!(outcome.validation.unwrap().epoch, best);
        let measured = outcome.history.iter().filter(|e| e.val_loss.is_some());
        (measured.map(|e| e.global_epoch).collect::<Vec<_>>(), weights(&Folder::open(&path).unwrap(), "last"))
    };
    let (all, last) = measured(1);
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
    // The last epoch of a phase is always measured, and nothing else depends on it.
    for (every, epochs) in [(0, vec![4, 6]), (2, vec![1, 3, 4, 6]), (9, vec![4, 6])] {
        assert_eq!(measured(every), (epochs, last.clone()), "every {every}");
    }
}

#[test]
fn rules_wait_for_epochs_that_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = bare().validate_every(2).early_stopping(tiny::patience(1));
    // A rate that is too high to get better: the second measurement ends the phase.
    recipe = recipe.phase(PhaseSpec::new("all", 12, "all").lr(1e-9).optimizer(tiny::sgd(0.0)));
    let outcome = fit(&job(recipe.clone()), &dir.path().join("loss"));
    let ended = outcome.history.len();
    assert!(ended.is_multiple_of(2) && ended < 12, "{ended} epochs");
    // A rule by the training loss ends it at any epoch, which is measured because it is the last.
    let mut rule = tiny::patience(1);
    (rule.metric, rule.restore_best, rule.min_delta) = (Metric::TrainLoss, false, 100.0);
    recipe.early_stopping = Some(rule);
    recipe.validation.every = 0;
    let outcome = fit(&job(recipe), &dir.path().join("train-loss"));
    let measured: Vec<_> = outcome.history.iter().map(|e| e.val_loss.is_some()).collect();
    assert_eq!(measured, [false, true]);
}

#[test]
fn epochs_that_are_both_the_best_and_the_last_have_one_file_of_weights() {
    let dir = tempfile::tempdir().unwrap();
    let phase = PhaseSpec::new("all", 1, "all").lr(1e-2).optimizer(tiny::sgd(0.9)).save("end");
    fit(&job(bare().phase(phase)), dir.path());
    let folder = Folder::open(dir.path()).unwrap();
    let names = ["best", "end", "last"];
    assert_eq!(folder.checkpoints(), names);
    let [best, end, last] = names.map(|name| std::fs::read(folder.checkpoint_path(name)).unwrap());
    assert!(best == end && end == last);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |name| std::fs::metadata(folder.checkpoint_path(name)).unwrap().ino();
        assert_eq!(inode("best"), inode("last"));
    }
    // What is written over one of them leaves the others.
    let (params, about) = folder.load("last", &job(tiny::recipe()).graph).unwrap();
    let other = defrost_train::About { model: "other".into(), ..about };
    defrost_train::write_weights(
        &folder.checkpoint_path("last"),
        &job(tiny::recipe()).graph,
        &params,
        &other,
    )
    .unwrap();
    assert_eq!(std::fs::read(folder.checkpoint_path("best")).unwrap(), best);
}
