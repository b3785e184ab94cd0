//! The formats this crate knows, by name.

use std::fmt;

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
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::SafetensorsIndex => "safetensors index",
            Self::Npy => "NumPy .npy",
            Self::Npz => "NumPy .npz",
            Self::KerasHdf5 => "Keras HDF5",
        })
    }
}
