//! `cargo xtask bench`: builds the program and the benchmarks optimised, and runs the latter.

use std::process::Command;

use anyhow::{Context, bail};

use crate::root;

/// Runs `defrost-bench` with `arguments`.
pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let asks = |name: &str| {
        let backend = |pair: &[&str]| pair[0] == "--backend" && pair[1].starts_with(name);
        arguments.windows(2).any(backend) || arguments.contains(&name)
    };
    let [both, bench] = if asks("wgpu") || asks("gpu") {
        ["--features=defrost-cli/wgpu,defrost-bench/wgpu", "--features=wgpu"]
    } else if asks("candle") {
        ["--features=defrost-cli/candle,defrost-bench/candle", "--features=candle"]
    } else {
        ["--features=", "--features="]
    };
    cargo(&["build", "--release", "--quiet", "-p", "defrost-cli", "-p", "defrost-bench", both], &[])?;
    cargo(&["run", "--release", "--quiet", "-p", "defrost-bench", bench, "--"], arguments)
}

fn cargo(words: &[&str], more: &[&str]) -> anyhow::Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status =
        Command::new(program).args(words).args(more).current_dir(root()).status().context("running cargo")?;
    if !status.success() {
        bail!("cargo {} failed", words[0]);
    }
    Ok(())
}
