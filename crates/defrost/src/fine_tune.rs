//! From a folder of pictures and a recipe to a run.

use std::path::PathBuf;
use std::sync::Arc;

use defrost_data::{Splits, TableOptions};
use defrost_exec::Engine;
use defrost_graph::Marking;
use defrost_plan::{Plan, Purpose};
use defrost_policy::{Phase, Precision, Recipe};
use defrost_train::{
    Ending, Folder, Job, Options, Outcome, Run, SourceTask, device_loss, passes, phases_done, rule,
};

use crate::pictures::{self, Place, data_of, images_of};
use crate::source::source_task;
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
/// let best = answers[0].best().expect("a classifier names a class");
/// println!("{} with {:.0} %", best.class, 100.0 * best.probability);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FineTune {
    /// The folder of pictures, one sub-folder a class; or a table (`.csv`, `.tsv`) with a header line.
    pub data: PathBuf,
    /// The folder that the paths of a table are relative to; the table's own if not given.
    pub images: Option<PathBuf>,
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
        Self { data: data.into(), images: None, recipe, device: "cpu".into(), folder: "runs/defrost".into() }
    }

    /// With the paths of a table relative to this folder.
    pub fn images(self, folder: impl Into<PathBuf>) -> Self {
        Self { images: Some(folder.into()), ..self }
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

    /// Resolves the recipe against its network before any picture or weight is read: a word that matches nothing costs no
    /// minute.
    ///
    /// # Errors
    /// Everything that can be wrong with a recipe; an unknown network.
    pub fn check(&self) -> Result<(), Error> {
        self.recipe.check()?;
        // A head that is kept is the file's: only loading tells which names it has.
        if !self.recipe.model.keep_head {
            self.recipe.resolve(&Model::outline(&self.recipe)?)?;
        }
        Ok(())
    }

    /// The run in `folder` with the recipe it has, to be gone on with by [`Start::Resume`].
    ///
    /// # Errors
    /// No run there, or one that does not say where its pictures are.
    pub fn of_run(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        let recipe = Recipe::from_toml(&Folder::open(&folder)?.recipe()?)?;
        let data = data_of(&folder).ok_or_else(|| Error::WhereIsData { run: folder.clone() })?;
        Ok(Self { images: images_of(&folder), recipe, folder, ..Self::on(data) })
    }

    /// The run in `folder` gone on with by the phases of `next` from where it stands, over or interrupted: thawing by
    /// hand. Train it by [`Start::Proceed`]. The network, the data and the seed stay the run's; a phase of `next` may start
    /// from a checkpoint that the run has saved by name.
    ///
    /// # Errors
    /// As [`FineTune::of_run`].
    pub fn proceed(folder: impl Into<PathBuf>, next: Recipe) -> Result<Self, Error> {
        let run = Self::of_run(folder)?;
        let done = phases_done(Folder::open(&run.folder)?.state()?.at);
        let recipe = next.like(&run.recipe).after(&run.recipe, done);
        Ok(Self { recipe, ..run })
    }

    /// The device's name, with the recipe's precision where the name says none.
    fn device_for_recipe(&self) -> String {
        match self.recipe.precision {
            Precision::F32 => self.device.clone(),
            _ if self.device.contains(',') => self.device.clone(),
            precision => format!("{},{}", self.device, precision.name()),
        }
    }

    /// Opens the data, loads the weights and resolves the recipe: everything that can be wrong is found here.
    ///
    /// # Errors
    /// Data, recipe, weights, device, and a plan that does not fit.
    pub fn prepare(self) -> Result<Prepared, Error> {
        self.check()?;
        let engine = Device::from_name(&self.device_for_recipe())?;
        let (splits, table) = pictures::open(self.place(), &self.recipe)?;
        // What the trainer would refuse, before the weights are read.
        defrost_train::Targets::new(&self.recipe, &splits.train)?;
        let model = Model::from_recipe(&self.recipe, splits.train.classes().len())?;
        let phases = self.recipe.resolve(&model.graph)?;
        let source = source_task(&self.recipe, &model)?;
        let prepared = Prepared { fine_tune: self, engine, splits, table, model, phases, source };
        for phase in 0..prepared.phases.len() {
            prepared.plan(phase)?;
        }
        Ok(prepared)
    }

    fn place(&self) -> Place<'_> {
        Place { data: &self.data, images: self.images.as_deref() }
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
    /// In the folder of a run that is over or was interrupted, with another recipe from where it stands: see
    /// [`FineTune::proceed`].
    Proceed,
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
    /// What the columns of their table mean; `None` for a folder of classes.
    pub table: Option<TableOptions>,
    /// The network with its weights.
    pub model: Model,
    /// The recipe, resolved.
    pub phases: Vec<Phase>,
    /// The task that the weights come from, where the recipe has a folder of its images.
    pub source: Option<SourceTask>,
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
        let (loss, state) = (device_loss(&recipe.loss)?, rule(&phase.optimizer, None)?.state());
        let (graph, room) = (&self.model.graph, memory::room(self.engine.room()));
        // As the trainer plans.
        let host = self.engine.room() == defrost_exec::Room::Host;
        let planned = defrost_exec::Options::default().applying(host).cutting(self.engine.packs());
        let planned = planned.storing(self.engine.activation_bytes());
        let plan = |batch, marking| {
            let options = passes(recipe, graph, (phase, marking), batch, planned, room)?;
            Ok::<_, Error>(Plan::new(graph, marking, batch, Purpose::Train(loss), options)?)
        };
        // The most that the phase will ever train is what must fit.
        memory::check(self.engine.room(), &phase.name, batch, &|n| {
            Ok(plan(n, marking)?.memory(&self.model.graph, state).total())
        })?;
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
            source: self.source.clone(),
            pixels: model.pixels(),
            eval: model.eval_pipeline(recipe.data.resize.clone()),
            spec: model.spec_json(),
            preprocess: model.preprocess_json(),
        }
    }

    /// Trains into the run's folder and writes its report.
    ///
    /// # Errors
    /// See [`defrost_train::TrainError`]; the run's files are whole in any case.
    pub fn train(&self, start: Start, mut options: Options<'_>) -> Result<Outcome, Error> {
        options.memory = options.memory.or_else(|| memory::room(self.engine.room()));
        let (job, folder, engine) = (self.job(), &self.fine_tune.folder, &*self.engine);
        let outcome = match start {
            Start::Fresh => {
                let mut run = Run::create(folder, &job.recipe.to_toml(), self.splits.train.classes())?;
                run.write_skipped(&self.splits.skipped)?;
                pictures::remember(folder, self.fine_tune.place())?;
                self.model.write_loading(folder)?;
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
            Start::Proceed => defrost_train::proceed(engine, &job, &mut Run::open(folder)?, options)?,
        };
        defrost_report::write(folder)?;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_says_in_which_numbers_a_device_multiplies_unless_its_name_does() {
        let with = |device: &str, toml: &str| {
            let recipe =
                Recipe::from_toml(&format!("{toml}\n[[phase]]\nepochs = 1\ntrain = \"head\"")).unwrap();
            FineTune::on("photos").recipe(recipe).device(device).device_for_recipe()
        };
        let bf16 = "precision = \"bf16\"";
        assert_eq!(with("cpu:2", bf16), "cpu:2,bf16");
        assert_eq!(with("cpu:2", ""), "cpu:2");
        assert_eq!(with("cpu,exact", bf16), "cpu,exact");
        assert_eq!(with("cpu,f32", bf16), "cpu,f32");
        assert_eq!(with("wgpu:0", "precision = \"f16\""), "wgpu:0,f16");
        assert_eq!(with("candle:cuda:1", bf16), "candle:cuda:1,bf16");
        // Refused before any picture is opened.
        let recipe = "precision = \"f16\"\n[[phase]]\nepochs = 1\ntrain = \"head\"";
        let run = FineTune::on("nowhere").recipe(Recipe::from_toml(recipe).unwrap());
        let error = run.prepare().err().unwrap().to_string();
        assert!(error.contains("cpu has no f16: it has f32 and bf16"), "{error}");
    }
}
