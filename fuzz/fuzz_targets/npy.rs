//! One NumPy array.
#![no_main]

use defrost_weights::npy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let tensor = npy::read_bytes(bytes);
    defrost_fuzz::check(tensor.map(|tensor| [("x".to_owned(), tensor)].into_iter().collect()));
});
