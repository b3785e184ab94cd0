//! The index of a file in shards. Nothing outside its folder may be opened.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use defrost_weights::safetensors;
use libfuzzer_sys::fuzz_target;

const SHARD: &[u8] = include_bytes!("../../crates/weights/tests/fixtures/torch.safetensors");

/// A folder with one shard, and a file beside the folder that no index may lead to.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let outside = std::env::temp_dir().join(format!("defrost-fuzz-{}", std::process::id()));
    let folder = outside.join("inside");
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    std::fs::write(outside.join("secret.safetensors"), SHARD).expect("the temporary folder can be written");
    std::fs::write(folder.join("a.safetensors"), SHARD).expect("the temporary folder can be written");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let index = FOLDER.join("model.safetensors.index.json");
    std::fs::write(&index, bytes).expect("the temporary folder can be written");
    let result = safetensors::read(&index);
    let leads_out = bytes.windows(6).any(|w| w == b"secret");
    assert!(!(leads_out && result.as_ref().is_ok_and(|tensors| tensors.len() > 0)), "read a file outside");
    defrost_fuzz::check(result);
});
