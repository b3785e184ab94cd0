//! A run folder, read as far as it is there.
//!
//! A run may have been interrupted at any byte and resumed any number of times; a report is most wanted when something
//! went wrong. So nothing here fails for what a file says: what cannot be understood is left out and said in
//! [`Run::notes`]. What is told twice, because a resumed run repeats it, counts as it was told last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use defrost_policy::Task;
use defrost_train::{
    Decision, Done, Epoch, Event, LrFind, PhaseStart, RetentionStart, StageState, Start, Stopped, Thaw,
    Validation,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Error, Origin, Result};

/// What a run folder tells.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// The folder's name.
    pub(crate) name: String,
    /// The recipe as its file has it.
    pub(crate) recipe: Option<String>,
    /// The same, read.
    pub(crate) recipe_table: toml::Table,
    /// How the run came to be.
    pub(crate) origin: Origin,
    /// The folder that a table's paths are relative to.
    pub(crate) images: Option<PathBuf>,
    pub(crate) classes: Vec<String>,
    pub(crate) start: Option<Start>,
    /// What drift and retention are measured by.
    pub(crate) retention: Option<RetentionStart>,
    /// How often it was resumed.
    pub(crate) resumed: usize,
    /// By number.
    pub(crate) phases: BTreeMap<usize, PhaseStart>,
    /// By number over all phases.
    pub(crate) epochs: BTreeMap<usize, Epoch>,
    /// By the phase and the epoch from which they hold.
    pub(crate) thaws: BTreeMap<(usize, usize), Thaw>,
    /// Sweeps of the learning-rate finder, by phase.
    pub(crate) sweeps: BTreeMap<usize, LrFind>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) warnings: Vec<String>,
    /// Where it was interrupted and did not go on.
    pub(crate) stopped: Option<Stopped>,
    pub(crate) done: Option<Done>,
    pub(crate) validation: Option<Validation>,
    /// Images that were skipped, a line each.
    pub(crate) skipped: Vec<String>,
    /// What could not be read, a sentence each.
    pub(crate) notes: Vec<String>,
}

