//! Named tensors become a network's parameters: what fits, what is new, what is wrong.

use std::collections::{HashMap, HashSet};
use std::fmt;

use defrost_graph::{Graph, ParamId, ParamKind, ParamStore};
use defrost_tensor::HostTensor;

use crate::{Arch, ModelSpec, Tradition, ZooError, adapt_in_channels};

/// What is done with the head's tensors.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum HeadLoading {
    /// They are loaded where all of them fit; else the head is new: other classes, other layers.
    #[default]
    IfFits,
    /// The head is new in any case.
    New,
    /// They must fit: for evaluation and prediction.
    Required,
}

/// How weights are loaded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Whether it is an error that a parameter is started anew or a tensor left over. A tensor of another shape always is.
    pub strict: bool,
    /// Whether parameters that are not the head's may be missing, which then start anew, and tensors of another network be
    /// left over.
    pub partial: bool,
    /// What is done with the head.
    pub head: HeadLoading,
    /// How the first convolution's weights become those for other channels.
    pub tradition: Tradition,
    /// For the start of what is not loaded.
    pub seed: u64,
}

impl Default for LoadOptions {
    /// The whole body, the head where it fits, what is left over is reported; timm's rule for other channels, seed 0.
    fn default() -> Self {
        Self { strict: false, partial: false, head: HeadLoading::IfFits, tradition: Tradition::Timm, seed: 0 }
    }
}

/// A tensor whose shape is not the network's.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The published name.
    pub name: String,
    /// The network's shape.
    pub want: Vec<usize>,
    /// The tensor's shape.
    pub got: Vec<usize>,
}

/// How named tensors fit a network; all names are the network's, in its order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Loaded, or fit to be.
    pub matched: Vec<String>,
    /// Of these, the first convolution, if its input channels were adapted.
    pub adapted: Option<String>,
    /// Parameters of the head that start anew.
    pub reinitialised: Vec<String>,
    /// Tensors of a head that is not used.
    pub dropped: Vec<String>,
    /// Parameters without a tensor, the head's not counted where it starts anew.
    pub missing: Vec<String>,
    /// Tensors without a parameter, in the file's order.
    pub surplus: Vec<String>,
    /// Tensors of another shape than their parameter.
    pub mismatched: Vec<Mismatch>,
    /// Whether a tensor without a parameter has its place inside the network, as a bias of a convolution that has none or a
    /// block that is not there: these are weights of another network, or of another framework's.
    pub is_other_network: bool,
}

impl LoadOptions {
    /// The same with another rule for the head.
    pub fn with_head(self, head: HeadLoading) -> Self {
        Self { head, ..self }
    }

    /// The same, with a new head and tensors that are left over an error or not.
    pub fn with_strict(self, strict: bool) -> Self {
        Self { strict, ..self }
    }

    /// The same, with parameters of the body allowed to be missing or not.
    pub fn with_partial(self, partial: bool) -> Self {
        Self { partial, ..self }
    }

    /// The same with another rule for input channels.
    pub fn with_tradition(self, tradition: Tradition) -> Self {
        Self { tradition, ..self }
    }

    /// The same with another start of what is not loaded.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

/// What became of a tensor or a parameter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Loaded, or fit to be.
    Matched,
    /// Loaded with other input channels.
    Adapted,
    /// A parameter that starts anew.
    Reinitialised,
    /// A tensor of another shape than its parameter.
    Mismatched,
    /// A tensor that is not used: of another head, or not in the network.
    LeftOver,
}

impl Outcome {
    /// In words, as in `left over`.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Adapted => "adapted",
            Self::Reinitialised => "re-initialised",
            Self::Mismatched => "of another shape",
            Self::LeftOver => "left over",
        }
    }
}

/// What became of the tensors of one layer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LayerLoading {
    /// The module, as in `layer1.0.conv1`.
    pub layer: String,
    /// What became of them.
    pub outcome: Outcome,
    /// The last parts of their names, as in `weight`.
    pub tensors: Vec<String>,
}

