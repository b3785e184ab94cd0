//! `.weights.h5` of Keras 3.
#![no_main]

use defrost_weights::keras;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| defrost_fuzz::check(keras::read_weights_bytes(bytes)));
