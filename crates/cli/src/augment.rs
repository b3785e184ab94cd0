//! `defrost augment`: what augmentation does to pictures, as a contact sheet.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use defrost::augment::sheet::{self, Row};
use defrost::augment::{Image, Interpolation, Mix, Op, Pipeline, Size, TestTime, contact_sheet};
use defrost::data::{DecodeOptions, decode_file};
use defrost::policy::{Augment, Recipe};

use crate::{Usage, args};

/// Views of a recipe and of a single operation, where nobody says how many.
const EPOCHS: (usize, usize) = (11, 5);

/// What is neither an operation on single images nor a kind of test-time augmentation.
const MIXES: [&str; 2] = ["mixup", "cutmix"];

pub(crate) fn run(args: &args::Augment) -> anyhow::Result<ExitCode> {
    let recipe = args.recipe.resolve()?;
    let images = args.images.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let case = Case {
        images: &images,
        size: Size::square(recipe.data.image_size),
        seed: recipe.seed,
        eval: match recipe.data.resize.clone() {
            Some(resize) => Pipeline(vec![Op::Resize(resize)]),
            None => Pipeline::eval(0.875, Interpolation::Bilinear),
        },
    };
    let shown = if args.op.is_empty() {
        case.recipe(&recipe, &args.images, args.epochs.unwrap_or(EPOCHS.0))?
    } else {
        let n = args.epochs.unwrap_or(EPOCHS.1);
        let all = names();
        let wanted: Vec<&str> = match args.op.iter().any(|op| op == "all") {
            true => all.iter().copied().filter(|name| *name != "plain").collect(),
            false => args.op.iter().map(String::as_str).collect(),
        };
        let rows = wanted.iter().map(|op| case.op(op, &recipe, n)).collect::<Result<Vec<_>, _>>()?;
        let columns = rows.iter().map(|r| r.cells.len()).max().unwrap_or(1).min(n + 2);
        Shown { rows, columns }
    };
    let mut out = std::io::stdout().lock();
    if is_folder(&args.output) {
        std::fs::create_dir_all(&args.output)?;
        for row in shown.rows {
            let name: String = row.title.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let name = if name.is_empty() { "sheet".into() } else { name };
            let path = args.output.join(name).with_extension("jpg");
            write(&path, &[row], shown.columns)?;
            writeln!(out, "{}", path.display())?;
        }
    } else {
        write(&args.output, &shown.rows, shown.columns)?;
        writeln!(out, "{}", args.output.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A sheet to be.
struct Shown {
    rows: Vec<Row>,
    columns: usize,
}

/// What all rows are made of.
struct Case<'c> {
    images: &'c [Image],
    size: Size,
    seed: u64,
    eval: Pipeline,
}

impl Case<'_> {
    /// The whole of a recipe's augmentation: each picture by itself, then mixed, then the views of test-time augmentation.
    fn recipe(&self, recipe: &Recipe, paths: &[PathBuf], n: usize) -> anyhow::Result<Shown> {
        let augment = &recipe.augment;
        let mut rows = Vec::new();
        for (image, path) in self.images.iter().zip(paths) {
            let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            let title = format!("{file}, recipe {}, seed {}", recipe.name, self.seed);
            rows.push(Row { title, cells: sheet::epochs(image, &augment.train, self.size, self.seed, n)? });
        }
        let mix = mix(augment);
        if mix.is_on() && self.images.len() > 1 {
            rows.push(self.mixed("mixed", &augment.train, &mix, n)?);
        } else if mix.is_on() {
            eprintln!("note: the recipe mixes pictures; give a second one to see it");
        }
        if augment.test_time != TestTime::Plain {
            rows.push(self.views(augment.test_time.name(), &augment.test_time, &augment.train)?);
        }
        // Near square with one picture; of several, lines of six.
        let columns = if rows.len() == 1 { ((n + 1) as f64).sqrt().ceil() as usize } else { 6 };
        Ok(Shown { rows, columns })
    }

    /// One operation by itself, at its defaults for every view, or as it is given: `rotate={ degrees = 45 }`.
    fn op(&self, given: &str, recipe: &Recipe, n: usize) -> anyhow::Result<Row> {
        let (name, value) = given.split_once('=').map_or((given, None), |(n, v)| (n.trim(), Some(v.trim())));
        if let Some(kind) = TestTime::named(name).filter(|_| value.is_none()) {
            return self.views(name, &kind, &recipe.augment.train);
        }
        if MIXES.contains(&name) {
            if self.images.len() < 2 {
                let what = format!("{name} takes two pictures: `defrost augment FIRST SECOND --op {name}`");
                return Err(Usage::new(what).into());
            }
            let mut own = recipe.clone();
            own.set(&format!("augment.{name}"), value.unwrap_or("1.0"))?;
            let alone = if name == "mixup" { &mut own.augment.cutmix } else { &mut own.augment.mixup };
            *alone = 0.0;
            return self.mixed(given, &self.eval, &mix(&own.augment), n);
        }
        if !names().contains(&name) {
            let nearest = defrost::policy::nearest(name, names());
            let meant = nearest
                .map_or(format!("; known are {}", names().join(", ")), |n| format!("; did you mean `{n}`?"));
            return Err(Usage::new(format!("there is no augmentation `{name}`{meant}")).into());
        }
        let mut own = recipe.clone();
        own.set("augment.train", &format!("[{{ {name} = {} }}]", value.unwrap_or("{}")))?;
        let mut pipeline = own.augment.train;
        if value.is_none() {
            pipeline.0 = pipeline.0.into_iter().map(Op::always).collect();
        }
        let image = &self.images[0];
        // What is not random looks the same in every epoch.
        let n = if pipeline.is_random() { n } else { 1 };
        Ok(Row { title: given.into(), cells: sheet::epochs(image, &pipeline, self.size, self.seed, n)? })
    }

    fn mixed(&self, title: &str, pipeline: &Pipeline, mix: &Mix, n: usize) -> anyhow::Result<Row> {
        let cells = sheet::mixed(self.images, pipeline, mix, self.size, self.seed, n)?;
        Ok(Row { title: title.into(), cells })
    }

    fn views(&self, title: &str, kind: &TestTime, train: &Pipeline) -> anyhow::Result<Row> {
        let cells = sheet::test_time(&self.images[0], kind, &self.eval, train, self.size, self.seed)?;
        Ok(Row { title: format!("{title}, test-time augmentation"), cells })
    }
}

fn mix(augment: &Augment) -> Mix {
    Mix { mixup: augment.mixup, cutmix: augment.cutmix, p: augment.mix_prob, switch: augment.switch_prob }
}

/// Everything that `--op` takes.
fn names() -> Vec<&'static str> {
    let ops = Op::all();
    let ops = ops.iter().map(Op::name);
    ops.chain(MIXES).chain(TestTime::NAMES).collect()
}

fn read(path: &Path) -> Result<Image, defrost::Error> {
    decode_file(path, &DecodeOptions::default())
        .map_err(|source| defrost::Error::Picture { path: path.into(), source })
}

fn is_folder(path: &Path) -> bool {
    path.is_dir() || path.to_string_lossy().ends_with('/')
}

fn write(path: &Path, rows: &[Row], columns: usize) -> anyhow::Result<()> {
    let drawn = defrost::report::with_captions(&contact_sheet(rows, columns)?)?;
    Ok(defrost::report::save(path, &drawn)?)
}
