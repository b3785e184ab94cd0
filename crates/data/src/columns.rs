//! What the columns of a table mean, found by their names and by what is in them.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::{Columns, Error, TableOptions, TargetKind};

/// Names of a column with paths, the likeliest first.
const IMAGE: &[&str] = &[
    "image",
    "images",
    "file",
    "files",
    "filename",
    "file_name",
    "fname",
    "path",
    "filepath",
    "file_path",
    "image_path",
    "image_file",
    "img",
    "img_path",
    "img_name",
    "image_name",
    "picture",
    "photo",
    "image_id",
    "id",
    "name",
];
/// Names of a column with a class.
const CLASS: &[&str] =
    &["label", "labels", "class", "class_name", "category", "target", "species", "breed", "tag", "tags", "y"];
/// Names of a column that tells training from validation.
const PART: &[&str] =
    &["split", "part", "partition", "set", "subset", "is_valid", "is_val", "valid", "validation"];
/// What may stand between labels, the likeliest first.
const SEPARATORS: [char; 4] = [';', '|', ',', ' '];
/// Rows that are looked at.
const ROWS: usize = 10_000;

/// What is known of a table before it is opened; the rest is found by looking at it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Hints {
    /// What is to be predicted.
    pub kind: TargetKind,
    /// The column with the path of each image.
    pub image: Option<String>,
    /// Columns with what is to be predicted; empty where all that can be meant are.
    pub targets: Vec<String>,
    /// What is between labels in one column.
    pub separator: Option<char>,
    /// The column that tells training from validation.
    pub part: Option<String>,
    /// Whether such a column is not looked for.
    pub ignore_part: bool,
    /// The folder that paths are relative to.
    pub folder: Option<PathBuf>,
}

impl Hints {
    /// Nothing but what is to be predicted.
    pub fn new(kind: TargetKind) -> Self {
        Self { kind, ..Self::default() }
    }
}

impl TableOptions {
    /// How the table at `path` is to be read: what `hints` does not say is found by the names of columns, and by the first
    /// 10,000 rows.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Table`] and [`Error::NoColumn`]; [`Error::WhichColumn`] where several columns or none
    /// can be meant.
    pub fn find(path: &Path, hints: &Hints) -> Result<Self, Error> {
        let look = Look::at(path)?;
        let image = look.image(hints.image.as_deref())?;
        let part = match &hints.part {
            Some(name) => Some(look.column(name)?),
            None if hints.ignore_part => None,
            None => {
                look.named(PART).find(|&c| c != image && !look.is_asked(hints, c) && look.all(c, is_part))
            }
        };
        let rest: Vec<usize> = match hints.targets.is_empty() {
            true => (0..look.header.len()).filter(|&c| c != image && Some(c) != part).collect(),
            false => hints.targets.iter().map(|name| look.column(name)).collect::<Result<_, _>>()?,
        };
        Ok(Self {
            image: look.header[image].clone(),
            columns: look.columns(hints, &rest)?,
            part: part.map(|c| look.header[c].clone()),
            folder: hints.folder.clone(),
            delimiter: look.delimiter,
        })
    }
}

/// What a cell of a column of parts says: `Some(true)` for validation, `None` for neither part; and whether it says so at
/// all.
pub(crate) fn part_of(cell: &str) -> (Option<bool>, bool) {
    match cell.to_ascii_lowercase().as_str() {
        "train" | "training" | "false" | "no" | "0" => (Some(false), true),
        "val" | "valid" | "validation" | "dev" | "true" | "yes" | "1" => (Some(true), true),
        "test" | "testing" | "" => (None, true),
        _ => (None, false),
    }
}

fn is_part(cell: &str) -> bool {
    part_of(cell).1
}

fn is_indicator(cell: &str) -> bool {
    matches!(
        cell.to_ascii_lowercase().as_str(),
        "" | "0" | "1" | "0.0" | "1.0" | "true" | "false" | "yes" | "no"
    )
}

fn is_number(cell: &str) -> bool {
    cell.parse::<f32>().is_ok_and(f32::is_finite)
}

/// The beginning of a table.
struct Look {
    path: PathBuf,
    delimiter: char,
    header: Vec<String>,
    rows: Vec<csv::StringRecord>,
}

