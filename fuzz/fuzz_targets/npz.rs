//! NumPy's archives.
#![no_main]

use defrost_weights::npy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| defrost_fuzz::check(npy::read_npz_bytes(bytes)));
