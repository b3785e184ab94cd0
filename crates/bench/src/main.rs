//! Benchmarks of defrost: what the kernels and the steps of training reach on this machine.
//!
//! The decision that shapes this crate: **ratios, not seconds.** Machines are shared and noisy, so each figure is taken
//! in turn with what it is compared with (the machine's own peak, the `gemm` crate at the same shape, PyTorch), in short
//! pieces, and the least time of each counts. A stopwatch alone would measure the neighbours.

/// Prints a line, in every module of this program. A reader that went away (`| head`) is no failure: the program ends.
macro_rules! println {
    () => { $crate::out::print(format_args!("\n")) };
    ($($words:tt)*) => { $crate::out::print(format_args!("{}\n", format_args!($($words)*))) };
}

/// Prints without a line's end, as [`println!`].
macro_rules! print {
    ($($words:tt)*) => { $crate::out::print(format_args!($($words)*)) };
}

#[cfg(feature = "candle")]
mod candle;
mod check;
mod compare;
#[cfg(feature = "wgpu")]
mod gpu;
mod job;
mod kernels;
mod layers;
mod loading;
mod machine;
mod out;
mod pictures;
mod process;
mod rivals;
mod rows;
mod scale;
mod start;
mod steps;
mod tables;
mod threads;
mod timing;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde_json::{Map, Value};

/// Measures defrost: kernels, training steps, loading, a whole job. Without a command all of it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The machine and its peak
    Machine,
    /// Each distinct convolution of the networks: forward and both gradients, beside the `gemm` crate
    Kernels(kernels::Kernels),
    /// Images a second of the networks, in this process: everything trains, the last stage, the head, inference
    Steps(steps::Steps),
    /// The same, each row in a process of its own, with its peak memory, in turn with the rival of --against
    Rows(rows::Rows),
    /// Decoding JPEG files and making batches of them
    Loading(loading::Loading),
    /// A whole job: ResNet18 on 1,000 pictures, five epochs of the head, two of everything
    Job(job::Job),
    /// How long the program takes to start, and to its first training step
    Start(start::Start),
    /// Seconds an epoch and memory from 1,000 to 20,000 pictures; two threads against one
    Scale(scale::Scale),
    /// What a second thread brings to steps, beside what two networks that share nothing gain
    Threads(threads::Threads),
    /// A GPU beside the CPU: images a second, where the time of a step goes, and what a roofline allows
    #[cfg(feature = "wgpu")]
    Gpu(gpu::Gpu),
    /// candle itself beside this project, forward: its convolutions, by its own operations
    #[cfg(feature = "candle")]
    Candle(candle::Candle),
    /// Prints the tables of docs/performance.md from a file of --json
    Tables {
        /// The file
        file: PathBuf,
    },
}

/// What runs where nothing is asked for.
const ALL: [&str; 6] = ["kernels", "rows", "loading", "job", "start", "scale"];

/// What runs on another backend where nothing is asked for.
const BACKENDS: [(&str, &str); 2] = [("wgpu", "gpu"), ("candle", "candle")];

/// What all benchmarks share.
#[derive(Args, Clone, Debug)]
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
    /// The device, as `defrost train --device` names it
    #[arg(long, global = true, default_value = "cpu", value_name = "NAME")]
    backend: String,
    /// Also run the same in PyTorch (and inference in onnxruntime), in turn
    #[arg(long, global = true, value_name = "torch")]
    against: Option<rivals::Rival>,
    /// The Python that has torch and torchvision
    #[arg(long, global = true, default_value = "python3", value_name = "PATH")]
    python: PathBuf,
    /// The Python that has onnxruntime [default: --python]
    #[arg(long, global = true, value_name = "PATH")]
    python_ort: Option<PathBuf>,
    /// The `defrost` program [default: beside this one]
    #[arg(long, global = true, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Where pictures and runs are put
    #[arg(long, global = true, default_value = "target/bench", value_name = "FOLDER")]
    folder: PathBuf,
    /// Writes the figures there as JSON, beside those of other commands that are there already
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compares with the figures of an earlier --json
    #[arg(long, global = true, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Fails where own kernels are not as fast as they should be beside the `gemm` crate; nothing else is measured
    #[arg(long, global = true)]
    check: bool,
}

impl Common {
    /// The `defrost` program.
    fn program(&self) -> anyhow::Result<PathBuf> {
        let beside = || std::env::current_exe().map(|p| p.with_file_name("defrost"));
        let path =
            self.program.clone().map_or_else(beside, Ok)?.with_extension(std::env::consts::EXE_EXTENSION);
        anyhow::ensure!(
            path.is_file(),
            "{} is not there: `cargo build --release -p defrost-cli`",
            path.display()
        );
        Ok(path)
    }
}

fn main() -> anyhow::Result<()> {
    let Cli { what, common } = Cli::parse();
    if let Some(What::Tables { file }) = &what {
        print!("{}", tables::all(&read(file)?));
        return Ok(());
    }
    let machine = machine::describe(common.threads);
    println!("{}", machine.line());
    if common.check {
        return check::run(&common, &machine);
    }
    let commands: Vec<What> = match what {
        Some(what) => vec![what],
        None => match BACKENDS.iter().find(|(backend, _)| common.backend.starts_with(backend)) {
            Some((_, command)) => again(command).into_iter().collect(),
            None => ALL.into_iter().filter_map(again).collect(),
        },
    };
    let mut found = Map::new();
    for what in &commands {
        let (name, rows) = match what {
            What::Machine | What::Tables { .. } => continue,
            What::Kernels(kernels) => ("kernels", kernels.run(&common, &machine)?),
            What::Steps(steps) => ("steps", steps.run(&common)?),
            What::Rows(rows) => ("rows", rows.run(&common)?),
            What::Loading(loading) => ("loading", loading.run(&common)?),
            What::Job(job) => ("job", job.run(&common)?),
            What::Start(start) => ("start", start.run(&common)?),
            What::Threads(threads) => ("threads", threads.run(&common)?),
            #[cfg(feature = "wgpu")]
            What::Gpu(gpu) => ("gpu", gpu.run(&common)?),
            #[cfg(feature = "candle")]
            What::Candle(candle) => ("candle", candle.run(&common)?),
            What::Scale(scale) => ("scale", scale.run(&common)?),
        };
        found.insert(name.to_owned(), rows.into());
        if let Some(path) = &common.json {
            write(path, &machine, &found)?;
        }
    }
    if let Some(base) = &common.base {
        print!("{}", compare::table(&read(base)?, &Value::Object(found)));
    }
    Ok(())
}

/// The command line once more, with a command.
fn again(name: &str) -> Option<What> {
    let mut args: Vec<_> = std::env::args_os().collect();
    args.insert(1.min(args.len()), name.into());
    Cli::parse_from(args).what
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// Puts `found` into the file at `path`; the rows of another command, and of this one under other ids, stay.
fn write(path: &Path, machine: &machine::Machine, found: &Map<String, Value>) -> anyhow::Result<()> {
    let mut file = match read(path) {
        Ok(Value::Object(file)) => file,
        _ => Map::new(),
    };
    file.insert("machine".into(), machine.json());
    for (name, new) in found {
        let mut rows: Vec<Value> = file.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        for row in new.as_array().into_iter().flatten() {
            match rows.iter_mut().find(|r| r["id"] == row["id"]) {
                Some(old) => *old = row.clone(),
                None => rows.push(row.clone()),
            }
        }
        file.insert(name.clone(), rows.into());
    }
    std::fs::write(path, serde_json::to_string_pretty(&file)?)
        .with_context(|| format!("writing {}", path.display()))
}
