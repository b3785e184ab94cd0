//! A trained network put to use: predictions and measurements from a run or a weight file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use defrost_augment::{Key, Size, TestTime, View};
use defrost_data::{Dataset, DecodeError, Loader, LoaderOptions, Options as DataOptions};
use defrost_exec::{Images, Session};
use defrost_policy::{Augment, Data, Loss, Recipe, Task};
use defrost_tensor::PixelScale;
use defrost_train::{Folder, Mean, Outputs, Scale, Validation};
use defrost_zoo::Arch;

use crate::model::family_of;
use crate::pictures::{self, Place, decode_options};
use crate::{Device, Error, Model, named};

/// Images a batch in prediction.
const BATCH: usize = 32;

/// A network with its classes and its preprocessing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trained {
    /// The network.
    pub model: Model,
    /// The names of the classes, the labels or the numbers, in the order of its outputs.
    pub classes: Vec<String>,
    /// What it was trained on, which says what its outputs are.
    pub loss: Loss,
    /// What the outputs of a regression have to be taken through; absent where they are in the data's units.
    pub scale: Option<Scale>,
    /// What the run's recipe says of columns of tables and of resizing.
    pub data: Data,
    /// What the run's recipe says of views: those whose answers are averaged, and those of training.
    pub augment: Augment,
    /// The device's name.
    pub device: String,
}

/// One class of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Guess {
    /// The class or label.
    pub class: String,
    /// Its probability.
    pub probability: f32,
}

/// One number of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Value {
    /// What it is of: the column of the table.
    pub name: String,
    /// The number, in the data's unit.
    pub value: f32,
}

/// What the network says of one picture.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The picture.
    pub path: PathBuf,
    /// What was asked.
    pub task: Task,
    /// All classes, the most likely first; of several labels a picture, whose probabilities are each by itself, all labels.
    /// Empty in a regression.
    pub guesses: Vec<Guess>,
    /// The numbers of a regression; empty otherwise.
    pub values: Vec<Value>,
    /// Raw outputs in the order of the classes.
    pub logits: Vec<f32>,
}

impl Answer {
    /// The most likely class or label; `None` in a regression.
    pub fn best(&self) -> Option<&Guess> {
        self.guesses.first()
    }

    /// The labels whose probability is above `threshold`, the most likely first.
    pub fn labels(&self, threshold: f32) -> impl Iterator<Item = &Guess> {
        self.guesses.iter().take_while(move |g| g.probability > threshold)
    }
}

impl Trained {
    /// The best network of a run, or, by a name below the run's folder (`runs/photos-1/stage-1`), its checkpoint of that
    /// name.
    ///
    /// # Errors
    /// No run there, or one without a checkpoint yet.
    pub fn open(run: &Path) -> Result<Self, Error> {
        let (folder, path) = match named::checkpoint(run) {
            Some(found) => found,
            None => (Folder::open(run)?, PathBuf::new()),
        };
        let model = Model::from_file(&path, None, None)?;
        let about = defrost_train::read_about(&path)?;
        // A recipe that cannot be read any more matters only to the columns of tables and to views.
        let recipe = folder.recipe().ok().and_then(|text| Recipe::from_toml(&text).ok());
        let (data, augment) = recipe.map(|recipe| (recipe.data, recipe.augment)).unwrap_or_default();
        let (classes, loss, scale) = (folder.classes()?, about.loss, about.scale);
        Ok(Self { model, classes, loss, scale, data, augment, device: "cpu".into() })
    }

