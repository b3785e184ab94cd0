//! PyTorch's zip archive and legacy layout, pickle included.
#![no_main]

use defrost_weights::pytorch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| defrost_fuzz::check(pytorch::read_bytes(bytes)));
