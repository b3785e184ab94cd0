//! Benchmarks of defrost: what the kernels and the steps of training reach on this machine.
//!
//! The decision that shapes this crate: **ratios, not seconds.** Machines are shared and noisy, so each figure is taken
//! in turn with what it is compared with (the machine's own peak, the `gemm` crate at the same shape, PyTorch), in short
//! pieces, and the least time of each counts. A stopwatch alone would measure the neighbours.

mod kernels;
mod layers;
mod machine;
mod steps;
mod timing;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde_json::json;

/// Measures defrost's kernels and training steps.
#[derive(Debug, Parser)]
#[command(name = "defrost-bench", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The machine and its peak
    Machine,
    /// Each distinct convolution of the networks: forward and both gradients, beside the `gemm` crate
    Kernels(kernels::Kernels),
    /// Images a second of the networks: everything trains, the last stage, the head, inference
    Steps(steps::Steps),
}

/// What all benchmarks share.
#[derive(Args, Debug)]
struct Common {
    /// Compute threads
    #[arg(long, global = true, default_value_t = 2)]
    threads: usize,
    /// Networks, all by default
    #[arg(long = "net", global = true, value_name = "NAME", value_delimiter = ',')]
    nets: Vec<String>,
    /// Images a batch; 0 for 16, and 8 for VGG16
    #[arg(long, global = true, default_value_t = 0)]
    batch: usize,
    /// Height and width of the pictures
    #[arg(long, global = true, default_value_t = 224)]
    size: usize,
    /// Writes the figures there as JSON
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let Cli { what, common } = Cli::parse();
    let machine = machine::describe(common.threads);
    println!("{}", machine.line());
    let (name, rows) = match &what {
        What::Machine => ("machine", Vec::new()),
        What::Kernels(kernels) => ("kernels", kernels.run(&common, &machine)?),
        What::Steps(steps) => ("steps", steps.run(&common)?),
    };
    if let Some(path) = &common.json {
        let file = json!({ "machine": machine.json(), name: rows });
        std::fs::write(path, serde_json::to_string_pretty(&file)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
