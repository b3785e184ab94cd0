//! Keras files: HDF5 as Keras 2 lays it out, and the `.weights.h5` and `.keras` of Keras 3.
//!
//! The names are `<layer>/<variable>` whatever the nesting: `block_1_expand/kernel`, `bn_Conv1/moving_mean`. A model used
//! as a layer gives its layers' names, unless two of them would collide: those keep their whole path. Layouts stay as
//! they are (kernels HWIO).

mod legacy;
mod v3;

use crate::hdf5::Hdf5;
use crate::{Error, Format, Result};

pub use legacy::{read_hdf5, read_hdf5_bytes};
pub use v3::{read_archive, read_archive_bytes, read_weights, read_weights_bytes};

/// Which of Keras' two layouts an HDF5 file has.
pub(crate) fn kind(file: &Hdf5) -> Result<Format> {
    let root = file.root();
    if root.group("model_weights").is_ok() || file.strings(&root, "/", "layer_names")?.is_some() {
        return Ok(Format::KerasHdf5);
    }
    let v3 = ["layers", "vars", "_layer_checkpoint_dependencies"].iter().any(|g| root.group(g).is_ok());
    if v3 {
        Ok(Format::KerasWeights)
    } else {
        Err(Error::Unknown { what: "an HDF5 file that Keras did not write".into() })
    }
}
