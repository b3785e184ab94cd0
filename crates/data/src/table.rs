//! Data sets listed in a CSV file: one class an image, several classes an image, or numbers to predict.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::columns::part_of;
use crate::dataset::Source;
use crate::folder::{check, compare};
use crate::inspect::inspect;
use crate::split::stratified;
use crate::{Dataset, Error, Layout, Options, Sample, Skipped, Splits, TargetKind, Warning};

/// Where a table holds what images show.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Columns {
    /// The name of one class in one column.
    Class(String),
    /// The names of any number of classes in one column, between separators.
    Tags {
        /// The column.
        column: String,
        /// What is between two names (spaces around a name do not count).
        separator: char,
    },
    /// A column for each class with 0 or 1 (or a number between, or true and false, yes and no, nothing for no).
    /// An empty list means all columns but those for image and part.
    Indicators(Vec<String>),
    /// Columns of numbers to predict.
    Values(Vec<String>),
}

impl Default for Columns {
    /// One class in the column `label`.
    fn default() -> Self {
        Self::Class("label".into())
    }
}

/// How a table of images is read.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableOptions {
    /// The column with the path of each image.
    pub image: String,
    /// What images show.
    pub columns: Columns,
    /// The column that says to which part an image belongs: `train`, or `val`, `valid`, `validation`, or whether it is for
    /// validation (0 and 1, false and true); rows of other parts are left out. Without it the table is split.
    pub part: Option<String>,
    /// The folder that paths are relative to; the folder of the table if not given.
    pub folder: Option<PathBuf>,
    /// What is between two cells.
    pub delimiter: char,
}

impl Default for TableOptions {
    /// Columns `image` and `label` with commas, split by seed, paths relative to the table.
    fn default() -> Self {
        Self { image: "image".into(), columns: Columns::default(), part: None, folder: None, delimiter: ',' }
    }
}

impl Splits {
    /// Opens a CSV file with a header line as training and validation data. Class tables are split by class, others
    /// by the hash of seed and name alone.
    ///
    /// # Errors
    /// [`Error::Table`] with the line and [`Error::NoColumn`] for a table that does not fit the options; otherwise as
    /// [`Splits::open`].
    pub fn open_table(path: &Path, table: &TableOptions, options: &Options) -> Result<Self, Error> {
        check(options)?;
        let rows = Rows::read(path, table)?;
        let part = rows.parts.is_some();
        let whole = rows.dataset(path, options, |_| true)?;
        numbers_for_classes(&whole, path)?;
        let flags: Vec<Option<bool>> = if part {
            let kept: HashMap<&str, Option<bool>> =
                rows.names.iter().map(String::as_str).zip(rows.parts.iter().flatten().copied()).collect();
            whole.samples.iter().map(|s| kept[s.name.as_str()]).collect()
        } else {
            let flags = if whole.kind == TargetKind::Class {
                stratified(&whole.samples, whole.classes.len(), options.val_fraction, options.seed)
            } else {
                let alike = |s: &Sample| Sample { label: 0, ..s.clone() };
                let samples: Vec<Sample> = whole.samples.iter().map(alike).collect();
                let mut flags = stratified(&samples, 1, options.val_fraction, options.seed);
                if whole.kind == TargetKind::Classes {
                    learn_every_label(&whole, &mut flags);
                }
                flags
            };
            flags.into_iter().map(Some).collect()
        };
        let side =
            |val: bool| -> Vec<usize> { (0..whole.len()).filter(|&i| flags[i] == Some(val)).collect() };
        let (train, val) = (whole.subset(&side(false)), whole.subset(&side(true)));
        if train.is_empty() {
            return Err(Error::Table { path: path.into(), line: 0, what: "no image is for training".into() });
        }
        if whole.kind != TargetKind::Values {
            every_class(&train, &val, path, whole.skipped.len())?;
        }
        let mut warnings = whole.warnings.clone();
        if whole.kind == TargetKind::Values {
            warnings.extend(
                compare(&train, &val).into_iter().filter(|w| matches!(w, Warning::InBothParts { .. })),
            );
        } else {
            warnings.extend(compare(&train, &val));
        }
        let layout = if part {
            Layout::Folders { train: "train".into(), val: "val".into() }
        } else {
            Layout::Split { fraction: options.val_fraction, seed: options.seed }
        };
        Ok(Self { train, val, layout, skipped: whole.skipped, warnings })
    }
}

