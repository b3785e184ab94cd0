//! `defrost inspect` and `defrost convert`: what a weight file is, and the same in another format.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use defrost::train::Folder;
use defrost::weights::{NamedTensors, Precision, npy, pytorch, safetensors};
use defrost::{Error, Fit, Inspection};

use crate::format::{bytes, thousands};
use crate::{Usage, args};

pub(crate) fn inspect(args: &args::Inspect) -> anyhow::Result<ExitCode> {
    let about = defrost::inspect(&args.file)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&as_json(&about))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let numbers: usize = about.tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    writeln!(out, "  file        {}, {}", args.file.display(), bytes(about.bytes as usize))?;
    writeln!(out, "  format      {}", about.format)?;
    writeln!(out, "  tensors     {}, {} numbers", about.tensors.len(), thousands(numbers))?;
    for (key, value) in &about.metadata {
        let short: String = value.chars().take(72).map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(out, "  metadata    {key} = {short}{}", if short.len() < value.len() { "…" } else { "" })?;
    }
    let Some(fit) = about.fits.first() else {
        writeln!(out, "  fits        no network of the zoo; its tensors are")?;
        for (name, shape) in &about.tensors {
            writeln!(out, "    {name}  {shape:?}")?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    for fit in &about.fits {
        writeln!(out, "  fits        {}", fit.words())?;
    }
    let p = &fit.preprocess;
    writeln!(
        out,
        "  pictures    shorter side {} cropped to {}, {}, mean {:.3?}, deviation {:.3?} of 0…1",
        p.resize,
        p.crop,
        if p.reversed { "BGR" } else { "RGB" },
        p.mean,
        p.std
    )?;
    writeln!(out, "  loading     {}\n", fit.report)?;
    for (outcome, names) in outcomes(fit) {
        for name in names {
            writeln!(out, "    {outcome:<14}{name}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What becomes of each tensor, by outcome.
fn outcomes(fit: &Fit) -> [(&'static str, &[String]); 4] {
    let report = &fit.report;
    [
        ("matched", &report.matched),
        ("new", &report.reinitialised),
        ("other head", &report.dropped),
        ("left over", &report.surplus),
    ]
}

fn as_json(about: &Inspection) -> serde_json::Value {
    let tensors: Vec<_> =
        about.tensors.iter().map(|(n, s)| serde_json::json!({ "name": n, "shape": s })).collect();
    let fits: Vec<_> = about
        .fits
        .iter()
        .map(|fit| {
            let [matched, new, other_head, left_over] = outcomes(fit).map(|(_, names)| names);
            serde_json::json!({
                "model": fit.spec.arch.name(), "width": fit.spec.width, "geometry": fit.spec.geometry.name(),
                "classes": fit.has_head.then_some(fit.spec.classes), "preprocess": fit.preprocess,
                "matched": matched, "new": new, "other_head": other_head, "left_over": left_over,
            })
        })
        .collect();
    serde_json::json!({
        "format": about.format.to_string(), "bytes": about.bytes, "tensors": tensors, "metadata": about.metadata,
        "fits": fits,
    })
}

pub(crate) fn convert(args: &args::Convert) -> anyhow::Result<ExitCode> {
    let precision = match args.precision.as_str() {
        "f32" => Precision::F32,
        "f16" => Precision::F16,
        "bf16" => Precision::Bf16,
        other => return Err(Usage::new(format!("--precision {other}: it takes f32, f16 or bf16")).into()),
    };
    let input = match args.input.is_dir() {
        true => Folder::open(&args.input).map_err(Error::from)?.checkpoint_path("best"),
        false => args.input.clone(),
    };
    let extension = args.output.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if !matches!(extension, "safetensors" | "npz" | "pth" | "pt") {
        return Err(Usage::new("name the output .safetensors, .pth or .npz").into());
    }
    if extension == "npz" && precision != Precision::F32 {
        return Err(Usage::new("an .npz file holds f32 here: leave --precision out").into());
    }
    let (tensors, words) = renamed(&input)?;
    match extension {
        "npz" => npy::write_npz(&args.output, &tensors)?,
        "pth" | "pt" => pytorch::write(&args.output, &tensors, precision)?,
        _ => safetensors::write(&args.output, &tensors, precision)?,
    }
    writeln!(std::io::stdout(), "{}: {} tensors, {words}", args.output.display(), tensors.len())?;
    Ok(ExitCode::SUCCESS)
}

/// The file's tensors under the zoo's names with what belongs to them as metadata, or as they are where no network fits.
fn renamed(input: &Path) -> anyhow::Result<(NamedTensors, String)> {
    let mut about = defrost::inspect(input)?;
    let ours = about.metadata.contains_key("spec");
    if ours || about.fits.is_empty() {
        let words = if ours { "the network's own names" } else { "the file's own names" };
        return Ok((defrost::weights::read(input).map_err(Error::from)?, words.into()));
    }
    let fit = about.fits.swap_remove(0);
    let words = fit.words();
    let mut tensors: NamedTensors = fit.tensors.into_iter().collect();
    let texts = [
        ("format", "pt".to_owned()),
        ("model", fit.spec.arch.to_string()),
        ("width", fit.spec.width.to_string()),
        ("geometry", fit.spec.geometry.to_string()),
        ("preprocess", serde_json::to_string(&fit.preprocess)?),
    ];
    tensors.metadata.extend(texts.map(|(key, value)| (key.to_owned(), value)));
    Ok((tensors, words))
}
