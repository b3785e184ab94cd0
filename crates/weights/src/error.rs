//! The one error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

use crate::Format;

/// The result of reading or writing a weight file.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a weight file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something went wrong with the file at `path`; the source says what.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong with it.
        source: Box<Self>,
    },
    /// The operating system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done, as in "cannot …".
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is full. What was there before is untouched.
    #[error("no space left on the disk: {needed} bytes are needed; the previous file is untouched")]
    NoSpace {
        /// The bytes that the whole file needs.
        needed: u64,
    },
    /// The bytes are not what the format prescribes.
    #[error("not a sound {format} file: {what}")]
    Malformed {
        /// The format that was being read.
        format: Format,
        /// What is wrong, and where.
        what: String,
    },
    /// The file is sound but holds something that is no array of numbers or is not read here.
    #[error("{format}: {what} is not supported")]
    Unsupported {
        /// The format that was being read.
        format: Format,
        /// What was found.
        what: String,
    },
    /// A pickle names a Python object that a weight file has no need of. Nothing was run.
    #[error(
        "{format}: refused, because the pickle asks for the Python object `{global}`; save the weights alone \
         (in PyTorch `torch.save(model.state_dict(), …)`) or as safetensors"
    )]
    Global {
        /// The format that was being read.
        format: Format,
        /// Module and name of the object.
        global: String,
    },
    /// A pickle has an instruction that is unknown or not read here.
    #[error("{format}: pickle opcode 0x{opcode:02x} at byte {at} is not supported")]
    Opcode {
        /// The format that was being read.
        format: Format,
        /// The instruction.
        opcode: u8,
        /// Where it stands in the pickle.
        at: usize,
    },
    /// No format of this crate.
    #[error("not a weight file of a known format: {what}")]
    Unknown {
        /// What the file looks like.
        what: String,
    },
    /// The file asks for more memory than a file of its size may.
    #[error("{format}: {what} is over the limit of {limit}")]
    TooLarge {
        /// The format that was being read.
        format: Format,
        /// What is too large.
        what: String,
        /// The limit, with its unit.
        limit: String,
    },
}

impl Error {
    pub(crate) fn malformed(format: Format, what: impl Into<String>) -> Self {
        Self::Malformed { format, what: what.into() }
    }

    pub(crate) fn unsupported(format: Format, what: impl Into<String>) -> Self {
        Self::Unsupported { format, what: what.into() }
    }

    /// Names the file an error belongs to, once.
    pub(crate) fn at(self, path: &Path) -> Self {
        match self {
            Self::File { .. } => self,
            other => Self::File { path: path.to_owned(), source: Box::new(other) },
        }
    }
}
