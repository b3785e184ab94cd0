//! From a folder of pictures and a recipe to a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use defrost_data::{Channels, DecodeOptions, Splits};
use defrost_exec::Engine;
use defrost_graph::Marking;
use defrost_plan::{Plan, Purpose};
use defrost_policy::{Phase, Recipe};
use defrost_train::{Ending, Folder, Job, Options, Outcome, Run};

use crate::{Device, Error, Model, memory};

/// A fine-tuning to be: what on, how, where to.
///
/// ```
/// # let photos = defrost::doc::photos()?;
/// use defrost::prelude::*;
///
/// let run = FineTune::on(&photos)
///     .recipe(Recipe::named("head")?)
///     .set("data.image_size", "32")?
///     .set("phase.1.epochs", "2")?
///     .into_folder(photos.join("run"))
///     .run()?;
/// let answers = run.predict(&[photos.join("red/0.png")])?;
/// println!("{} with {:.0} %", answers[0].best().class, 100.0 * answers[0].best().probability);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FineTune {
    /// The folder of pictures, one sub-folder a class.
    pub data: PathBuf,
    /// The recipe.
    pub recipe: Recipe,
    /// The device's name, see [`Device::from_name`].
    pub device: String,
    /// The run's folder.
    pub folder: PathBuf,
}

impl FineTune {
    /// The default recipe on the pictures in `data`, on the CPU, into `runs/defrost`.
    pub fn on(data: impl Into<PathBuf>) -> Self {
        let recipe = Recipe::named("two-stage").expect("the default recipe is built in");
        Self { data: data.into(), recipe, device: "cpu".into(), folder: "runs/defrost".into() }
    }

    /// With another recipe.
    pub fn recipe(self, recipe: Recipe) -> Self {
        Self { recipe, ..self }
    }

    /// With one value of the recipe changed, as `--set` does.
    ///
    /// # Errors
    /// A key or value that a recipe does not have.
    pub fn set(mut self, key: &str, value: &str) -> Result<Self, Error> {
        self.recipe.set(key, value)?;
        Ok(self)
    }

    /// On another device.
    pub fn device(self, name: impl Into<String>) -> Self {
        Self { device: name.into(), ..self }
    }

    /// Into another folder.
    pub fn into_folder(self, folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), ..self }
    }

    /// Opens the data, loads the weights and resolves the recipe: everything that can be wrong is found here.
    ///
    /// # Errors
    /// Data, recipe, weights, device, and a plan that does not fit.
    pub fn prepare(self) -> Result<Prepared, Error> {
        self.recipe.check()?;
        let engine = Device::from_name(&self.device)?;
        let splits = open_data(&self.data, &self.recipe, None)?;
        let model = Model::from_recipe(&self.recipe, splits.train.classes().len())?;
        let phases = self.recipe.resolve(&model.graph)?;
        let prepared = Prepared { fine_tune: self, engine, splits, model, phases };
        for phase in 0..prepared.phases.len() {
            prepared.plan(phase)?;
        }
        Ok(prepared)
    }

    /// Prepares and trains to the end.
    ///
    /// # Errors
    /// As [`FineTune::prepare`], and what happens in training.
    pub fn run(self) -> Result<crate::Trained, Error> {
        let prepared = self.prepare()?;
        let outcome = prepared.train(Start::Fresh, Options::default())?;
        debug_assert!(matches!(outcome.ending, Ending::Done(_)), "nobody stops this run");
        crate::Trained::open(&prepared.fine_tune.folder)?.on(&prepared.fine_tune.device)
    }
}

/// Whether a run begins or goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// In a new folder.
    Fresh,
    /// In the folder of an interrupted run.
    Resume,
}

/// A fine-tuning with everything opened, loaded and resolved, before its first step.
#[non_exhaustive]
pub struct Prepared {
    /// What was asked for.
    pub fine_tune: FineTune,
    /// The device.
    pub engine: Box<dyn Engine>,
    /// The pictures.
    pub splits: Splits,
    /// The network with its weights.
    pub model: Model,
    /// The recipe, resolved.
    pub phases: Vec<Phase>,
}

