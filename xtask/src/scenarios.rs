//! `cargo xtask scenarios`: every recipe in full on the emoji set, and the table of what came of it.
//!
//! A run takes minutes, all of them hours. So each result is a line of its own in `docs/scenarios.jsonl`, what has a line is
//! not run again, and a run that was interrupted goes on where it stopped. The table, `docs/scenarios.md`, is made from the
//! lines alone.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::root;

const DATA: &str = "datasets/emoji";
const LINES: &str = "docs/scenarios.jsonl";
const TABLE: &str = "docs/scenarios.md";
const RUNS: &str = ".cache/scenarios";

/// How often a run's memory is looked at; the system keeps the peak, so that only the last moment can be missed.
const LOOK: Duration = Duration::from_millis(100);

/// What the arguments ask for.
#[derive(Debug, Default)]
struct Asked {
    /// These recipes alone; all where empty.
    only: Vec<String>,
    /// Also those that have a result.
    again: bool,
    /// The table alone, from the results there are.
    table: bool,
    /// The program as tests build it: its kernels are optimised there too, and it is there sooner.
    dev: bool,
    /// Another network, by the name that `--model` of `defrost train` takes, and where its weights come from.
    network: Option<Network>,
}

/// What every recipe's own network and weights are replaced by.
#[derive(Debug)]
struct Network {
    model: String,
    weights: String,
}

/// What a run used, as the system counts it; `None` where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Used {
    /// The most memory it ever had, in bytes.
    memory: Option<u64>,
    /// Time of all its threads on processors, in seconds.
    processor: Option<f64>,
}

/// Runs what has no result yet, and writes the table.
pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let asked = asked(arguments)?;
    let program = build(asked.dev)?;
    let recipes = recipes(&program)?;
    for name in &asked.only {
        if !recipes.iter().any(|(recipe, _)| recipe == name) {
            bail!("there is no recipe `{name}`; there are {}", names(&recipes));
        }
    }
    for (name, _) in recipes.iter().filter(|_| !asked.table) {
        let wanted = asked.only.is_empty() || asked.only.contains(name);
        let key = asked.key(name);
        if !wanted || (!asked.again && results()?.iter().any(|r| r["key"] == key && whole(r))) {
            continue;
        }
        eprintln!("xtask: {key}");
        match measure(&program, name, &key, asked.network.as_ref()) {
            Ok(mut line) => {
                line["key"] = json!(key);
                line["build"] = json!(if asked.dev { "dev" } else { "release" });
                keep(&line)?;
            }
            // The others may well run.
            Err(error) => eprintln!("xtask: {key}: {error:#}"),
        }
        fs::write(root().join(TABLE), table(&recipes, &results()?))?;
    }
    fs::write(root().join(TABLE), table(&recipes, &results()?))?;
    Ok(())
}

impl Asked {
    /// What a result is kept under: one recipe on one network.
    fn key(&self, recipe: &str) -> String {
        match &self.network {
            Some(network) => format!("{recipe}-{}", network.model),
            None => recipe.to_owned(),
        }
    }
}

/// Whether a result has all that is measured today; one that lacks something is measured again.
fn whole(result: &Value) -> bool {
    result.get("core_minutes").is_some()
}

fn asked(arguments: &[&str]) -> anyhow::Result<Asked> {
    let mut asked = Asked::default();
    let (mut model, mut weights) = (None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--only" => asked.only.push((*rest.next().context("--only takes the name of a recipe")?).into()),
            "--again" => asked.again = true,
            "--table" => asked.table = true,
            "--dev" => asked.dev = true,
            "--model" => {
                model = Some((*rest.next().context("--model takes the name of a network")?).to_owned())
            }
            "--weights" => {
                let weights_from =
                    rest.next().context("--weights takes a file or the name of published weights")?;
                weights = Some((*weights_from).to_owned());
            }
            other => bail!(
                "`{other}`: scenarios takes --only NAME, --again, --table, --dev, and --model NAME with --weights FILE"
            ),
        }
    }
    asked.network = match (model, weights) {
        (Some(model), Some(weights)) => Some(Network { model, weights }),
        (None, None) => None,
        _ => bail!("--model and --weights go together"),
    };
    Ok(asked)
}

