//! Weight files as the real tools write them (`tests/fixtures/make_fixtures.py`), and what broken ones do.

mod files;
mod fuzz;

use std::path::{Path, PathBuf};

/// A file beside the script that made it.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What the script fills an array of `count` elements and this seed with.
fn fill(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i * 7 + seed * 13) % 31) as f32 - 15.0) / 8.0).collect()
}
