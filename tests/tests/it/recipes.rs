//! Every recipe that the program carries runs: short, on a small network from made-up weights.

use std::path::Path;

use defrost::policy::{Recipe, Schedule, Task, Weights};
use defrost::train::{Ending, Event, Folder, Options};
use defrost::{FineTune, Start};

/// Epochs of a phase: enough for one thaw.
const EPOCHS: usize = 2;

/// Three classes of coloured noise, `each` pictures of every one.
fn photos(folder: &Path, each: u32) {
    for (class, bright) in [("1", 0), ("2", 1), ("3", 2)] {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for i in 0..each {
            let value = |x: u32, y: u32, c: u32| {
                let noise = (x * 7 + y * 1300 + i * 29_000 + c * 17).wrapping_mul(2_654_435_761) >> 27;
                noise as u8 + if c == bright { 180 } else { 60 }
            };
            let pixel = |x, y| [0, 1, 2].map(|c| value(x, y, c));
            let picture: Vec<u8> = (0..36).flat_map(|y| (0..40).flat_map(move |x| pixel(x, y))).collect();
            let image = defrost::augment::Image::new(40, 36, 3, picture).unwrap();
            defrost::report::save(&folder.join(class).join(format!("{i}.png")), &image).unwrap();
        }
    }
}

/// The same phases with everything that happens at an epoch moved into the first two.
fn short(mut recipe: Recipe) -> Recipe {
    recipe.model.weights = Weights::None;
    recipe.model.width = 0.25;
    recipe.data.image_size = 32;
    recipe.batch_size = 4;
    for phase in &mut recipe.phases {
        phase.epochs = EPOCHS;
        phase.accumulate = phase.accumulate.min(6);
        if let Some(warmup) = &mut phase.warmup {
            warmup.epochs = warmup.epochs.min(0.5);
        }
        if let Some(sweep) = &mut phase.find_lr {
            sweep.steps = 8;
        }
        match &mut phase.schedule {
            Schedule::Step { every, .. } => *every = 1,
            Schedule::MultiStep { at, .. } => *at = vec![1],
            Schedule::Cosine { cycles, .. } => *cycles = (*cycles).min(EPOCHS),
            Schedule::Table { factors } => {
                factors.truncate(EPOCHS);
                factors.iter_mut().enumerate().for_each(|(i, row)| row.0 = i);
            }
            _ => {}
        }
        if let Some(thaw) = &mut phase.thaw {
            thaw.at.truncate(1);
            thaw.at.iter_mut().for_each(|at| *at = 1);
            thaw.every = thaw.every.min(1);
        }
    }
    recipe
}

#[test]
fn every_recipe_trains() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("photos");
    photos(&data, 5);
    for (name, ..) in defrost::policy::recipes() {
        let recipe = short(Recipe::named(name).unwrap());
        let folder = temp.path().join(name);
        let start = std::time::Instant::now();
        let prepared = FineTune::on(&data).recipe(recipe.clone()).into_folder(&folder).prepare();
        let prepared = prepared.unwrap_or_else(|e| panic!("{name}: {e}"));
        let outcome =
            prepared.train(Start::Fresh, Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        eprintln!("{name}: {:.1} s", start.elapsed().as_secs_f64());
        let Ending::Done(done) = outcome.ending else { panic!("{name} did not end") };

        // The run says what the recipe says.
        let run = Folder::open(&folder).unwrap();
        assert_eq!(Recipe::from_toml(&run.recipe().unwrap()).unwrap(), recipe, "{name}");
        let events = run.events().unwrap();
        let count = |is: fn(&Event) -> bool| events.iter().filter(|e| is(e)).count();
        assert_eq!(count(|e| matches!(e, Event::PhaseStart(_))), recipe.phases.len(), "{name}");
        assert_eq!(outcome.history.len(), done.epochs, "{name}");
        assert!(done.epochs >= recipe.phases.len() && done.best_epoch.is_some(), "{name}");
        assert!(outcome.history.iter().all(|e| e.train_loss.is_finite()), "{name}");
        assert_eq!(
            outcome.history[0].val_accuracy.is_some(),
            recipe.loss.task() != Task::Regression,
            "{name}"
        );

        // What it asks for has happened.
        let thaws =
            recipe.phases.iter().any(|p| p.thaw.as_ref().is_some_and(|t| t.every > 0 || !t.at.is_empty()));
        assert_eq!(count(|e| matches!(e, Event::Thaw(_))) > 0, thaws, "{name}");
        let sweeps = recipe.phases.iter().filter(|p| p.find_lr.is_some()).count();
        assert_eq!(count(|e| matches!(e, Event::LrFind(_))), sweeps, "{name}");
        let kept = |name: &str| run.checkpoint_path(name).exists();
        for saved in recipe.phases.iter().filter_map(|p| p.save.as_deref()).chain(["best", "last"]) {
            assert!(kept(saved), "{name}: no checkpoint {saved}");
        }
        assert_eq!(kept("epoch-001"), recipe.checkpoints.every_epoch, "{name}");

        // And what came of it answers.
        let trained = defrost::Trained::open(&folder).unwrap();
        let answers = trained.predict(&[data.join("1/0.png")]).unwrap();
        assert_eq!(answers.len(), 1, "{name}");
    }
}