/// The program, built for speed or as tests build it.
fn build(dev: bool) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let profile = if dev { "dev" } else { "release" };
    let arguments =
        ["build", "--profile", profile, "--quiet", "--package", "defrost-cli", "--message-format", "json"];
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo build did not start")?;
    let lines = String::from_utf8_lossy(&output.stdout);
    let program = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = program.filter_map(|m| m["executable"].as_str().map(PathBuf::from)).next_back();
    match program {
        Some(program) if output.status.success() => Ok(program),
        _ => bail!("the program cannot be built"),
    }
}

/// Every recipe's name and what it does.
fn recipes(program: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let output = Command::new(program).arg("recipes").output().context("`defrost recipes` did not start")?;
    let text = String::from_utf8(output.stdout)?;
    let split =
        |line: &str| line.split_once(' ').map(|(name, about)| (name.to_owned(), about.trim().to_owned()));
    Ok(text.lines().filter_map(split).collect())
}

fn names(recipes: &[(String, String)]) -> String {
    recipes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The results so far.
fn results() -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(root().join(LINES)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("{LINES}: {line}"))).collect()
}

/// Takes a result in, in place of the recipe's former one.
fn keep(line: &Value) -> anyhow::Result<()> {
    let mut all = results()?;
    all.retain(|r| r["key"] != line["key"]);
    all.push(line.clone());
    all.sort_by_key(|r| r["key"].as_str().unwrap_or_default().to_owned());
    let text: String = all.iter().map(|r| format!("{r}\n")).collect();
    Ok(fs::write(root().join(LINES), text)?)
}

/// Trains by one recipe to the end.
fn measure(program: &Path, name: &str, key: &str, network: Option<&Network>) -> anyhow::Result<Value> {
    let folder = root().join(RUNS).join(key);
    let resumed =
        folder.join("checkpoints/resume.safetensors").exists() && !folder.join("validation.json").exists();
    let run = format!("{RUNS}/{key}");
    let mut command = Command::new(program);
    command.current_dir(root()).stdout(Stdio::piped()).arg("train");
    if resumed {
        command.args(["--resume", &run, "--json"]);
    } else {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(root().join(RUNS))?;
        command.args([DATA, "--recipe", name, "--run", &run, "--json"]);
        if let Some(Network { model, weights }) = network {
            // The program runs in the root; a file is named from where this was called.
            let file = std::path::absolute(weights).ok().filter(|file| file.is_file());
            let weights = file.map_or_else(|| weights.clone(), |file| file.to_string_lossy().into_owned());
            command.args(["--model", model, "--weights", &weights]);
        }
    }
    let mut child = command.spawn().context("`defrost train` did not start")?;
    let lines = BufReader::new(child.stdout.take().context("no output")?);
    // The child ends when its output does; only then is there nothing more to read.
    let reader = std::thread::spawn(move || {
        let events =
            lines.lines().map_while(Result::ok).filter_map(|l| serde_json::from_str::<Value>(&l).ok());
        events.filter(|e| e["event"] == "done" || e["event"] == "start").collect::<Vec<_>>()
    });
    let used = watch(&mut child)?;
    let status = child.wait()?;
    let events = reader.join().map_err(|_| anyhow::anyhow!("its output cannot be read"))?;
    let find = |kind: &str| events.iter().rfind(|e| e["event"] == kind);
    let (Some(start), Some(done)) = (find("start"), find("done").filter(|_| status.success())) else {
        bail!("it ended with {status}; `defrost train --resume {run}` goes on with it");
    };
    let metric = done["metric"].as_str().unwrap_or_default();
    let value = match metric {
        "accuracy" | "loss" => done[if done["accuracy"].is_null() { "value" } else { "accuracy" }].clone(),
        _ => done["value"].clone(),
    };
    Ok(json!({
        "recipe": name,
        "network": start["model"],
        "metric": if metric == "loss" { "accuracy" } else { metric },
        "value": value,
        "epochs": done["epochs"],
        "best_epoch": done["best_epoch"].as_u64().map(|e| e + 1),
        "minutes": (done["seconds"].as_f64().unwrap_or_default() / 6.0).round() / 10.0,
        "core_minutes": used.processor.map(|seconds| (seconds / 6.0).round() / 10.0),
        "memory_mb": used.memory.map(|bytes| bytes / 1_000_000),
        "resumed": resumed,
        "date": today(),
        "machine": machine(),
    }))
}

