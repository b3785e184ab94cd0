//! Checkpoints: weights under their published names, and the one file from which a run goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use defrost_graph::{Graph, ParamKind, ParamStore};
use defrost_policy::Loss;
use defrost_tensor::HostTensor;
use defrost_weights::{NamedTensors, Precision, atomic, safetensors};
use serde::{Deserialize, Serialize};

use crate::run::{check_name, io};
use crate::{FORMAT, Folder, Job, Result, Run, Scale, State, TrainError};

/// What a checkpoint says of itself, beside its weights: the text in the file's metadata.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct About {
    /// The architecture's name.
    pub model: String,
    /// The classes' names in the order of the outputs.
    pub classes: Vec<String>,
    /// What the network is made from: JSON that the zoo writes and reads.
    pub spec: String,
    /// How pixels become the network's input: JSON that the zoo writes and reads.
    pub preprocess: String,
    /// The phase it was taken in, from 0; absent before training.
    pub phase: Option<usize>,
    /// The epoch, counted from 0 over all phases; absent before training.
    pub epoch: Option<usize>,
    /// Metrics of the validation part by the name they have in a recipe.
    pub metrics: BTreeMap<String, f64>,
    /// What it was trained on: it says whether the outputs are those of classes, labels or numbers.
    pub loss: Loss,
    /// What the outputs of a regression have to be taken through; absent where they are in the data's units.
    pub scale: Option<Scale>,
}

/// Writes `params` as a weight file that PyTorch's `load_state_dict` takes as it is (each normalisation gets the
/// `num_batches_tracked` that PyTorch asks for, as 0).
///
/// # Errors
/// [`TrainError::Weights`]; the file that was there before is then untouched.
pub fn write_weights(path: &Path, graph: &Graph, params: &ParamStore, about: &About) -> Result<()> {
    write_weights_as(path, graph, params, about, Precision::F32)
}

/// [`write_weights`] in another precision.
///
/// # Errors
/// As [`write_weights`].
pub fn write_weights_as(
    path: &Path,
    graph: &Graph,
    params: &ParamStore,
    about: &About,
    precision: Precision,
) -> Result<()> {
    let mut tensors = NamedTensors::new();
    for (param, (name, value)) in graph.params().iter().zip(params.iter()) {
        tensors.insert(name, value.clone());
        if param.kind == ParamKind::RunningVar
            && let Some(norm) = name.strip_suffix("running_var")
        {
            tensors.insert(format!("{norm}num_batches_tracked"), HostTensor::zeros(Vec::new()));
        }
    }
    let mut put = |key: &str, value: String| tensors.metadata.insert(key.into(), value);
    // What the readers of the Python libraries look for.
    put("format", "pt".into());
    put("defrost", FORMAT.to_string());
    put("model", about.model.clone());
    put("classes", serde_json::to_string(&about.classes).expect("names are always JSON"));
    put("spec", about.spec.clone());
    put("preprocess", about.preprocess.clone());
    put("metrics", serde_json::to_string(&about.metrics).expect("numbers are always JSON"));
    put("loss", serde_json::to_string(&about.loss).expect("a loss is always JSON"));
    if let Some(scale) = &about.scale {
        put("scale", serde_json::to_string(scale).expect("numbers are always JSON"));
    }
    for (key, value) in [("phase", about.phase), ("epoch", about.epoch)] {
        if let Some(value) = value {
            put(key, value.to_string());
        }
    }
    Ok(safetensors::write(path, &tensors, precision)?)
}

/// Reads what [`write_weights`] wrote.
///
/// # Errors
/// [`TrainError::Weights`], [`TrainError::NewerFormat`], [`TrainError::Misfit`] where the tensors are not `graph`'s.
pub fn read_weights(path: &Path, graph: &Graph) -> Result<(ParamStore, About)> {
    let tensors = safetensors::read(path)?;
    let about = about(path, &tensors)?;
    Ok((take(path, graph, &tensors, "")?, about))
}

/// What a checkpoint says of itself. Its weights are read but not looked at.
///
/// # Errors
/// [`TrainError::Weights`], [`TrainError::NewerFormat`].
pub fn read_about(path: &Path) -> Result<About> {
    about(path, &safetensors::read(path)?)
}

fn about(path: &Path, tensors: &NamedTensors) -> Result<About> {
    let text = |key: &str| tensors.metadata.get(key).cloned().unwrap_or_default();
    let number = |key: &str| tensors.metadata.get(key).and_then(|v| v.parse().ok());
    newer(path, text("defrost").parse().unwrap_or(0))?;
    // What outputs mean must not be guessed where it is written and cannot be read.
    let damaged = |e: serde_json::Error| TrainError::Damaged { path: path.to_owned(), what: e.to_string() };
    let loss =
        tensors.metadata.get("loss").map(|text| serde_json::from_str(text)).transpose().map_err(damaged)?;
    let scale =
        tensors.metadata.get("scale").map(|text| serde_json::from_str(text)).transpose().map_err(damaged)?;
    Ok(About {
        model: text("model"),
        classes: serde_json::from_str(&text("classes")).unwrap_or_default(),
        spec: text("spec"),
        preprocess: text("preprocess"),
        phase: number("phase"),
        epoch: number("epoch"),
        metrics: serde_json::from_str(&text("metrics")).unwrap_or_default(),
        loss: loss.unwrap_or_default(),
        scale,
    })
}

