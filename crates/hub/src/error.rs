//! What can go wrong between a name and a file.

use std::io;
use std::path::PathBuf;

use crate::Checksum;

/// Why a file is not here: what was tried, what came of it, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that no server can have, or that would leave the cache's folder.
    #[error("`{name}` is not a name of {what}")]
    Name {
        /// What it should name, as in "a repository".
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Downloads are forbidden and the file is not there.
    #[error(
        "{file} is not in {}, and {variable} forbids downloads: unset it, or bring {url} another way and give the file \
         with `--weights FILE`",
        place.display()
    )]
    Offline {
        /// The file's name.
        file: String,
        /// The folder that was looked in.
        place: PathBuf,
        /// The variable.
        variable: &'static str,
        /// Where it could be had.
        url: String,
    },
    /// No answer.
    #[error(
        "there is no way to {url} ({reason}): check the network and HTTPS_PROXY, set {mirror} to a mirror, or bring the \
         file another way and give it with `--weights FILE`"
    )]
    NoNetwork {
        /// Where from.
        url: String,
        /// What failed: the name, the connection, its certificate.
        reason: String,
        /// The variable that names another server.
        mirror: &'static str,
    },
    /// An answer that is a refusal.
    #[error("{url} was answered with {status}: {reason}")]
    Refused {
        /// Where from.
        url: String,
        /// The status, as in 404.
        status: u16,
        /// What that means here.
        reason: String,
    },
    /// An answer that cannot be understood.
    #[error("{url} was not answered as it should be: {what}")]
    Answer {
        /// Where from.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// A transfer that broke again and again.
    #[error(
        "the transfer of {url} broke off at {done} of {} ({reason}); what has come is kept, and the same command goes on \
         from there", total.map_or("an unknown number of bytes".to_owned(), |t| format!("{t} bytes"))
    )]
    Broken {
        /// Where from.
        url: String,
        /// Bytes that are here.
        done: u64,
        /// Bytes of the whole file.
        total: Option<u64>,
        /// What broke it last.
        reason: String,
    },
    /// A file that is not the published one. It has not been kept.
    #[error(
        "{url} is not the published file: its checksum is {got} and should be {want}; it has been thrown away"
    )]
    Checksum {
        /// Where from.
        url: String,
        /// The published one.
        want: Checksum,
        /// The file's.
        got: Checksum,
    },
    /// A file that nothing vouches for.
    #[error(
        "neither its name nor the server says which checksum {url} has, so it is not used; give it with `--weights FILE`"
    )]
    NoChecksum {
        /// Where from.
        url: String,
    },
    /// The disk is full.
    #[error("no space left for {}: {needed} bytes are needed", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Bytes that are still missing.
        needed: u64,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as in "cannot …".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl HubError {
    /// For `map_err`: the system refused to `action` the file at `path`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
