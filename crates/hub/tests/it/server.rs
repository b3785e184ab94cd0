//! A small server on loopback: the hub's routes, a content store at another address, torch's and Keras' storages.
//!
//! It misbehaves on demand. Used by the tests of this crate and of the program.

// Each of the test binaries that include this file uses a part of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// The commit that every repository is at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the next answer with bytes goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// The connection is cut after so many bytes of the body.
    CutAfter(usize),
    /// One byte is another.
    Damage,
    /// `Content-Length` announces so many bytes more than there are.
    AnnounceMore(usize),
    /// `Content-Length` announces less than comes over the hub.
    AnnounceLess(usize),
    /// `Range` is not heeded: the whole file comes with 200.
    Whole,
    /// This status and nothing else.
    Status(u16),
    /// The body stops after so many bytes and the connection stays open.
    StallAfter(usize),
    /// An answer that comes slowly, a few bytes each millisecond.
    Slow,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) token: Option<String>,
}

#[derive(Default)]
struct State {
    /// Bytes by path.
    files: HashMap<String, Vec<u8>>,
    /// `owner/name/file` to bytes.
    models: HashMap<String, Vec<u8>>,
    /// Repositories that want this token.
    locked: HashMap<String, String>,
    /// Repositories that have a new name.
    moved: HashMap<String, String>,
    faults: Vec<Fault>,
    seen: Vec<Seen>,
    /// `ETag`s of files, where they have one.
    tags: HashMap<String, String>,
}

/// The server. It runs until the test's process ends.
#[derive(Clone)]
pub(crate) struct Server {
    /// Where the hub, torch and Keras are.
    pub(crate) front: SocketAddr,
    /// Where the hub's large files are: another origin.
    pub(crate) store: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let (front, store) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let state = Arc::default();
        let server = Self { front: front.local_addr().unwrap(), store: store.local_addr().unwrap(), state };
        for listener in [front, store] {
            let server = server.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let server = server.clone();
                    std::thread::spawn(move || server.serve(stream));
                }
            });
        }
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.front)
    }

    /// A file of a repository on the hub.
    pub(crate) fn model(&self, repo: &str, file: &str, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        state.models.insert(format!("{repo}/{file}"), bytes.into());
        state.files.insert(format!("/store/{}", sha256(bytes)), bytes.into());
    }

    /// A file at a path, with an `ETag` if `tag` is given.
    pub(crate) fn file(&self, path: &str, bytes: &[u8], tag: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        state.files.insert(path.into(), bytes.into());
        state.tags.extend(tag.map(|t| (path.to_owned(), t.to_owned())));
    }

    /// `repo` answers only who sends `token`.
    pub(crate) fn lock(&self, repo: &str, token: &str) {
        self.state.lock().unwrap().locked.insert(repo.into(), token.into());
    }

    /// `repo` is called `new` now.
    pub(crate) fn rename(&self, repo: &str, new: &str) {
        self.state.lock().unwrap().moved.insert(repo.into(), new.into());
    }

    /// The next answers with bytes go wrong so, one after another.
    pub(crate) fn break_with(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults = faults.iter().rev().copied().collect();
    }

    /// What has come since the last call.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        while let Some(seen) = read_request(&mut reader) {
            self.state.lock().unwrap().seen.push(seen.clone());
            if !self.answer(&mut stream, &seen) {
                return;
            }
        }
    }

    /// Answers one request; whether the connection can be used again.
    fn answer(&self, stream: &mut TcpStream, seen: &Seen) -> bool {
        let path = seen.path.split('?').next().unwrap().to_owned();
        let parts: Vec<&str> = path.trim_start_matches('/').splitn(5, '/').collect();
        if let [owner, name, "resolve", _, file] = parts[..] {
            return self.hub(stream, seen, &format!("{owner}/{name}"), file);
        }
        let mut state = self.state.lock().unwrap();
        let Some(bytes) = state.files.get(&path).cloned() else {
            return status(stream, 404, &[]);
        };
        let tag = state.tags.get(&path).cloned();
        let fault = if seen.method == "GET" { state.faults.pop() } else { None };
        drop(state);
        send(stream, seen, &bytes, tag.as_deref(), fault)
    }

    fn hub(&self, stream: &mut TcpStream, seen: &Seen, repo: &str, file: &str) -> bool {
        let state = self.state.lock().unwrap();
        if let Some(new) = state.moved.get(repo) {
            let to = seen.path.replacen(repo, new, 1);
            return status(stream, 307, &[("Location", &to)]);
        }
        if let Some(token) = state.locked.get(repo)
            && seen.token.as_deref() != Some(&format!("Bearer {token}"))
        {
            return status(
                stream,
                401,
                &[("X-Error-Code", "RepoNotFound"), ("X-Error-Message", "Repository not found")],
            );
        }
        let Some(bytes) = state.models.get(&format!("{repo}/{file}")) else {
            return status(
                stream,
                404,
                &[("X-Error-Code", "EntryNotFound"), ("X-Error-Message", "Entry not found")],
            );
        };
        let sha = sha256(bytes);
        let headers = [
            ("Location", format!("http://{}/store/{sha}?signature=x", self.store)),
            ("X-Repo-Commit", COMMIT.to_owned()),
            ("X-Linked-Etag", format!("\"{sha}\"")),
            ("X-Linked-Size", bytes.len().to_string()),
            ("ETag", "\"of-the-redirect\"".to_owned()),
        ];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        status(stream, 302, &headers)
    }
}

