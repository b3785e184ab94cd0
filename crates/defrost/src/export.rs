//! Networks for other programs: ONNX, and weight files under the published names.

use std::path::Path;

use defrost_onnx::{Element, Input, Layout, Options, Output};
use defrost_policy::Task;
use defrost_train::About;
use defrost_weights::Precision;
use defrost_zoo::MeanImage;
use serde_json::json;

use crate::{Error, Trained};

pub use defrost_onnx as onnx;

/// How [`Trained::export_onnx`] writes a network.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OnnxExport {
    /// `None`: whoever runs the file prepares pictures, as its metadata says. Else the file takes pictures of the network's
    /// size, red, green and blue from 0 to 255, that lie and are so.
    pub pixels: Option<(Layout, Element)>,
    /// What it puts out.
    pub output: Output,
    /// Whether normalisations are folded into convolutions.
    pub fold: bool,
}

impl Default for OnnxExport {
    fn default() -> Self {
        Self { pixels: None, output: Output::Logits, fold: true }
    }
}

impl Trained {
    /// What makes probabilities of the outputs: the softmax of one class a picture, the logistic function of several labels;
    /// `None` for numbers.
    pub fn probabilities(&self) -> Option<Output> {
        match self.loss.task() {
            Task::MultiLabel => Some(Output::Sigmoid),
            Task::Regression => None,
            _ => Some(Output::Softmax),
        }
    }

    /// What [`Trained::predict`] gives that no probability is: numbers in the data's units, [`crate::Value::value`], else
    /// [`crate::Answer::logits`].
    pub fn outputs(&self) -> Output {
        if self.loss.task() != Task::Regression {
            return Output::Logits;
        }
        let columns = self.model.graph.classes();
        let floats = |values: &[f64]| values.iter().map(|v| *v as f32).collect();
        match &self.scale {
            Some(scale) => Output::Values { factor: floats(&scale.std), summand: floats(&scale.mean) },
            None => Output::Values { factor: vec![1.0; columns], summand: vec![0.0; columns] },
        }
    }

    /// Writes the network as an ONNX file and returns its length in bytes. With [`Trained::outputs`] or
    /// [`Trained::probabilities`] as `what.output` its outputs are those of [`Trained::predict`]. Its metadata has `task`,
    /// `classes`, `preprocess` and `spec` (the last three JSON), and `scale` where numbers are left to be taken through it
    /// (`output * std + mean`).
    ///
    /// # Errors
    /// An operation that ONNX does not have, a file that cannot be written.
    pub fn export_onnx(&self, path: &Path, what: &OnnxExport) -> Result<u64, Error> {
        let mut options = Options::default();
        if let Some((layout, element)) = what.pixels {
            options.input = Input::Pixels { scale: self.pixels(), layout, element };
        }
        options.output = what.output.clone();
        options.fold = what.fold;
        options.metadata = vec![
            ("task".into(), self.loss.task().name().into()),
            ("classes".into(), json!(self.classes).to_string()),
            ("preprocess".into(), self.steps(what.pixels.is_some()).to_string()),
            ("spec".into(), self.model.spec_json()),
        ];
        let scale = self.scale.as_ref().filter(|_| what.output == Output::Logits);
        options.metadata.extend(scale.map(|scale| ("scale".into(), json!(scale).to_string())));
        Ok(defrost_onnx::write(path, &self.model.graph, &self.model.params, &options)?)
    }

    /// Writes the weights as safetensors under the published names: what PyTorch's `load_state_dict` takes as it is, with
    /// classes and preprocessing as metadata. Returns its length in bytes.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn export_weights(&self, path: &Path, precision: Precision) -> Result<u64, Error> {
        let about = About {
            model: self.model.spec.arch.to_string(),
            classes: self.classes.clone(),
            spec: self.model.spec_json(),
            preprocess: self.model.preprocess_json(),
            loss: self.loss.clone(),
            scale: self.scale.clone(),
            ..About::default()
        };
        defrost_train::write_weights_as(path, &self.model.graph, &self.model.params, &about, precision)?;
        let length = std::fs::metadata(path).map_err(|source| Error::Io { path: path.into(), source })?;
        Ok(length.len())
    }

    /// What is done to a picture before the network sees it, for those who have to do it themselves.
    fn steps(&self, inside: bool) -> serde_json::Value {
        let (preprocess, spec) = (&self.model.preprocess, &self.model.spec);
        let [height, width] = spec.image_size;
        let scale = preprocess.pixel_scale(spec.in_channels);
        let image = preprocess.mean_image.as_ref().map(|_| self.pixels().shift);
        let image = image.and_then(|shift| MeanImage::new([spec.in_channels, height, width], shift));
        let channels = match (spec.in_channels, scale.reversed) {
            (1, _) => "L",
            (_, true) => "BGR",
            (_, false) => "RGB",
        };
        json!({
            // Step by step: the shorter side to `resize`, with antialiasing as in Pillow; the middle of it.
            "resize": preprocess.resize_for(height.min(width)),
            "interpolation": preprocess.interpolation,
            "crop": [height, width],
            // Bytes to numbers, a channel in the network's order: `(byte / 255 - mean) / std`, or `byte * scale + shift`.
            "channels": channels,
            "mean": preprocess.mean,
            "std": preprocess.std,
            "scale": scale.scale,
            "shift": scale.shift,
            // Where there is one, in place of `shift`, a summand a pixel: channels, rows, columns; floats in base64.
            "shift_image": image,
            // Whether the file does all of this but resizing and cropping.
            "inside": inside,
        })
    }
}
