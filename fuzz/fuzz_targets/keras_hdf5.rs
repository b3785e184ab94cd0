//! HDF5 files of Keras 2.
#![no_main]

use defrost_weights::keras;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| defrost_fuzz::check(keras::read_hdf5_bytes(bytes)));