/// SHA-256 in hex digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes that look like a file and can be told from one another.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// All files below `folder`, for a test that none is left over.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            _ => found.push(entry.path().to_string_lossy().into_owned()),
        }
    }
    found.sort();
    found
}

fn read_request(reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut seen =
        Seen { method: words.next()?.into(), path: words.next()?.into(), range: None, token: None };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Some(seen) };
        match name.to_ascii_lowercase().as_str() {
            "range" => seen.range = Some(value.into()),
            "authorization" => seen.token = Some(value.into()),
            _ => {}
        }
    }
}

fn status(stream: &mut TcpStream, code: u16, headers: &[(&str, &str)]) -> bool {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "HTTP/1.1 {code} -\r\n{headers}Content-Length: 0\r\n\r\n").is_ok()
}

fn send(stream: &mut TcpStream, seen: &Seen, bytes: &[u8], tag: Option<&str>, fault: Option<Fault>) -> bool {
    if let Some(Fault::Status(code)) = fault {
        return status(stream, code, &[]);
    }
    let all = bytes.len();
    let from = seen.range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: usize = from.filter(|_| fault != Some(Fault::Whole)).unwrap_or(0);
    if from > 0 && from >= all {
        return status(stream, 416, &[("Content-Range", &format!("bytes */{all}"))]);
    }
    let mut body = bytes[from..].to_vec();
    let mut announced = body.len();
    match fault {
        Some(Fault::Damage) => body[0] ^= 1,
        Some(Fault::AnnounceMore(n)) => announced += n,
        Some(Fault::AnnounceLess(n)) => announced -= n,
        _ => {}
    }
    let mut head = match from {
        0 => "HTTP/1.1 200 OK\r\n".to_owned(),
        _ => format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{all}\r\n", all - 1),
    };
    head += &format!("Content-Length: {announced}\r\n");
    head.extend(tag.map(|t| format!("ETag: {t}\r\n")));
    if write!(stream, "{head}\r\n").is_err() || seen.method == "HEAD" {
        return seen.method == "HEAD";
    }
    match fault {
        Some(Fault::CutAfter(n)) => {
            let _ = stream.write_all(&body[..n.min(body.len())]);
            let _ = stream.shutdown(std::net::Shutdown::Both);
            false
        }
        Some(Fault::StallAfter(n)) => {
            let _ = stream.write_all(&body[..n.min(body.len())]);
            // Until the other side has had enough.
            let _ = stream.read(&mut [0]);
            false
        }
        Some(Fault::Slow) => body.chunks(body.len() / 20 + 1).all(|part| {
            std::thread::sleep(Duration::from_millis(10));
            stream.write_all(part).is_ok()
        }),
        _ => stream.write_all(&body).is_ok() && fault.is_none(),
    }
}
