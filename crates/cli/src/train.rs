//! `defrost train`: says what will happen, trains, says what came of it.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use defrost::policy::{Recipe, Task};
use defrost::train::{Aspect, Done, Ending, Event, Folder, Options, Outcome, phases_done, rule};
use defrost::zoo::{self, LoadReport};
use defrost::{FineTune, Prepared, Start};

use crate::format::{bytes, metric, metric_name, percent, seconds, thousands};
use crate::progress::{Bars, Json, Lines, Show};
use crate::{Usage, args};

/// Where and how much of what a frozen part of the network gives may be kept.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Cache {
    /// Megabytes of features of a frozen part that may be kept in memory [default: the recipe's, 1024]
    #[arg(long, value_name = "MB")]
    cache_memory: Option<u64>,
    /// Megabytes that may be kept in a file where memory is not enough; beyond them the frozen part runs in every step
    /// [default: the recipe's, 16384]
    #[arg(long, value_name = "MB")]
    cache_file: Option<u64>,
    /// The folder of that file, which is gone with the run [default: the recipe's, the run's folder]
    #[arg(long, value_name = "FOLDER")]
    cache_folder: Option<PathBuf>,
}

impl Cache {
    /// What is asked for here, in place of what the recipe says.
    fn asked(&self, recipe: &mut Recipe) {
        let data = &mut recipe.data;
        data.cache_memory = self.cache_memory.unwrap_or(data.cache_memory);
        data.cache_file = self.cache_file.unwrap_or(data.cache_file);
        if let Some(folder) = &self.cache_folder {
            data.cache_folder = Some(folder.display().to_string());
        }
    }
}

