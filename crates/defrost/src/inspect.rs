//! What a weight file is, and which networks of the zoo it fits.

use std::collections::BTreeMap;
use std::path::Path;

use defrost_tensor::HostTensor;
use defrost_weights::Format;
use defrost_zoo::{Arch, HeadLoading, LoadReport, ModelSpec, Preprocess, match_weights};

use crate::Error;
use crate::model::{classes_in, named, read};

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
}

/// A network that a file fits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fit {
    /// What the network is made from; its classes are the file's, or 1000 where the file has no published head.
    pub spec: ModelSpec,
    /// Whether the file has the published head.
    pub has_head: bool,
    /// How pictures are prepared for these weights.
    pub preprocess: Preprocess,
    /// What matches, what would start anew, what is left over.
    pub report: LoadReport,
    /// The file's tensors under the network's names.
    pub tensors: Vec<(String, HostTensor)>,
}

/// Reads the weight file at `path` and tries it on every network.
///
/// # Errors
/// A file that is no weight file of a known format, or a damaged one.
pub fn inspect(path: &Path) -> Result<Inspection, Error> {
    let tensors = read(path)?;
    let format = defrost_weights::detect(path)?;
    let bytes = std::fs::metadata(path).map_err(|source| Error::Io { path: path.into(), source })?.len();
    let mut fits = Vec::new();
    for arch in Arch::ALL {
        // What has no names of this network is not its.
        let Ok(source) = named(arch, tensors.clone(), String::new()) else { continue };
        let classes = classes_in(arch, &source);
        let specs = match &source.spec {
            Some(spec) if spec.arch == arch => vec![spec.clone()],
            Some(_) => continue,
            None => specs(arch, classes.unwrap_or(1000), source.preprocess.crop)
                .into_iter()
                .map(|spec| spec.with_geometry(source.geometry))
                .collect(),
        };
        for spec in specs {
            let Ok(graph) = spec.build() else { continue };
            let shapes = source.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()));
            let report = match_weights(&graph, shapes, HeadLoading::IfFits);
            if report.missing.is_empty() && report.mismatched.is_empty() && !report.matched.is_empty() {
                let has_head = report.reinitialised.is_empty();
                let (preprocess, tensors) = (source.preprocess.clone(), source.tensors.clone());
                fits.push(Fit { spec, has_head, preprocess, report, tensors });
            }
        }
    }
    // A ResNet34's file has all of a ResNet18's names: what leaves least over is likeliest.
    fits.sort_by_key(|fit| fit.report.surplus.len());
    let metadata = tensors.metadata.clone();
    let tensors = tensors.iter().map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())).collect();
    Ok(Inspection { format, bytes, tensors, metadata, fits })
}

/// The variants of an architecture.
fn specs(arch: Arch, classes: usize, size: usize) -> Vec<ModelSpec> {
    const WIDTHS: [f32; 6] = [1.0, 0.35, 0.5, 0.75, 1.3, 1.4];
    let spec = ModelSpec::new(arch, classes).with_image_size(size);
    let widths = if arch.has_width() { &WIDTHS[..] } else { &WIDTHS[..1] };
    widths.iter().map(|&width| spec.clone().with_width(width)).collect()
}

impl Fit {
    /// The network and its classes in words, as in `resnet18 for 10 classes, torch geometry`.
    pub fn words(&self) -> String {
        let ModelSpec { arch, width, geometry, classes, .. } = &self.spec;
        let width = if *width == 1.0 { String::new() } else { format!(" (width {width})") };
        let head = match self.has_head {
            true => format!("for {classes} classes"),
            false => "without its head".into(),
        };
        format!("{arch}{width} {head}, {geometry} geometry")
    }
}
