//! What goes wrong with data, and what is worth a warning.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::DecodeError;

const EXAMPLE: &str = "expected a folder with one sub-folder of images per class, for example\n  \
     photos/cat/one.jpg\n  photos/cat/two.png\n  photos/dog/three.jpg\n\
     or the same below photos/train/ and photos/val/";

const TABLE: &str = "expected a table with a header line, for example\n  \
     image,label\n  photos/one.jpg,cat\n  photos/three.jpg,dog\nwith paths relative to the table, or to `--images FOLDER`";

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is at the path.
    #[error("nothing is at {}: {}", path.display(), example(path))]
    NotFound {
        /// What was looked for.
        path: PathBuf,
    },
    /// The path is a file.
    #[error("{} is a file: {EXAMPLE}", path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// The folder cannot be listed, or the file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is nothing in the folder that could be an image of a class.
    #[error("{} holds no images in class folders: {EXAMPLE}", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// Images, but no class folders.
    #[error(
        "{} holds {images} images (such as {first}) but no class folders, so nothing says what they show: {EXAMPLE}",
        path.display()
    )]
    NoClassFolders {
        /// The folder.
        path: PathBuf,
        /// How many images lie in it.
        images: usize,
        /// One of them.
        first: String,
    },
    /// There is a folder for validation, but none for training.
    #[error(
        "{} has a folder `{val}` but no folder `train` beside it; rename one, or give the folder that holds the classes",
        path.display()
    )]
    NoTrainPart {
        /// The folder.
        path: PathBuf,
        /// The name of the part that is there.
        val: String,
    },
    /// One class alone: there is nothing to tell apart.
    #[error(
        "{} has one class only, `{class}`: there is nothing to tell apart; add a folder of other images",
        path.display()
    )]
    OneClass {
        /// The folder.
        path: PathBuf,
        /// The class.
        class: String,
    },
    /// A class without a single image that can be used for training.
    #[error("class `{class}` has no readable image for training ({}): {}", path.display(), why(*skipped))]
    EmptyClass {
        /// The class.
        class: String,
        /// Its folder.
        path: PathBuf,
        /// How many of its files were skipped.
        skipped: usize,
    },
    /// A class with images for validation and none for training.
    #[error("class `{class}` is in {} but not in the training part: it could never be learned", path.display())]
    OnlyInValidation {
        /// The class.
        class: String,
        /// The folder of the validation part.
        path: PathBuf,
    },
    /// A class that the given list of classes does not have.
    #[error("class `{class}` is not one of the known classes ({known})")]
    UnknownClass {
        /// The class found.
        class: String,
        /// The classes expected.
        known: String,
    },
    /// Files were skipped, and strictness asked for none to be.
    #[error("{} (strict): {}", counted(skipped.len(), "file cannot be used", "files cannot be used"), listed(skipped))]
    Strict {
        /// All of them.
        skipped: Vec<Skipped>,
    },
    /// An option is out of its range.
    #[error("`{option}` is {value}; it must be {rule}")]
    Option {
        /// The name of the option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        rule: &'static str,
    },
    /// A table that is no table, or a cell that does not hold what its column should.
    #[error("{}{}: {what}", path.display(), at(*line))]
    Table {
        /// The CSV file.
        path: PathBuf,
        /// The line, from 1; 0 where it is about the whole file.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// A table without a column that was asked for.
    #[error("{} has no column `{column}`; it has {}", path.display(), columns.join(", "))]
    NoColumn {
        /// The CSV file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns there are.
        columns: Vec<String>,
    },
    /// A table of which it is not clear which column is meant.
    #[error(
        "{}: it is not clear which column {what}; name it by `--set {key}=…` ({}); there are {}",
        path.display(),
        if *key == "data.targets" { "a list: `'[\"age\"]'`" } else { "a name" },
        columns.join(", ")
    )]
    WhichColumn {
        /// The CSV file.
        path: PathBuf,
        /// What the column would do.
        what: &'static str,
        /// The key of a recipe that says it.
        key: &'static str,
        /// The columns there are.
        columns: Vec<String>,
    },
    /// Arrays whose lengths do not fit together.
    #[error("{what}: expected {expected}, got {got}")]
    Arrays {
        /// What was counted.
        what: &'static str,
        /// The count that would fit.
        expected: usize,
        /// The count given.
        got: usize,
    },
    /// Not one image of a batch could be read: the folder was moved, or a disk is gone.
    #[error("not one image of batch {batch} can be read any more; the first is {first}")]
    BatchLost {
        /// The number of the batch in its epoch, from 0.
        batch: usize,
        /// The first image and its reason.
        first: Skipped,
    },
    /// An image became unreadable during the run, and strictness was asked for.
    #[error("{0} (strict)")]
    Sample(Skipped),
    /// The augmentation has a parameter out of its range.
    #[error(transparent)]
    Augment(#[from] defrost_augment::Error),
    /// A thread of the loader ended unexpectedly.
    #[error("a loader thread failed while it made batch {batch}; this is a bug")]
    Thread {
        /// The number of the batch in its epoch, from 0.
        batch: usize,
    },
}