impl LoadReport {
    /// Whether every parameter is loaded or belongs to a new head, and nothing is left over but another head.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty() && self.mismatched.is_empty()
    }

    /// Whether every parameter is loaded and nothing is left over at all.
    pub fn is_exact(&self) -> bool {
        self.is_complete() && self.reinitialised.is_empty() && self.dropped.is_empty()
    }

    /// Layer by layer: first the network's in its order, then what is left over.
    pub fn layers(&self) -> Vec<LayerLoading> {
        let adapted = |name: &&String| {
            if self.adapted.as_ref() == Some(*name) { Outcome::Adapted } else { Outcome::Matched }
        };
        let matched = self.matched.iter().map(|name| (name, adapted(&name)));
        let other_shape = self.mismatched.iter().map(|m| (&m.name, Outcome::Mismatched));
        let new = self.missing.iter().chain(&self.reinitialised).map(|name| (name, Outcome::Reinitialised));
        let rest = self.dropped.iter().chain(&self.surplus).map(|name| (name, Outcome::LeftOver));
        let mut layers: Vec<LayerLoading> = Vec::new();
        for (name, outcome) in matched.chain(other_shape).chain(new).chain(rest) {
            let (layer, leaf) = name.rsplit_once('.').unwrap_or(("", name));
            match layers.last_mut().filter(|last| last.layer == layer && last.outcome == outcome) {
                Some(last) => last.tensors.push(leaf.into()),
                None => {
                    layers.push(LayerLoading { layer: layer.into(), outcome, tensors: vec![leaf.into()] })
                }
            }
        }
        layers
    }
}

impl fmt::Display for LoadReport {
    /// One line, as in `260 tensors loaded, the first convolution adapted, the head new`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors loaded", self.matched.len())?;
        for (count, what) in [
            (self.missing.len(), "missing"),
            (self.mismatched.len(), "of another shape"),
            (self.surplus.len(), "not in the network"),
            (self.dropped.len(), "of another head left out"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.adapted.is_some() {
            f.write_str(", the first convolution adapted")?;
        }
        if !self.reinitialised.is_empty() {
            f.write_str(", the head new")?;
        }
        Ok(())
    }
}

/// How tensors of these names and shapes fit `graph`.
///
/// `num_batches_tracked` (PyTorch's counter, of no use at its default momentum) is passed over. A first convolution for
/// RGB fits any number of input channels. A head is the part of the graph in the head's stage, and in the file also
/// whatever else has a name below that module (`fc.`, `classifier.`).
pub fn match_weights<'a>(
    graph: &Graph,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    head: HeadLoading,
) -> LoadReport {
    let tensors: Vec<_> =
        tensors.into_iter().filter(|(name, _)| !name.ends_with(".num_batches_tracked")).collect();
    let by_name: HashMap<_, _> = tensors.iter().copied().collect();
    let is_head = |id| graph.stages()[graph.stage_of(id)].head;
    let fits = |id| by_name.get(graph.param(id).name.as_str()) == Some(&graph.param(id).shape.as_slice());
    let new_head = match head {
        HeadLoading::IfFits => !graph.param_ids().filter(|&id| is_head(id)).all(fits),
        HeadLoading::New => true,
        HeadLoading::Required => false,
    };
    let stem = stem(graph);
    let mut report = LoadReport::default();
    for id in graph.param_ids() {
        let param = graph.param(id);
        let name = param.name.clone();
        if new_head && is_head(id) {
            report.reinitialised.push(name);
            continue;
        }
        match by_name.get(param.name.as_str()) {
            None => report.missing.push(name),
            Some(&got) if got == param.shape => report.matched.push(name),
            Some(&got) if stem == Some(id) && is_rgb_of(&param.shape, got) => {
                report.adapted = Some(name.clone());
                report.matched.push(name);
            }
            Some(&got) => {
                report.mismatched.push(Mismatch { name, want: param.shape.clone(), got: got.into() });
            }
        }
    }
    let root = graph.stages().iter().find(|s| s.head).and_then(|s| s.name.split('.').next());
    for (name, _) in tensors {
        let below_root = root.is_some_and(|r| name.strip_prefix(r).is_some_and(|rest| rest.starts_with('.')));
        match graph.find_param(name) {
            Some(id) if new_head && is_head(id) => report.dropped.push(name.into()),
            Some(_) => {}
            None if new_head && below_root => report.dropped.push(name.into()),
            None => report.surplus.push(name.into()),
        }
    }
    let first = |name: &str| name.split_once('.').map(|(first, _)| first.to_owned());
    let inside: HashSet<_> = graph.params().iter().filter_map(|p| first(&p.name)).collect();
    report.is_other_network =
        report.surplus.iter().filter_map(|name| first(name)).any(|f| inside.contains(&f));
    report
}