impl Prepared {
    /// The plan of a phase at its start for a full batch, with what it was made for.
    ///
    /// # Errors
    /// A phase that cannot run with this batch, or not in this machine's memory.
    pub fn plan(&self, phase: usize) -> Result<(Plan, &Marking), Error> {
        let (recipe, phase) = (&self.fine_tune.recipe, &self.phases[phase]);
        let marking = phase.thaws.last().map_or(&phase.marking, |step| &step.marking);
        let batch = recipe.batch_size.min(self.splits.train.len());
        let plan = |batch, marking| {
            Plan::new(
                &self.model.graph,
                marking,
                batch,
                Purpose::Train(Default::default()),
                Default::default(),
            )
        };
        // The most that the phase will ever train is what must fit.
        memory::check(&phase.name, batch, &|n| Ok(plan(n, marking)?.memory(&self.model.graph, 2).total()))?;
        Ok((plan(batch, &phase.marking)?, &phase.marking))
    }

    /// What the trainer is given.
    pub fn job(&self) -> Job {
        let recipe = &self.fine_tune.recipe;
        let model = &self.model;
        Job {
            graph: Arc::clone(&model.graph),
            params: model.params.clone(),
            recipe: recipe.clone(),
            phases: self.phases.clone(),
            train: Arc::new(self.splits.train.clone()),
            val: Arc::new(self.splits.val.clone()),
            pixels: model.preprocess.pixel_scale(recipe.model.in_channels),
            eval: model.eval_pipeline(recipe.data.resize.clone()),
            spec: model.spec_json(),
            preprocess: model.preprocess_json(),
        }
    }

    /// Trains into the run's folder and writes its report.
    ///
    /// # Errors
    /// See [`defrost_train::TrainError`]; the run's files are whole in any case.
    pub fn train(&self, start: Start, options: Options<'_>) -> Result<Outcome, Error> {
        let (job, folder, engine) = (self.job(), &self.fine_tune.folder, &*self.engine);
        let outcome = match start {
            Start::Fresh => {
                let mut run = Run::create(folder, &job.recipe.to_toml(), self.splits.train.classes())?;
                run.write_skipped(&self.splits.skipped)?;
                remember(folder, &self.fine_tune.data)?;
                defrost_train::fit(engine, &job, &mut run, options)?
            }
            Start::Resume => {
                let mut run = Run::open(folder)?;
                // A resume that is refused must not change what the run says of itself.
                if options.accept.contains(&defrost_train::Aspect::Recipe) {
                    run.write_recipe(&job.recipe.to_toml())?;
                }
                defrost_train::resume(engine, &job, &mut run, options)?
            }
        };
        defrost_report::write(folder)?;
        Ok(outcome)
    }
}

/// Opens a folder of pictures as `recipe` says; `classes` where they are given already.
pub(crate) fn open_data(path: &Path, recipe: &Recipe, classes: Option<Vec<String>>) -> Result<Splits, Error> {
    let decode = decode_options(recipe.model.in_channels);
    let options = defrost_data::Options {
        val_fraction: recipe.data.val_fraction,
        seed: recipe.seed,
        strict: recipe.data.strict,
        decode: DecodeOptions { max_pixels: recipe.data.max_pixels, ..decode },
        classes,
        ..Default::default()
    };
    Ok(Splits::open(path, &options)?)
}

/// How pictures are decoded for a network of `in_channels` channels.
pub(crate) fn decode_options(in_channels: usize) -> DecodeOptions {
    let channels = match in_channels {
        1 => Channels::Grey,
        4 => Channels::Rgba,
        _ => Channels::Rgb,
    };
    DecodeOptions { channels, ..DecodeOptions::default() }
}

/// The file of a run that says where its pictures are.
const DATA: &str = "data.json";

fn remember(folder: &Path, data: &Path) -> Result<(), Error> {
    let path = std::path::absolute(data).unwrap_or_else(|_| data.into());
    let text = serde_json::json!({ "path": path }).to_string();
    Ok(defrost_weights::atomic::write_bytes(folder.join(DATA), text.as_bytes())?)
}

/// Where the pictures of the run in `folder` are, or were.
pub fn data_of(folder: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(Folder::open(folder).ok()?.path().join(DATA)).ok()?;
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    json["path"].as_str().map(PathBuf::from)
}