    /// The network in a weight file; its classes are the file's, ImageNet's where there are a thousand, or numbers.
    ///
    /// # Errors
    /// A file that cannot be read or does not fit `arch`.
    pub fn from_weights(path: &Path, arch: Option<Arch>, image_size: Option<usize>) -> Result<Self, Error> {
        let model = Model::from_file(path, arch, image_size)?;
        // A file of another tool says nothing of itself.
        let about = defrost_train::read_about(path).unwrap_or_default();
        let classes = match about.classes.len() == model.graph.classes() {
            true => about.classes,
            // A thousand classes without names are ImageNet's in their usual order.
            false if model.graph.classes() == 1000 => {
                defrost_zoo::imagenet_classes().map(|class| class.name.to_owned()).collect()
            }
            false => (0..model.graph.classes()).map(|i| i.to_string()).collect(),
        };
        let (loss, scale) = (about.loss, about.scale);
        let (data, augment) = Default::default();
        Ok(Self { model, classes, loss, scale, data, augment, device: "cpu".into() })
    }

    fn answer(&self, path: PathBuf, logits: &[f32]) -> Answer {
        let task = self.loss.task();
        let name = |i: usize| self.classes.get(i).cloned().unwrap_or_else(|| i.to_string());
        let mut answer =
            Answer { path, task, guesses: Vec::new(), values: Vec::new(), logits: logits.to_vec() };
        let mut row = logits.to_vec();
        match task {
            Task::Regression => {
                if let Some(scale) = &self.scale {
                    scale.restore(&mut row);
                }
                answer.values =
                    row.iter().enumerate().map(|(i, &value)| Value { name: name(i), value }).collect();
                return answer;
            }
            Task::MultiLabel => defrost_train::sigmoid(&mut row),
            _ => defrost_train::softmax(&mut row),
        }
        let guesses = row.iter().enumerate();
        answer.guesses = guesses.map(|(i, &probability)| Guess { class: name(i), probability }).collect();
        answer.guesses.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        answer
    }

    /// The same on another device.
    ///
    /// # Errors
    /// No such device in this build.
    pub fn on(self, device: &str) -> Result<Self, Error> {
        Device::from_name(device)?;
        Ok(Self { device: device.into(), ..self })
    }

    /// The same with pictures prepared by the family of that name, one of [`defrost_zoo::Preprocess::FAMILIES`].
    ///
    /// # Errors
    /// [`Error::NoFamily`] with those there are.
    pub fn prepared_as(mut self, family: &str) -> Result<Self, Error> {
        self.model.prepared_as(family_of(family)?);
        Ok(self)
    }

    /// The same with other views of each picture, whose answers are averaged.
    ///
    /// # Errors
    /// A number out of its range.
    pub fn test_time(mut self, views: TestTime) -> Result<Self, Error> {
        views.check().map_err(defrost_data::Error::from)?;
        self.augment.test_time = views;
        Ok(self)
    }

    /// The views of each picture.
    fn views(&self) -> Vec<View> {
        let eval = self.model.eval_pipeline(self.data.resize.clone());
        self.augment.test_time.views(&eval, &self.augment.train)
    }

    fn session(&self) -> Result<Box<dyn Session>, Error> {
        let engine = Device::from_name(&self.device)?;
        Ok(engine.open(Arc::clone(&self.model.graph), &self.model.params)?)
    }

    pub(crate) fn pixels(&self) -> PixelScale {
        self.model.pixels()
    }

    fn loader(&self, dataset: Dataset) -> Result<Loader, Error> {
        let [height, width] = self.model.spec.image_size;
        let options = LoaderOptions { batch: BATCH, size: Size { width, height }, ..LoaderOptions::eval() };
        Ok(Loader::new(Arc::new(dataset), self.model.eval_pipeline(self.data.resize.clone()), options)?)
    }

    /// What the network says of each picture, in their order.
    ///
    /// # Errors
    /// A picture that cannot be read: see [`Trained::predict_each`] for answers to the others.
    pub fn predict(&self, images: &[PathBuf]) -> Result<Vec<Answer>, Error> {
        let fail = |(path, error): (PathBuf, DecodeError)| Error::Picture { path, source: error };
        self.predict_each(images)?.into_iter().map(|answer| answer.map_err(fail)).collect()
    }

