//! What all fuzz targets share: what has to hold of a result, and archives around damaged entries.

use std::io::{Cursor, Write};

use defrost_weights::{NamedTensors, Result};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// What was read is whole, and every error has words. Panics, hangs and memory are libFuzzer's to notice.
pub fn check(result: Result<NamedTensors>) {
    match result {
        Ok(tensors) => {
            for (name, tensor) in tensors.iter() {
                assert_eq!(tensor.len(), tensor.shape().iter().product::<usize>(), "{name}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A zip archive. Its checksums hide entries from plain damage, so they are damaged before it is put together.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(*name, stored).expect("a vector takes every byte");
        zip.write_all(bytes).expect("a vector takes every byte");
    }
    zip.finish().expect("a vector takes every byte").into_inner()
}