impl Run {
    /// Reads the folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let mut run = Self { name: name_of(folder), ..Self::default() };
        let recipe = text(&folder.join("recipe.toml"))?;
        let metrics = text(&folder.join("metrics.jsonl"))?;
        let validation = text(&folder.join("validation.json"))?;
        if recipe.is_none() && metrics.is_none() && validation.is_none() {
            return Err(Error::NotARun(folder.to_owned()));
        }
        if let Some(recipe) = recipe {
            match recipe.parse() {
                Ok(table) => run.recipe_table = table,
                Err(e) => run.notes.push(format!("recipe.toml is no TOML: {e}")),
            }
            run.recipe = Some(recipe);
        }
        run.read_metrics(metrics.as_deref().unwrap_or_default());
        if let Some(origin) = text(&folder.join(Origin::FILE))? {
            match serde_json::from_str(&origin) {
                Ok(origin) => run.origin = origin,
                Err(e) => run.notes.push(format!("{} cannot be read: {e}", Origin::FILE)),
            }
        }
        if run.origin.data.is_none() {
            run.origin.data = data_folder(folder, "path")?;
        }
        run.images = data_folder(folder, "images")?;
        if run.origin.command.is_empty() {
            run.origin.command = command(folder, run.origin.data.as_deref(), run.images.as_deref());
        }
        run.hash(folder)?;
        if let Some(classes) = text(&folder.join("classes.json"))? {
            run.read_classes(&classes);
        }
        if let Some(validation) = validation {
            run.read_validation(&validation);
        }
        if let Some(skipped) = text(&folder.join("skipped.txt"))? {
            run.skipped = skipped.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect();
        }
        Ok(run)
    }

    fn read_metrics(&mut self, lines: &str) {
        let mut bad = 0;
        let count = lines.lines().count();
        for (i, line) in lines.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            match serde_json::from_str::<Event>(line) {
                Ok(event) => self.take(event),
                // The last line of a run that was killed may be a half one.
                Err(_) if i + 1 == count => {}
                // An event that a later version has, and this one knows nothing of.
                Err(_) if serde_json::from_str::<Value>(line).is_ok_and(|v| !known(&v)) => {}
                Err(_) => bad += 1,
            }
        }
        if bad > 0 {
            let lines = crate::say::things(bad, "line", "lines");
            self.notes.push(format!("{lines} of metrics.jsonl could not be understood and are left out."));
        }
        let told: BTreeSet<_> = self.warnings.drain(..).collect();
        self.warnings.extend(told);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Start(start) => {
                self.resumed += usize::from(start.resumed.is_some());
                self.start = Some(start);
                self.stopped = None;
                self.done = None;
            }
            Event::Retention(retention) => self.retention = Some(retention),
            Event::PhaseStart(phase) => {
                // One of a resumed run tells what trains where it goes on, not what trained at the phase's start.
                self.phases.entry(phase.phase).or_insert(phase);
            }
            Event::Epoch(epoch) => {
                self.epochs.insert(epoch.global_epoch, epoch);
            }
            Event::Thaw(thaw) => {
                self.thaws.insert((thaw.phase, thaw.epoch), thaw);
            }
            Event::LrFind(sweep) => {
                self.sweeps.insert(sweep.phase, sweep);
            }
            Event::Decision(decision) if !self.decisions.contains(&decision) => self.decisions.push(decision),
            Event::Warning { message } => self.warnings.push(message),
            Event::Stopped(stopped) => self.stopped = Some(stopped),
            Event::Done(done) => {
                self.stopped = None;
                self.done = Some(done);
            }
            _ => {}
        }
    }

    /// The hashes of what decided the run and of what came out.
    fn hash(&mut self, folder: &Path) -> Result<()> {
        for (name, file) in [("recipe", "recipe.toml"), ("best weights", "checkpoints/best.safetensors")] {
            let path = folder.join(file);
            let read = |source| Error::Read { path: path.clone(), source };
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(read(e)),
            };
            let mut hasher = Sha256::new();
            let mut part = vec![0; 1 << 16];
            loop {
                match file.read(&mut part) {
                    Ok(0) => break,
                    Ok(n) => hasher.update(&part[..n]),
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Err(read(e)),
                }
            }
            let hex = hasher.finalize().iter().fold(String::from("sha256:"), |s, b| s + &format!("{b:02x}"));
            self.origin.hashes.entry(name.to_owned()).or_insert(hex);
        }
        Ok(())
    }

    /// A list of names, or an object with one.
    fn read_classes(&mut self, json: &str) {
        let value: Value = serde_json::from_str(json).unwrap_or_default();
        let list = value.get("classes").or_else(|| value.get("names")).unwrap_or(&value);
        match serde_json::from_value::<Vec<String>>(list.clone()) {
            Ok(classes) => self.classes = classes,
            Err(_) => self.notes.push("classes.json is no list of names.".into()),
        }
    }

    fn read_validation(&mut self, json: &str) {
        match serde_json::from_str::<Validation>(json).map_err(|e| e.to_string()).and_then(checked) {
            Ok(validation) => {
                if self.classes.is_empty() {
                    self.classes.clone_from(&validation.classes);
                }
                self.validation = Some(validation);
            }
            Err(e) => self.notes.push(format!("validation.json is left out: {e}.")),
        }
    }

    /// The architecture.
    pub(crate) fn model(&self) -> &str {
        let recipe = || self.recipe_table.get("model")?.get("arch")?.as_str();
        self.start
            .as_ref()
            .map(|s| s.model.as_str())
            .filter(|m| !m.is_empty())
            .or_else(recipe)
            .unwrap_or("the network")
    }

    /// What was asked of the network.
    pub(crate) fn task(&self) -> Task {
        let started = self.start.as_ref().map(|s| s.task);
        self.validation.as_ref().map(|v| v.task).or(started).unwrap_or_default()
    }

    /// The epoch whose weights are kept as the best.
    pub(crate) fn best(&self) -> Option<&Epoch> {
        let done = self.done.as_ref().and_then(|d| d.best_epoch);
        let told = done
            .or_else(|| self.validation.as_ref().filter(|v| v.checkpoint == "best").and_then(|v| v.epoch));
        let marked = || self.epochs.values().rev().find(|e| e.best);
        told.and_then(|e| self.epochs.get(&e)).or_else(marked)
    }

    /// Seconds of all epochs.
    pub(crate) fn seconds(&self) -> f64 {
        self.done.as_ref().map_or_else(|| self.epochs.values().map(|e| e.seconds).sum(), |d| d.seconds)
    }

    /// The end of the axis of epochs.
    pub(crate) fn length(&self) -> usize {
        let phases = self.phases.values().map(|p| p.first_epoch + 1);
        self.epochs.keys().map(|e| e + 1).chain(phases).max().unwrap_or(0)
    }

    /// The epochs that a phase has, from the first to behind the last, counted over all phases.
    pub(crate) fn span(&self, phase: usize) -> (usize, usize) {
        let first = self.phases.get(&phase).map_or(0, |p| p.first_epoch);
        let last = self.epochs.values().filter(|e| e.phase == phase).map(|e| e.global_epoch + 1).max();
        (first, last.unwrap_or(first).max(first))
    }

    /// What trains when: the state of the stages from an epoch on, with the phase it belongs to, in order of time.
    pub(crate) fn states(&self) -> Vec<State<'_>> {
        let mut states = Vec::new();
        for (&number, phase) in &self.phases {
            let first = State {
                phase: number,
                from: phase.first_epoch,
                stages: &phase.stages,
                groups: &phase.groups,
            };
            states.push(first);
            let thaws = self.thaws.range((number, 0)..=(number, usize::MAX)).map(|(_, t)| t);
            states.extend(thaws.map(|t| State {
                phase: number,
                from: t.global_epoch,
                stages: &t.stages,
                groups: &t.groups,
            }));
        }
        states
    }

    /// Where the file of a validation image may be.
    pub(crate) fn image(&self, path: &str, data: Option<&Path>) -> Option<PathBuf> {
        let below = Path::new(path);
        // A table's paths are relative to the folder of its images, else to its own.
        let own = self.origin.data.as_deref();
        let beside = own.filter(|data| data.is_file()).and_then(Path::parent);
        let roots = data.into_iter().chain(self.images.as_deref()).chain(own).chain(beside);
        let places = roots.flat_map(|r| [r.join(below), r.join("val").join(below)]);
        places.chain([below.to_owned()]).find(|p| p.is_file())
    }
}

