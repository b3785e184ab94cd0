//! One file from a server to its place: resumed, verified, flushed, renamed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ureq::http::HeaderMap;

use crate::http::{Failure, Http, Request, answer, io_failure, text};
use crate::{Checksum, Event, HubError, Settings};

/// No weight file of an image classifier is larger; a server that sends more is broken.
const LONGEST: u64 = 64 << 30;

/// What is brought, and to where.
pub(crate) struct Job<'a> {
    pub(crate) url: &'a str,
    pub(crate) token: Option<&'a str>,
    /// The variable that names another server.
    pub(crate) mirror: &'static str,
    pub(crate) target: &'a Path,
    pub(crate) lock: PathBuf,
    /// The published checksum; the server's `ETag` must say it otherwise.
    pub(crate) checksum: Option<Checksum>,
    /// The published length.
    pub(crate) size: Option<u64>,
    /// Whether a file at `target` is replaced.
    pub(crate) replace: bool,
}

/// What a transfer found out.
struct Known {
    checksum: Option<Checksum>,
    total: Option<u64>,
    /// Whether all bytes are of one answer.
    in_one: bool,
}

/// Brings the file, unless another process has brought it meanwhile. Returns whether bytes were brought.
pub(crate) fn bring(
    job: &Job<'_>,
    http: &Http,
    settings: &Settings,
    on_event: &mut dyn FnMut(Event),
) -> Result<bool, HubError> {
    let folder = job.target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(HubError::io("make the folder", folder))?;
    let _lock = lock(&job.lock, on_event)?;
    if !job.replace && job.target.exists() {
        return Ok(false);
    }
    let partial = with_suffix(job.target, ".incomplete");
    // Not truncated: what an earlier transfer left is where this one goes on.
    let open = OpenOptions::new().create(true).truncate(false).read(true).append(true).open(&partial);
    let mut file = open.map_err(HubError::io("write to", &partial))?;
    let mut again = false;
    loop {
        let known = transfer(job, &mut file, &partial, http, settings, on_event)?;
        on_event(Event::Verify { bytes: length(&file, &partial)? });
        file.sync_all().map_err(|e| full_or(e, &partial, 0))?;
        let want = known.checksum.ok_or_else(|| HubError::NoChecksum { url: job.url.into() })?;
        match want.check(&partial).map_err(HubError::io("read", &partial))? {
            Ok(()) => break,
            // Pieces of two files, or a part that was damaged on the disk: once more, from nothing.
            Err(_) if !known.in_one && !again => {
                again = true;
                file.set_len(0).map_err(HubError::io("empty", &partial))?;
            }
            Err(got) => {
                let _ = fs::remove_file(&partial);
                return Err(HubError::Checksum { url: job.url.into(), want, got });
            }
        }
    }
    drop(file);
    fs::rename(&partial, job.target).map_err(HubError::io("put in place", job.target))?;
    sync(folder);
    Ok(true)
}

/// Gets all bytes, over as many answers as it takes.
fn transfer(
    job: &Job<'_>,
    file: &mut File,
    partial: &Path,
    http: &Http,
    settings: &Settings,
    on_event: &mut dyn FnMut(Event),
) -> Result<Known, HubError> {
    let had = length(file, partial)?;
    let mut known = Known { checksum: job.checksum.clone(), total: job.size, in_one: had == 0 };
    let (mut before, mut idle) = (had, 0);
    loop {
        let done = length(file, partial)?;
        if known.total == Some(done) && known.checksum.is_some() {
            return Ok(known);
        }
        if known.total.is_some_and(|total| done > total) {
            file.set_len(0).map_err(HubError::io("empty", partial))?;
        }
        let failure = match attempt(job, file, partial, &mut known, http, on_event) {
            Ok(()) => return Ok(known),
            Err(failure) => failure,
        };
        let done = length(file, partial)?;
        let moved = done > before;
        (before, idle) = (done, if moved { 1 } else { idle + 1 });
        let (reason, connected) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::NoWay(reason) => (reason, false),
            Failure::Passing(reason) => (reason, true),
        };
        // Without a network nobody wants to wait for five attempts.
        if !connected && done == had {
            return Err(HubError::NoNetwork { url: job.url.into(), reason, mirror: job.mirror });
        }
        if idle >= settings.attempts {
            return Err(HubError::Broken { url: job.url.into(), done, total: known.total, reason });
        }
        known.in_one &= done == 0;
        let wait = settings.first_wait * (1 << (idle - 1).min(5));
        on_event(Event::Retry { reason, wait });
        std::thread::sleep(wait);
    }
}