impl Dataset {
    /// Opens a CSV file to measure on: its rows for validation where it has a column of parts, otherwise all of it.
    ///
    /// # Errors
    /// As [`Splits::open_table`], and [`Error::UnknownClass`] for a class that is not one of the given ones.
    pub fn open_table(path: &Path, table: &TableOptions, options: &Options) -> Result<Self, Error> {
        check(options)?;
        let rows = Rows::read(path, table)?;
        rows.dataset(path, options, |part| part != Some(&Some(false)))
    }
}

/// A table, read.
struct Rows {
    files: Vec<PathBuf>,
    /// What the files are called in messages and fingerprints: the cells themselves.
    names: Vec<String>,
    /// Whether a row is for validation; `None` for rows of no part. `None` as a whole without such a column.
    parts: Option<Vec<Option<bool>>>,
    content: Content,
}

enum Content {
    Class(Vec<String>),
    Tags(Vec<Vec<String>>),
    Numbers { kind: TargetKind, names: Vec<String>, values: Vec<f32> },
}

impl Rows {
    fn read(path: &Path, table: &TableOptions) -> Result<Self, Error> {
        let wrong = |line: u64, what: String| Error::Table { path: path.into(), line, what };
        let broken = |e: csv::Error| match e.kind() {
            csv::ErrorKind::Io(io) if io.kind() == std::io::ErrorKind::NotFound => {
                Error::NotFound { path: path.into() }
            }
            _ => wrong(e.position().map_or(0, csv::Position::line), e.to_string()),
        };
        let delimiter = u8::try_from(table.delimiter)
            .map_err(|_| wrong(0, format!("`{}` cannot be a delimiter", table.delimiter)))?;
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .from_path(path)
            .map_err(broken)?;
        // Spreadsheets begin their files with a byte order mark.
        let plain = |h: &str| h.trim_start_matches('\u{feff}').to_owned();
        let header: Vec<String> = reader.headers().map_err(broken)?.iter().map(plain).collect();
        let column = |name: &str| {
            let found = header.iter().position(|h| h == name);
            found.ok_or_else(|| Error::NoColumn {
                path: path.into(),
                column: name.into(),
                columns: header.iter().map(|h| format!("`{h}`")).collect(),
            })
        };
        let image = column(&table.image)?;
        let part = table.part.as_deref().map(&column).transpose()?;
        let numbers = match &table.columns {
            Columns::Class(name) | Columns::Tags { column: name, .. } => vec![column(name)?],
            Columns::Indicators(names) if names.is_empty() => {
                (0..header.len()).filter(|&c| c != image && Some(c) != part).collect()
            }
            Columns::Indicators(names) | Columns::Values(names) => {
                names.iter().map(|name| column(name)).collect::<Result<Vec<_>, _>>()?
            }
        };
        if numbers.is_empty() {
            return Err(wrong(1, "no column says what the images show".into()));
        }
        let folder = match (&table.folder, path.parent()) {
            (Some(folder), _) => folder.clone(),
            (None, parent) => parent.unwrap_or(Path::new("")).into(),
        };
        let mut rows = Self {
            files: Vec::new(),
            names: Vec::new(),
            parts: part.map(|_| Vec::new()),
            content: match &table.columns {
                Columns::Class(_) => Content::Class(Vec::new()),
                Columns::Tags { .. } => Content::Tags(Vec::new()),
                other => Content::Numbers {
                    kind: if matches!(other, Columns::Values(_)) {
                        TargetKind::Values
                    } else {
                        TargetKind::Classes
                    },
                    names: numbers.iter().map(|&c| header[c].clone()).collect(),
                    values: Vec::new(),
                },
            },
        };
        let mut seen: HashMap<String, u64> = HashMap::new();
        for record in reader.records() {
            let record = record.map_err(broken)?;
            let line = record.position().map_or(0, csv::Position::line);
            let name = &record[image];
            if name.is_empty() {
                return Err(wrong(line, format!("the column `{}` is empty", table.image)));
            }
            if let Some(before) = seen.insert(name.into(), line) {
                return Err(wrong(line, format!("`{name}` is in line {before} already")));
            }
            let name = name.replace('\\', "/");
            rows.files.push(file(&folder, &name));
            rows.names.push(name.clone());
            if let (Some(parts), Some(part)) = (&mut rows.parts, part) {
                parts.push(part_of(&record[part]).0);
            }
            match &mut rows.content {
                Content::Class(classes) => match &record[numbers[0]] {
                    "" => return Err(wrong(line, format!("`{name}` has no label"))),
                    class => classes.push(class.into()),
                },
                Content::Tags(tags) => {
                    let separator = match &table.columns {
                        Columns::Tags { separator, .. } => *separator,
                        _ => ' ',
                    };
                    let cell = record[numbers[0]].split(separator).map(str::trim);
                    tags.push(cell.filter(|t| !t.is_empty()).map(Into::into).collect());
                }
                Content::Numbers { kind, values, .. } => {
                    for &c in &numbers {
                        let value = number(&record[c], *kind);
                        values.push(value.ok_or_else(|| {
                            let rule = match kind {
                                TargetKind::Values => "a number",
                                _ => {
                                    "0 or 1 (numbers to predict want a recipe with the loss of a regression)"
                                }
                            };
                            wrong(line, format!("`{}` is `{}`, not {rule}", &header[c], &record[c]))
                        })?);
                    }
                }
            }
        }
        if rows.files.is_empty() {
            return Err(wrong(1, "the table has no rows".into()));
        }
        Ok(rows)
    }

