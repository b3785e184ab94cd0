//! `defrost predict` and `defrost eval`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use defrost::tensor::HostTensor;
use defrost::weights::npy;
use defrost::zoo::Arch;
use defrost::{Answer, Error, Trained};

use crate::format::percent;
use crate::{Usage, args};

pub(crate) fn eval(args: &args::Eval) -> anyhow::Result<ExitCode> {
    let trained = Trained::open(&args.run)?.on(&args.device.name())?;
    let result = trained.evaluate(&args.data, &mut |_, _| ())?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&result)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "accuracy  {} of {} pictures, loss {:.3}",
        percent(result.accuracy),
        result.images,
        result.loss
    )?;
    let width = result.classes.iter().map(|c| c.chars().count()).max().unwrap_or(5).max(5);
    writeln!(out, "\n{:<width$}  pictures  precision  recall     F1", "class")?;
    for c in &result.per_class {
        let (p, r, f1) = (percent(c.precision), percent(c.recall), percent(c.f1));
        writeln!(out, "{:<width$}  {:>8}  {p:>9}  {r:>6}  {f1:>6}", c.class, c.images)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn predict(args: &args::Predict) -> anyhow::Result<ExitCode> {
    let (trained, inputs) = open(args)?;
    let mut all = Vec::new();
    let mut failed = 0;
    let (arrays, images): (Vec<&PathBuf>, Vec<&PathBuf>) = inputs.iter().partition(|p| is_array(p));
    for path in arrays {
        match array(&trained, path) {
            Ok(answers) => all.extend(answers),
            Err(error) => {
                eprintln!("error: {error}");
                failed += 1;
            }
        }
    }
    let images: Vec<_> = images.into_iter().cloned().collect();
    for answer in trained.predict_each(&images)? {
        match answer {
            Ok(answer) => all.push(answer),
            Err((path, error)) => {
                eprintln!("error: {}: {error}", path.display());
                failed += 1;
            }
        }
    }
    let mut out = std::io::stdout().lock();
    for answer in &all {
        print(&mut out, answer, args)?;
    }
    if let Some(path) = &args.logits {
        let values: Vec<f32> = all.iter().flat_map(|a| a.logits.iter().copied()).collect();
        npy::write(path, &HostTensor::new([all.len(), trained.model.graph.classes()], values)?)?;
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// The network, and what remains of the inputs.
fn open(args: &args::Predict) -> anyhow::Result<(Trained, &[PathBuf])> {
    let (trained, inputs) = match &args.weights {
        Some(path) => {
            let arch = args.model.as_deref().map(str::parse::<Arch>).transpose().map_err(Error::from)?;
            if let Some(arch) = arch {
                crate::pull::for_weights(arch, path)?;
            }
            (Trained::from_weights(path, arch, args.image_size)?, args.inputs.as_slice())
        }
        None => {
            let (run, inputs) =
                args.inputs.split_first().ok_or_else(|| Usage::new("give a run and pictures"))?;
            if inputs.is_empty() {
                let what =
                    format!("give pictures after the run: `defrost predict {} IMAGE...`", run.display());
                return Err(Usage::new(what).into());
            }
            (Trained::open(run)?, inputs)
        }
    };
    Ok((trained.on(&args.device.name())?, inputs))
}

fn is_array(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"))
}

/// The answers to an array of `[n, c, h, w]`, preprocessed already.
fn array(trained: &Trained, path: &Path) -> anyhow::Result<Vec<Answer>> {
    let array = npy::read(path)?;
    let shape = trained.model.graph.input_shape();
    let want = [shape.c, shape.h, shape.w];
    match array.shape() {
        &[n, c, h, w] if [c, h, w] == want => {
            let mut answers = trained.predict_array(n, array.data())?;
            for answer in &mut answers {
                answer.path = format!("{}{}", path.display(), answer.path.display()).into();
            }
            Ok(answers)
        }
        got => Err(Error::Array { path: path.into(), got: got.to_vec(), want }.into()),
    }
}

fn print(out: &mut impl Write, answer: &Answer, args: &args::Predict) -> std::io::Result<()> {
    let guesses = &answer.guesses[..args.top.clamp(1, answer.guesses.len())];
    if args.json {
        let guesses: Vec<_> = guesses
            .iter()
            .map(|g| serde_json::json!({ "class": g.class, "probability": g.probability }))
            .collect();
        let line = serde_json::json!({ "path": answer.path.display().to_string(), "guesses": guesses });
        return writeln!(out, "{line}");
    }
    let words: Vec<_> =
        guesses.iter().map(|g| format!("{} {}", g.class, percent(f64::from(g.probability)))).collect();
    writeln!(out, "{}  {}", answer.path.display(), words.join(", "))
}
