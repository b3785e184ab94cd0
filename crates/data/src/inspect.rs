//! Looking at every file once, in parallel: what it is, how large, and whether it can be decoded.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use crate::decode::{animated, decode, failed, header, read};
use crate::folder::Verify;
use crate::scan::name_below;
use crate::{DecodeError, DecodeOptions, Sample};

/// Pixels up to which [`Verify::Auto`] decodes everything: less than a tenth of a second on two cores.
const AUTO_PIXELS: u64 = 20_000_000;

/// What was found out about a file.
pub(crate) struct Inspected {
    pub(crate) sample: Sample,
    pub(crate) animated: bool,
}

/// Looks at all files, given with their labels, in order. `root` is what names are relative to.
pub(crate) fn inspect(
    files: &[(PathBuf, u32)],
    root: &Path,
    verify: Verify,
    options: &DecodeOptions,
    threads: usize,
) -> Vec<Result<Inspected, DecodeError>> {
    let mut found = parallel(files.len(), threads, |i| {
        let (path, label) = &files[i];
        let name = name_below(root, path);
        if verify == Verify::Names {
            let bytes = std::fs::metadata(path).map_err(failed)?.len();
            if bytes == 0 {
                return Err(DecodeError::EmptyFile);
            }
            let sample =
                Sample { path: path.clone(), name, label: *label, width: 0, height: 0, bytes, hash: None };
            return Ok(Inspected { sample, animated: false });
        }
        let bytes = read(path, options.max_pixels)?;
        let header = header(&bytes, options.max_pixels)?;
        Ok(Inspected {
            sample: Sample {
                path: path.clone(),
                name,
                label: *label,
                width: header.width,
                height: header.height,
                bytes: bytes.len() as u64,
                hash: Some(Sha256::digest(&bytes).into()),
            },
            animated: animated(&bytes, header),
        })
    });
    let pixels: u64 =
        found.iter().flatten().map(|f| u64::from(f.sample.width) * u64::from(f.sample.height)).sum();
    if verify == Verify::Full || (verify == Verify::Auto && pixels <= AUTO_PIXELS) {
        let decoded = parallel(files.len(), threads, |i| match &found[i] {
            Ok(_) => read(&files[i].0, options.max_pixels).and_then(|b| decode(&b, options)).map(drop),
            Err(_) => Ok(()),
        });
        for (slot, result) in found.iter_mut().zip(decoded) {
            if let Err(reason) = result {
                *slot = Err(reason);
            }
        }
    }
    found
}

/// `f(0), f(1), ... f(n - 1)` on some threads, in order.
fn parallel<T: Send>(n: usize, threads: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::with_capacity(n));
    let work = || {
        let mut mine = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                break;
            }
            mine.push((i, f(i)));
        }
        all.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(mine);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, n.max(1)) {
            scope.spawn(work);
        }
        work();
    });
    let mut all = all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, t)| t).collect()
}
