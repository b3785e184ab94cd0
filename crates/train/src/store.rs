//! Many numbers, written once and then read: in memory, or in a file that is mapped into it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::Result;
use crate::run::io;

/// Where numbers are put.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Storage {
    Memory,
    /// A file without a name in this folder: it is gone with the process, however that ends.
    File(PathBuf),
}

/// Numbers that can be read.
#[derive(Debug)]
pub(crate) enum Values {
    Memory(Vec<f32>),
    Mapped(Mmap),
}

impl Default for Values {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Memory(values) => values,
            // A map begins with a page, so its numbers are aligned.
            Self::Mapped(map) => bytemuck::cast_slice(map),
        }
    }
}

/// Numbers that are being written.
#[derive(Debug)]
pub(crate) enum Writer {
    Memory(Vec<f32>),
    File { file: File, folder: PathBuf, len: usize },
}

impl Writer {
    pub(crate) fn new(storage: &Storage) -> Result<Self> {
        Ok(match storage {
            Storage::Memory => Self::Memory(Vec::new()),
            Storage::File(folder) => Self::File { file: open(folder)?, folder: folder.clone(), len: 0 },
        })
    }

    /// Room for so many more numbers.
    pub(crate) fn reserve(&mut self, more: usize) {
        if let Self::Memory(values) = self {
            values.reserve_exact(more);
        }
    }

    pub(crate) fn push(&mut self, new: &[f32]) -> Result<()> {
        match self {
            Self::Memory(values) => values.extend_from_slice(new),
            Self::File { file, folder, len } => {
                file.write_all(bytemuck::cast_slice(new))
                    .map_err(io("write features to a file in", folder))?;
                *len += new.len();
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Values> {
        match self {
            Self::File { file, folder, len } if len > 0 => {
                // SAFETY: the file has no name (on Windows none that others may open), so nobody shortens or changes it, and
                // this handle, the only one, goes out of use here.
                let map = unsafe { Mmap::map(&file) }.map_err(io("map the features in", &folder))?;
                Ok(Values::Mapped(map))
            }
            Self::File { .. } => Ok(Values::default()),
            Self::Memory(values) => Ok(Values::Memory(values)),
        }
    }
}

fn open(folder: &Path) -> Result<File> {
    std::fs::create_dir_all(folder).map_err(io("make the folder", folder))?;
    tempfile::tempfile_in(folder).map_err(io("make a file for features in", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_back_what_memory_does_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for storage in [Storage::Memory, Storage::File(dir.path().join("deeper"))] {
            let mut writer = Writer::new(&storage).unwrap();
            writer.reserve(5);
            writer.push(&[1.0, -2.5]).unwrap();
            writer.push(&[f32::MIN_POSITIVE, f32::INFINITY, 3.0]).unwrap();
            let values = writer.finish().unwrap();
            assert_eq!(*values, [1.0, -2.5, f32::MIN_POSITIVE, f32::INFINITY, 3.0]);
            assert!(Writer::new(&storage).unwrap().finish().unwrap().is_empty());
        }
        assert_eq!(std::fs::read_dir(dir.path().join("deeper")).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        std::fs::write(&taken, "").unwrap();
        let error = Writer::new(&Storage::File(taken.join("under"))).unwrap_err().to_string();
        assert!(error.contains("taken"), "{error}");
    }
}