fn newer(path: &Path, found: u32) -> Result<()> {
    if found > FORMAT {
        return Err(TrainError::NewerFormat { path: path.to_owned(), found, known: FORMAT });
    }
    Ok(())
}

/// The parameters of `graph` among `tensors`, whose names begin with `prefix`.
fn take(path: &Path, graph: &Graph, tensors: &NamedTensors, prefix: &str) -> Result<ParamStore> {
    let mut store = ParamStore::zeros(graph);
    let mut problems = Vec::new();
    for param in graph.params() {
        let name = &param.name;
        match tensors.get(&format!("{prefix}{name}")) {
            None => problems.push(format!("`{name}` is missing")),
            Some(value) if value.shape() != param.shape => {
                problems.push(format!(
                    "`{name}` has shape {:?}, the network {:?}",
                    value.shape(),
                    param.shape
                ));
            }
            Some(value) => store.set(name, value.clone())?,
        }
    }
    let known = |n: &str| graph.find_param(n).is_some() || n.ends_with("num_batches_tracked");
    let surplus = tensors.names().filter_map(|n| n.strip_prefix(prefix)).filter(|n| !known(n));
    problems.extend(surplus.map(|n| format!("`{n}` is not in the network")));
    if problems.is_empty() {
        return Ok(store);
    }
    problems.truncate(5);
    Err(TrainError::Misfit { path: path.to_owned(), problems })
}

impl Folder {
    /// The weights of a checkpoint (`best`, `last`, or a name of your own) and what it says of itself.
    ///
    /// # Errors
    /// [`TrainError::NoCheckpoint`], and what [`read_weights`] finds.
    pub fn load(&self, name: &str, graph: &Graph) -> Result<(ParamStore, About)> {
        read_weights(&self.existing(name)?, graph)
    }

    /// What a checkpoint says of itself: enough to build the network that its weights belong to.
    ///
    /// # Errors
    /// [`TrainError::NoCheckpoint`], and what [`read_about`] finds.
    pub fn about(&self, name: &str) -> Result<About> {
        read_about(&self.existing(name)?)
    }

    fn existing(&self, name: &str) -> Result<std::path::PathBuf> {
        check_name(name)?;
        let path = self.checkpoint_path(name);
        if path.is_file() {
            return Ok(path);
        }
        let (path, name) = (self.path().to_owned(), name.to_owned());
        Err(TrainError::NoCheckpoint { path, name, known: self.checkpoints() })
    }

    /// Whether there is something to go on from.
    pub fn can_resume(&self) -> bool {
        self.checkpoint_path(RESUME).is_file()
    }

    /// Where the run stands, without its weights.
    ///
    /// # Errors
    /// As [`Folder::load`].
    pub fn state(&self) -> Result<State> {
        let path = self.checkpoint_path(RESUME);
        state(&path, &self.read(RESUME)?)
    }

    /// Writes the one file that everything goes on from.
    pub(crate) fn write_resume(&self, snapshot: &Snapshot, state: &State) -> Result<()> {
        let mut tensors = snapshot.tensors();
        tensors
            .metadata
            .insert(STATE.into(), serde_json::to_string(state).expect("plain data is always JSON"));
        Ok(safetensors::write(self.checkpoint_path(RESUME), &tensors, Precision::F32)?)
    }

    /// [`Run::save`].
    pub(crate) fn save(&self, name: &str, graph: &Graph, params: &ParamStore, about: &About) -> Result<()> {
        check_name(name)?;
        write_weights(&self.checkpoint_path(name), graph, params, about)
    }

    /// Makes the checkpoint `name` another name of `other`, where the file system can do that.
    pub(crate) fn link(&self, other: &str, name: &str) -> bool {
        check_name(name).is_ok()
            && atomic::link(self.checkpoint_path(other), self.checkpoint_path(name)).is_ok()
    }

    /// Keeps what `phase` may go back to, as it is after `epoch` (from 0, of the phase).
    pub(crate) fn write_restore(&self, phase: usize, epoch: usize, snapshot: &Snapshot) -> Result<()> {
        let path = self.checkpoint_path(&restore_name(phase, epoch));
        Ok(safetensors::write(path, &snapshot.tensors(), Precision::F32)?)
    }