/// What `child` has used when it ends.
fn watch(child: &mut Child) -> anyhow::Result<Used> {
    let folder = PathBuf::from(format!("/proc/{}", child.id()));
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let mut used = Used::default();
    while child.try_wait()?.is_none() {
        used.memory = used.memory.max(peak(&read("status")));
        used.processor = processor(&read("stat")).or(used.processor);
        std::thread::sleep(LOOK);
    }
    Ok(used)
}

/// The peak of resident memory, in bytes, as `/proc/PID/status` says it.
fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// Seconds on processors of all threads, in user mode and in the kernel, as `/proc/PID/stat` says it (proc(5)): in
/// hundredths, which is what Linux counts in towards programs.
fn processor(stat: &str) -> Option<f64> {
    // The name, in parentheses, may have spaces and parentheses itself.
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    let times: Vec<u64> = fields.skip(11).take(2).map_while(|field| field.parse().ok()).collect();
    (times.len() == 2).then(|| times.iter().sum::<u64>() as f64 / 100.0)
}

/// `2 cores of AMD EPYC`.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    format!("{cores} core{} of {model}", if cores == 1 { "" } else { "s" })
}

/// Today as `2026-11-21`, UTC (Hinnant's algorithm for civil days).
fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (y, m, d) = civil((since.as_secs() / 86_400) as i64);
    format!("{y:04}-{m:02}-{d:02}")
}

fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

const HEAD: &str = "\
# Every recipe in full

Each recipe of [docs/recipes](recipes), as it is, on the emoji set (880 pictures to train on, 296 to validate, 16 classes):

```
cargo xtask scenarios
```

which runs `defrost train datasets/emoji --recipe NAME` for each and makes this page from
[scenarios.jsonl](scenarios.jsonl). The weights are ImageNet's of the MobileNetV2 in the program, at the recipe's size: most
scenarios come with another network (the first line of a recipe says which), whose published weights are not in this
repository. `--model NAME --weights FILE` runs them on another network, as rows of their own; `--dev` does the same with the
program as tests build it, whose kernels are optimised too.

The result is the best epoch's on the validation part: accuracy, or where a recipe asks for another measure, that measure by
its name. *Minutes* are those of the run on the clock, validation included. *Core minutes* are what all its threads spent on
processors, the number that other work on the machine changes least: two cores that had nothing else to do would be through in
half of it. *Memory* is the program's resident set at its peak, pictures and cached features included.

The rows are of 2026-11-21 (2 cores, AMD EPYC). Those of `f1`, `f2`, `f3` and `p3` were run last, beside much other work, by a program
built three hours before these recipes were last changed; since then pointwise convolutions have become three times as fast
and training takes less memory, so that minutes and memory of all rows are more than they would be today.

";

