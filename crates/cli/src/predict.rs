//! `defrost predict` and `defrost eval`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use defrost::augment::TestTime;
use defrost::policy::{Metric, Task};
use defrost::tensor::HostTensor;
use defrost::train::Validation;
use defrost::weights::npy;
use defrost::zoo::Arch;
use defrost::{Answer, Error, Guess, Trained};

use crate::format::{number, percent};
use crate::{Usage, args};

pub(crate) fn eval(args: &args::Eval) -> anyhow::Result<ExitCode> {
    let trained = with_views(Trained::open(&args.run)?.on(&args.device.name())?, args.tta.as_deref())?;
    let result = trained.evaluate(&args.data.path, args.data.table.images.as_deref(), &mut |_, _| ())?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&result)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    match result.task {
        Task::Regression => numbers(&mut out, &result)?,
        task => classes(&mut out, &result, task == Task::MultiLabel)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The scores of each class or label.
fn classes(out: &mut impl Write, v: &Validation, several: bool) -> std::io::Result<()> {
    let metric = |m| v.metric(m).map_or_else(|| "–".to_owned(), percent);
    if several {
        writeln!(out, "mAP       {}, AUC {}", metric(Metric::Map), metric(Metric::Auc))?;
        writeln!(
            out,
            "F1        {} (mean), {} (all labels together)",
            metric(Metric::F1),
            metric(Metric::F1Micro)
        )?;
        writeln!(out, "all right {} of {} pictures, loss {:.3}", metric(Metric::Accuracy), v.images, v.loss)?;
    } else {
        writeln!(out, "accuracy  {} of {} pictures, loss {:.3}", metric(Metric::Accuracy), v.images, v.loss)?;
        if let Some(top5) = v.top5 {
            writeln!(out, "top 5     {}", percent(top5))?;
        }
        writeln!(
            out,
            "F1        {} (mean), mAP {}, AUC {}",
            metric(Metric::F1),
            metric(Metric::Map),
            metric(Metric::Auc)
        )?;
    }
    let width = v.classes.iter().map(|c| c.chars().count()).max().unwrap_or(5).max(5);
    let (name, more) = if several { ("label", "      AP     AUC") } else { ("class", "") };
    writeln!(out, "\n{name:<width$}  pictures  precision  recall     F1{more}")?;
    for c in &v.per_class {
        let (p, r, f1) = (percent(c.precision), percent(c.recall), percent(c.f1));
        write!(out, "{:<width$}  {:>8}  {p:>9}  {r:>6}  {f1:>6}", c.class, c.images)?;
        let part = |p: Option<f64>| p.map_or("–".into(), percent);
        match several {
            true => writeln!(out, "  {:>6}  {:>6}", part(c.average_precision), part(c.auc))?,
            false => writeln!(out)?,
        }
    }
    Ok(())
}

/// The errors of each number.
fn numbers(out: &mut impl Write, v: &Validation) -> std::io::Result<()> {
    let metric = |m| number(v.metric(m).unwrap_or(0.0));
    let (mae, rmse) = (metric(Metric::Mae), metric(Metric::Rmse));
    writeln!(out, "MAE {mae}, RMSE {rmse}, R² {} of {} pictures", metric(Metric::R2), v.images)?;
    let width = v.classes.iter().map(|c| c.chars().count()).max().unwrap_or(6).max(6);
    writeln!(out, "\n{:<width$}       MAE      RMSE      R²        mean ± deviation", "number")?;
    for s in &v.per_value {
        let (mae, rmse, r2) = (number(s.mae), number(s.rmse), number(s.r2));
        let (mean, std) = (number(s.mean), number(s.std));
        writeln!(out, "{:<width$}  {mae:>8}  {rmse:>8}  {r2:>6}  {mean:>10} ± {std}", s.name)?;
    }
    Ok(())
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
            let trained = Trained::from_weights(path, arch, args.image_size)?;
            (prepared_as(trained, args.preprocess.as_deref())?, args.inputs.as_slice())
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
    Ok((with_views(trained.on(&args.device.name())?, args.tta.as_deref())?, inputs))
}

/// The network with pictures prepared as `--preprocess` says.
pub(crate) fn prepared_as(trained: Trained, family: Option<&str>) -> Result<Trained, Error> {
    match family {
        Some(family) => trained.prepared_as(family),
        None => Ok(trained),
    }
}

/// The network with the views that `--tta` asks for.
fn with_views(trained: Trained, asked: Option<&str>) -> anyhow::Result<Trained> {
    let Some(asked) = asked else { return Ok(trained) };
    let views = TestTime::named(asked).ok_or_else(|| {
        let known = TestTime::NAMES;
        let nearest = defrost::policy::nearest(asked, known);
        let meant =
            nearest.map_or(format!("; known are {}", known.join(", ")), |n| format!("; did you mean `{n}`?"));
        Usage::new(format!("there are no views `{asked}`{meant}"))
    })?;
    trained.test_time(views).map_err(|e| Usage::new(format!("--tta {asked}: {e}")).into())
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
    let path = answer.path.display().to_string();
    let json = |guesses: &[&Guess]| -> Vec<_> {
        guesses
            .iter()
            .map(|g| serde_json::json!({ "class": g.class, "probability": g.probability }))
            .collect()
    };
    let words = |guesses: &[&Guess]| -> String {
        let one = |g: &&Guess| format!("{} {}", g.class, percent(f64::from(g.probability)));
        guesses.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let likeliest: Vec<_> = answer.guesses.iter().take(args.top.max(1)).collect();
    match answer.task {
        Task::Regression if args.json => {
            let values: serde_json::Map<_, _> =
                answer.values.iter().map(|v| (v.name.clone(), serde_json::json!(v.value))).collect();
            writeln!(out, "{}", serde_json::json!({ "path": path, "values": values }))
        }
        Task::Regression => {
            let one = |v: &defrost::Value| format!("{} {}", v.name, number(f64::from(v.value)));
            writeln!(out, "{path}  {}", answer.values.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Task::MultiLabel => {
            let labels: Vec<_> = answer.labels(args.threshold).collect();
            if args.json {
                let names: Vec<_> = labels.iter().map(|g| &g.class).collect();
                let all = json(&answer.guesses.iter().collect::<Vec<_>>());
                return writeln!(
                    out,
                    "{}",
                    serde_json::json!({ "path": path, "labels": names, "guesses": all })
                );
            }
            match labels.is_empty() {
                true => writeln!(
                    out,
                    "{path}  no label (likeliest {})",
                    words(&likeliest[..1.min(likeliest.len())])
                ),
                false => writeln!(out, "{path}  {}", words(&labels)),
            }
        }
        _ if args.json => {
            writeln!(out, "{}", serde_json::json!({ "path": path, "guesses": json(&likeliest) }))
        }
        _ => writeln!(out, "{path}  {}", words(&likeliest)),
    }
}
