//! The other side: scripts in `crates/bench/rivals`, run as their users at their best would.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::Value;

use crate::Common;
use crate::process::{Ran, run};

/// Whom to compare with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Rival {
    /// PyTorch with torchvision, channels-last, with an allocator that keeps its pages; inference also in onnxruntime
    Torch,
}

/// Without these glibc gives back and faults in the pages of every large tensor anew, which costs torch 11 to 46 %.
pub(crate) const TUNED: [(&str, &str); 3] = [
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "100000000000"),
    ("MALLOC_TOP_PAD_", "1000000000"),
];

/// A rival's script, with arguments, and the JSON of its last line.
pub(crate) fn script(common: &Common, name: &str, args: &[&str]) -> anyhow::Result<(Ran, Value)> {
    let scripts = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/rivals"));
    let python = match &common.python_ort {
        Some(python) if name == "bench_ort.py" => python,
        _ => &common.python,
    };
    let mut command = Command::new(python);
    command.arg(scripts.join(name)).args(args).envs(TUNED).current_dir(&common.folder);
    let ran = run(&mut command, |_| false)?;
    let line = ran.lines.iter().rev().find(|l| l.starts_with('{'));
    let line = line.with_context(|| format!("{name} printed no JSON"))?;
    let found = serde_json::from_str(line).with_context(|| format!("{name} printed {line}"))?;
    Ok((ran, found))
}

/// Images a second and peak memory in MB of PyTorch in a row of the table.
pub(crate) fn torch(
    common: &Common,
    net: &str,
    mode: &str,
    n: usize,
    dtype: &str,
) -> anyhow::Result<(f64, f64)> {
    let mode = match mode {
        "stage" => "stage_bneval",
        "head" => "head_bneval",
        mode => mode,
    };
    let (n, threads) = (n.to_string(), common.threads.to_string());
    let args = [
        "--model",
        net,
        "--mode",
        mode,
        "--batch",
        &n,
        "--threads",
        &threads,
        "--dtype",
        dtype,
        "--format",
        "channels_last",
    ];
    let (_, found) = script(common, "bench_torch.py", &args)?;
    let field = |name: &str| found[name].as_f64().with_context(|| format!("bench_torch.py has no {name}"));
    Ok((field("img_s")?, field("peak_rss_mb")?))
}

/// Images a second of inference in onnxruntime.
pub(crate) fn onnxruntime(common: &Common, net: &str) -> anyhow::Result<f64> {
    if !common.folder.join(format!("{net}.onnx")).is_file() {
        script(common, "export_onnx.py", &[net])?;
    }
    let (_, found) = script(common, "bench_ort.py", &[net])?;
    found["img_s"].as_f64().context("bench_ort.py has no img_s")
}
