//! How a run came to be: what the run itself does not know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Result;

/// How a run came to be, for the report's part on repeating it: the file [`Origin::FILE`] of a run folder.
///
/// The trainer sees only data sets and sessions; the program that called it knows the command line, the folder of
/// images and where the weights were from. All fields may be left out.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Origin {
    /// The command that makes the same run again, as one would type it.
    pub command: String,
    /// When the run began, for people, as in `2026-11-21 10:04`.
    pub started: String,
    /// The folder of images that the paths in `validation.json` are below.
    pub data: Option<PathBuf>,
    /// Programs and libraries by name, with their versions.
    pub versions: BTreeMap<String, String>,
    /// Hashes by what they are of (`weights`, `data`, …), with the algorithm in front, as in `sha256:6bda…`.
    pub hashes: BTreeMap<String, String>,
    /// Images of each class in the training part, in the order of the classes.
    pub train_counts: Vec<usize>,
    /// Further facts in words, by name.
    pub facts: BTreeMap<String, String>,
    /// Warnings about the data, a line each.
    pub warnings: Vec<String>,
}

impl Origin {
    /// The file's name within a run folder.
    pub const FILE: &'static str = "origin.json";

    /// Writes it into the folder of a run, whole or not at all. It belongs there when the run starts, so that the report
    /// of a run that is killed has it too.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write).
    pub fn write(&self, run: &Path) -> Result<()> {
        // Strings, lists and maps of strings always are JSON.
        let json = serde_json::to_vec_pretty(self).unwrap_or_default();
        Ok(defrost_weights::atomic::write_bytes(run.join(Self::FILE), &json)?)
    }
}
