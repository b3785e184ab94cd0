//! `defrost inspect` and `defrost convert`: what a weight file is, and the same in another format.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use defrost::train::Folder;
use defrost::weights::{NamedTensors, Precision, npy, pytorch, safetensors};
use defrost::zoo::{Interpolation, Preprocess, lasagne};
use defrost::{Error, Fit, Inspection};

use crate::format::{bytes, thousands};
use crate::{Usage, args};

pub(crate) fn inspect(args: &args::Inspect) -> anyhow::Result<ExitCode> {
    let about = defrost::inspect(&args.file)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&as_json(&about))?)?;
        return Ok(verdict(args, &about));
    }
    let numbers: usize = about.tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    writeln!(out, "  file        {}, {}", args.file.display(), bytes(about.bytes as usize))?;
    writeln!(out, "  format      {}", about.format)?;
    writeln!(out, "  tensors     {}, {} numbers", about.tensors.len(), thousands(numbers))?;
    for (key, value) in &about.metadata {
        let short: String = value.chars().take(72).map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(out, "  metadata    {key} = {short}{}", if short.len() < value.len() { "…" } else { "" })?;
    }
    if let Some(damage) = &about.damage {
        writeln!(out, "  damage      {damage}")?;
    }
    let Some(fit) = about.fits.first() else {
        writeln!(out, "  fits        no network of the zoo")?;
        if let Some(misfit) = &about.misfit {
            writeln!(out, "  most like   {}", misfit.to_string().replace('\n', "\n            "))?;
        }
        writeln!(out, "  its tensors")?;
        for (name, shape) in &about.tensors {
            writeln!(out, "    {name}  {shape:?}")?;
        }
        return Ok(verdict(args, &about));
    };
    for fit in &about.fits {
        writeln!(out, "  fits        {}", fit.words())?;
    }
    writeln!(out, "  pictures    {}", pictures(fit.preprocess()))?;
    if fit.is_assumed() {
        writeln!(out, "              {}", assumed("convert, predict and export: --preprocess "))?;
    }
    writeln!(out, "  loading     {}\n", fit.report)?;
    for layer in fit.report.layers() {
        writeln!(out, "    {:<16}{}  {}", layer.outcome.words(), layer.layer, layer.tensors.join(" "))?;
    }
    Ok(verdict(args, &about))
}

/// Whether the file is good enough for `--strict`.
fn verdict(args: &args::Inspect, about: &Inspection) -> ExitCode {
    let fault = match (&about.damage, about.fits.first()) {
        _ if !args.strict => return ExitCode::SUCCESS,
        (Some(damage), _) => damage.to_string(),
        (None, None) => "it fits no network of the zoo".to_owned(),
        (None, Some(fit)) if !fit.report.is_exact() => fit.report.to_string(),
        _ => return ExitCode::SUCCESS,
    };
    eprintln!("error: {}: --strict: {fault}", args.file.display());
    ExitCode::FAILURE
}

/// What to say where nothing tells how pictures are prepared; `how` is the way to say it.
pub(crate) fn assumed(how: &str) -> String {
    format!("assumed, the file does not say it; {how}{}", Preprocess::FAMILIES.join("|"))
}

/// How pictures are prepared, in words.
pub(crate) fn pictures(p: &Preprocess) -> String {
    let numbers = |values: &[f64]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" ");
    let size = match p.resize == p.crop {
        true => format!("shorter side {}", p.crop),
        false => format!("shorter side {} cropped to {}", p.resize, p.crop),
    };
    let rule = if p.interpolation == Interpolation::Bicubic { "bicubic" } else { "bilinear" };
    let order = if p.reversed { "BGR" } else { "RGB" };
    let deviation = numbers(&p.std);
    let mean = match &p.mean_image {
        Some(image) => format!("mean image {}×{}", image.shape()[1], image.shape()[2]),
        None => format!("mean {}", numbers(&p.mean)),
    };
    format!("{size} ({rule}), {order} in 0…1, {mean}, deviation {deviation}")
}

fn as_json(about: &Inspection) -> serde_json::Value {
    let tensors: Vec<_> =
        about.tensors.iter().map(|(n, s)| serde_json::json!({ "name": n, "shape": s })).collect();
    let fits: Vec<_> = about
        .fits
        .iter()
        .map(|fit| {
            let layers: Vec<_> = fit
                .report
                .layers()
                .into_iter()
                .map(|l| serde_json::json!({ "layer": l.layer, "outcome": l.outcome.words(), "tensors": l.tensors }))
                .collect();
            serde_json::json!({
                "model": fit.spec.arch.name(), "width": fit.spec.width, "geometry": fit.spec.geometry.name(),
                "classes": fit.has_head.then_some(fit.spec.classes), "head": fit.spec.head.to_string(),
                "names": fit.naming().to_string(), "preprocess": fit.preprocess(), "assumed": fit.is_assumed(), "layers": layers,
            })
        })
        .collect();
    serde_json::json!({
        "format": about.format.to_string(), "bytes": about.bytes, "tensors": tensors, "metadata": about.metadata,
        "fits": fits, "misfit": about.misfit.as_ref().map(ToString::to_string),
        "damage": about.damage.as_ref().map(ToString::to_string),
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
    let (mut tensors, words) = renamed(&input, args.preprocess.as_deref())?;
    if args.flip_filters {
        let metadata = std::mem::take(&mut tensors.metadata);
        tensors = tensors.into_iter().map(|(name, tensor)| (name, lasagne::flip_filters(tensor))).collect();
        tensors.metadata = metadata;
    }
    match extension {
        "npz" => npy::write_npz(&args.output, &tensors)?,
        "pth" | "pt" => pytorch::write(&args.output, &tensors, precision)?,
        _ => safetensors::write(&args.output, &tensors, precision)?,
    }
    writeln!(std::io::stdout(), "{}: {} tensors, {words}", args.output.display(), tensors.len())?;
    Ok(ExitCode::SUCCESS)
}

/// The file's tensors under the zoo's names with what belongs to them as metadata, or as they are where no network fits.
fn renamed(input: &Path, preprocess: Option<&str>) -> anyhow::Result<(NamedTensors, String)> {
    let mut about = defrost::inspect(input)?;
    if let Some(damage) = about.damage {
        return Err(Error::Unfit { weights: input.display().to_string(), source: Box::new(damage) }.into());
    }
    let ours = about.metadata.contains_key("spec");
    let words = about.fits.first().map_or("fits no network, the file's own names".to_owned(), Fit::words);
    let fit = (!about.fits.is_empty()).then(|| about.fits.swap_remove(0));
    let fit = match (fit, preprocess) {
        (Some(fit), Some(family)) => Some(fit.with_preprocess(family)?),
        (None, Some(_)) => return Err(Usage::new("--preprocess: the file fits no network").into()),
        (fit, None) => fit,
    };
    match fit {
        Some(fit) if !ours => Ok((fit.into_tensors(), words)),
        fit => {
            let mut tensors = defrost::weights::read(input).map_err(Error::from)?;
            if let (Some(fit), Some(_)) = (fit, preprocess) {
                let text = serde_json::to_string(fit.preprocess())?;
                tensors.metadata.insert("preprocess".into(), text);
            }
            Ok((tensors, words))
        }
    }
}