/// One request, from where the file ends.
fn attempt(
    job: &Job<'_>,
    file: &mut File,
    partial: &Path,
    known: &mut Known,
    http: &Http,
    on_event: &mut dyn FnMut(Event),
) -> Result<(), Failure> {
    let mut done = length(file, partial)?;
    let response = http.get(Request { url: job.url, token: job.token, from: done })?;
    let (parts, body) = response.into_parts();
    let total = match parts.status.as_u16() {
        206 => {
            let range = text(&parts.headers, "content-range").unwrap_or_default();
            let (first, total) = content_range(range)
                .ok_or_else(|| answer(job.url, format!("the range `{range}` cannot be understood")))?;
            if first != done {
                return Err(answer(job.url, format!("byte {done} was asked for, {first} came")).into());
            }
            total
        }
        // This server sends files whole or not at all.
        200 => {
            file.set_len(0).map_err(HubError::io("empty", partial))?;
            done = 0;
            text(&parts.headers, "content-length").and_then(|v| v.parse().ok())
        }
        // All of it is here already: `bytes */10`.
        416 if done > 0 && content_total(&parts.headers) == Some(done) => {
            known.total = Some(done);
            known.checksum = known.checksum.take().or_else(|| tagged(&parts.headers));
            return Ok(());
        }
        416 if done > 0 => {
            file.set_len(0).map_err(HubError::io("empty", partial))?;
            return Err(Failure::Passing("the server has another file than before".into()));
        }
        status => {
            let is_hub = job.mirror == crate::hub::MIRROR;
            return Err(refused(job.url, is_hub, job.token.is_some(), status, &parts.headers).into());
        }
    };
    match (known.total, total) {
        (Some(want), Some(got)) if want != got => {
            return Err(answer(job.url, format!("it has {got} bytes and should have {want}")).into());
        }
        (None, got) => known.total = got,
        _ => {}
    }
    if known.checksum.is_none() {
        known.checksum = tagged(&parts.headers);
        if known.checksum.is_none() {
            return Err(HubError::NoChecksum { url: job.url.into() }.into());
        }
    }
    on_event(Event::Start { url: job.url.into(), total: known.total, done });
    let (mut reader, mut buffer) = (body.into_reader(), vec![0; 256 << 10]);
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => {
                return Err(match io_failure(&e) {
                    Failure::NoWay(reason) => Failure::Passing(reason),
                    other => other,
                });
            }
        };
        done += n as u64;
        if done > known.total.unwrap_or(LONGEST) {
            file.set_len(0).map_err(HubError::io("empty", partial))?;
            return Err(answer(
                job.url,
                format!("more came than the {} bytes announced", known.total.unwrap_or(LONGEST)),
            )
            .into());
        }
        let missing = known.total.map_or(0, |total| total - (done - n as u64));
        file.write_all(&buffer[..n]).map_err(|e| full_or(e, partial, missing))?;
        on_event(Event::Progress { done, total: known.total });
    }
    match known.total {
        Some(total) if done < total => Err(Failure::Passing("the connection ended early".into())),
        _ => Ok(()),
    }
}

/// What a refusal of the file at `url` means. Only the hub has tokens.
pub(crate) fn refused(
    url: &str,
    is_hub: bool,
    with_token: bool,
    status: u16,
    headers: &HeaderMap,
) -> HubError {
    let meaning = match (status, is_hub) {
        (404 | 410, _) => "there is no such file",
        (401, true) if with_token => "the token (HF_TOKEN, or that of `hf auth login`) does not open it",
        (401, true) => {
            "there is no such repository, or it needs a token: set HF_TOKEN or run `hf auth login`"
        }
        (403, true) => "it needs a token whose owner has accepted its terms on its page",
        (401 | 403, false) => "there is no such file, or it is not public",
        _ => "that was not expected",
    };
    // A server's own words, as far as they are fit for a terminal.
    let said: String = text(headers, "x-error-message")
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    let reason = if said.is_empty() { meaning.into() } else { format!("{meaning} ({said})") };
    HubError::Refused { url: url.into(), status, reason }
}

/// The checksum that the server names.
fn tagged(headers: &HeaderMap) -> Option<Checksum> {
    text(headers, "etag").and_then(Checksum::in_etag)
}

/// The whole length in a `Content-Range`.
fn content_total(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-range")?.rsplit_once('/')?.1.parse().ok()
}

/// The first byte and the whole length of `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-')?.0.trim().parse().ok()?;
    Some((first, total.trim().parse().ok()))
}

/// Waits for the lock at `path`. Where the file system knows no locks there is none: every file is verified before it
/// is used, so two downloads at once cost time and nothing else.
fn lock(path: &Path, on_event: &mut dyn FnMut(Event)) -> Result<File, HubError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(HubError::io("make the folder", folder))?;
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = open.map_err(HubError::io("open the lock", path))?;
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        on_event(Event::Waiting { lock: path.into() });
        let _ = file.lock();
    }
    Ok(file)
}

/// Puts `bytes` at `path`, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(HubError::io("make the folder", folder))?;
    let beside = beside(path);
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(HubError::io("write", path))?;
    sync(folder);
    Ok(())
}

/// A name beside `path` that no other process and no other thread uses.
pub(crate) fn beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    with_suffix(path, &format!(".{}-{number}.tmp", std::process::id()))
}

/// `path` with `suffix` behind its whole name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Flushes a folder, where the system can.
fn sync(folder: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = folder;
}

fn length(file: &File, path: &Path) -> Result<u64, HubError> {
    file.metadata().map(|m| m.len()).map_err(HubError::io("look at", path))
}

fn full_or(error: io::Error, path: &Path, needed: u64) -> HubError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            HubError::NoSpace { path: path.into(), needed }
        }
        _ => HubError::Io { action: "write to", path: path.into(), source: error },
    }
}
