//! The `defrost` program.
fn main() {}
