//! A whole file as bytes, without reading it.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::{Error, Result};

/// The bytes of a file, shared by its clones. An empty file, which cannot be mapped everywhere, is an empty slice.
#[derive(Clone)]
pub(crate) struct FileBytes(Option<Arc<Mmap>>);

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |map| map)
    }
}

/// Maps the file at `path` read-only.
pub(crate) fn map(path: &Path) -> Result<FileBytes> {
    let open = |action, source| Error::Io { action, source };
    let file = File::open(path).map_err(|e| open("open the file", e))?;
    let meta = file.metadata().map_err(|e| open("ask for the file's size", e))?;
    if meta.is_dir() {
        return Err(open("read the file", std::io::ErrorKind::IsADirectory.into()));
    }
    if meta.len() == 0 {
        return Ok(FileBytes(None));
    }
    // SAFETY: the map is private to this crate, read-only, and dropped before the reader returns. What remains is the
    // caveat every mapped file has: another process that shortens the file during the read makes the access fault.
    // Writers of weight files replace them by a rename (as `atomic` does), which leaves a mapped file as it was.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| open("map the file", e))?;
    Ok(FileBytes(Some(Arc::new(map))))
}
