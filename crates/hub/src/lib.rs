//! Published weight files: found where other tools keep theirs, downloaded where missing.
//!
//! The decision that shapes this crate: **one machine, one copy.** What is downloaded lands in the folders, and under the
//! names, that the tool it was published for would use: the Hugging Face cache, torch's checkpoints, Keras' models. So what
//! Python has already brought is used without a network, and what is brought here is there for Python.
//!
//! A file appears under its name only when all of it has come, its checksum is the published one and it is on the disk.
//! Until then it is `….incomplete` beside its place; a transfer that breaks goes on from there, in the same call, in the
//! next one and in another process. A lock keeps two processes from bringing the same file twice.
//!
//! This crate knows no network and no registry: which file belongs to which weights is the zoo's knowledge.
//!
//! `hf-hub` is not used: its 0.5 knows neither checksums, `HF_HUB_CACHE` nor offline mode, appends a whole file to a part
//! of it where a server ignores `Range`, and serves only the hub; its 1.0 brings an asynchronous runtime.

mod checksum;
mod download;
mod error;
mod http;
mod hub;
mod remote;
mod settings;

pub use checksum::Checksum;
pub use error::HubError;
pub use remote::{Fetched, Remote, Reuse};
pub use settings::Settings;

use std::path::PathBuf;
use std::time::Duration;

/// What happens during a download, for whoever shows progress.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Another process is bringing the same file; its end is waited for.
    Waiting {
        /// The lock it holds.
        lock: PathBuf,
    },
    /// Bytes begin to arrive.
    Start {
        /// Where from.
        url: String,
        /// Bytes of the whole file, where the server says so.
        total: Option<u64>,
        /// Bytes that an earlier transfer has left.
        done: u64,
    },
    /// More bytes have arrived.
    Progress {
        /// Bytes so far.
        done: u64,
        /// Bytes of the whole file, where the server says so.
        total: Option<u64>,
    },
    /// The transfer broke; the next attempt goes on where it ended.
    Retry {
        /// What broke it.
        reason: String,
        /// The time until the next attempt.
        wait: Duration,
    },
    /// Everything has come; its checksum is computed.
    Verify {
        /// Bytes of the file.
        bytes: u64,
    },
}
