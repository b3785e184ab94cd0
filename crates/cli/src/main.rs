//! The `defrost` program: arguments in, words out. Everything it does is done by the facade.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or recipe, 130 interrupted and saved.

mod args;
mod augment;
mod data;
mod export;
mod format;
mod inspect;
mod lint;
mod lr_find;
mod plan;
mod plot;
mod predict;
mod probe;
mod profile;
mod progress;
mod pull;
mod recipe;
mod show;
mod train;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};

/// An error in what was asked, which ends with exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Train(args) => train::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Eval(args) => predict::eval(&args),
        Command::Predict(args) => predict::predict(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Convert(args) => inspect::convert(&args),
        Command::LrFind(args) => lr_find::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Augment(args) => augment::run(&args),
        Command::Models(args) => show::models(args.json),
        Command::Pull(args) => pull::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Recipes(args) => show::recipes(args.name.as_deref()),
        Command::Devices => show::devices(),
        Command::Report(args) => show::report(&args.run),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "defrost", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        // A reader that went away (`| head`) is no failure of ours.
        if is_broken_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        // Our errors name their cause themselves.
        eprintln!("error: {error}");
        ExitCode::from(if is_usage(&error) { 2 } else { 1 })
    })
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>()
        || error.is::<defrost::policy::RecipeError>()
        || error.downcast_ref::<defrost::Error>().is_some_and(defrost::Error::is_usage)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
