//! Finding the files of a folder: which belong to which class, and what lies around. Nothing is opened but
//! files whose name does not tell that they are images.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::decode::looks_like_an_image;
use crate::{DecodeError, Error, Skipped};

/// One folder, read one level deep.
#[derive(Debug, Default)]
pub(crate) struct Level {
    /// Sub-folders by name, sorted.
    pub(crate) folders: Vec<String>,
    /// Files that are, or claim to be, images.
    pub(crate) images: Vec<String>,
    /// Other files.
    pub(crate) others: Vec<String>,
    pub(crate) skipped: Vec<Skipped>,
}

/// What belongs to each class of a folder with class folders.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Files by class, both sorted by name.
    pub(crate) classes: BTreeMap<String, Vec<PathBuf>>,
    /// Names of images beside the class folders.
    pub(crate) beside: Vec<String>,
    /// Names of files that are no images, at any level.
    pub(crate) others: Vec<String>,
    pub(crate) skipped: Vec<Skipped>,
}

/// What a folder holds at its first level.
pub(crate) fn level(folder: &Path) -> Result<Level, Error> {
    let meta = match std::fs::metadata(folder) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NotFound { path: folder.into() });
        }
        Err(source) => return Err(Error::Unreadable { path: folder.into(), source }),
    };
    if !meta.is_dir() {
        return Err(Error::NotAFolder { path: folder.into() });
    }
    std::fs::read_dir(folder).map_err(|source| Error::Unreadable { path: folder.into(), source })?;
    let mut level = Level::default();
    for entry in walk(folder).max_depth(1) {
        match entry {
            Err(error) => level.skipped.push(unreachable(&error, folder)),
            Ok(entry) => {
                let name = entry.file_name().to_string_lossy().into_owned();
                if ignored(&name) {
                } else if entry.file_type().is_dir() {
                    level.folders.push(name);
                } else if entry.file_type().is_file() && claims_to_be_an_image(entry.path()) {
                    level.images.push(name);
                } else {
                    level.others.push(name);
                }
            }
        }
    }
    Ok(level)
}

/// All files below the class folders of `folder`; `first` is its first level.
pub(crate) fn tree(folder: &Path, first: Level) -> Tree {
    let mut tree =
        Tree { beside: first.images, others: first.others, skipped: first.skipped, ..Tree::default() };
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.into());
    for class in first.folders {
        let at = folder.join(&class);
        let mut files = Vec::new();
        let visible = |entry: &walkdir::DirEntry| !ignored(&entry.file_name().to_string_lossy());
        let mut walk = walk(&at).into_iter();
        while let Some(entry) = walk.next() {
            match entry {
                Err(error) => tree.skipped.push(unreachable(&error, &at)),
                Ok(entry) if !visible(&entry) => {
                    if entry.file_type().is_dir() {
                        walk.skip_current_dir();
                    }
                }
                Ok(entry) if entry.file_type().is_dir() => {
                    // The walk knows the folders from the class on; a link above it would make every image of
                    // every class one of this class.
                    let target = entry.path_is_symlink().then(|| entry.path().canonicalize().ok()).flatten();
                    if let Some(target) = target.filter(|target| whole.starts_with(target)) {
                        let reason = DecodeError::CircularLink(target.display().to_string());
                        tree.skipped.push(Skipped { path: entry.into_path(), reason });
                        walk.skip_current_dir();
                    }
                }
                Ok(entry) if entry.file_type().is_file() && claims_to_be_an_image(entry.path()) => {
                    files.push(entry.into_path());
                }
                Ok(entry) => tree.others.push(name_below(folder, entry.path())),
            }
        }
        tree.classes.insert(class, files);
    }
    tree
}

/// The path below a folder, with `/` on every system.
pub(crate) fn name_below(folder: &Path, path: &Path) -> String {
    let below = path.strip_prefix(folder).unwrap_or(path);
    below.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn walk(folder: &Path) -> WalkDir {
    WalkDir::new(folder).min_depth(1).follow_links(true).sort_by_file_name()
}

/// What operating systems and tools leave behind.
fn ignored(name: &str) -> bool {
    name.starts_with('.') || ["Thumbs.db", "desktop.ini", "__MACOSX"].contains(&name)
}

/// A file with the name of an image, readable or not, and any other file with the content of one.
fn claims_to_be_an_image(path: &Path) -> bool {
    const NAMES: [&str; 22] = [
        "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "dib", "gif", "tif", "tiff", "heic",
        "heif", "avif", "jp2", "jxl", "svg", "psd", "dng", "cr2", "nef",
    ];
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    NAMES.contains(&extension.as_str()) || {
        let mut start = [0; 32];
        std::fs::File::open(path)
            .and_then(|mut file| file.read(&mut start))
            .is_ok_and(|n| looks_like_an_image(&start[..n]))
    }
}

fn unreachable(error: &walkdir::Error, folder: &Path) -> Skipped {
    let path = error.path().unwrap_or(folder);
    let reason = match error.loop_ancestor() {
        Some(ancestor) => DecodeError::CircularLink(ancestor.display().to_string()),
        None if path.is_symlink() => match error.io_error().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::NotFound) => DecodeError::DanglingLink,
            Some(std::io::ErrorKind::PermissionDenied) | None => DecodeError::Io(error.to_string()),
            // What is left is ELOOP: links that only lead to links.
            Some(_) => DecodeError::CircularLink(path.display().to_string()),
        },
        None => DecodeError::Io(
            error.io_error().map_or_else(|| error.to_string(), std::string::ToString::to_string),
        ),
    };
    Skipped { path: path.into(), reason }
}
