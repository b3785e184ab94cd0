//! Files that are there whole or not at all.
//!
//! The bytes go to a temporary file in the target's folder, are flushed to the disk, take the target's name by a rename,
//! and the folder is flushed too. Whoever reads the target, at any time and after any crash, finds the old file or the
//! new one. On a full disk the writer is run to its end against nothing, so that the error can say how much was needed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Replaces the file at `path` by what `fill` writes. A link at `path` stays, and the file it points to is replaced.
///
/// # Errors
/// [`Error::NoSpace`] on a full disk or quota, [`Error::Io`] for every other failure, both inside [`Error::File`]. In
/// either case the old file is as it was and the temporary file is gone.
pub fn write(path: impl AsRef<Path>, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let path = path.as_ref();
    replace(path, Flush::Now, |file| file, fill).map_err(|e| e.at(path))
}

/// Replaces the file at `path` by `bytes`.
///
/// # Errors
/// As [`write()`].
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write(path, |w| w.write_all(bytes))
}

/// [`write_bytes`] without waiting for the disk, which may have much else to write: readers find the old file or the new one,
/// a power failure before [`flush_folder`] may leave neither.
///
/// # Errors
/// As [`write()`].
pub fn write_bytes_unflushed(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    replace(path, Flush::Later, |file| file, |w| w.write_all(bytes)).map_err(|e| e.at(path))
}

/// Makes `path` another name (a hard link) of the file at `of`, which is on the disk: whoever reads `path` finds the old file
/// or this one, and nothing is copied. For files that are replaced and never changed.
///
/// # Errors
/// [`Error::Io`] inside [`Error::File`], where the file system knows no such links among others. `path` is then as it was.
pub fn link(of: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
    let (of, path) = (of.as_ref(), path.as_ref());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".writing-").suffix(".tmp");
    // A link at `path` points to where the file is wanted, which may be another file system: not for this way.
    let plain = fs::symlink_metadata(path).map_or(true, |m| !m.is_symlink());
    let made = match plain {
        true => builder.make_in(folder, |temporary| fs::hard_link(of, temporary)),
        false => Err(io::ErrorKind::Unsupported.into()),
    };
    let io = |source| Error::Io { action: "link the file", source }.at(path);
    // Where both are one file already, the system leaves both names: the temporary one goes by itself.
    made.and_then(|temporary| fs::rename(temporary.path(), path)).map_err(io)?;
    flush_entries(folder);
    Ok(())
}

/// Waits until all files that lie in the folder `path` itself are on the disk.
///
/// # Errors
/// [`Error::NoSpace`], [`Error::Io`] inside [`Error::File`].
pub fn flush_folder(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let io = |action| move |source| Error::Io { action, source };
    let entries = fs::read_dir(path).map_err(io("list the folder")).map_err(|e| e.at(path))?;
    for file in entries.flatten().map(|entry| entry.path()).filter(|file| file.is_file()) {
        // Windows flushes what is open for writing.
        let opened = File::options().read(true).write(cfg!(windows)).open(&file);
        let opened = opened.map_err(io("open the file to flush it"));
        let length = fs::metadata(&file).map_or(0, |m| m.len());
        let flushed =
            opened.and_then(|f| f.sync_all().map_err(full_or("flush the file to the disk", length)));
        flushed.map_err(|e| e.at(&file))?;
    }
    flush_entries(path);
    Ok(())
}

/// Flushes the names of a folder's files. Not every file system can do that; the files themselves are safe either way.
fn flush_entries(folder: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = folder;
}

/// When a new file has to be on the disk.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Flush {
    /// Before it takes the old one's place.
    Now,
    /// When somebody asks for it.
    Later,
}