    /// The rows of some parts whose images can be used.
    fn dataset(
        &self,
        path: &Path,
        options: &Options,
        wanted: impl Fn(Option<&Option<bool>>) -> bool,
    ) -> Result<Dataset, Error> {
        let rows: Vec<usize> = (0..self.files.len())
            .filter(|&row| {
                let part = self.parts.as_ref().map(|p| &p[row]);
                part != Some(&None) && wanted(part)
            })
            .collect();
        let (classes, targets) = self.targets(&rows, options)?;
        let files: Vec<(PathBuf, u32)> =
            rows.iter().enumerate().map(|(i, &row)| (self.files[row].clone(), i as u32)).collect();
        let looked = inspect(&files, Path::new(""), options.verify(), &options.decode, options.threads);
        let (mut skipped, mut animated) = (Vec::new(), Vec::new());
        let (mut samples, mut kept) = (Vec::new(), Vec::new());
        for ((i, &row), result) in rows.iter().enumerate().zip(looked) {
            match result {
                Err(reason) => skipped.push(Skipped { path: self.files[row].clone(), reason }),
                Ok(file) => {
                    let name = self.names[row].clone();
                    if file.animated {
                        animated.push(name.clone());
                    }
                    let label = match &targets {
                        Targets::Labels(labels) => labels[i],
                        Targets::Numbers { .. } => crate::NO_LABEL,
                    };
                    samples.push(Sample { name, label, ..file.sample });
                    kept.push(i);
                }
            }
        }
        if options.strict && !skipped.is_empty() {
            return Err(Error::Strict { skipped });
        }
        if samples.is_empty() {
            let what = match skipped.first() {
                Some(first) => format!(
                    "no image can be used, the first is {first}; paths are relative to the table, or to the folder that \
                     `--images` gives"
                ),
                None => "no row belongs to this part".into(),
            };
            return Err(Error::Table { path: path.into(), line: 0, what });
        }
        let mut set = Dataset::new(classes.clone(), samples, Source::Files(options.decode));
        if let Targets::Numbers { kind, values } = targets {
            let width = classes.len();
            let values =
                kept.iter().flat_map(|&i| values[i * width..(i + 1) * width].iter().copied()).collect();
            set = set.with_targets(kind, classes, values)?;
        }
        if !animated.is_empty() {
            set.warnings.push(Warning::Animated { files: animated });
        }
        set.skipped = skipped;
        Ok(set)
    }

    /// The classes (or names of values) and what each of the rows shows.
    fn targets(&self, rows: &[usize], options: &Options) -> Result<(Vec<String>, Targets), Error> {
        let known = |found: BTreeSet<&String>| -> Result<Vec<String>, Error> {
            let Some(known) = &options.classes else { return Ok(in_order(found)) };
            match found.into_iter().find(|c| !known.contains(c)) {
                Some(class) => Err(Error::UnknownClass { class: class.clone(), known: known.join(", ") }),
                None => Ok(known.clone()),
            }
        };
        let place = |classes: &[String], name: &String| classes.iter().position(|c| c == name);
        match &self.content {
            Content::Class(all) => {
                let classes = known(rows.iter().map(|&r| &all[r]).collect())?;
                let label = |&r: &usize| place(&classes, &all[r]).unwrap_or_default() as u32;
                let labels = rows.iter().map(label).collect();
                Ok((classes, Targets::Labels(labels)))
            }
            Content::Tags(all) => {
                let classes = known(rows.iter().flat_map(|&r| &all[r]).collect())?;
                let mut values = vec![0.0; rows.len() * classes.len()];
                for (row, &r) in values.chunks_exact_mut(classes.len().max(1)).zip(rows) {
                    all[r].iter().filter_map(|tag| place(&classes, tag)).for_each(|c| row[c] = 1.0);
                }
                Ok((classes, Targets::Numbers { kind: TargetKind::Classes, values }))
            }
            Content::Numbers { kind, names, values } => {
                let classes = known(names.iter().collect());
                // Values have names, and classes keep the order of their columns, unless another is given.
                let classes = match (&options.classes, classes) {
                    (None, _) => names.clone(),
                    (Some(_), classes) => classes?,
                };
                let columns: Vec<Option<usize>> = classes.iter().map(|c| place(names, c)).collect();
                let value = |&r: &usize, c: &Option<usize>| c.map_or(0.0, |c| values[r * names.len() + c]);
                let values = rows.iter().flat_map(|r| columns.iter().map(move |c| value(r, c))).collect();
                Ok((classes, Targets::Numbers { kind: *kind, values }))
            }
        }
    }
}

