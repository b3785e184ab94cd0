//! Opening a folder of images as training and validation data.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::dataset::Source;
use crate::error::counted;
use crate::inspect::inspect;
use crate::scan::{Level, level, tree};
use crate::split::stratified;
use crate::{Dataset, DecodeOptions, Error, Sample, Skipped, TargetKind, Warning, duplicates};

const TRAIN: [&str; 2] = ["train", "training"];
const VALIDATION: [&str; 4] = ["val", "valid", "validation", "test"];

/// How much is looked at before the run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verify {
    /// Everything is decoded where that takes no time (all images together have at most 20 million pixels) and where
    /// [`Options::strict`] asks for it; otherwise quick. What turns out to be damaged when it is loaded is told then:
    /// [`Loader::failures`](crate::Loader::failures).
    #[default]
    Auto,
    /// Everything is decoded.
    Full,
    /// Files are read and hashed; headers and the ends of files are checked, nothing is decoded.
    Quick,
    /// Names and sizes only: no sizes of images, no hashes, and so no duplicates and a weaker fingerprint.
    Names,
}

/// How a folder is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Part of each class that becomes validation where the folder has no validation part, 0 to below 1.
    pub val_fraction: f64,
    /// Seed of that split.
    pub seed: u64,
    /// Whether a file that cannot be used is an error.
    pub strict: bool,
    /// Channels and the limit on pixels.
    pub decode: DecodeOptions,
    /// How much is looked at before the run.
    pub verify: Verify,
    /// The classes in the order of their labels, where they are given already (by a run). Otherwise they are the
    /// names of the sub-folders, sorted.
    pub classes: Option<Vec<String>>,
    /// Threads for looking at files.
    pub threads: usize,
}

impl Options {
    /// How much is looked at: where a file that cannot be used is an error, before the run and not in it.
    pub(crate) fn verify(&self) -> Verify {
        if self.strict && self.verify == Verify::Auto { Verify::Full } else { self.verify }
    }
}

