//! `defrost lint`: what is legal in a run and mostly a mistake, before it runs.

use std::io::Write;
use std::process::ExitCode;

use defrost::policy::{Doubt, Severity};

use crate::args;

pub(crate) fn run(args: &args::Lint) -> anyhow::Result<ExitCode> {
    let recipe = args.recipe.resolve()?;
    let fine_tune = args.data.fine_tune().recipe(recipe);
    let prepared = args.recipe.prepare(fine_tune, args.json)?;
    let doubts = prepared.lint();
    let mut out = std::io::stdout().lock();
    for doubt in &doubts {
        match args.json {
            true => writeln!(out, "{}", json(doubt))?,
            false => writeln!(out, "{:<9}{}", format!("{}:", severity(doubt)), words(doubt))?,
        }
    }
    let warnings = doubts.iter().filter(|d| d.severity == Severity::Warning).count();
    if !args.json && warnings == 0 {
        writeln!(
            out,
            "no warnings about recipe `{}` on {}",
            prepared.fine_tune.recipe.name,
            args.data.path.display()
        )?;
    }
    Ok(ExitCode::from(u8::from(warnings > 0)))
}

/// A doubt with its rule and what to set.
pub(crate) fn words(doubt: &Doubt) -> String {
    let set = doubt.set.as_ref().map_or(String::new(), |set| format!(" (--set '{set}')"));
    format!("{}{set} [{}]", doubt.message, doubt.rule)
}

fn severity(doubt: &Doubt) -> &'static str {
    if doubt.severity == Severity::Warning { "warning" } else { "note" }
}

fn json(doubt: &Doubt) -> serde_json::Value {
    serde_json::json!({
        "severity": severity(doubt), "rule": doubt.rule, "message": doubt.message, "set": doubt.set,
    })
}
