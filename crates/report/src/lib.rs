//! A run folder as pictures.
//!
//! [`write()`] makes `report.html`: one file with curves, confusion matrix, mistakes and the recipe, that needs no network
//! and no viewer but a browser; [`curves_svg`], [`confusion_svg`], [`lr_find_svg`] and [`probe_svg`] give single plots,
//! [`png()`] makes pixels of them, and [`with_captions`] writes the words of a contact sheet.
//!
//! **The key decision: the report is made from the run's files, after the fact, by nobody who trains.** It can be made
//! again at any time, for a run of another machine, and for one that was killed: what is missing is left out, what is
//! broken is said, and the rest is shown. So nothing about a run is known only to the process that ran it.
//!
//! The page is built by `maud`, whose templates are checked by the compiler and escape every value, and drawn by
//! `plotters`. Class names, paths and recipes are taken to be hostile.

mod error;
mod matrix;
mod origin;
mod page;
mod plot;
mod raster;
mod run;
mod say;
mod story;
mod theme;
mod thumb;

use std::path::{Path, PathBuf};

pub use error::{Error, Result};
pub use origin::Origin;
pub use plot::{lr_find_svg, probe_svg};
pub use raster::{png, save, with_captions};

use defrost_train::{DRIFT, SIMILARITY, SOURCE_ACCURACY};

use crate::run::Run;

/// The report's file name within a run folder.
pub const FILE: &str = "report.html";

/// What a report may show and weigh.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// The folder of images, where it is not the one that [`Origin::data`] names.
    pub data: Option<PathBuf>,
    /// Pictures of mistakes at most.
    pub pictures: usize,
    /// Bytes that these pictures take at most.
    pub picture_bytes: usize,
}

impl Default for Options {
    /// 240 pictures of 3 MB together: with them, a report of 10,000 images and 1000 classes stays below 5 MB.
    fn default() -> Self {
        Self { data: None, pictures: 240, picture_bytes: 3_000_000 }
    }
}

/// Writes `report.html` into the run folder `run`, whole or not at all, and returns its path.
///
/// # Errors
/// [`Error::NotARun`] for a folder without any file of a run, [`Error::Read`] and [`Error::Write`] for what the system
/// refuses. A run that is incomplete or partly broken is no error.
pub fn write(run: &Path) -> Result<PathBuf> {
    write_with(run, &Options::default())
}

/// [`write()`] with options.
///
/// # Errors
/// As [`write()`].
pub fn write_with(run: &Path, options: &Options) -> Result<PathBuf> {
    let page = html(run, options)?;
    let path = run.join(FILE);
    defrost_weights::atomic::write_bytes(&path, page.as_bytes())?;
    Ok(path)
}

/// The report of the run folder `run` as HTML.
///
/// # Errors
/// As [`write()`], but for writing.
pub fn html(run: &Path, options: &Options) -> Result<String> {
    page::page(&Run::read(run)?, options)
}

/// The sentence that one would say aloud about the run in the folder `run`.
///
/// # Errors
/// As [`html`].
pub fn sentence(run: &Path) -> Result<String> {
    Ok(story::headline(&Run::read(run)?).text())
}

/// Loss and accuracy of the run in the folder `run` over its epochs, as an SVG file for light and dark ground.
///
/// # Errors
/// As [`html`], and [`Error::Nothing`] before the first epoch is done.
pub fn curves_svg(run: &Path) -> Result<String> {
    let (svg, width, height) = plot::both(&Run::read(run)?)?;
    Ok(plot::alone(&svg, width, height))
}

/// The confusion matrix of the run in the folder `run`, as an SVG file for light and dark ground. Of many classes it
/// shows the most confused ones.
///
/// # Errors
/// As [`html`], and [`Error::Nothing`] without a validation or in regression.
pub fn confusion_svg(run: &Path) -> Result<String> {
    let run = Run::read(run)?;
    let validation = run.validation.as_ref().filter(|v| !v.confusion.is_empty());
    let (svg, width, height) =
        plot::confusion(validation.ok_or(Error::Nothing("the run has no confusion matrix"))?)?;
    Ok(plot::alone(&svg, width, height))
}

/// Whether a metric of an epoch has its own plot.
fn is_stage_metric(name: &str) -> bool {
    name.starts_with(DRIFT) || name.starts_with(SIMILARITY) || name == SOURCE_ACCURACY
}

#[cfg(test)]
mod tests;