/// `graph`'s parameters with the values of `tensors`, and what was done.
///
/// Everything not loaded starts as [`ParamStore::init`] starts it, and only that is computed. Where all names begin with `module.`,
/// `_orig_mod.` or `model.` (PyTorch's wrappers), that is taken off.
///
/// # Errors
/// [`ZooError::NotFinite`] and [`ZooError::DuplicateTensor`] for broken files; [`ZooError::DoesNotFit`], which lists the
/// first misfits and the model that would fit, where a tensor has another shape, where nothing fits, where a parameter of
/// the body is missing or the tensors are of another network (unless `options.partial`), and, if `options.strict`, where one is new or a tensor is left over.
pub fn load(
    graph: &Graph,
    tensors: Vec<(String, HostTensor)>,
    options: &LoadOptions,
) -> Result<(ParamStore, LoadReport), ZooError> {
    let tensors = without_prefix(tensors);
    let shapes = || tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()));
    let report = match_weights(graph, shapes(), options.head);
    let misfit = !report.mismatched.is_empty()
        || report.matched.is_empty()
        || (!options.partial && (!report.missing.is_empty() || report.is_other_network))
        || (options.strict && !report.is_exact())
        || (options.head == HeadLoading::Required && lacks_head(graph, &report));
    if misfit {
        let fits = which_fits(&shapes().collect::<Vec<_>>());
        let strict = options.strict;
        return Err(ZooError::DoesNotFit {
            model: graph.name().into(),
            report: Box::new(report),
            fits,
            strict,
        });
    }
    let mut by_name = HashMap::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        if let Some(at) = tensor.data().iter().position(|v| !v.is_finite()) {
            return Err(ZooError::NotFinite { name, at });
        }
        if by_name.contains_key(&name) {
            return Err(ZooError::DuplicateTensor { name });
        }
        by_name.insert(name, tensor);
    }
    if let Some(name) = &report.adapted
        && let Some(tensor) = by_name.get_mut(name)
    {
        *tensor = adapt_in_channels(tensor, graph.input_shape().c, options.tradition)?;
    }
    // What is not matched must not get its value from the file: another head may have a tensor of this name and shape.
    let matched: HashSet<&str> = report.matched.iter().map(String::as_str).collect();
    let mut loaded = |name: &str| matched.contains(name).then(|| by_name.remove(name)).flatten();
    let store = ParamStore::init_where_none(graph, options.seed, &mut loaded)?;
    Ok((store, report))
}

/// The first convolution's weights.
fn stem(graph: &Graph) -> Option<ParamId> {
    graph.param_ids().find(|&id| graph.param(id).kind == ParamKind::ConvWeight)
}

/// Whether `got` is `want` but for three input channels.
fn is_rgb_of(want: &[usize], got: &[usize]) -> bool {
    matches!((want, got), ([a, _, b @ ..], [c, 3, d @ ..]) if a == c && b == d)
}

/// Whether a parameter of the head is missing.
fn lacks_head(graph: &Graph, report: &LoadReport) -> bool {
    report
        .missing
        .iter()
        .filter_map(|n| graph.find_param(n))
        .any(|id| graph.stages()[graph.stage_of(id)].head)
}

/// What PyTorch's wrappers put before every name.
const PREFIXES: [&str; 3] = ["module.", "_orig_mod.", "model."];

pub(crate) fn without_prefix(mut tensors: Vec<(String, HostTensor)>) -> Vec<(String, HostTensor)> {
    for prefix in PREFIXES {
        if tensors.iter().all(|(name, _)| name.starts_with(prefix)) {
            tensors.iter_mut().for_each(|(name, _)| drop(name.drain(..prefix.len())));
        }
    }
    tensors
}

/// The model of the zoo that these tensors belong to, as in `mobilenet_v2 (width 0.5) for 1000 classes`.
fn which_fits(tensors: &[(&str, &[usize])]) -> Option<String> {
    const WIDTHS: [f32; 6] = [1.0, 0.35, 0.5, 0.75, 1.3, 1.4];
    let by_name: HashMap<_, _> = tensors.iter().copied().collect();
    for arch in Arch::ALL {
        for &width in if arch.has_width() { &WIDTHS[..] } else { &WIDTHS[..1] } {
            for geometry in arch.geometries() {
                let spec = ModelSpec::new(arch, 1000).with_image_size(64);
                let spec = spec.with_width(width).with_geometry(geometry);
                let Ok(graph) = spec.build() else { continue };
                let stem = stem(&graph).and_then(|id| by_name.get(graph.param(id).name.as_str()));
                let channels = match stem {
                    Some(&&[_, c, _, _]) if c > 0 => c,
                    _ => 3,
                };
                let Ok(graph) = spec.with_in_channels(channels).build() else { continue };
                if !match_weights(&graph, tensors.iter().copied(), HeadLoading::New).is_complete() {
                    continue;
                }
                let mut text = arch.to_string();
                if width != 1.0 {
                    text += &format!(" (width {width})");
                }
                if geometry != arch.default_geometry() {
                    text += &format!(" in {geometry} geometry");
                }
                match channels {
                    1 => text += " on grey images",
                    3 => {}
                    n => text += &format!(" on images of {n} channels"),
                }
                let bias = graph.params().last().and_then(|p| by_name.get(p.name.as_str()));
                match bias {
                    Some([classes]) => text += &format!(" for {classes} classes"),
                    _ => text += " without the published head",
                }
                return Some(text);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
