//! Telling formats apart.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = defrost_weights::detect_bytes(bytes) {
        assert!(!error.to_string().is_empty());
    }
});
