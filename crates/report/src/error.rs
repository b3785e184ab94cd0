//! What can go wrong with a report.

use std::io;
use std::path::PathBuf;

/// The result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no report. A run that is incomplete is none of these: it gives an incomplete report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder holds none of the files of a run.
    #[error("{} is no run: it has neither recipe.toml nor metrics.jsonl nor validation.json", .0.display())]
    NotARun(PathBuf),
    /// A file is there and the system does not let it be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The run has nothing of what the picture would show.
    #[error("nothing to draw: {0}")]
    Nothing(&'static str),
    /// The drawing library failed.
    #[error("the plot cannot be drawn: {0}")]
    Draw(String),
    /// The report cannot be written.
    #[error(transparent)]
    Write(#[from] defrost_weights::Error),
}
