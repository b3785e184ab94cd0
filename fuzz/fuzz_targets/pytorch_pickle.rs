//! The pickle within PyTorch's zip archive, whose checksum would hide it.
#![no_main]

use defrost_weights::pytorch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let storage = [0; 1024];
    let names = ["m/data/0", "m/data/1", "m/data/2"];
    let storages = names.map(|name| (name, &storage[..]));
    let entries =
        [&[("m/data.pkl", bytes), ("m/version", b"3\n"), ("m/byteorder", b"little")], &storages[..]].concat();
    defrost_fuzz::check(pytorch::read_bytes(&defrost_fuzz::archive(&entries)));
});