/// [`write()`], with the file seen through `wrap` so that a test can make it fail.
fn replace<'f, W: Write>(
    path: &Path,
    flush: Flush,
    wrap: impl FnOnce(File) -> W + 'f,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let io = |action| move |source| Error::Io { action, source };
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What a plain `open` would give, instead of the private mode of temporary files; an old file's mode is kept.
        let mode = fs::metadata(&target).map_or(0o666, |m| m.permissions().mode() & 0o7777);
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    let (file, temporary) = builder.tempfile_in(&folder).map_err(io("create a file beside it"))?.into_parts();
    let handle = file.try_clone().map_err(io("open the new file twice"))?;

    let mut sink = BufWriter::with_capacity(1 << 20, Counted { inner: wrap(file), written: 0, full: false });
    let filled = fill(&mut sink).and_then(|()| sink.flush());
    let (sink, _) = sink.into_parts();
    if sink.full {
        return Err(Error::NoSpace { needed: sink.written });
    }
    filled.map_err(io("write the file"))?;
    if flush == Flush::Now {
        handle.sync_all().map_err(full_or("flush the file to the disk", sink.written))?;
    }
    drop((sink, handle));
    temporary.persist(&target).map_err(|e| io("put the new file in place")(e.error))?;
    if flush == Flush::Now {
        flush_entries(&folder);
    }
    Ok(())
}

/// Whether the system says that there is no room.
fn is_full(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn full_or(action: &'static str, needed: u64) -> impl FnOnce(io::Error) -> Error {
    move |source| if is_full(&source) { Error::NoSpace { needed } } else { Error::Io { action, source } }
}

/// Counts what is written, and goes on counting where the disk is full.
struct Counted<W> {
    inner: W,
    written: u64,
    full: bool,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = if self.full {
            bytes.len()
        } else {
            match self.inner.write(bytes) {
                Err(e) if is_full(&e) => {
                    self.full = true;
                    bytes.len()
                }
                other => other?,
            }
        };
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.full { Ok(()) } else { self.inner.flush() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for `left` more bytes.
    struct SmallDisk {
        file: File,
        left: usize,
    }

    impl Write for SmallDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let n = self.file.write(&bytes[..bytes.len().min(self.left)])?;
            self.left -= n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.file.flush()
        }
    }

    fn entries(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn writes_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_bytes(&path, b"one").unwrap();
        write(&path, |w| w.write_all(b"two, longer")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two, longer");
        assert_eq!(entries(dir.path()), 1);
    }

    #[test]
    fn a_link_replaces_a_file_by_another_ones_name() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        write_bytes(&one, b"1").unwrap();
        write_bytes(&two, b"2").unwrap();
        // The second time they are one file already.
        for _ in 0..2 {
            link(&one, &two).unwrap();
            assert_eq!((fs::read(&two).unwrap(), entries(dir.path())), (b"1".to_vec(), 2));
        }
        write_bytes(&one, b"3").unwrap();
        assert_eq!(fs::read(&two).unwrap(), b"1", "a file that is replaced leaves its other name alone");
        let error = link(dir.path().join("none"), &two).unwrap_err().to_string();
        assert!(error.contains("two") && entries(dir.path()) == 2, "{error}");
    }

    #[test]
    fn what_is_flushed_later_is_whole_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_bytes_unflushed(&path, b"one").unwrap();
        write_bytes_unflushed(&path, b"two").unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        flush_folder(dir.path()).unwrap();
        assert_eq!((fs::read(&path).unwrap(), entries(dir.path())), (b"two".to_vec(), 2));
        let error = flush_folder(dir.path().join("nowhere")).unwrap_err().to_string();
        assert!(error.contains("nowhere"), "{error}");
    }

    #[test]
    fn a_full_disk_keeps_the_old_file_and_says_what_was_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        write_bytes(&path, b"old").unwrap();
        let small = |file| SmallDisk { file, left: 1000 };
        let error =
            replace(&path, Flush::Now, small, |w| (0..50).try_for_each(|_| w.write_all(&[7; 100_000])))
                .unwrap_err();
        assert!(matches!(error, Error::NoSpace { needed: 5_000_000 }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(dir.path()), 1, "the temporary file must be gone");
    }

    #[test]
    fn a_writer_that_fails_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.json");
        write_bytes(&path, b"old").unwrap();
        let error = write(&path, |w| {
            w.write_all(b"half of it")?;
            Err(io::Error::other("broken"))
        });
        assert!(error.unwrap_err().to_string().contains("broken"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(dir.path()), 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nowhere").join("x.json");
        let error = write_bytes(&path, b"x").unwrap_err().to_string();
        assert!(error.contains("nowhere"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        write_bytes(&real, b"1").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_bytes(&link, b"2").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"2");
    }
}
