//! Automation for people who work on defrost.
fn main() {}