pub(crate) fn run(args: &args::Train) -> anyhow::Result<ExitCode> {
    let (fine_tune, start) = match &args.resume {
        Some(run) => resumed(args, run)?,
        None => (fresh(args)?, Start::Fresh),
    };
    let (quiet, json) = (args.output.quiet, args.output.json);
    let prepared = args.recipe.prepare(fine_tune, quiet || json)?;
    if !quiet && !json {
        introduce(&prepared)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(&stop)?;
    let mut show: Box<dyn Show> = match (quiet, json) {
        (true, _) => Box::new(crate::progress::Silent),
        (_, true) => Box::new(Json),
        _ if std::io::stdout().is_terminal() => Box::new(Bars::new()),
        _ => Box::new(Lines::new()),
    };
    if json {
        // What a phase's selection says, the run says itself.
        for doubt in prepared.warnings().filter(|d| d.rule != "selector") {
            show.event(&Event::Warning { message: crate::lint::words(&doubt) });
        }
    }
    let options = Options {
        stop: Some(&stop),
        accept: args.accept.iter().map(|name| aspect(name)).collect::<Result<_, _>>()?,
        on_event: Box::new(|event| show.event(event)),
        profile: args.profile,
        ..Options::default()
    };
    let outcome = prepared.train(start, options)?;
    conclude(&prepared, &outcome, args)
}

/// A new run.
fn fresh(args: &args::Train) -> anyhow::Result<FineTune> {
    let data = args.data.clone().ok_or_else(|| Usage::new("give a folder of pictures"))?;
    let mut recipe = args.recipe.resolve()?;
    recipe.data.strict |= args.strict;
    retain(args, &mut recipe);
    args.cache.asked(&mut recipe);
    save(args, &mut recipe);
    let folder = args.run.clone().unwrap_or_else(|| new_folder(&data, &recipe));
    let mut fine_tune = FineTune::on(data);
    fine_tune.images.clone_from(&args.table.images);
    Ok(fine_tune.recipe(recipe).device(args.device.name()).into_folder(folder))
}

/// A run to be gone on with: where it was interrupted by its own recipe, or by the phases of another one.
fn resumed(args: &args::Train, run: &Path) -> anyhow::Result<(FineTune, Start)> {
    let folder = Folder::open(run).map_err(defrost::Error::from)?;
    let data = match (&args.data, defrost::data_of(run)) {
        (Some(data), _) => data.clone(),
        (None, Some(data)) => data,
        (None, None) => {
            return Err(Usage::new("the run does not say where its pictures are: give the folder").into());
        }
    };
    let own = Recipe::from_toml(&folder.recipe().map_err(defrost::Error::from)?)?;
    let at = folder.state().map_err(defrost::Error::from)?.at;
    let over = at.phase >= own.phases.len();
    let (mut recipe, start) = match args.recipe.asked()? {
        Some(next) if over || args.next => {
            // Values are changed before the phases that are done come in front: numbers of phases are the new recipe's.
            let mut next = args.recipe.adapt(next.like(&own))?;
            if let (Some(name), Some(first)) = (&args.start, next.phases.first_mut()) {
                first.start = name.clone().into();
            }
            save(args, &mut next);
            (next.after(&own, phases_done(at)), Start::Proceed)
        }
        Some(_) if !args.accept.iter().any(|what| what == "recipe") => {
            return Err(Usage::new(format!(
                "{} was interrupted before its end. Go on with it without `--recipe`; or add `--next` to begin the \
                 other recipe now, or `--accept recipe` to go on at the same epoch of the other recipe",
                run.display()
            ))
            .into());
        }
        asked => {
            let mut recipe = args.recipe.adapt(asked.unwrap_or(own))?;
            save(args, &mut recipe);
            (recipe, Start::Resume)
        }
    };
    retain(args, &mut recipe);
    args.cache.asked(&mut recipe);
    // The folder of a table goes with the table.
    let mut fine_tune = FineTune::on(data);
    fine_tune.images =
        args.table.images.clone().or_else(|| defrost::images_of(run).filter(|_| args.data.is_none()));
    Ok((fine_tune.recipe(recipe).device(args.device.name()).into_folder(run), start))
}

/// The name that the last weights are saved under.
fn save(args: &args::Train, recipe: &mut Recipe) {
    if let (Some(name), Some(last)) = (&args.save, recipe.phases.last_mut()) {
        last.save = Some(name.clone());
    }
}

/// The folder of the source task, from wherever the run is resumed.
fn retain(args: &args::Train, recipe: &mut Recipe) {
    if let Some(folder) = &args.retain {
        let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        recipe.retention.source = Some(whole.display().to_string());
    }
}

/// `runs/DATA-NETWORK-N` with the first N that is free.
fn new_folder(data: &Path, recipe: &Recipe) -> PathBuf {
    let name = std::path::absolute(data).ok().and_then(|p| {
        if p.is_file() { p.file_stem().map(ToOwned::to_owned) } else { p.file_name().map(ToOwned::to_owned) }
    });
    let name = name.map(|n| n.to_string_lossy().into_owned());
    let stem = format!("runs/{}-{}", name.as_deref().unwrap_or("run"), recipe.model.arch);
    let numbered = (1..).map(|i| PathBuf::from(format!("{stem}-{i}")));
    numbered.into_iter().find(|p| !p.exists()).unwrap_or_else(|| stem.into())
}

fn aspect(name: &str) -> Result<Aspect, Usage> {
    let all = [Aspect::Data, Aspect::Recipe, Aspect::Preprocessing];
    let known = || all.iter().filter_map(|a| a.flag()).collect::<Vec<_>>().join(", ");
    let found = all.into_iter().find(|a| a.flag() == Some(name));
    found.ok_or_else(|| Usage::new(format!("--accept {name}: it takes one of {}", known())))
}

/// The first signal finishes the step and saves; the second ends the program at once.
pub(crate) fn watch_signals(stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the default action is armed by the first signal and taken by the second.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    // While a terminal shows bars, say at once that the signal was heard.
    let heard = Arc::clone(stop);
    std::thread::spawn(move || {
        while !heard.load(Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        eprintln!("\n  stopping    finishing this step and saving; press Ctrl-C again to stop at once");
    });
    Ok(())
}

fn introduce(prepared: &Prepared) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let recipe = &prepared.fine_tune.recipe;
    writeln!(out, "  photos      {}", prepared.splits.summary())?;
    if let Some(table) = &prepared.table {
        writeln!(out, "  table       {table}")?;
    }
    let model = &prepared.model;
    let [h, w] = model.spec.image_size;
    let head = match &model.report {
        Some(report) if report.reinitialised.is_empty() => ", its own head".into(),
        Some(_) => format!(", new head for {} {}", model.graph.classes(), outputs(recipe.loss.task())),
        None => String::new(),
    };
    writeln!(out, "  network     {} at {h}×{w}, {}{head}", model.spec.arch, model.source)?;
    if let Some(report) = &model.report {
        for (i, line) in loading(report).iter().enumerate() {
            writeln!(out, "  {:<12}{line}", if i == 0 { "weights" } else { "" })?;
        }
    }
    writeln!(out, "  pictures    {}", crate::inspect::pictures(&model.preprocess))?;
    if model.assumed {
        writeln!(out, "              {}", crate::inspect::assumed("--set model.preprocess="))?;
    }
    writeln!(out, "  device      {}", prepared.engine.device())?;
    writeln!(out, "  recipe      {}: {}", recipe.name, recipe.about)?;
    for (i, phase) in prepared.phases.iter().enumerate() {
        let (plan, _) = prepared.plan(i)?;
        let trained: usize = plan.trained.iter().map(|&id| model.graph.param(id).len()).sum();
        let memory = plan.memory(&model.graph, rule(&phase.optimizer, None)?.state());
        let rates = phase.groups.iter().map(|g| g.lr).filter(|lr| *lr > 0.0);
        let (low, high) = rates.fold((f64::MAX, 0.0f64), |(a, b), lr| (a.min(lr), b.max(lr)));
        let rate = if low < high { format!("{low:.0e} … {high:.0e}") } else { format!("{high:.0e}") };
        let what = format!("{}, {} parameters", phase.name, thousands(trained));
        let label = if i == 0 { "plan" } else { "" };
        writeln!(
            out,
            "  {label:<12}phase {}: {what}, {} epochs at {rate}, {}{}",
            i + 1,
            phase.epochs,
            bytes(memory.total()),
            if plan.recomputes() { ", activations computed again" } else { "" }
        )?;
    }
    for doubt in prepared.warnings() {
        writeln!(out, "  warning     {}", crate::lint::words(&doubt))?;
    }
    writeln!(out)?;
    Ok(())
}

/// What the outputs of a network are.
const fn outputs(task: Task) -> &'static str {
    match task {
        Task::MultiLabel => "labels",
        Task::Regression => "numbers",
        _ => "classes",
    }
}