    /// Removes all kept states but those after these epochs of `phase`.
    pub(crate) fn keep_restores(&self, phase: usize, epochs: &[usize]) {
        let kept: Vec<_> =
            epochs.iter().map(|&e| format!("{}.safetensors", restore_name(phase, e))).collect();
        let folder = self.checkpoint_path("x");
        let entries = folder.parent().and_then(|p| fs::read_dir(p).ok()).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("restore-") && !kept.contains(&name) {
                // One that stays costs room and nothing else.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Removes a checkpoint that is no longer needed.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.checkpoint_path(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    fn read(&self, name: &str) -> Result<NamedTensors> {
        let path = self.checkpoint_path(name);
        if !path.is_file() {
            let (path, name) = (self.path().to_owned(), name.to_owned());
            return Err(TrainError::NoCheckpoint { path, name, known: self.checkpoints() });
        }
        Ok(safetensors::read(path)?)
    }
}

const RESUME: &str = "resume";
const PARAMS: &str = "params/";
const OPTIMIZER: &str = "optimizer/";
const EMA: &str = "ema/";
const STATE: &str = "state";

/// Weights and everything that a step changes beside them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    /// The weights that train.
    pub(crate) params: ParamStore,
    /// The optimizer's state by name.
    pub(crate) optimizer: Vec<(String, HostTensor)>,
    /// The average of the weights, where there is one.
    pub(crate) ema: Option<ParamStore>,
}

impl Snapshot {
    /// With an average of the weights where `job` has one, and without where it has none.
    pub(crate) fn fit_average(&mut self, job: &Job) {
        self.ema = job.recipe.ema.map(|_| self.ema.take().unwrap_or_else(|| self.params.clone()));
    }

    /// Bytes of all values.
    pub(crate) fn bytes(&self) -> usize {
        let stores = std::iter::once(&self.params).chain(&self.ema).flat_map(ParamStore::iter);
        stores.map(|(_, t)| t).chain(self.optimizer.iter().map(|(_, t)| t)).map(|t| 4 * t.len()).sum()
    }

    fn tensors(&self) -> NamedTensors {
        let mut tensors = NamedTensors::new();
        let stores = [(PARAMS, Some(&self.params)), (EMA, self.ema.as_ref())];
        for (prefix, store) in stores.into_iter().filter_map(|(p, s)| Some((p, s?))) {
            store.iter().for_each(|(name, value)| {
                tensors.insert(format!("{prefix}{name}"), value.clone());
            });
        }
        for (name, value) in &self.optimizer {
            tensors.insert(format!("{OPTIMIZER}{name}"), value.clone());
        }
        tensors
    }

    fn from(path: &Path, graph: &Graph, tensors: &NamedTensors) -> Result<Self> {
        let optimizer =
            tensors.iter().filter_map(|(n, t)| Some((n.strip_prefix(OPTIMIZER)?.to_owned(), t.clone())));
        let averaged = tensors.names().any(|n| n.starts_with(EMA));
        Ok(Self {
            params: take(path, graph, tensors, PARAMS)?,
            optimizer: optimizer.collect(),
            ema: averaged.then(|| take(path, graph, tensors, EMA)).transpose()?,
        })
    }

    /// The first value that is no number.
    pub(crate) fn broken(&self) -> Option<(String, f64)> {
        let stores = std::iter::once(&self.params).chain(&self.ema).flat_map(ParamStore::iter);
        let all = stores.chain(self.optimizer.iter().map(|(n, t)| (n.as_str(), t)));
        all.filter(|(_, t)| !t.is_finite()).find_map(|(name, t)| {
            let value = t.data().iter().find(|v| !v.is_finite())?;
            Some((name.to_owned(), f64::from(*value)))
        })
    }
}

/// The names of files that a phase may go back to.
fn restore_name(phase: usize, epoch: usize) -> String {
    format!("restore-{}-{}", phase + 1, epoch + 1)
}

impl Run {
    /// Writes the weights of a checkpoint of your own.
    ///
    /// # Errors
    /// [`TrainError::CheckpointName`], and what [`write_weights`] meets.
    pub fn save(&self, name: &str, graph: &Graph, params: &ParamStore, about: &About) -> Result<()> {
        self.folder().save(name, graph, params, about)
    }

    /// Reads it back.
    pub(crate) fn read_resume(&self, graph: &Graph) -> Result<(Snapshot, State)> {
        let path = self.folder().checkpoint_path(RESUME);
        let tensors = self.folder().read(RESUME)?;
        let state = state(&path, &tensors)?;
        Ok((Snapshot::from(&path, graph, &tensors)?, state))
    }

    /// Reads it back.
    pub(crate) fn read_restore(&self, graph: &Graph, phase: usize, epoch: usize) -> Result<Snapshot> {
        let name = restore_name(phase, epoch);
        Snapshot::from(&self.folder().checkpoint_path(&name), graph, &self.folder().read(&name)?)
    }
}

fn state(path: &Path, tensors: &NamedTensors) -> Result<State> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let damaged = |e: serde_json::Error| TrainError::Damaged { path: path.to_owned(), what: e.to_string() };
    let text = tensors.metadata.get(STATE).map_or("", String::as_str);
    // The version first: a newer file may hold what this version cannot read.
    let Version { format } = serde_json::from_str(text).map_err(damaged)?;
    newer(path, format)?;
    serde_json::from_str(text).map_err(damaged)
}