impl Default for Options {
    /// 20 % for validation, seed 0, not strict, RGB, [`Verify::Auto`], as many threads as the machine has.
    fn default() -> Self {
        Self {
            val_fraction: 0.2,
            seed: 0,
            strict: false,
            decode: DecodeOptions::default(),
            verify: Verify::default(),
            classes: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Where training and validation come from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Layout {
    /// Two folders beside each other.
    Folders {
        /// The name of the training folder.
        train: String,
        /// The name of the validation folder.
        val: String,
    },
    /// One tree, split by class.
    Split {
        /// The part for validation that was asked for.
        fraction: f64,
        /// The seed of the split.
        seed: u64,
    },
}

/// Training and validation data with the same classes.
#[derive(Clone, Debug)]
pub struct Splits {
    /// What is trained on.
    pub train: Dataset,
    /// What is measured on; empty if no part was asked for.
    pub val: Dataset,
    /// Where the two come from.
    pub layout: Layout,
    /// Files and folders of both parts that were not taken, and why.
    pub skipped: Vec<Skipped>,
    /// What is worth knowing although the run goes on.
    pub warnings: Vec<Warning>,
}

impl Splits {
    /// Opens a folder with one sub-folder of images per class (of any depth), or with two such folders, `train` and
    /// `val` (also `training`; `valid`, `validation`, or `test` where there is nothing else). One tree, or `train`
    /// alone, is split by class.
    ///
    /// # Errors
    /// [`Error`]: no such folder, no images, no class folders, one class, a class without a readable image or only in
    /// validation; with [`Options::strict`] any file that cannot be used.
    pub fn open(path: &Path, options: &Options) -> Result<Self, Error> {
        check(options)?;
        let first = level(path)?;
        let (parts, layout) = match find_parts(path, &first)? {
            Some((train, Some(val))) => {
                let mut part = Part::open(path, &path.join(&train), level(&path.join(&train))?, options)?;
                part.beside(&first, &[&train, &val]);
                let other = Part::open(path, &path.join(&val), level(&path.join(&val))?, options)?;
                ((part, Some(other)), Layout::Folders { train, val })
            }
            found => {
                let split = Layout::Split { fraction: options.val_fraction, seed: options.seed };
                let part = match found {
                    Some((train, None)) => {
                        let mut part =
                            Part::open(path, &path.join(&train), level(&path.join(&train))?, options)?;
                        part.beside(&first, &[&train]);
                        part
                    }
                    _ => Part::open(path, path, first, options)?,
                };
                ((part, None), split)
            }
        };
        Self::assemble(parts, layout, options)
    }

    fn assemble(
        (train, val): (Part, Option<Part>),
        layout: Layout,
        options: &Options,
    ) -> Result<Self, Error> {
        let classes = train.classes(options)?;
        let mut skipped = train.skipped.clone();
        skipped.extend(val.iter().flat_map(|v| v.skipped.iter().cloned()));
        if options.strict && !skipped.is_empty() {
            return Err(Error::Strict { skipped });
        }
        train.require_every_class(&classes)?;
        let mut warnings = train.warnings();
        let source = || Source::Files(options.decode);
        let all = Dataset::new(classes.clone(), train.samples(&classes), source());
        let (train, val) = match val {
            Some(part) => {
                if let Some(class) = part.folders.iter().find(|c| !classes.contains(c) && part.has_images(c))
                {
                    return Err(Error::OnlyInValidation { class: class.clone(), path: part.folder });
                }
                warnings.extend(part.warnings());
                (all, Dataset::new(classes.clone(), part.samples(&classes), source()))
            }
            None => {
                let flags = stratified(&all.samples, classes.len(), options.val_fraction, options.seed);
                let side =
                    |val: bool| -> Vec<usize> { (0..all.len()).filter(|&i| flags[i] == val).collect() };
                (all.subset(&side(false)), all.subset(&side(true)))
            }
        };
        warnings.extend(compare(&train, &val));
        Ok(Self { train, val, layout, skipped, warnings })
    }

    /// One line: how many images and classes, how many were skipped, how they are split.
    pub fn summary(&self) -> String {
        let (train, val) = (self.train.len(), self.val.len());
        let mut text = format!(
            "{}, {}",
            counted(train + val, "image", "images"),
            match self.train.kind() {
                TargetKind::Class => counted(self.train.classes().len(), "class", "classes"),
                TargetKind::Classes => counted(self.train.classes().len(), "label", "labels"),
                TargetKind::Values => counted(self.train.classes().len(), "number", "numbers"),
            }
        );
        if !self.skipped.is_empty() {
            text += &format!(", {}", counted(self.skipped.len(), "skipped", "skipped"));
        }
        let number = |n: usize| counted(n, "", "").trim_end().to_owned();
        text + &match &self.layout {
            Layout::Folders { train: a, val: b } => {
                format!(", {} in {a}/, {} in {b}/", number(train), number(val))
            }
            Layout::Split { seed, .. } => {
                let how = if self.train.kind() == TargetKind::Class { "stratified, " } else { "" };
                format!(", split {} / {} ({how}seed {seed})", number(train), number(val))
            }
        }
    }
}

impl Dataset {
    /// Opens a folder to measure on: its validation part where it has one, otherwise all of it as one set. With
    /// [`Options::classes`] the labels are those of the given classes, of which some may be missing here.
    ///
    /// # Errors
    /// [`Error`]: no such folder, no images, no class folders, a class that is not known; with
    /// [`Options::strict`] any file that cannot be used.
    pub fn open(path: &Path, options: &Options) -> Result<Self, Error> {
        check(options)?;
        let first = level(path)?;
        let named = |names: &[&str]| find(&first, names);
        let part = match (named(&TRAIN), named(&VALIDATION)) {
            (Some(_), Some(val)) => Part::open(path, &path.join(&val), level(&path.join(&val))?, options)?,
            _ => Part::open(path, path, first, options)?,
        };
        let classes = part.classes(options)?;
        if options.strict && !part.skipped.is_empty() {
            return Err(Error::Strict { skipped: part.skipped });
        }
        let mut set = Self::new(classes.clone(), part.samples(&classes), Source::Files(options.decode));
        if set.is_empty() {
            let class = part.folders.first().cloned().unwrap_or_default();
            return Err(Error::EmptyClass {
                path: part.folder.join(&class),
                class,
                skipped: part.skipped.len(),
            });
        }
        set.warnings = part.warnings();
        set.skipped = part.skipped;
        Ok(set)
    }
}

/// A folder of class folders with everything in it looked at.
struct Part {
    folder: PathBuf,
    /// Names of the class folders, sorted.
    folders: Vec<String>,
    /// What can be used; the label is the position in `folders`.
    found: Vec<Sample>,
    skipped: Vec<Skipped>,
    beside: Vec<String>,
    others: Vec<String>,
    animated: Vec<String>,
}

impl Part {
    fn open(root: &Path, folder: &Path, first: Level, options: &Options) -> Result<Self, Error> {
        let tree = tree(folder, first);
        if tree.classes.values().all(Vec::is_empty) && tree.skipped.is_empty() {
            return Err(match tree.beside.first() {
                Some(name) => Error::NoClassFolders {
                    path: folder.into(),
                    images: tree.beside.len(),
                    first: name.clone(),
                },
                None => Error::Empty { path: folder.into() },
            });
        }
        let files: Vec<(PathBuf, u32)> = tree
            .classes
            .values()
            .enumerate()
            .flat_map(|(label, files)| files.iter().map(move |f| (f.clone(), label as u32)))
            .collect();
        let mut part = Self {
            folder: folder.into(),
            folders: tree.classes.into_keys().collect(),
            found: Vec::with_capacity(files.len()),
            skipped: tree.skipped,
            beside: tree.beside,
            others: tree.others,
            animated: Vec::new(),
        };
        let looked = inspect(&files, root, options.verify(), &options.decode, options.threads);
        for ((path, _), result) in files.into_iter().zip(looked) {
            match result {
                Ok(file) => {
                    if file.animated {
                        part.animated.push(file.sample.name.clone());
                    }
                    part.found.push(file.sample);
                }
                Err(reason) => part.skipped.push(Skipped { path, reason }),
            }
        }
        Ok(part)
    }

    /// What lies beside the folders that hold the parts.
    fn beside(&mut self, top: &Level, parts: &[&String]) {
        self.beside.extend(top.images.iter().cloned());
        self.others.extend(top.others.iter().cloned());
        self.skipped.extend(top.skipped.iter().cloned());
        let part = |name: &String| {
            parts.contains(&name) || VALIDATION.iter().chain(&TRAIN).any(|p| name.eq_ignore_ascii_case(p))
        };
        self.others.extend(top.folders.iter().filter(|f| !part(f)).map(|f| format!("{f}/")));
    }

    fn classes(&self, options: &Options) -> Result<Vec<String>, Error> {
        let Some(known) = &options.classes else { return Ok(self.folders.clone()) };
        match self.folders.iter().find(|f| !known.contains(f) && self.has_images(f)) {
            Some(class) => Err(Error::UnknownClass { class: class.clone(), known: known.join(", ") }),
            None => Ok(known.clone()),
        }
    }

    fn has_images(&self, class: &str) -> bool {
        self.folders
            .iter()
            .position(|f| f == class)
            .is_some_and(|l| self.found.iter().any(|s| s.label == l as u32))
    }

    fn require_every_class(&self, classes: &[String]) -> Result<(), Error> {
        if let [class] = classes {
            return Err(Error::OneClass { path: self.folder.clone(), class: class.clone() });
        }
        match classes.iter().find(|c| !self.has_images(c)) {
            None => Ok(()),
            Some(class) => {
                let path = self.folder.join(class);
                let skipped = self.skipped.iter().filter(|s| s.path.starts_with(&path)).count();
                Err(Error::EmptyClass { class: class.clone(), path, skipped })
            }
        }
    }

    /// The samples of the given classes, labelled by their positions in it.
    fn samples(&self, classes: &[String]) -> Vec<Sample> {
        let labels: Vec<Option<usize>> =
            self.folders.iter().map(|f| classes.iter().position(|c| c == f)).collect();
        let relabelled = |s: &Sample| Some(Sample { label: labels[s.label as usize]? as u32, ..s.clone() });
        self.found.iter().filter_map(relabelled).collect()
    }

    fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut add = |files: &Vec<String>, make: fn(Vec<String>) -> Warning| {
            if !files.is_empty() {
                warnings.push(make(files.clone()));
            }
        };
        add(&self.beside, |files| Warning::TopLevelImages { files });
        add(&self.others, |files| Warning::OtherFiles { files });
        add(&self.animated, |files| Warning::Animated { files });
        warnings
    }
}

/// The names of the parts, if the folder has them. A class may be called `train` too: then others are beside it.
fn find_parts(path: &Path, top: &Level) -> Result<Option<(String, Option<String>)>, Error> {
    let only_parts = top
        .folders
        .iter()
        .all(|name| TRAIN.iter().chain(&VALIDATION).any(|part| name.eq_ignore_ascii_case(part)));
    match (find(top, &TRAIN), find(top, &VALIDATION)) {
        (Some(train), Some(val)) => Ok(Some((train, Some(val)))),
        (Some(train), None) if only_parts => Ok(Some((train, None))),
        (None, Some(val)) if only_parts => Err(Error::NoTrainPart { path: path.into(), val }),
        _ => Ok(None),
    }
}

/// The folder with the first of these names that is there, in any case.
fn find(level: &Level, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| level.folders.iter().find(|f| f.eq_ignore_ascii_case(name)).cloned())
}

pub(crate) fn check(options: &Options) -> Result<(), Error> {
    if !(0.0..1.0).contains(&options.val_fraction) {
        return Err(Error::Option {
            option: "val_fraction",
            value: options.val_fraction.to_string(),
            rule: "0 or more and below 1",
        });
    }
    let mut seen = BTreeSet::new();
    match options.classes.iter().flatten().find(|class| !seen.insert(*class)) {
        Some(twice) => {
            Err(Error::Option { option: "classes", value: twice.clone(), rule: "a list without repetitions" })
        }
        None => Ok(()),
    }
}

/// What can only be seen with both parts at hand.
pub(crate) fn compare(train: &Dataset, val: &Dataset) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let counts = train.class_counts();
    let mut sorted = counts.clone();
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2];
    for (class, &images) in train.classes.iter().zip(&counts).filter(|(_, n)| **n * 8 < median) {
        warnings.push(Warning::FewImages { class: class.clone(), images, median });
    }
    if !val.is_empty() {
        let missing = train.classes.iter().zip(val.class_counts()).filter(|(_, n)| *n == 0);
        let classes: Vec<String> = missing.map(|(class, _)| class.clone()).collect();
        if !classes.is_empty() {
            warnings.push(Warning::NotInValidation { classes });
        }
    }
    let name = |set: &Dataset, i: usize| set.samples[i].name.clone();
    let pairs: Vec<[String; 2]> =
        duplicates(train, val).into_iter().map(|(a, b)| [name(train, a), name(val, b)]).collect();
    if !pairs.is_empty() {
        warnings.push(Warning::InBothParts { pairs });
    }
    let contradicts = |&(a, b): &(usize, usize)| train.samples[a].label != train.samples[b].label;
    let pairs: Vec<[String; 2]> = duplicates(train, train)
        .into_iter()
        .filter(contradicts)
        .map(|(a, b)| [name(train, b), name(train, a)])
        .collect();
    if !pairs.is_empty() {
        warnings.push(Warning::Contradiction { pairs });
    }
    warnings
}