/// The page.
fn table(recipes: &[(String, String)], results: &[Value]) -> String {
    let mut page = HEAD.to_owned();
    let of = |name: &str| results.iter().filter(move |r| r["recipe"] == *name).collect::<Vec<_>>();
    page += "| recipe | what it does | network | result | best epoch | minutes | core minutes | memory |\n";
    page += "|---|---|---|---|---|---|---|---|\n";
    for (name, about, r) in
        recipes.iter().flat_map(|(n, about)| of(n).into_iter().map(move |r| (n, about, r)))
    {
        let text = |key: &str| match &r[key] {
            Value::Null => "–".to_owned(),
            Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        let mark = if r["resumed"] == true { " (resumed)" } else { "" };
        let _ = writeln!(
            page,
            "| [`{name}`](recipes/{name}.toml) | {about} | {} | {} | {} of {} | {}{mark} | {} | {} MB |",
            text("network"),
            result(r),
            text("best_epoch"),
            text("epochs"),
            text("minutes"),
            text("core_minutes"),
            text("memory_mb"),
        );
    }
    let missing: Vec<_> =
        recipes.iter().map(|(n, _)| n.as_str()).filter(|n| !of(n).iter().any(|r| whole(r))).collect();
    if !missing.is_empty() {
        let _ = writeln!(page, "\nNot run yet: {}.", missing.join(", "));
    }
    let mut when: Vec<_> = results
        .iter()
        .map(|r| format!("{} on {}, {} profile", r["date"], r["machine"], r["build"]).replace('"', ""))
        .collect();
    when.sort();
    when.dedup();
    if !when.is_empty() {
        let _ = writeln!(page, "\nMeasured {}; other work ran beside it.", when.join("; "));
    }
    page
}

fn result(r: &Value) -> String {
    match (r["metric"].as_str().unwrap_or_default(), r["value"].as_f64()) {
        (_, None) => "–".into(),
        ("accuracy", Some(v)) => format!("{:.1} %", 100.0 * v),
        (name @ ("mae" | "rmse" | "mse" | "loss"), Some(v)) => format!("{name} {v:.2}"),
        (name, Some(v)) => format!("{name} {:.1} %", 100.0 * v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_778), (2026, 11, 21));
    }

    #[test]
    fn a_table_has_what_was_run_and_names_what_was_not() {
        let recipes = [("head", "the head"), ("t4-labels", "labels"), ("full", "all")];
        let recipes = recipes.map(|(a, b)| (a.to_owned(), b.to_owned()));
        let line = |name: &str, metric: &str, value: f64| {
            json!({ "recipe": name, "key": name, "core_minutes": 2.9, "network": "mobilenet_v2", "metric": metric, "value": value, "epochs": 10,
                "best_epoch": 7, "minutes": 1.5, "memory_mb": 500, "resumed": false, "date": "2026-11-21", "machine": "m", "build": "release" })
        };
        let page = table(&recipes, &[line("t4-labels", "map", 0.5), line("head", "accuracy", 0.684)]);
        let row = "| [`head`](recipes/head.toml) | the head | mobilenet_v2 | 68.4 % | 7 of 10 | 1.5 | 2.9 | 500 MB |";
        assert!(page.contains(row), "{page}");
        assert!(page.contains("| map 50.0 % |") && page.contains("Not run yet: full."), "{page}");
        assert!(page.contains("Measured 2026-11-21 on m, release profile;"), "{page}");
    }

    #[test]
    fn a_result_without_processor_time_is_measured_again() {
        let recipes = [("head".to_owned(), "the head".to_owned())];
        let old = json!({ "recipe": "head", "key": "head", "metric": "accuracy", "value": 0.5 });
        assert!(table(&recipes, &[old]).contains("Not run yet: head."));
    }

    #[test]
    fn a_network_of_its_own_has_rows_of_its_own() {
        let asked = asked(&["--model", "efficientnet_lite0", "--weights", "lite0.safetensors"]).unwrap();
        assert_eq!(asked.key("head"), "head-efficientnet_lite0");
        assert!(super::asked(&["--model", "resnet18"]).is_err());
    }

    #[test]
    fn the_system_says_memory_and_time() {
        assert_eq!(peak("VmPeak:\t  900 kB\nVmHWM:\t  512 kB\n"), Some(512 * 1024));
        let stat = "4711 (a (b) c) S 1 4711 4711 0 -1 4194304 100 0 0 0 1234 66 7 8 20 0 3 0 99";
        assert_eq!(processor(stat), Some(13.0));
        assert_eq!((peak(""), processor("")), (None, None));
    }

    #[test]
    fn the_page_shows_the_lines() {
        let page = fs::read_to_string(root().join(TABLE)).unwrap_or_default();
        for r in results().unwrap() {
            let start = format!("| [`{}`]", r["recipe"].as_str().unwrap());
            let mut rows = page.lines().filter(|line| line.starts_with(&start));
            assert!(
                rows.any(|row| row.contains(&result(&r))),
                "run `cargo xtask scenarios --table`: {start}"
            );
        }
    }
}