/// What would be at a path.
fn example(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("csv" | "tsv") => TABLE,
        _ => EXAMPLE,
    }
}

fn at(line: u64) -> String {
    if line == 0 { String::new() } else { format!(", line {line}") }
}

fn why(skipped: usize) -> String {
    match skipped {
        0 => "the folder is empty; remove it or add images".into(),
        n => format!("{} skipped", counted(n, "file was", "files were")),
    }
}

/// A file or folder that is not used, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Skipped {
    /// The file or folder.
    pub path: PathBuf,
    /// Why it is not used.
    pub reason: DecodeError,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// What a user should know about the data although the run goes on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// Images beside the class folders: nothing says what they show.
    TopLevelImages {
        /// Their names.
        files: Vec<String>,
    },
    /// Files that are no images.
    OtherFiles {
        /// Their names.
        files: Vec<String>,
    },
    /// Images with several frames, of which the first is used.
    Animated {
        /// Their names.
        files: Vec<String>,
    },
    /// Classes that validation does not measure.
    NotInValidation {
        /// The classes.
        classes: Vec<String>,
    },
    /// A class with far fewer images than the usual one.
    FewImages {
        /// The class.
        class: String,
        /// Its images for training.
        images: usize,
        /// The median over all classes.
        median: usize,
    },
    /// The same bytes under two names in one part, with different labels.
    Contradiction {
        /// Pairs of names.
        pairs: Vec<[String; 2]>,
    },
    /// Images that are in both the training and the validation part.
    InBothParts {
        /// Pairs of names, training first.
        pairs: Vec<[String; 2]>,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = |pairs: &[[String; 2]]| {
            names(&pairs.iter().map(|[a, b]| format!("{a} = {b}")).collect::<Vec<_>>())
        };
        match self {
            Self::TopLevelImages { files } => write!(
                f,
                "{} beside the class folders, ignored: {}",
                counted(files.len(), "image", "images"),
                names(files)
            ),
            Self::OtherFiles { files } => {
                write!(
                    f,
                    "{}, ignored: {}",
                    counted(files.len(), "file is no image", "files are no images"),
                    names(files)
                )
            }
            Self::Animated { files } => write!(
                f,
                "{} several frames, the first is used: {}",
                counted(files.len(), "image has", "images have"),
                names(files)
            ),
            Self::NotInValidation { classes } => write!(
                f,
                "{} not in the validation part and will not be measured: {}",
                counted(classes.len(), "class is", "classes are"),
                names(classes)
            ),
            Self::FewImages { class, images, median } => write!(
                f,
                "class `{class}` has {}; half of the classes have {median} or more: balanced sampling may help",
                counted(*images, "image", "images")
            ),
            Self::Contradiction { pairs: p } => write!(
                f,
                "{} the same bytes under two labels: {}",
                counted(p.len(), "pair of files has", "pairs of files have"),
                pairs(p)
            ),
            Self::InBothParts { pairs: p } => write!(
                f,
                "{} in both training and validation, which makes the result look better than it is: {}",
                counted(p.len(), "image is", "images are"),
                pairs(p)
            ),
        }
    }
}

/// `1 file`, `1,204 files`.
pub(crate) fn counted(n: usize, one: &str, many: &str) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {}", if n == 1 { one } else { many })
}

/// The first five names, and how many more there are.
fn names(all: &[String]) -> String {
    let shown = all.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(5) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn listed(skipped: &[Skipped]) -> String {
    let all: Vec<String> = skipped.iter().map(ToString::to_string).collect();
    names(&all)
}
