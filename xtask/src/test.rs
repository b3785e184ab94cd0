//! `cargo xtask test`: everything that must pass before a change lands, cheapest first.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::{fetch, root, tidy};

/// The backends that the program leaves out by default, but that are tested.
const BACKENDS: &str = "--features=defrost-cli/wgpu,defrost-tests/wgpu,defrost-bench/wgpu,defrost-cli/candle,defrost-tests/candle,defrost-bench/candle";

/// Each step: what it is called, and the arguments of cargo.
const STEPS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", BACKENDS, "--quiet", "--", "--deny", "warnings"]),
    // Without these backends, as it is installed.
    ("lints", &["clippy", "--package", "defrost-cli", "--quiet", "--", "--deny", "warnings"]),
    ("tests", &["test", "--workspace", BACKENDS, "--quiet"]),
    ("third party", &["test", "--manifest-path", "examples/third-party-backend/Cargo.toml", "--quiet"]),
    ("docs", &["doc", "--workspace", "--no-deps", "--quiet"]),
];

/// Runs all steps and stops at the first that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    tidy::run()?;
    // Without a network the tests that need these files say that they were skipped.
    if let Err(error) = fetch::bring() {
        eprintln!(
            "xtask: WARNING: published weights are missing, tests that need them are skipped: {error:#}"
        );
    }
    for (name, arguments) in STEPS {
        let start = Instant::now();
        eprintln!("xtask: {name}: cargo {}", arguments.join(" "));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(*arguments).current_dir(root());
        if *name == "docs" {
            command.env("RUSTDOCFLAGS", "--deny warnings");
        }
        let status = command.status().with_context(|| format!("{name}: cargo did not start"))?;
        if !status.success() {
            bail!("{name} failed: `cargo {}`", arguments.join(" "));
        }
        eprintln!("xtask: {name}: {:.0} s", start.elapsed().as_secs_f32());
    }
    Ok(())
}