    /// What the network says of each picture, in their order; a picture that cannot be read has its error.
    ///
    /// # Errors
    /// The device.
    #[allow(clippy::type_complexity)] // One answer or one reason a picture.
    pub fn predict_each(
        &self,
        images: &[PathBuf],
    ) -> Result<Vec<Result<Answer, (PathBuf, DecodeError)>>, Error> {
        let (decode, views) = (decode_options(self.model.spec.in_channels), self.views());
        let [height, width] = self.model.spec.image_size;
        let load = |path: &PathBuf| defrost_data::decode_file(path, &decode).map_err(|e| (path.clone(), e));
        let (mut session, pixels) = (self.session()?, self.pixels());
        let mut answers = Vec::with_capacity(images.len());
        for (chunk, paths) in images.chunks(BATCH).enumerate() {
            let loaded: Vec<_> = paths.iter().map(load).collect();
            let n = loaded.iter().flatten().count();
            let mut mean = Mean::new(self.loss.task(), self.model.graph.classes(), n);
            let mut logits = Vec::new();
            for view in views.iter().filter(|_| n > 0) {
                let mut bytes = Vec::new();
                for (i, image) in loaded.iter().flatten().enumerate() {
                    let key = Key::new(0, view.epoch, (chunk * BATCH + i) as u64);
                    let image = view.pipeline.apply(image, Size { width, height }, key);
                    bytes.extend_from_slice(
                        image.expect("a pipeline that was checked suits every picture").data(),
                    );
                }
                logits = session.infer(n, Images::Pixels(&bytes, &pixels))?;
                mean.add(&logits, view.weight);
            }
            // One view's outputs are given as they are.
            if views.len() > 1 {
                logits = mean.outputs();
            }
            let mut rows = logits.chunks_exact(self.model.graph.classes());
            for (path, loaded) in paths.iter().zip(loaded) {
                let row = loaded.map(|_| rows.next().unwrap_or_default());
                answers.push(row.map(|row| self.answer(path.clone(), row)));
            }
        }
        Ok(answers)
    }

    /// What the network says of `n` arrays, `[n, c, h, w]` and preprocessed already.
    ///
    /// # Errors
    /// Arrays of another length; the device.
    pub fn predict_array(&self, n: usize, array: &[f32]) -> Result<Vec<Answer>, Error> {
        let mut session = self.session()?;
        let shape = self.model.graph.input_shape();
        let mut answers = Vec::with_capacity(n);
        for (i, part) in array.chunks(BATCH * shape.image_len()).enumerate() {
            let images = (n - i * BATCH).min(BATCH);
            let logits = session.infer(images, Images::Array(part))?;
            for (j, row) in logits.chunks_exact(self.model.graph.classes()).enumerate() {
                answers.push(self.answer(format!("#{}", i * BATCH + j).into(), row));
            }
        }
        Ok(answers)
    }

    /// What the network makes of a folder of pictures with one sub-folder a class, or of a table whose paths are relative to
    /// `images` (or to itself): of the validation part if there is one, else of all of it.
    ///
    /// # Errors
    /// Data that cannot be opened or has other classes; the device.
    pub fn evaluate(
        &self,
        data: &Path,
        images: Option<&Path>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Validation, Error> {
        let options =
            DataOptions { decode: decode_options(self.model.spec.in_channels), ..DataOptions::default() };
        let place = Place { data, images };
        let dataset = pictures::open_to_measure(place, &self.data, self.loss.task(), &self.classes, options)?;
        let all = dataset.len();
        let loader = self.loader(dataset)?;
        let (mut session, views, pixels) = (self.session()?, self.views(), self.pixels());
        let outputs = if self.augment.test_time == TestTime::Plain {
            defrost_train::evaluate(&mut *session, &loader, &pixels, &mut |done| progress(done, all))?
        } else {
            let task = self.loss.task();
            defrost_train::evaluate_views(&mut *session, &loader, &pixels, &views, task, &mut |done| {
                progress(done, all * views.len());
            })?
        };
        let outputs = Outputs { scale: self.scale.clone(), ..outputs };
        Ok(outputs.validation(loader.dataset(), &self.loss, "best", None))
    }
}
