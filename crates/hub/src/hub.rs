//! The hub's routes and its cache.
//!
//! The cache is that of Python's `huggingface_hub`: `models--owner--name` holds `blobs/SHA256`, for each commit
//! `snapshots/COMMIT/FILE` as a link to a blob, and for each branch `refs/BRANCH` with a commit. Locks lie in `.locks`
//! under the same names, so that a download here and one in Python keep out of each other's way.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checksum::is_hex;
use crate::download::{Job, beside, bring, refused, replace};
use crate::http::{Failure, Http, Request, answer, text};
use crate::{Checksum, Event, HubError, Settings};

/// The variable that names another hub.
pub(crate) const MIRROR: &str = "HF_ENDPOINT";

/// A file of a repository at a revision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HubFile<'a> {
    pub(crate) repo: &'a str,
    pub(crate) revision: &'a str,
    pub(crate) file: &'a str,
}

impl HubFile<'_> {
    pub(crate) fn check(&self) -> Result<(), HubError> {
        let bad = |what, name: &str| Err(HubError::Name { what, name: name.into() });
        if self.repo.split('/').count() != 2 || !is_path(self.repo) || self.repo.contains("--") {
            return bad("a repository (OWNER/NAME)", self.repo);
        }
        if !is_path(self.revision) {
            return bad("a branch, tag or commit", self.revision);
        }
        if !is_path(self.file) {
            return bad("a file of a repository", self.file);
        }
        Ok(())
    }

    /// Where the file is found on the hub.
    pub(crate) fn url(&self, settings: &Settings) -> String {
        let &Self { repo, revision, file } = self;
        format!("{}/{repo}/resolve/{}/{file}", settings.hub_endpoint, revision.replace('/', "%2F"))
    }

    /// The repository's folder in the cache.
    pub(crate) fn folder(&self, settings: &Settings) -> PathBuf {
        settings.hub_cache.join(format!("models--{}", self.repo.replace('/', "--")))
    }

    /// The file in the cache, if it is there.
    pub(crate) fn cached(&self, settings: &Settings) -> Option<PathBuf> {
        let folder = self.folder(settings);
        let commit = match is_commit(self.revision) {
            true => self.revision.to_owned(),
            false => fs::read_to_string(folder.join("refs").join(self.revision)).ok()?.trim().to_owned(),
        };
        let path = is_commit(&commit).then(|| folder.join("snapshots").join(commit).join(self.file))?;
        path.exists().then_some(path)
    }

    /// The checksum of a file in the cache: the name of the blob that it links to.
    pub(crate) fn checksum(path: &Path) -> Option<Checksum> {
        let blob = fs::read_link(path).ok()?;
        Checksum::in_etag(blob.file_name()?.to_str()?)
    }

    /// Asks the hub and brings what the cache lacks.
    pub(crate) fn fetch(
        &self,
        http: &Http,
        settings: &Settings,
        replace_blob: bool,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<(PathBuf, bool), HubError> {
        let Known { commit, sha256, size } = self.ask(http, settings)?;
        let folder = self.folder(settings);
        let blob = folder.join("blobs").join(&sha256);
        let locks = settings.hub_cache.join(".locks").join(folder.file_name().unwrap_or_default());
        // By the commit, so that a change on the hub between two attempts does not mix two files.
        let url = HubFile { revision: &commit, repo: self.repo, file: self.file }.url(settings);
        let job = Job {
            url: &url,
            token: settings.token.as_deref(),
            mirror: MIRROR,
            target: &blob,
            lock: locks.join(format!("{sha256}.lock")),
            checksum: Some(Checksum::Sha256(sha256)),
            size,
            replace: replace_blob,
        };
        let brought = bring(&job, http, settings, on_event)?;
        let pointer = folder.join("snapshots").join(&commit).join(self.file);
        link(&blob, &pointer, self.file.split('/').count() + 1)?;
        if !is_commit(self.revision) {
            replace(&folder.join("refs").join(self.revision), commit.as_bytes())?;
        }
        Ok((pointer, brought))
    }

    /// What the hub knows of the file, without its bytes.
    fn ask(&self, http: &Http, settings: &Settings) -> Result<Known, HubError> {
        let url = self.url(settings);
        let token = settings.token.as_deref();
        let knows = |headers: &ureq::http::HeaderMap| headers.contains_key("x-repo-commit");
        let mut wait = settings.first_wait;
        let mut left = settings.attempts;
        let response = loop {
            left -= 1;
            match http.head(Request { url: &url, token, from: 0 }, knows) {
                Ok(response) => break response,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(_)) if left > 0 => {
                    std::thread::sleep(wait);
                    wait *= 2;
                }
                Err(Failure::NoWay(reason) | Failure::Passing(reason)) => {
                    return Err(HubError::NoNetwork { url, reason, mirror: MIRROR });
                }
            }
        };
        let (status, headers) = (response.status(), response.headers());
        if !(status.is_success() || status.is_redirection()) {
            return Err(refused(&url, true, token.is_some(), status.as_u16(), headers));
        }
        let commit = text(headers, "x-repo-commit").filter(|c| is_commit(c));
        let commit =
            commit.ok_or_else(|| answer(&url, "it does not say which commit this is (x-repo-commit)"))?;
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag")).unwrap_or_default();
        let Some(Checksum::Sha256(sha256)) = Checksum::in_etag(etag) else {
            return Err(HubError::NoChecksum { url });
        };
        let own_length = if status.is_success() { text(headers, "content-length") } else { None };
        let size = text(headers, "x-linked-size").or(own_length).and_then(|v| v.parse().ok());
        Ok(Known { commit: commit.into(), sha256, size })
    }
}

/// What the hub says of a file.
struct Known {
    commit: String,
    sha256: String,
    size: Option<u64>,
}

/// Makes `pointer` lead to `blob`, which lies `up` folders higher and then in `blobs`.
fn link(blob: &Path, pointer: &Path, up: usize) -> Result<(), HubError> {
    let folder = pointer.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(HubError::io("make the folder", folder))?;
    let beside = beside(pointer);
    #[cfg(unix)]
    let made = {
        let mut to: PathBuf = std::iter::repeat_n("..", up).collect();
        to.extend(["blobs".as_ref(), blob.file_name().unwrap_or_default()]);
        std::os::unix::fs::symlink(to, &beside)
    };
    // Elsewhere a link may need rights that users do not have.
    #[cfg(not(unix))]
    let made = {
        let _ = up;
        fs::hard_link(blob, &beside).or_else(|_| fs::copy(blob, &beside).map(drop))
    };
    made.and_then(|()| fs::rename(&beside, pointer)).map_err(HubError::io("link", pointer))
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether `text` is a relative path of plain names, so that it stays where it is put.
pub(crate) fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    text.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain))
}