/// What the best epoch reached, in the metric that the recipe watches.
fn best(done: &Done, task: Task) -> String {
    let watched = task.metrics().iter().find(|m| m.name() == done.metric);
    match (done.accuracy, watched, done.value) {
        (Some(accuracy), _, _) if task == Task::Classification => percent(accuracy),
        (_, Some(&watched), Some(value)) => format!("{} {}", metric_name(watched), metric(watched, value)),
        _ => "no validation pictures".into(),
    }
}

/// What became of the file's weights: a line for each outcome, the layers that are not simply matched by name.
fn loading(report: &LoadReport) -> Vec<String> {
    use zoo::Outcome;
    let mut lines: Vec<String> = Vec::new();
    let layers = report.layers();
    for outcome in [Outcome::Matched, Outcome::Adapted, Outcome::Reinitialised, Outcome::LeftOver] {
        let of: Vec<_> = layers.iter().filter(|l| l.outcome == outcome).collect();
        let tensors: usize = of.iter().map(|l| l.tensors.len()).sum();
        if of.is_empty() {
            continue;
        }
        let names: Vec<_> = of.iter().map(|l| l.layer.as_str()).collect();
        let names = match &names[..] {
            [first, .., last] if names.len() > 6 => format!("{first} … {last}, {} layers", names.len()),
            names => names.join(", "),
        };
        lines.push(format!("{tensors} {}: {names}", outcome.words()));
    }
    lines
}

fn conclude(prepared: &Prepared, outcome: &Outcome, args: &args::Train) -> anyhow::Result<ExitCode> {
    let run = prepared.fine_tune.folder.display();
    let mut out = std::io::stdout().lock();
    match &outcome.ending {
        Ending::Stopped(stopped) => {
            if !args.output.json {
                writeln!(out, "\n  stopped     {}", stopped.reason)?;
                writeln!(out, "  continue    defrost train --resume {run}")?;
            }
            return Ok(ExitCode::from(130));
        }
        Ending::Done(_) if args.output.quiet => writeln!(out, "{run}")?,
        Ending::Done(_) if args.output.json => {}
        Ending::Done(done) => {
            let best = best(done, prepared.fine_tune.recipe.loss.task());
            let epoch = done.best_epoch.map_or(String::new(), |e| format!(" at epoch {}", e + 1));
            writeln!(out, "\n  best        {best}{epoch}, in {}", seconds(done.seconds))?;
            let skipped = prepared.splits.skipped.len();
            if skipped > 0 {
                writeln!(out, "  skipped     {skipped} files, listed in {run}/skipped.txt")?;
            }
            writeln!(out, "  run         {run}")?;
            writeln!(out, "  look        {run}/report.html")?;
            writeln!(out, "  use         defrost predict {run} IMAGE...")?;
            let images = prepared.fine_tune.images.as_ref();
            let images = images.map_or(String::new(), |i| format!(" --images {}", i.display()));
            writeln!(out, "  measure     defrost eval {run} {}{images}", prepared.fine_tune.data.display())?;
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}
