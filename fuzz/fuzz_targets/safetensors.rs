//! One safetensors file.
#![no_main]

use defrost_weights::safetensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| defrost_fuzz::check(safetensors::read_bytes(bytes)));
