//! What a weight file is, and which networks of the zoo it fits.

use std::collections::BTreeMap;
use std::path::Path;

use defrost_weights::{Format, NamedTensors};
use defrost_zoo::naming::Naming;
use defrost_zoo::{Arch, Head, HeadLoading, LoadReport, ModelSpec, Preprocess, ZooError, match_weights};

use crate::Error;
use crate::model::{Source, family_of, from_path, read};

/// What is known of a weight file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Its format.
    pub format: Format,
    /// Its size.
    pub bytes: u64,
    /// Names and shapes as the file has them, in its order.
    pub tensors: Vec<(String, Vec<usize>)>,
    /// The text that it carries.
    pub metadata: BTreeMap<String, String>,
    /// The networks that it fits, the likeliest first.
    pub fits: Vec<Fit>,
    /// Where it fits none: why it does not fit the network that it is most like.
    pub misfit: Option<ZooError>,
    /// The first tensor with values that are no numbers ([`ZooError::NotFinite`]): no network takes such weights.
    pub damage: Option<ZooError>,
}

/// A network that a file fits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fit {
    /// What the network is made from; its classes are the file's, or 1000 where the file has no head.
    pub spec: ModelSpec,
    /// Whether the file has the head.
    pub has_head: bool,
    /// What matches, what would start anew, what is left over.
    pub report: LoadReport,
    pub(crate) source: Source,
}

/// Reads the weight file at `path` and tries it on every network.
///
/// # Errors
/// A file that is no weight file of a known format, or a damaged one.
pub fn inspect(path: &Path) -> Result<Inspection, Error> {
    let tensors = read(path)?;
    let format = defrost_weights::detect(path)?;
    let bytes = std::fs::metadata(path).map_err(|source| Error::Io { path: path.into(), source })?.len();
    let (fits, misfit) = fits(&Arch::ALL, &tensors, path);
    let metadata = tensors.metadata.clone();
    let damage = tensors.iter().find(|(_, tensor)| !tensor.is_finite()).map(|(name, tensor)| {
        let at = tensor.data().iter().position(|v| !v.is_finite()).unwrap_or(0);
        ZooError::NotFinite { name: name.to_owned(), at }
    });
    let tensors = tensors.iter().map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())).collect();
    Ok(Inspection { format, bytes, tensors, metadata, fits, misfit, damage })
}

/// Those of `arches` that the tensors of the file at `path` fit, the likeliest first. Where there is none: why they do not
/// fit the one of which they have most, if that is half of it.
pub(crate) fn fits(arches: &[Arch], tensors: &NamedTensors, path: &Path) -> (Vec<Fit>, Option<ZooError>) {
    let mut fits = Vec::new();
    let mut nearest: Option<(String, LoadReport)> = None;
    for &arch in arches {
        // What has no names of this network is not its.
        let Ok(source) = from_path(arch, tensors.clone(), path) else { continue };
        let specs = match &source.spec {
            Some(spec) if spec.arch == arch => vec![spec.clone()],
            Some(_) => continue,
            None => variants(source.spec_for(arch, source.classes(arch).unwrap_or(1000))),
        };
        for spec in specs {
            let Ok(graph) = spec.build() else { continue };
            let shapes = source.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()));
            let report = match_weights(&graph, shapes, HeadLoading::IfFits);
            let whole = report.missing.is_empty() && report.mismatched.is_empty();
            if whole && !report.is_other_network && !report.matched.is_empty() {
                let has_head = report.reinitialised.is_empty();
                fits.push(Fit { spec, has_head, report, source: source.clone() });
            } else if 2 * report.matched.len() >= graph.params().len()
                && nearest.as_ref().is_none_or(|(_, best)| best.matched.len() < report.matched.len())
            {
                nearest = Some((arch.to_string(), report));
            }
        }
    }
    // What leaves least over is likeliest.
    fits.sort_by_key(|fit| fit.report.surplus.len());
    let nearest = nearest.filter(|_| fits.is_empty());
    let misfit = nearest.map(|(model, report)| ZooError::DoesNotFit {
        model,
        report: Box::new(report),
        fits: None,
        strict: false,
    });
    (fits, misfit)
}

/// The widths of an architecture.
fn variants(spec: ModelSpec) -> Vec<ModelSpec> {
    const WIDTHS: [f32; 6] = [1.0, 0.35, 0.5, 0.75, 1.3, 1.4];
    let widths = if spec.arch.has_width() { &WIDTHS[..] } else { &WIDTHS[..1] };
    widths.iter().map(|&width| spec.clone().with_width(width)).collect()
}

impl Fit {
    /// Whose names the file's tensors have.
    pub fn naming(&self) -> Naming {
        self.source.naming
    }

    /// How pictures are prepared for these weights.
    pub fn preprocess(&self) -> &Preprocess {
        &self.source.preprocess
    }

    /// Whether nothing says how, and [`Fit::preprocess`] is what is usual for weights of such names.
    pub fn is_assumed(&self) -> bool {
        self.source.assumed
    }

    /// The same for weights for which pictures are prepared by the family of that name.
    ///
    /// # Errors
    /// [`Error::NoFamily`] with those there are.
    pub fn with_preprocess(mut self, family: &str) -> Result<Self, Error> {
        self.source.preprocess = family_of(family)?;
        self.source.assumed = false;
        Ok(self)
    }

    /// The file's tensors under the network's names and in its layouts, with what belongs to them as metadata.
    pub fn into_tensors(self) -> NamedTensors {
        let spec =
            self.has_head.then(|| serde_json::to_string(&self.spec).expect("a specification is always JSON"));
        let texts = [
            ("format", "pt".to_owned()),
            ("model", self.spec.arch.to_string()),
            ("width", self.spec.width.to_string()),
            ("geometry", self.spec.geometry.to_string()),
            ("preprocess", serde_json::to_string(self.preprocess()).expect("constants are always JSON")),
        ];
        let mut tensors: NamedTensors = self.source.tensors.into_iter().collect();
        let texts = texts.into_iter().chain(spec.map(|spec| ("spec", spec)));
        tensors.metadata.extend(texts.map(|(key, value)| (key.to_owned(), value)));
        tensors
    }

    /// The network and its classes in words, as in `resnet18 for 10 classes, torch geometry`.
    pub fn words(&self) -> String {
        let ModelSpec { arch, width, geometry, classes, .. } = &self.spec;
        let width = if *width == 1.0 { String::new() } else { format!(" (width {width})") };
        let head = match (self.has_head, &self.spec.head) {
            (false, _) => "without its head".into(),
            (true, Head::Original) => format!("for {classes} classes"),
            (true, head) => format!("for {classes} classes, head {head}"),
        };
        format!("{arch}{width} {head}, {geometry} geometry, names of {}", self.naming())
    }
}
