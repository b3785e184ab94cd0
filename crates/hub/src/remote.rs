//! A published file: its name, its place, how it gets there.

use std::path::{Path, PathBuf};

use crate::download::{Job, bring};
use crate::http::Http;
use crate::hub::{HubFile, is_path};
use crate::{Checksum, Event, HubError, Settings};

/// A file that somebody publishes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Remote {
    /// A file of a model repository on the hub; its SHA-256 is what the hub says.
    Hub {
        /// The repository, `owner/name`.
        repo: String,
        /// A branch, a tag or a commit.
        revision: String,
        /// The file's path in it.
        file: String,
    },
    /// A file of torchvision's storage; its name holds the first digits of its SHA-256.
    Torch {
        /// Its name.
        file: String,
    },
    /// A file of Keras applications.
    Keras {
        /// Its path in Keras' storage.
        path: String,
        /// Its MD5 as Keras publishes it; without one the storage must say it.
        md5: Option<String>,
    },
}

/// What of a file that is there already is good enough.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reuse {
    /// As it is: it was verified when it came.
    Cached,
    /// Once its checksum has been computed again; a damaged one is replaced.
    Verified,
    /// Nothing: the server is asked what the file is now, and sends it.
    Nothing,
}

/// A file that is there.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Fetched {
    /// Where.
    pub path: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// Whether it was brought just now.
    pub downloaded: bool,
}

impl Remote {
    /// `model.safetensors` of the hub's repository `repo`, on its main branch.
    pub fn hub(repo: impl Into<String>) -> Self {
        Self::Hub { repo: repo.into(), revision: "main".into(), file: "model.safetensors".into() }
    }

    /// The file's own name.
    pub fn name(&self) -> &str {
        let path = match self {
            Self::Hub { file, .. } | Self::Torch { file } => file,
            Self::Keras { path, .. } => path,
        };
        path.rsplit('/').next().unwrap_or(path)
    }

    /// Where it can be had.
    pub fn url(&self, settings: &Settings) -> String {
        match self {
            Self::Hub { repo, revision, file } => HubFile { repo, revision, file }.url(settings),
            Self::Torch { file } => format!("{}/{file}", settings.torch_endpoint),
            Self::Keras { path, .. } => format!("{}/{path}", settings.keras_endpoint),
        }
    }

    /// The file on this machine, if it is there. Nothing is asked and nothing is read of it.
    pub fn cached(&self, settings: &Settings) -> Option<PathBuf> {
        self.check().ok()?;
        match self {
            Self::Hub { repo, revision, file } => HubFile { repo, revision, file }.cached(settings),
            _ => Some(self.place(settings)).filter(|path| path.is_file()),
        }
    }

    /// The file, brought if `reuse` does not let what is there pass.
    ///
    /// # Errors
    /// [`HubError`]: downloads forbidden, no network, a refusal, a transfer that breaks again and again, a wrong checksum,
    /// a disk that is full or refuses.
    pub fn fetch(
        &self,
        settings: &Settings,
        reuse: Reuse,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Fetched, HubError> {
        self.check()?;
        let mut replace = reuse == Reuse::Nothing;
        if let Some(path) = self.cached(settings).filter(|_| !replace) {
            let fetched = there(&path, false)?;
            let checksum = if reuse == Reuse::Verified { self.checksum(&path) } else { None };
            let Some(checksum) = checksum else { return Ok(fetched) };
            on_event(Event::Verify { bytes: fetched.bytes });
            if checksum.check(&path).map_err(HubError::io("read", &path))?.is_ok() {
                return Ok(fetched);
            }
            replace = true;
        }
        if let Some(variable) = settings.offline {
            let place = self.place(settings).parent().unwrap_or(Path::new("")).into();
            let (file, url) = (self.name().into(), self.url(settings));
            return Err(HubError::Offline { file, place, variable, url });
        }
        let http = Http::new(settings)?;
        let (path, downloaded) = match self {
            Self::Hub { repo, revision, file } => {
                HubFile { repo, revision, file }.fetch(&http, settings, replace, on_event)?
            }
            Self::Torch { .. } | Self::Keras { .. } => {
                let (target, url) = (self.place(settings), self.url(settings));
                let folder = target.parent().unwrap_or(Path::new(""));
                let job = Job {
                    url: &url,
                    token: None,
                    mirror: match self {
                        Self::Keras { .. } => "DEFROST_KERAS_ENDPOINT",
                        _ => "DEFROST_TORCH_ENDPOINT",
                    },
                    target: &target,
                    lock: folder.join(".locks").join(format!("{}.lock", self.name())),
                    checksum: self.published(),
                    size: None,
                    replace,
                };
                let brought = bring(&job, &http, settings, on_event)?;
                (target, brought)
            }
        };
        there(&path, downloaded)
    }

    /// The folder's path with the file's name; for the hub, the repository's folder in its cache with it.
    fn place(&self, settings: &Settings) -> PathBuf {
        match self {
            Self::Hub { repo, revision, file } => {
                HubFile { repo, revision, file }.folder(settings).join(self.name())
            }
            Self::Torch { .. } => settings.torch_cache.join(self.name()),
            Self::Keras { .. } => settings.keras_cache.join(self.name()),
        }
    }

    /// The checksum that is known without asking anybody.
    fn published(&self) -> Option<Checksum> {
        match self {
            Self::Hub { .. } => None,
            Self::Torch { file } => Checksum::in_name(file),
            Self::Keras { md5, .. } => md5.clone().map(Checksum::Md5),
        }
    }

    /// The checksum of the file at `path` in the cache, where it is known.
    fn checksum(&self, path: &Path) -> Option<Checksum> {
        self.published().or_else(|| HubFile::checksum(path))
    }

    fn check(&self) -> Result<(), HubError> {
        match self {
            Self::Hub { repo, revision, file } => HubFile { repo, revision, file }.check(),
            Self::Torch { file: path } | Self::Keras { path, .. } if is_path(path) => Ok(()),
            Self::Torch { file: path } | Self::Keras { path, .. } => {
                Err(HubError::Name { what: "a weight file", name: path.clone() })
            }
        }
    }
}

fn there(path: &Path, downloaded: bool) -> Result<Fetched, HubError> {
    let bytes = std::fs::metadata(path).map_err(HubError::io("look at", path))?.len();
    Ok(Fetched { path: path.into(), bytes, downloaded })
}
