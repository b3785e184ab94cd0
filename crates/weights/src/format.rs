//! The formats this crate knows, and how a file is recognised by what is in it.

use std::fmt;
use std::path::Path;

use crate::archive::Archive;
use crate::hdf5::Hdf5;
use crate::{Error, NamedTensors, Result, keras, lasagne, mmap, npy, pytorch, safetensors};

/// A file format for weights.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Format {
    /// One safetensors file.
    Safetensors,
    /// The JSON index of a safetensors checkpoint in several files.
    SafetensorsIndex,
    /// One NumPy array.
    Npy,
    /// A zip archive of NumPy arrays.
    Npz,
    /// An HDF5 file of Keras 2, or of Keras 3 in the same layout.
    KerasHdf5,
    /// The `.weights.h5` of Keras 3.
    KerasWeights,
    /// The `.keras` archive of Keras 3.
    KerasArchive,
    /// A PyTorch checkpoint in the zip layout (1.6 and later).
    PyTorch,
    /// A PyTorch checkpoint in the layout before 1.6.
    PyTorchLegacy,
    /// A Python pickle of NumPy arrays, as the Lasagne recipes are.
    Pickle,
}

impl Format {
    /// Every format, for lists in help texts.
    pub const ALL: [Self; 10] = [
        Self::Safetensors,
        Self::SafetensorsIndex,
        Self::Npy,
        Self::Npz,
        Self::KerasHdf5,
        Self::KerasWeights,
        Self::KerasArchive,
        Self::PyTorch,
        Self::PyTorchLegacy,
        Self::Pickle,
    ];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::SafetensorsIndex => "safetensors index",
            Self::Npy => "NumPy .npy",
            Self::Npz => "NumPy .npz",
            Self::KerasHdf5 => "Keras HDF5",
            Self::KerasWeights => "Keras 3 .weights.h5",
            Self::KerasArchive => "Keras 3 .keras",
            Self::PyTorch => "PyTorch checkpoint",
            Self::PyTorchLegacy => "legacy PyTorch checkpoint",
            Self::Pickle => "pickle",
        })
    }
}

/// What the file at `path` is, judged by its content. The name does not matter.
///
/// # Errors
/// [`Error::File`] naming the file: it cannot be opened, or is none of these ([`Error::Unknown`]).
pub fn detect(path: impl AsRef<Path>) -> Result<Format> {
    let path = path.as_ref();
    let detect = || {
        let bytes = mmap::map(path)?;
        detect_with(&bytes, || Hdf5::map(bytes.clone(), Format::KerasHdf5))
    };
    detect().map_err(|e| e.at(path))
}

/// What the file in memory is.
///
/// # Errors
/// [`Error::Unknown`] where it is no format of this crate.
pub fn detect_bytes(bytes: &[u8]) -> Result<Format> {
    detect_with(bytes, || Hdf5::bytes(bytes, Format::KerasHdf5))
}

fn detect_with(bytes: &[u8], hdf5: impl FnOnce() -> Result<Hdf5>) -> Result<Format> {
    let unknown = |what: &str| Error::Unknown { what: what.into() };
    if bytes.starts_with(npy::MAGIC) {
        return Ok(Format::Npy);
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        // An archive ends with its list: 22 bytes, and a comment of at most 64 KiB.
        let end = &bytes[bytes.len().saturating_sub(22 + 0xFFFF)..];
        if !end.windows(4).any(|w| w == b"PK\x05\x06") {
            return Err(unknown(
                "a zip archive (as .pth, .npz and .keras are) that is cut short: its end is missing",
            ));
        }
        let names = Archive::open(bytes, Format::Npz)?.names();
        let any = |test: &dyn Fn(&str) -> bool| names.iter().any(|n| test(n));
        return if any(&|n| n == "model.weights.h5") {
            Ok(Format::KerasArchive)
        } else if any(&|n| n == "data.pkl" || n.ends_with("/data.pkl")) {
            Ok(Format::PyTorch)
        } else if any(&|n| n.ends_with(".npy")) || names.is_empty() {
            Ok(Format::Npz)
        } else {
            Err(unknown("a zip archive with neither `data.pkl`, `model.weights.h5` nor arrays `*.npy` in it"))
        };
    }
    if hdf5_pure::is_hdf5_bytes(bytes) {
        return hdf5().and_then(|file| keras::kind(&file));
    }
    if bytes.starts_with(pytorch::LEGACY_MAGIC) {
        return Ok(Format::PyTorchLegacy);
    }
    if let Some((length, rest)) = bytes.split_first_chunk::<8>()
        && rest.first() == Some(&b'{')
        && u64::from_le_bytes(*length) <= rest.len() as u64
    {
        return Ok(Format::Safetensors);
    }
    let text = bytes.trim_ascii_start();
    if text.starts_with(b"{") && text.windows(12).any(|w| w == b"\"weight_map\"") {
        return Ok(Format::SafetensorsIndex);
    }
    // A pickle ends in a full stop and begins with its protocol or, in protocols 0 and 1, with an empty or marked
    // container.
    let pickle = matches!(bytes, [0x80, 0..=5, ..] | [b'(' | b']' | b'}' | b'c', ..]);
    if pickle && bytes.trim_ascii_end().ends_with(b".") {
        return Ok(Format::Pickle);
    }
    Err(match bytes {
        [] => unknown("an empty file"),
        [_, _, _, _, 0..=6, 0, 0, 0, b'{', b'"', ..] => {
            unknown("a safetensors file that is cut short: its header goes on behind its end")
        }
        [b'<', ..] => unknown("a web page or XML, perhaps the answer of a failed download"),
        _ if bytes.starts_with(b"version https://git-lfs") => {
            unknown("a Git LFS pointer; the file itself was not fetched")
        }
        _ => unknown(&format!(
            "no known beginning: {:?}",
            bytes[..bytes.len().min(8)].escape_ascii().to_string()
        )),
    })
}

/// Reads weights from the file at `path`, whatever its format.
///
/// A single `.npy` array is named `arr_0`. What the names and layouts are is said by the reader of each format:
/// [`safetensors::read`], [`npy::read`], [`npy::read_npz`], [`keras::read_hdf5`], [`keras::read_weights`],
/// [`keras::read_archive`], [`pytorch::read`], [`lasagne::read`].
///
/// # Errors
/// As [`detect`] and the reader of the format that was found.
pub fn read(path: impl AsRef<Path>) -> Result<NamedTensors> {
    let path = path.as_ref();
    match detect(path)? {
        Format::Safetensors => safetensors::read(path),
        Format::SafetensorsIndex => safetensors::read_index(path),
        Format::Npy => npy::read(path).map(|t| [("arr_0".to_owned(), t)].into_iter().collect()),
        Format::Npz => npy::read_npz(path),
        Format::KerasHdf5 => keras::read_hdf5(path),
        Format::KerasWeights => keras::read_weights(path),
        Format::KerasArchive => keras::read_archive(path),
        Format::PyTorch | Format::PyTorchLegacy => pytorch::read(path),
        Format::Pickle => lasagne::read(path),
    }
}
