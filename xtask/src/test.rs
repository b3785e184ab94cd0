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
    // In a folder of its own: what the stand-in makes must not get into a build.
    (
        CUDA,
        &["check", "-p", "defrost-candle", "--features=cuda,cudnn", "--target-dir=target/cuda", "--quiet"],
    ),
    // The program and the library have one name: made at once, each may remove the other's folder. The library's stays.
    ("docs", &["doc", "--package", "defrost-cli", "--no-deps", "--quiet"]),
    ("docs", &["doc", "--workspace", "--exclude", "defrost-cli", "--no-deps", "--quiet"]),
];

/// The step that checks what is for CUDA as far as a machine without it allows.
const CUDA: &str = "cuda";

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
        if *name == CUDA {
            // candle's build needs NVIDIA's compiler even where nothing is linked.
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = [root().join("xtask/stand-in")].into_iter().chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(folders)?).env("CUDA_COMPUTE_CAP", "80");
        }
        let status = command.status().with_context(|| format!("{name}: cargo did not start"))?;
        if !status.success() {
            bail!("{name} failed: `cargo {}`", arguments.join(" "));
        }
        eprintln!("xtask: {name}: {:.0} s", start.elapsed().as_secs_f32());
    }
    Ok(())
}
