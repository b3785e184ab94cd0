//! `defrost probe`: what each stage of a network knows of the pictures, and where to cut.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use defrost::Probed;
use indicatif::{ProgressBar, ProgressStyle};

use crate::format::{percent, seconds};
use crate::{Usage, args};

/// Its arguments.
#[derive(clap::Args, Debug)]
pub(crate) struct Probe {
    #[command(flatten)]
    pub(crate) data: crate::data::Data,
    #[command(flatten)]
    pub(crate) recipe: args::Recipe,
    #[command(flatten)]
    pub(crate) device: args::Device,
    /// Write the recipe that the probes recommend
    #[arg(long, short, value_name = "FILE.toml")]
    pub(crate) out: Option<PathBuf>,
    /// Write a plot, .svg or .png
    #[arg(long, alias = "svg", value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Letters of the longest bar.
const BAR: usize = 32;

pub(crate) fn run(args: &Probe) -> anyhow::Result<ExitCode> {
    let recipe = args.recipe.resolve()?;
    let fine_tune = args.data.fine_tune().recipe(recipe).device(args.device.name());
    let prepared = args.recipe.located(fine_tune.prepare())?;
    let images = prepared.splits.train.len() + prepared.splits.val.len();
    let bar = ProgressBar::new(images as u64);
    let style = ProgressStyle::with_template("  {prefix:<26} {bar:24.cyan/dim} {pos}/{len}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸━"));
    bar.set_prefix("features");
    if args.json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let found = prepared.probe(&mut |done| {
        bar.set_position(done as u64);
        true
    })?;
    bar.finish_and_clear();
    let Some(found) = found else { return Ok(ExitCode::from(130)) };
    if let Some(path) = &args.plot {
        crate::plot::write(path, &defrost::report::probe_svg(&found.probes).map_err(defrost::Error::from)?)?;
    }
    if let Some(path) = &args.out {
        write(path, &recipe_text(&found))?;
    }
    if args.json {
        let json = serde_json::json!({
            "probes": found.probes,
            "advice": found.advice,
            "recipe": found.recipe.to_toml(),
        });
        writeln!(std::io::stdout().lock(), "{json}")?;
    } else {
        show(&found, args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text)
        .map_err(|e| Usage::new(format!("{} cannot be written: {e}", path.display())).into())
}

/// The recipe with the table it comes from.
fn recipe_text(found: &Probed) -> String {
    let probes = &found.probes;
    let rows = probes
        .stages
        .iter()
        .map(|p| format!("#   {:<14} {:>7} ± {:>5}\n", p.stage, percent(p.accuracy), percent(p.error)));
    format!(
        "# By `defrost probe` of {} on {} pictures: accuracies of linear probes, cross-validated\n{}# {}\n{}",
        probes.model,
        probes.train_images,
        rows.collect::<String>(),
        found.advice.reason,
        found.recipe.to_toml()
    )
}

fn show(found: &Probed, args: &Probe) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let (probes, advice) = (&found.probes, &found.advice);
    let most = probes.stages.iter().map(|p| p.accuracy).fold(f64::MIN_POSITIVE, f64::max);
    let name = probes.stages.iter().map(|p| p.stage.len()).max().unwrap_or(0).max(5);
    writeln!(
        out,
        "  probes      of {}, {} pictures in {} folds (chance {}), {}",
        probes.model,
        probes.train_images,
        probes.folds,
        percent(probes.chance),
        seconds(probes.seconds)
    )?;
    writeln!(out, "\n  {:<name$}  features  accuracy            train      val    work", "stage")?;
    for (i, probe) in probes.stages.iter().enumerate() {
        writeln!(
            out,
            "  {:<name$}  {:>8}  {:>7} ± {:>5}  {:>7}  {:>7}  {:>4.0} %  {}",
            probe.stage,
            probe.features,
            percent(probe.accuracy),
            percent(probe.error),
            percent(probe.train_accuracy),
            percent(probe.val_accuracy),
            100.0 * probe.work,
            bar(probe.accuracy / most)
        )?;
        if i + 1 == advice.freeze && advice.freeze < advice.of {
            writeln!(out, "  {}", "─ cut ".to_owned() + &"─".repeat(name + 56 + BAR))?;
        }
    }
    let cut = match advice.freeze.checked_sub(1).map(|i| &probes.stages[i].stage) {
        Some(stage) => format!("after {stage}, {} of {} stages", advice.freeze, advice.of),
        None => "nowhere".into(),
    };
    writeln!(out, "\n  cut         {cut}: {}", advice.reason)?;
    if let Some(path) = &args.plot {
        writeln!(out, "  plot        {}", path.display())?;
    }
    match &args.out {
        Some(path) => {
            let (data, path) = (args.data.path.display(), path.display());
            writeln!(out, "  recipe      {path}: {}", found.recipe.about)?;
            writeln!(out, "  train       defrost train {data} --recipe {path}")?;
        }
        None => writeln!(out, "  recipe      {}; --out FILE.toml writes it", found.recipe.about)?,
    }
    Ok(())
}

/// A bar for a part of 1, in eighths of a letter.
fn bar(part: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (part.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_what_they_say() {
        assert_eq!((bar(0.0).as_str(), bar(1.0).chars().count()), ("", BAR));
        assert_eq!(bar(0.5 + 3.0 / 256.0), "█".repeat(16) + "▍");
    }
}
