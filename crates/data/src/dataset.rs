//! A data set: samples in a fixed order, their classes or targets, and where their pixels are.

use std::collections::HashMap;
use std::path::PathBuf;

use defrost_augment::Image;
use sha2::{Digest, Sha256};

use crate::{DecodeError, DecodeOptions, Error, Skipped, Warning, decode_file};

/// The label of a sample whose class is not known (images to predict).
pub const NO_LABEL: u32 = u32::MAX;

/// One image of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The file; empty for a sample from an array.
    pub path: PathBuf,
    /// The path below the data set's folder with `/` between its parts (`train/cat/1.jpg`): what is printed.
    pub name: String,
    /// Index into the classes, or [`NO_LABEL`].
    pub label: u32,
    /// Pixels in a row, after the orientation is applied; 0 where the file was not looked at.
    pub width: u32,
    /// Rows, after the orientation is applied; 0 where the file was not looked at.
    pub height: u32,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file's bytes; `None` where the file was not looked at.
    pub hash: Option<[u8; 32]>,
}

/// What the targets of a data set mean.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum TargetKind {
    /// One class each: [`Sample::label`].
    #[default]
    Class,
    /// Any number of classes each: a 0 or 1 for every class.
    Classes,
    /// Numbers to be predicted (regression).
    Values,
}

/// Samples in a fixed order with what they show.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub(crate) classes: Vec<String>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) source: Source,
    pub(crate) kind: TargetKind,
    /// `samples x target_width`, empty for [`TargetKind::Class`].
    pub(crate) targets: Vec<f32>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) warnings: Vec<Warning>,
}

/// Where the pixels are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Files(DecodeOptions),
    Array { width: usize, height: usize, channels: usize, pixels: Vec<u8> },
}

impl Dataset {
    /// A data set of images in memory: `pixels` is `[n, height, width, channels]`, one label each.
    ///
    /// # Errors
    /// [`Error::Arrays`] if the lengths do not fit or a label has no class, [`Error::Augment`] for an impossible
    /// image shape.
    pub fn from_arrays(
        pixels: Vec<u8>,
        [height, width, channels]: [usize; 3],
        labels: Vec<u32>,
        classes: Vec<String>,
    ) -> Result<Self, Error> {
        let each = height * width * channels;
        // Checks the shape by making an image of it.
        Image::new(width, height, channels, vec![0; each])?;
        if pixels.len() != each * labels.len() {
            return Err(Error::Arrays {
                what: "bytes of pixels",
                expected: each * labels.len(),
                got: pixels.len(),
            });
        }
        if let Some(&label) = labels.iter().find(|&&l| l as usize >= classes.len() && l != NO_LABEL) {
            return Err(Error::Arrays {
                what: "classes for the greatest label",
                expected: label as usize + 1,
                got: classes.len(),
            });
        }
        let samples = labels
            .iter()
            .enumerate()
            .map(|(i, &label)| Sample {
                path: PathBuf::new(),
                name: format!("#{i}"),
                label,
                width: width as u32,
                height: height as u32,
                bytes: each as u64,
                hash: Some(Sha256::digest(&pixels[i * each..(i + 1) * each]).into()),
            })
            .collect();
        Ok(Self::new(classes, samples, Source::Array { width, height, channels, pixels }))
    }

    /// Images without labels, for prediction, in the order given. Nothing is looked at before it is loaded.
    pub fn from_files(paths: &[PathBuf], classes: Vec<String>, decode: DecodeOptions) -> Self {
        let samples = paths
            .iter()
            .map(|path| Sample {
                path: path.clone(),
                name: path.display().to_string(),
                label: NO_LABEL,
                width: 0,
                height: 0,
                bytes: 0,
                hash: None,
            })
            .collect();
        Self::new(classes, samples, Source::Files(decode))
    }