/// What trains from an epoch on.
pub(crate) struct State<'r> {
    pub(crate) phase: usize,
    /// The first epoch, counted over all phases.
    pub(crate) from: usize,
    pub(crate) stages: &'r [StageState],
    pub(crate) groups: &'r [defrost_train::GroupRate],
}

/// The content of a file, or nothing if it is not there. What is no UTF-8 is replaced.
fn text(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// A path of the run's `data.json`: `path` is the folder of images or their table, where nobody wrote an [`Origin`]; `images`
/// the folder that a table's paths are relative to.
fn data_folder(run: &Path, key: &str) -> Result<Option<PathBuf>> {
    let json = text(&run.join("data.json"))?.and_then(|t| serde_json::from_str::<Value>(&t).ok());
    Ok(json.as_ref().and_then(|j| j.get(key)?.as_str().map(PathBuf::from)))
}

/// The command that decides the same again, from the recipe that the run wrote.
fn command(run: &Path, data: Option<&Path>, images: Option<&Path>) -> String {
    let recipe = run.join("recipe.toml");
    let images = images.map_or(String::new(), |i| format!(" --images {}", quoted(i)));
    match data.filter(|_| recipe.is_file()) {
        Some(data) => format!("defrost train {}{images} --recipe {}", quoted(data), quoted(&recipe)),
        None => String::new(),
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// The last part of a path, also of `.`.
fn name_of(folder: &Path) -> String {
    let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    whole.file_name().map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned())
}

/// Whether this version has such an event.
fn known(line: &Value) -> bool {
    const KNOWN: [&str; 10] = [
        "start",
        "retention",
        "phase_start",
        "lr_find",
        "epoch",
        "warning",
        "decision",
        "thaw",
        "stopped",
        "done",
    ];
    line.get("event").and_then(Value::as_str).is_some_and(|e| KNOWN.contains(&e))
}

/// A validation whose parts fit one another, so that nothing below has to look again.
fn checked(mut v: Validation) -> std::result::Result<Validation, String> {
    let n = v.classes.len();
    if v.task != Task::Classification {
        return Ok(answers(v));
    }
    if v.confusion.len() != n || v.confusion.iter().any(|row| row.len() != n) {
        // Regression has no classes; what is not square says nothing.
        if n > 0 && !v.confusion.is_empty() {
            return Err(format!("its confusion matrix is not {n} by {n}"));
        }
        v.confusion.clear();
        v.classes.clear();
    }
    let n = v.confusion.len();
    v.predictions.iter_mut().for_each(|p| {
        if p.truth >= n || p.prediction >= n {
            p.path.clear();
        }
    });
    v.worst.retain(|&i| v.predictions.get(i).is_some_and(|p| !p.path.is_empty()));
    v.predictions.iter_mut().filter(|p| p.path.is_empty()).for_each(|p| (p.truth, p.prediction) = (0, 0));
    v.confused = defrost_train::most_confused(&v.confusion);
    v.per_class = defrost_train::class_scores(&v.classes, &v.confusion);
    Ok(v)
}

/// The same for several labels an image and for numbers.
fn answers(v: Validation) -> Validation {
    let n = v.classes.len();
    let labels = |l: &defrost_train::Labelled| l.labels.iter().all(|a| a.class < n);
    let values = |m: &defrost_train::Measured| m.truth.len() == n && m.prediction.len() == n;
    let whole = v.labelled.iter().all(labels) && v.measured.iter().all(values);
    let images = if !whole { 0 } else { v.labelled.len().max(v.measured.len()) };
    Validation {
        per_class: if v.per_class.len() == n { v.per_class } else { Vec::new() },
        per_value: if v.per_value.len() == n && whole { v.per_value } else { Vec::new() },
        worst: v.worst.into_iter().filter(|&i| i < images).collect(),
        confusion: Vec::new(),
        predictions: Vec::new(),
        confused: Vec::new(),
        ..v
    }
}
