//! Pickles of Lasagne's recipes.
#![no_main]

use defrost_weights::lasagne;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| defrost_fuzz::check(lasagne::read_bytes(bytes)));