    pub(crate) fn new(classes: Vec<String>, samples: Vec<Sample>, source: Source) -> Self {
        Self {
            classes,
            samples,
            source,
            kind: TargetKind::Class,
            targets: Vec::new(),
            skipped: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The same samples with targets in place of labels: `targets` is `[len, width]`, and for
    /// [`TargetKind::Classes`] `names` are the classes, for [`TargetKind::Values`] the names of the values.
    ///
    /// # Errors
    /// [`Error::Arrays`] if the lengths do not fit.
    pub fn with_targets(
        mut self,
        kind: TargetKind,
        names: Vec<String>,
        targets: Vec<f32>,
    ) -> Result<Self, Error> {
        let expected = self.len() * names.len();
        if targets.len() != expected {
            return Err(Error::Arrays { what: "targets", expected, got: targets.len() });
        }
        if kind != TargetKind::Class {
            (self.kind, self.classes, self.targets) = (kind, names, targets);
        }
        Ok(self)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Names of the classes in the order of their labels; of the values for [`TargetKind::Values`].
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// All samples; their position here is their index, in batches and in keys.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// What the targets mean.
    pub const fn kind(&self) -> TargetKind {
        self.kind
    }

    /// The targets of a sample, one for each of [`Dataset::classes`]; empty for [`TargetKind::Class`].
    pub fn targets(&self, index: usize) -> &[f32] {
        match self.kind {
            TargetKind::Class => &[],
            _ => &self.targets[index * self.classes.len()..(index + 1) * self.classes.len()],
        }
    }

    /// Files and folders that were not taken, and why.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// What is worth knowing although the data can be used.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Channels of every loaded image.
    pub fn channels(&self) -> usize {
        match &self.source {
            Source::Files(options) => options.channels.count(),
            Source::Array { channels, .. } => *channels,
        }
    }

    /// Samples of each class, in the order of the classes. A sample with several classes counts for each.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        match self.kind {
            TargetKind::Class => {
                for sample in self.samples.iter().filter(|s| s.label != NO_LABEL) {
                    counts[sample.label as usize] += 1;
                }
            }
            TargetKind::Classes => {
                for row in self.targets.chunks_exact(counts.len().max(1)) {
                    counts.iter_mut().zip(row).for_each(|(n, &t)| *n += usize::from(t > 0.5));
                }
            }
            TargetKind::Values => {}
        }
        counts
    }

    /// Weights of the classes for a balanced loss: `samples / (classes * samples of the class)`, so that the
    /// mean weight over all samples is 1 (scikit-learn's "balanced"); 0 for a class without samples.
    pub fn class_weights(&self) -> Vec<f32> {
        let counts = self.class_counts();
        let present = counts.iter().filter(|&&n| n > 0).count();
        let total: usize = counts.iter().sum();
        let weight = |n: usize| if n == 0 { 0.0 } else { total as f32 / (present * n) as f32 };
        counts.into_iter().map(weight).collect()
    }

    /// The samples with these indices, in this order, as a data set of its own.
    ///
    /// # Panics
    /// If an index is out of range.
    #[must_use]
    pub fn subset(&self, indices: &[usize]) -> Self {
        let source = match &self.source {
            Source::Files(options) => Source::Files(*options),
            Source::Array { width, height, channels, pixels } => {
                let each = width * height * channels;
                let pixels = indices.iter().flat_map(|&i| pixels[i * each..(i + 1) * each].iter().copied());
                Source::Array {
                    width: *width,
                    height: *height,
                    channels: *channels,
                    pixels: pixels.collect(),
                }
            }
        };
        Self {
            classes: self.classes.clone(),
            samples: indices.iter().map(|&i| self.samples[i].clone()).collect(),
            source,
            kind: self.kind,
            targets: indices.iter().flat_map(|&i| self.targets(i).iter().copied()).collect(),
            skipped: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The pixels of a sample. `shorter_side` asks for an image made smaller, see [`DecodeOptions`].
    ///
    /// # Errors
    /// [`DecodeError`] if the file cannot be read or decoded any more.
    ///
    /// # Panics
    /// If the index is out of range.
    pub fn load(&self, index: usize, shorter_side: Option<usize>) -> Result<Image, DecodeError> {
        match &self.source {
            Source::Files(options) => {
                decode_file(&self.samples[index].path, &DecodeOptions { shorter_side, ..*options })
            }
            Source::Array { width, height, channels, pixels } => {
                let each = width * height * channels;
                let pixels = pixels[index * each..(index + 1) * each].to_vec();
                Ok(Image::new(*width, *height, *channels, pixels).expect("checked by from_arrays"))
            }
        }
    }

    /// Identifies the data: a hash over the classes, and over name, label or targets, size and content of every
    /// sample in order (64 hexadecimal digits). Two data sets with the same fingerprint train alike; a file that
    /// was not looked at counts by its name and size alone.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut text = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        text("defrost data 1");
        text(&format!("{:?} {} {}", self.kind, self.channels(), self.classes.len()));
        self.classes.iter().for_each(|class| text(class));
        for sample in &self.samples {
            text(&sample.name);
            text(&format!("{} {} {}", sample.label, sample.bytes, hex(&sample.hash.unwrap_or_default())));
        }
        for target in &self.targets {
            hash.update(target.to_le_bytes());
        }
        hex(&hash.finalize())
    }

    /// The name of a sample's class, if it has one.
    pub fn class_of(&self, index: usize) -> Option<&str> {
        self.classes.get(self.samples[index].label as usize).map(String::as_str)
    }

    /// The name under which an error message knows a sample.
    pub(crate) fn skipped_sample(&self, index: usize, reason: DecodeError) -> Skipped {
        let sample = &self.samples[index];
        let path =
            if sample.path.as_os_str().is_empty() { sample.name.clone().into() } else { sample.path.clone() };
        Skipped { path, reason }
    }

    /// Whether loading a sample costs a decode (which keeping the result would save).
    pub(crate) const fn is_decoded_anew(&self) -> bool {
        matches!(self.source, Source::Files(_))
    }
}

/// Pairs of indices (into `a`, into `b`) of files with the same bytes, in the order of `a`.
pub fn duplicates(a: &Dataset, b: &Dataset) -> Vec<(usize, usize)> {
    let mut known: HashMap<[u8; 32], usize> = HashMap::new();
    for (index, sample) in b.samples.iter().enumerate() {
        if let Some(hash) = sample.hash {
            known.entry(hash).or_insert(index);
        }
    }
    let find = |sample: &Sample| sample.hash.and_then(|hash| known.get(&hash).copied());
    a.samples.iter().enumerate().filter_map(|(index, sample)| Some((index, find(sample)?))).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
