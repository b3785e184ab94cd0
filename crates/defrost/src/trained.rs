//! A trained network put to use: predictions and measurements from a run or a weight file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use defrost_augment::{Key, Size};
use defrost_data::{Dataset, DecodeError, Loader, LoaderOptions, Options as DataOptions, Splits};
use defrost_exec::{Images, Session};
use defrost_tensor::PixelScale;
use defrost_train::{Folder, Outputs, Validation};
use defrost_zoo::Arch;

use crate::fine_tune::decode_options;
use crate::{Device, Error, Model};

/// Images a batch in prediction.
const BATCH: usize = 32;

/// A network with its classes and its preprocessing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trained {
    /// The network.
    pub model: Model,
    /// The classes' names in the order of its outputs.
    pub classes: Vec<String>,
    /// The device's name.
    pub device: String,
}

/// One class of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Guess {
    /// The class.
    pub class: String,
    /// Its probability.
    pub probability: f32,
}

/// What the network says of one picture.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The picture.
    pub path: PathBuf,
    /// All classes, the most likely first.
    pub guesses: Vec<Guess>,
    /// Raw outputs in the order of the classes.
    pub logits: Vec<f32>,
}

impl Answer {
    /// The most likely class.
    pub fn best(&self) -> &Guess {
        &self.guesses[0]
    }

    fn new(path: PathBuf, classes: &[String], logits: &[f32]) -> Self {
        let mut probabilities = logits.to_vec();
        defrost_train::softmax(&mut probabilities);
        let name = |i: usize| classes.get(i).cloned().unwrap_or_else(|| i.to_string());
        let guesses = probabilities.iter().enumerate();
        let mut guesses: Vec<_> =
            guesses.map(|(i, &probability)| Guess { class: name(i), probability }).collect();
        guesses.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        Self { path, guesses, logits: logits.to_vec() }
    }
}

impl Trained {
    /// The best network of a run.
    ///
    /// # Errors
    /// No run there, or one without a checkpoint yet.
    pub fn open(run: &Path) -> Result<Self, Error> {
        let folder = Folder::open(run)?;
        let path = ["best", "last"].map(|name| folder.checkpoint_path(name)).into_iter().find(|p| p.exists());
        let path = path.unwrap_or_else(|| folder.checkpoint_path("best"));
        let model = Model::from_file(&path, None, None)?;
        Ok(Self { model, classes: folder.classes()?, device: "cpu".into() })
    }

    /// The network in a weight file; its classes are the file's, ImageNet's where there are a thousand, or numbers.
    ///
    /// # Errors
    /// A file that cannot be read or does not fit `arch`.
    pub fn from_weights(path: &Path, arch: Option<Arch>, image_size: Option<usize>) -> Result<Self, Error> {
        let model = Model::from_file(path, arch, image_size)?;
        let named = defrost_train::read_about(path).map(|about| about.classes).unwrap_or_default();
        let classes = match named.len() == model.graph.classes() {
            true => named,
            // A thousand classes without names are ImageNet's in their usual order.
            false if model.graph.classes() == 1000 => {
                defrost_zoo::imagenet_classes().map(|class| class.name.to_owned()).collect()
            }
            false => (0..model.graph.classes()).map(|i| i.to_string()).collect(),
        };
        Ok(Self { model, classes, device: "cpu".into() })
    }

    /// The same on another device.
    ///
    /// # Errors
    /// No such device in this build.
    pub fn on(self, device: &str) -> Result<Self, Error> {
        Device::from_name(device)?;
        Ok(Self { device: device.into(), ..self })
    }

    fn session(&self) -> Result<Box<dyn Session>, Error> {
        let engine = Device::from_name(&self.device)?;
        Ok(engine.open(Arc::clone(&self.model.graph), &self.model.params)?)
    }

    pub(crate) fn pixels(&self) -> PixelScale {
        self.model.preprocess.pixel_scale(self.model.spec.in_channels)
    }

    fn loader(&self, dataset: Dataset) -> Result<Loader, Error> {
        let [height, width] = self.model.spec.image_size;
        let options = LoaderOptions { batch: BATCH, size: Size { width, height }, ..LoaderOptions::eval() };
        Ok(Loader::new(Arc::new(dataset), self.model.eval_pipeline(None), options)?)
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
        let (decode, pipeline) =
            (decode_options(self.model.spec.in_channels), self.model.eval_pipeline(None));
        let [height, width] = self.model.spec.image_size;
        let load = |path: &PathBuf| -> Result<Vec<u8>, (PathBuf, DecodeError)> {
            let image = defrost_data::decode_file(path, &decode).map_err(|e| (path.clone(), e))?;
            let image = pipeline.apply(&image, Size { width, height }, Key::new(0, 0, 0));
            Ok(image.expect("an evaluation transform suits every picture").data().to_vec())
        };
        let (mut session, pixels) = (self.session()?, self.pixels());
        let mut answers = Vec::with_capacity(images.len());
        for paths in images.chunks(BATCH) {
            let loaded: Vec<_> = paths.iter().map(load).collect();
            let readable: Vec<u8> = loaded.iter().flatten().flatten().copied().collect();
            let n = loaded.iter().flatten().count();
            let logits = match n {
                0 => Vec::new(),
                _ => session.infer(n, Images::Pixels(&readable, &pixels))?,
            };
            let mut rows = logits.chunks_exact(self.model.graph.classes());
            for (path, loaded) in paths.iter().zip(loaded) {
                let row = loaded.map(|_| rows.next().unwrap_or_default());
                answers.push(row.map(|row| Answer::new(path.clone(), &self.classes, row)));
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
                answers.push(Answer::new(format!("#{}", i * BATCH + j).into(), &self.classes, row));
            }
        }
        Ok(answers)
    }

    /// What the network makes of a folder of pictures with one sub-folder a class: of its validation part if it has
    /// one, else of all of it.
    ///
    /// # Errors
    /// Data that cannot be opened or has other classes; the device.
    pub fn evaluate(&self, data: &Path, progress: &mut dyn FnMut(usize, usize)) -> Result<Validation, Error> {
        let options = DataOptions {
            decode: decode_options(self.model.spec.in_channels),
            classes: Some(self.classes.clone()),
            val_fraction: 0.0,
            ..Default::default()
        };
        let splits = Splits::open(data, &options)?;
        let dataset = if splits.val.is_empty() { splits.train } else { splits.val };
        let all = dataset.len();
        let loader = self.loader(dataset)?;
        let outputs: Outputs =
            defrost_train::evaluate(&mut *self.session()?, &loader, &self.pixels(), &mut |done| {
                progress(done, all)
            })?;
        Ok(outputs.validation(loader.dataset(), "best", None))
    }
}
