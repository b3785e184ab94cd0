//! Pictures and what they show, as the loss of a recipe wants it: folders of classes, and tables.

use std::path::{Path, PathBuf};

use defrost_data::{
    Channels, Columns, Dataset, DecodeOptions, Error as DataError, Hints, Options, Splits, TableOptions,
    TargetKind,
};
use defrost_policy::{Data, Recipe, Task};
use defrost_train::Folder;

use crate::Error;

/// Where pictures are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// A folder of classes, or a table.
    pub(crate) data: &'a Path,
    /// The folder that the paths of a table are relative to.
    pub(crate) images: Option<&'a Path>,
}

/// Opens pictures to train on as `recipe` says, and says how a table was read.
pub(crate) fn open(place: Place<'_>, recipe: &Recipe) -> Result<(Splits, Option<TableOptions>), Error> {
    let decode = decode_options(recipe.model.in_channels);
    let options = Options {
        val_fraction: recipe.data.val_fraction,
        seed: recipe.seed,
        strict: recipe.data.strict,
        decode: DecodeOptions { max_pixels: recipe.data.max_pixels, ..decode },
        ..Default::default()
    };
    let task = recipe.loss.task();
    if is_table(place.data) {
        let table = TableOptions::find(place.data, &hints(place, &recipe.data, task))?;
        return Ok((Splits::open_table(place.data, &table, &options)?, Some(table)));
    }
    folder_alone(place)?;
    let splits = Splits::open(place.data, &options)?;
    let (train, val) = (as_task(splits.train, task)?, as_task(splits.val, task)?);
    Ok((Splits { train, val, ..splits }, None))
}

/// Opens pictures to measure on: the validation part where there is one, otherwise all of them. `classes` are those of the
/// network's outputs.
pub(crate) fn open_to_measure(
    place: Place<'_>,
    data: &Data,
    task: Task,
    classes: &[String],
    options: Options,
) -> Result<Dataset, Error> {
    let options = Options { classes: Some(classes.to_vec()), val_fraction: 0.0, ..options };
    if is_table(place.data) {
        let hints = hints(place, data, task);
        let mut named = hints.clone();
        named.targets = classes.to_vec();
        // Columns that are called like the outputs, or else what the run itself was told.
        let table = match (task, TableOptions::find(place.data, &named)) {
            (Task::MultiLabel | Task::Regression, Ok(table)) if !is_class(&table) => table,
            (Task::Regression, Err(error)) => return Err(error.into()),
            _ => TableOptions::find(place.data, &hints)?,
        };
        return Ok(Dataset::open_table(place.data, &table, &options)?);
    }
    folder_alone(place)?;
    // The numbers of a regression are no classes that a folder could have.
    let classes = options.classes.clone().filter(|_| task != Task::Regression);
    let splits = Splits::open(place.data, &Options { classes, ..options })?;
    as_task(if splits.val.is_empty() { splits.train } else { splits.val }, task)
}

fn is_class(table: &TableOptions) -> bool {
    matches!(table.columns, Columns::Class(_) | Columns::Tags { .. })
}

fn is_table(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    matches!(extension.as_deref(), Some("csv" | "tsv")) && !path.is_dir()
}

fn folder_alone(place: Place<'_>) -> Result<(), Error> {
    match place.images {
        Some(_) => Err(Error::ImagesWithoutTable { data: place.data.into() }),
        None => Ok(()),
    }
}

fn hints(place: Place<'_>, data: &Data, task: Task) -> Hints {
    let some = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    let mut hints = Hints::new(match task {
        Task::MultiLabel => TargetKind::Classes,
        Task::Regression => TargetKind::Values,
        _ => TargetKind::Class,
    });
    hints.image = some(&data.image);
    hints.targets.clone_from(&data.targets);
    hints.separator = data.separator.chars().next();
    hints.part = some(&data.split).filter(|name| name != "none");
    hints.ignore_part = data.split == "none";
    hints.folder = place.images.map(Path::to_owned);
    hints
}

/// A folder of classes as the task wants it: of several labels the label of a picture is its class; the number of a
/// regression is the class's name where all names are numbers, otherwise its place among the classes.
fn as_task(data: Dataset, task: Task) -> Result<Dataset, Error> {
    let classes = data.classes().to_vec();
    let label = |i: usize| data.samples()[i].label as usize;
    match task {
        Task::MultiLabel => {
            let rows = (0..data.len())
                .flat_map(|i| (0..classes.len()).map(move |c| f32::from(u8::from(c == label(i)))));
            let rows = rows.collect();
            Ok(data.with_targets(TargetKind::Classes, classes, rows)?)
        }
        Task::Regression => {
            let named: Option<Vec<f32>> =
                classes.iter().map(|c| c.parse().ok().filter(|v: &f32| v.is_finite())).collect();
            let value = |i: usize| named.as_ref().map_or(label(i) as f32, |names| names[label(i)]);
            let rows = (0..data.len()).map(value).collect();
            Ok(data.with_targets(TargetKind::Values, vec!["class".into()], rows)?)
        }
        _ => Ok(data),
    }
}

/// How pictures are decoded for a network of `in_channels` channels.
pub(crate) fn decode_options(in_channels: usize) -> DecodeOptions {
    let channels = match in_channels {
        1 => Channels::Grey,
        4 => Channels::Rgba,
        _ => Channels::Rgb,
    };
    DecodeOptions { channels, ..DecodeOptions::default() }
}

/// The file of a run that says where its pictures are.
const DATA: &str = "data.json";

/// Writes where the pictures of the run in `folder` are.
pub(crate) fn remember(folder: &Path, place: Place<'_>) -> Result<(), Error> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
    let mut json = serde_json::json!({ "path": absolute(place.data) });
    if let Some(images) = place.images {
        json["images"] = serde_json::json!(absolute(images));
    }
    Ok(defrost_weights::atomic::write_bytes_unflushed(folder.join(DATA), json.to_string().as_bytes())?)
}

/// Where the pictures of the run in `folder` are, or were: a folder or a table.
pub fn data_of(folder: &Path) -> Option<PathBuf> {
    remembered(folder, "path")
}

/// The folder that the paths of the table of the run in `folder` are relative to, where it was given one.
pub fn images_of(folder: &Path) -> Option<PathBuf> {
    remembered(folder, "images")
}

fn remembered(folder: &Path, key: &str) -> Option<PathBuf> {
    let text = std::fs::read_to_string(Folder::open(folder).ok()?.path().join(DATA)).ok()?;
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    json[key].as_str().map(PathBuf::from)
}

/// Whether an error is about which column is meant: the words of the recipe.
pub(crate) const fn is_about_columns(error: &DataError) -> bool {
    matches!(error, DataError::NoColumn { .. } | DataError::WhichColumn { .. })
}
