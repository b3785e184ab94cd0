//! `defrost export`: a run or a weight file for other programs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use defrost::export::OnnxExport;
use defrost::export::onnx::Output;
use defrost::weights::Precision;
use defrost::zoo::Arch;
use defrost::{Error, Trained};

use crate::args::ExportFormat;
use crate::format::bytes;
use crate::predict::prepared_as;
use crate::{Usage, args};

pub(crate) fn run(args: &args::Export) -> anyhow::Result<ExitCode> {
    let format = format(args)?;
    let (trained, beside) = open(args)?;
    let output = output(args, &trained)?;
    let path = match &args.output {
        Some(path) => path.clone(),
        None => beside.join(match format {
            ExportFormat::Onnx => "model.onnx",
            ExportFormat::Safetensors => "model.safetensors",
        }),
    };
    let length = match format {
        ExportFormat::Onnx => {
            let mut what = OnnxExport::default();
            what.pixels = args.preprocess_inside.map(|pixels| pixels.parts());
            what.output = output;
            what.fold = !args.no_fold;
            trained.export_onnx(&path, &what)?
        }
        ExportFormat::Safetensors => trained.export_weights(&path, args.precision.into())?,
    };
    let spec = &trained.model.spec;
    let [height, width] = spec.image_size;
    let classes = trained.model.graph.classes();
    eprintln!("{}  {classes} outputs, {height}x{width}, {}", spec.arch, bytes(length as usize));
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(ExitCode::SUCCESS)
}

/// The format asked for, else the one that the output's name says, else ONNX.
fn format(args: &args::Export) -> anyhow::Result<ExportFormat> {
    let named = args.output.as_ref().and_then(|p| p.extension()).and_then(|e| e.to_str());
    let format = match (args.format, named) {
        (Some(format), _) => format,
        (None, Some("safetensors")) => ExportFormat::Safetensors,
        _ => ExportFormat::Onnx,
    };
    let misplaced = match format {
        ExportFormat::Safetensors if args.preprocess_inside.is_some() => "--preprocess-inside",
        ExportFormat::Safetensors if args.probabilities => "--probabilities",
        ExportFormat::Safetensors if args.no_fold => "--no-fold",
        ExportFormat::Onnx if args.precision != Stored::F32 => "--precision",
        _ => return Ok(format),
    };
    let of = match format {
        ExportFormat::Onnx => "safetensors",
        ExportFormat::Safetensors => "ONNX",
    };
    Err(Usage::new(format!("{misplaced} is for {of} files alone")).into())
}

fn output(args: &args::Export, trained: &Trained) -> anyhow::Result<Output> {
    if !args.probabilities {
        return Ok(trained.outputs());
    }
    let none = || Usage::new("this network answers with numbers, not with probabilities");
    Ok(trained.probabilities().ok_or_else(none)?)
}

/// The network, and the folder that a file of it belongs in.
fn open(args: &args::Export) -> anyhow::Result<(Trained, PathBuf)> {
    if let Some(run) = &args.run {
        return Ok((Trained::open(run)?, run.clone()));
    }
    let path = args.weights.as_deref().ok_or_else(|| Usage::new("give a run or --weights"))?;
    let arch = args.model.as_deref().map(str::parse::<Arch>).transpose().map_err(Error::from)?;
    if let Some(arch) = arch {
        crate::pull::for_weights(arch, path)?;
    }
    let trained = Trained::from_weights(path, arch, args.image_size)?;
    Ok((prepared_as(trained, args.preprocess.as_deref())?, Path::new("").into()))
}

/// How numbers are stored in a weight file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Stored {
    #[default]
    F32,
    F16,
    Bf16,
}

impl From<Stored> for Precision {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::F32 => Self::F32,
            Stored::F16 => Self::F16,
            Stored::Bf16 => Self::Bf16,
        }
    }
}