impl Look {
    fn at(path: &Path) -> Result<Self, Error> {
        let broken = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound { path: path.into() },
            _ => Error::Unreadable { path: path.into(), source },
        };
        let wrong = |e: csv::Error| Error::Table {
            path: path.into(),
            line: e.position().map_or(0, csv::Position::line),
            what: e.to_string(),
        };
        let mut first = String::new();
        BufReader::new(std::fs::File::open(path).map_err(broken)?).read_line(&mut first).map_err(broken)?;
        let times = |c: &char| first.matches(*c).count();
        // Of equals the first: a comma.
        let delimiter = ['\t', ';', ','].into_iter().max_by_key(times).unwrap_or(',');
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter as u8)
            .trim(csv::Trim::All)
            .from_path(path)
            .map_err(wrong)?;
        let header =
            reader.headers().map_err(wrong)?.iter().map(|h| h.trim_start_matches('\u{feff}').to_owned());
        let header = header.collect();
        let rows = reader.records().take(ROWS).collect::<Result<_, _>>().map_err(wrong)?;
        Ok(Self { path: path.into(), delimiter, header, rows })
    }

    fn column(&self, name: &str) -> Result<usize, Error> {
        self.header.iter().position(|h| h == name).ok_or_else(|| Error::NoColumn {
            path: self.path.clone(),
            column: name.into(),
            columns: self.listed(),
        })
    }

    fn listed(&self) -> Vec<String> {
        self.header.iter().map(|h| format!("`{h}`")).collect()
    }

    /// The columns with these names, the likeliest first.
    fn named<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
        names.iter().filter_map(|name| self.header.iter().position(|h| h.eq_ignore_ascii_case(name)))
    }

    fn is_asked(&self, hints: &Hints, column: usize) -> bool {
        hints.targets.contains(&self.header[column])
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().map(move |row| row.get(column).unwrap_or_default())
    }

    fn all(&self, column: usize, is: fn(&str) -> bool) -> bool {
        self.cells(column).all(is) && self.cells(column).any(|cell| !cell.is_empty())
    }

    /// The column of paths.
    fn image(&self, asked: Option<&str>) -> Result<usize, Error> {
        if let Some(name) = asked {
            return self.column(name);
        }
        let looks = |c: &usize| self.cells(*c).next().is_some_and(has_extension);
        let found =
            self.named(IMAGE).find(|c| looks(c)).or_else(|| (0..self.header.len()).find(|c| looks(c)));
        found
            .or_else(|| self.named(IMAGE).next())
            .ok_or_else(|| self.which("holds the paths of images", "data.image"))
    }

    fn which(&self, what: &'static str, key: &'static str) -> Error {
        Error::WhichColumn { path: self.path.clone(), what, key, columns: self.listed() }
    }

    fn columns(&self, hints: &Hints, rest: &[usize]) -> Result<Columns, Error> {
        let names = |columns: &[usize]| columns.iter().map(|&c| self.header[c].clone()).collect::<Vec<_>>();
        let asked = !hints.targets.is_empty();
        let by_name = || self.named(CLASS).find(|c| rest.contains(c));
        match (hints.kind, rest) {
            (TargetKind::Values, _) if asked => Ok(Columns::Values(hints.targets.clone())),
            (TargetKind::Values, _) => {
                let numbers: Vec<_> = rest.iter().copied().filter(|&c| self.all(c, is_number)).collect();
                match numbers.is_empty() {
                    true => Err(self.which("holds a number to predict in every row", "data.targets")),
                    false => Ok(Columns::Values(names(&numbers))),
                }
            }
            (TargetKind::Classes, &[only]) if !self.all(only, is_indicator) => Ok(self.tags(hints, only)),
            (TargetKind::Classes, _) if asked => Ok(Columns::Indicators(hints.targets.clone())),
            (TargetKind::Classes, _) => {
                let indicators: Vec<_> =
                    rest.iter().copied().filter(|&c| self.all(c, is_indicator)).collect();
                match (indicators.is_empty(), by_name()) {
                    (false, _) => Ok(Columns::Indicators(names(&indicators))),
                    (true, Some(tags)) => Ok(self.tags(hints, tags)),
                    (true, None) => Err(self.which("holds the labels", "data.targets")),
                }
            }
            (_, &[only]) => Ok(Columns::Class(self.header[only].clone())),
            (_, _) if asked => Err(Error::Table {
                path: self.path.clone(),
                line: 0,
                what: format!(
                    "the class of an image is in one column, and {} are named: for several labels an image take \
                     `--recipe t4-labels` or another recipe with the loss `binary_cross_entropy`",
                    rest.len()
                ),
            }),
            (_, _) => match by_name() {
                Some(class) => Ok(Columns::Class(self.header[class].clone())),
                None => Err(self.which("holds the class", "data.targets")),
            },
        }
    }

    /// Labels in one column.
    fn tags(&self, hints: &Hints, column: usize) -> Columns {
        let occurs = |c: &char| self.cells(column).any(|cell| cell.contains(*c));
        let separator = hints.separator.or_else(|| SEPARATORS.into_iter().find(occurs)).unwrap_or(';');
        Columns::Tags { column: self.header[column].clone(), separator }
    }
}

fn has_extension(cell: &str) -> bool {
    const ALL: [&str; 9] = ["jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "avif"];
    Path::new(cell)
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| ALL.contains(&&*e.to_ascii_lowercase()))
}

/// In words: which column holds what.
impl fmt::Display for TableOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| {
            let shown: BTreeSet<_> = names.iter().take(4).map(|n| format!("`{n}`")).collect();
            let shown = shown.into_iter().collect::<Vec<_>>().join(", ");
            if names.len() > 4 { format!("{shown} and {} more", names.len() - 4) } else { shown }
        };
        write!(f, "images in `{}`, ", self.image)?;
        match &self.columns {
            Columns::Class(name) => write!(f, "classes in `{name}`")?,
            Columns::Tags { column, separator } => write!(f, "labels in `{column}` between `{separator}`")?,
            Columns::Indicators(names) if names.is_empty() => write!(f, "a label in every other column")?,
            Columns::Indicators(names) => write!(f, "labels in {}", list(names))?,
            Columns::Values(names) => write!(f, "numbers in {}", list(names))?,
        }
        match &self.part {
            Some(name) => write!(f, ", parts in `{name}`"),
            None => Ok(()),
        }
    }
}
