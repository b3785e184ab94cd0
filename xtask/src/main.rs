//! Automation for people who work on defrost: `cargo xtask COMMAND`.

mod bench;
mod fetch;
mod load_time;
mod scenarios;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  test     everything that must pass: format, lints, tidy, tests, docs
  bench [COMMAND] [--backend wgpu|candle] [--against torch] [--base FILE] [--json FILE] [--check]
           measures kernels, steps, loading, a whole job, start and scale, optimised; `bench --help` says it all
  tidy     the rules on structure alone: levels of crates, module docs, file sizes
  fetch    brings the published weights that some tests need into .cache/weights, checks their hashes, and makes the embedded
           weights again
  load-time FILE MODEL
           how long a weight file takes to become a network's parameters; run it with `cargo run --release -p xtask --`
  scenarios [--only NAME] [--again] [--table] [--dev] [--model NAME --weights FILE]
           runs every recipe in full on the emoji set (hours; what has a result is left out) and writes docs/scenarios.md
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test"] => test::run(),
        ["tidy"] => tidy::run(),
        ["bench", arguments @ ..] => bench::run(arguments),
        ["fetch"] => fetch::run(),
        ["load-time", file, model] => load_time::run(file, model),
        ["scenarios", arguments @ ..] => scenarios::run(arguments),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).unwrap_or(Path::new(".")).to_owned()
}
