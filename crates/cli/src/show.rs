//! What is there: networks, recipes, devices, reports.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use defrost::zoo::{Arch, ModelSpec, Source, Weights, summary};

use crate::format::thousands;

pub(crate) fn models(json: bool) -> anyhow::Result<ExitCode> {
    let settings = defrost::pull::Settings::from_env();
    let mut out = std::io::stdout().lock();
    for arch in Arch::ALL {
        let about = summary(&ModelSpec::new(arch, 1000).build()?);
        let here = |w: &Weights| matches!(w.source, Source::Embedded);
        if json {
            let weights = Weights::of(arch).map(|w| {
                serde_json::json!({
                    "name": w.name, "embedded": here(w), "top1": w.top1, "licence": w.licence,
                    "path": defrost::pull::cached(w, &settings),
                })
            });
            let line = serde_json::json!({
                "name": about.name, "parameters": about.parameters, "macs": about.macs,
                "stages": about.stages.iter().map(|s| &s.name).collect::<Vec<_>>(), "weights": weights.collect::<Vec<_>>(),
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let (params, mmacs) = (thousands(about.parameters), about.macs as f64 / 1e6);
        writeln!(out, "{:<14}{params:>12} parameters  {mmacs:>8.0} MMACs at 224", about.name)?;
        for w in Weights::of(arch) {
            let top1 = w.top1.map_or(String::new(), |t| format!("{t:.1} % top-1"));
            let place = match defrost::pull::cached(w, &settings) {
                Some(path) => path.display().to_string(),
                None if here(w) => "in this program".into(),
                None if defrost::pull::remote(w).is_some() => format!("defrost pull {arch}/{}", w.name),
                None => crate::pull::place(w, &settings),
            };
            writeln!(out, "    {:<22}{top1:<16}{:<19}{place}", w.name, w.licence)?;
        }
        let stages: Vec<_> = about.stages.iter().map(|s| s.name.as_str()).collect();
        writeln!(out, "    stages: {}\n", stages.join(" "))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn recipes(name: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let all = defrost::policy::recipes();
    match name {
        None => {
            let width = all.iter().map(|(name, ..)| name.len()).max().unwrap_or(0) + 2;
            for (name, about, _) in all {
                writeln!(out, "{name:<width$}{about}")?;
            }
        }
        Some(name) => {
            // Short names are names too.
            let name = defrost::policy::Recipe::named(name)?.name;
            let text = all.iter().find(|(n, ..)| *n == name).map_or("", |(_, _, text)| text);
            write!(out, "{text}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn devices() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for (name, about) in defrost::Device::list() {
        writeln!(out, "{name:<13}{about}")?;
    }
    for backend in defrost::Device::left_out() {
        writeln!(out, "{backend} is left out of this build: `cargo install` it with `--features {backend}`")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn report(run: &Path) -> anyhow::Result<ExitCode> {
    let path = defrost::report::write(run)?;
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(ExitCode::SUCCESS)
}