/// The image that a cell names. An identifier without an extension may stand for a file that has one.
fn file(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    if path.extension().is_some() || path.exists() {
        return path;
    }
    let with = ["jpg", "jpeg", "png", "webp", "gif", "JPG"].map(|extension| path.with_extension(extension));
    with.into_iter().find(|p| p.is_file()).unwrap_or(path)
}

enum Targets {
    Labels(Vec<u32>),
    Numbers { kind: TargetKind, values: Vec<f32> },
}

fn number(cell: &str, kind: TargetKind) -> Option<f32> {
    if kind == TargetKind::Values {
        return cell.parse().ok().filter(|v: &f32| v.is_finite());
    }
    match cell.to_ascii_lowercase().as_str() {
        "" | "false" | "no" => Some(0.0),
        "true" | "yes" => Some(1.0),
        other => other.parse().ok().filter(|v| (0.0..=1.0).contains(v)),
    }
}

/// Sorted by name, or by number where all names are numbers (`2` before `10`).
fn in_order(names: BTreeSet<&String>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().cloned().collect();
    if names.iter().all(|n| n.parse::<i64>().is_ok()) {
        names.sort_by_key(|n| n.parse::<i64>().unwrap_or_default());
    }
    names
}

/// Takes one image from validation to training for each label that would otherwise be in validation alone.
fn learn_every_label(whole: &Dataset, validation: &mut [bool]) {
    for label in 0..whole.classes.len() {
        let has = |i: &usize| whole.targets(*i)[label] > 0.5;
        let images: Vec<usize> = (0..whole.len()).filter(has).collect();
        if let Some(&first) = images.first()
            && images.iter().all(|&i| validation[i])
        {
            validation[first] = false;
        }
    }
}

/// Refuses a column of numbers that hardly repeat where classes or labels are meant.
fn numbers_for_classes(whole: &Dataset, path: &Path) -> Result<(), Error> {
    let classes = &whole.classes;
    let numbers = classes.iter().all(|c| c.parse::<f64>().is_ok());
    if whole.kind == TargetKind::Values || !numbers || classes.len() < 20 || classes.len() * 2 < whole.len() {
        return Ok(());
    }
    let what = format!(
        "the column of {} holds {} different numbers for {} images: to predict the number itself take \
         `--recipe t4-regression`, or another recipe with the loss `huber` or `mean_squared`",
        if whole.kind == TargetKind::Class { "classes" } else { "labels" },
        classes.len(),
        whole.len()
    );
    Err(Error::Table { path: path.into(), line: 0, what })
}

fn every_class(train: &Dataset, val: &Dataset, path: &Path, skipped: usize) -> Result<(), Error> {
    if let (TargetKind::Class, [class]) = (train.kind, train.classes()) {
        return Err(Error::OneClass { path: path.into(), class: class.clone() });
    }
    let counts = train.class_counts().into_iter().zip(val.class_counts());
    match train.classes().iter().zip(counts).find(|(_, (n, _))| *n == 0) {
        None => Ok(()),
        Some((class, (_, 0))) if skipped == 0 => {
            let what = format!("no image for training is of `{class}`: leave it out, or add images of it");
            Err(Error::Table { path: path.into(), line: 0, what })
        }
        Some((class, (_, 0))) => Err(Error::EmptyClass { class: class.clone(), path: path.into(), skipped }),
        Some((class, _)) => Err(Error::OnlyInValidation { class: class.clone(), path: path.into() }),
    }
}
