//! `defrost lr-find`: the loss at rising learning rates, and which rate four readings of it suggest.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use defrost::policy::{Phase, Suggestion, Sweep};
use defrost::report;
use defrost::train::{LrFind, Options};

use crate::{Usage, args};

pub(crate) fn run(args: &args::LrFind) -> anyhow::Result<ExitCode> {
    let recipe = args.recipe.resolve()?;
    let fine_tune = args.data.fine_tune().recipe(recipe).device(args.device.name());
    let prepared = args.recipe.prepare(fine_tune, args.json)?;
    let phase = phase(&prepared.phases, args.phase.as_deref())?;
    let sweep = sweep(args, prepared.phases[phase].find_lr.as_ref())?;
    let stop = Arc::new(AtomicBool::new(false));
    crate::train::watch_signals(&stop)?;
    let options = Options { stop: Some(&stop), ..Options::default() };
    let found = prepared.lr_find(phase, &sweep, &options)?;
    if found.points.len() < 2 {
        anyhow::bail!("the loss is no number at the first rates already: lower --start ({})", sweep.start);
    }
    draw(&args.output, &found)?;
    let mut out = std::io::stdout().lock();
    let name = &prepared.phases[phase].name;
    if args.json {
        let mut json = serde_json::to_value(&found)?;
        json["name"] = serde_json::json!(name);
        json["plot"] = serde_json::json!(args.output);
        writeln!(out, "{json}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let (first, last) = (found.points[0], found.points[found.points.len() - 1]);
    writeln!(
        out,
        "phase `{name}`: {} rates from {:.1e} to {:.1e}, loss {:.3} to {:.3}",
        found.points.len(),
        first.lr,
        last.lr,
        first.loss,
        last.loss
    )?;
    for reading in Suggestion::ALL {
        match found.suggestions.iter().find(|s| s.reading == reading.name()) {
            Some(s) => writeln!(out, "  {:<9}{:.1e}", s.reading, s.lr)?,
            None => writeln!(out, "  {:<9}-", reading.name())?,
        }
    }
    writeln!(out, "  plot     {}", args.output.display())?;
    if let Some(s) = found.suggestions.first() {
        let peak = prepared.phases[phase].peak_lr();
        writeln!(
            out,
            "These are for the group with the greatest rate, {peak:.1e} in the recipe; the others keep their ratio to it."
        )?;
        writeln!(
            out,
            "To have a training do this by itself: --set 'phase.{}.find_lr={{ apply = \"{}\" }}'",
            phase + 1,
            s.reading
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The phase that is asked for by number (from 1) or name; the first.
fn phase(phases: &[Phase], asked: Option<&str>) -> Result<usize, Usage> {
    let Some(asked) = asked else { return Ok(0) };
    let named = phases.iter().position(|p| p.name == asked);
    let numbered = || asked.parse::<usize>().ok().filter(|n| (1..=phases.len()).contains(n)).map(|n| n - 1);
    named.or_else(numbered).ok_or_else(|| {
        let names: Vec<_> =
            phases.iter().enumerate().map(|(i, p)| format!("{} ({})", i + 1, p.name)).collect();
        Usage::new(format!("there is no phase `{asked}`; there are {}", names.join(", ")))
    })
}

/// The recipe's sweep or the usual one, with what the arguments say.
fn sweep(args: &args::LrFind, own: Option<&Sweep>) -> Result<Sweep, Usage> {
    let mut sweep = own.cloned().unwrap_or_default();
    sweep.start = args.start.unwrap_or(sweep.start);
    sweep.end = args.end.unwrap_or(sweep.end);
    sweep.steps = args.steps.unwrap_or(sweep.steps);
    sweep.stop_div &= !args.to_the_end;
    let rising = sweep.start > 0.0 && sweep.start < sweep.end && sweep.end.is_finite();
    if !rising {
        return Err(Usage::new("--start must be greater than 0 and less than --end"));
    }
    if sweep.steps < 6 {
        return Err(Usage::new("--steps must be at least 6"));
    }
    Ok(sweep)
}

fn draw(path: &Path, found: &LrFind) -> anyhow::Result<()> {
    let points: Vec<_> = found.points.iter().map(|p| (p.lr, p.loss)).collect();
    let named: Vec<_> = found.suggestions.iter().map(|s| (s.reading.as_str(), s.lr)).collect();
    let svg = report::lr_find_svg(&points, &named)?;
    crate::plot::write(path, &svg)
}
