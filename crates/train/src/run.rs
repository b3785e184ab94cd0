//! The folder of a run: its files, and the lock that keeps a second process out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use defrost_policy::checkpoint_name;
use defrost_weights::atomic;

use crate::{Event, Result, TrainError, Validation};

const LOCK: &str = ".lock";
const RECIPE: &str = "recipe.toml";
const CLASSES: &str = "classes.json";
const METRICS: &str = "metrics.jsonl";
const SKIPPED: &str = "skipped.txt";
const VALIDATION: &str = "validation.json";
const CHECKPOINTS: &str = "checkpoints";

/// The folder of a run, to read from. Nothing is locked: a run can be looked at while it goes on, because its files
/// are replaced whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The run in the folder `path`.
    ///
    /// # Errors
    /// [`TrainError::NotARun`] where there is no recipe in it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let folder = Self { path: path.into() };
        match folder.recipe_path().is_file() {
            true => Ok(folder),
            false => Err(TrainError::NotARun { path: folder.path, missing: RECIPE }),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `recipe.toml`: the recipe with every default filled in.
    pub fn recipe_path(&self) -> PathBuf {
        self.path.join(RECIPE)
    }

    /// `metrics.jsonl`: an [`Event`] a line.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// `validation.json`: a [`Validation`].
    pub fn validation_path(&self) -> PathBuf {
        self.path.join(VALIDATION)
    }

    /// `skipped.txt`: unreadable images with their reasons, one a line; not there where there were none.
    pub fn skipped_path(&self) -> PathBuf {
        self.path.join(SKIPPED)
    }

    /// `checkpoints/<name>.safetensors`.
    pub fn checkpoint_path(&self, name: &str) -> PathBuf {
        self.path.join(CHECKPOINTS).join(format!("{name}.safetensors"))
    }

    /// The recipe's text.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn recipe(&self) -> Result<String> {
        let path = self.recipe_path();
        fs::read_to_string(&path).map_err(io("read", &path))
    }

    /// The classes' names in the order of the network's outputs.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::Damaged`].
    pub fn classes(&self) -> Result<Vec<String>> {
        self.json(&self.path.join(CLASSES))
    }

    /// What the best model made of the validation part.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::Damaged`].
    pub fn validation(&self) -> Result<Validation> {
        self.json(&self.validation_path())
    }

    /// The run's events so far. A last line that was cut off by a crash is left out, and so are lines of an event that
    /// this version does not know.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn events(&self) -> Result<Vec<Event>> {
        let path = self.metrics_path();
        let text = fs::read_to_string(&path).map_err(io("read", &path))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The names of the checkpoints with weights, in alphabetical order.
    pub fn checkpoints(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path.join(CHECKPOINTS)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|e| e.file_name().to_str()?.strip_suffix(".safetensors").map(str::to_owned))
            .filter(|n| check_name(n).is_ok())
            .collect();
        names.sort();
        names
    }

    fn json<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<T> {
        let bytes = fs::read(path).map_err(io("read", path))?;
        let damaged =
            |e: serde_json::Error| TrainError::Damaged { path: path.to_owned(), what: e.to_string() };
        serde_json::from_slice(&bytes).map_err(damaged)
    }
}

/// A run that this process writes to. The lock goes when the value is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Run {
    folder: Folder,
    metrics: File,
    _lock: File,
}

impl Run {
    /// A new run in `path`, which is made where it does not exist; `recipe` is the resolved recipe's text. Its files are on
    /// the disk for certain once its start is saved, beside its first steps.
    ///
    /// # Errors
    /// [`TrainError::Locked`], [`TrainError::Occupied`], [`TrainError::Io`].
    pub fn create(path: impl Into<PathBuf>, recipe: &str, classes: &[String]) -> Result<Self> {
        let folder = Folder { path: path.into() };
        let checkpoints = folder.path.join(CHECKPOINTS);
        fs::create_dir_all(&checkpoints).map_err(io("make the folder", &checkpoints))?;
        let lock = lock(&folder.path)?;
        if folder.recipe_path().exists() {
            return Err(TrainError::Occupied { path: folder.path });
        }
        let names = serde_json::to_vec_pretty(classes).expect("names are always JSON");
        atomic::write_bytes_unflushed(folder.path.join(CLASSES), &names)?;
        let metrics = metrics(&folder)?;
        // Last, because a folder with a recipe is a run.
        atomic::write_bytes_unflushed(folder.recipe_path(), recipe.as_bytes())?;
        Ok(Self { folder, metrics, _lock: lock })
    }

    /// The run in `path`, to go on with it.
    ///
    /// # Errors
    /// [`TrainError::NotARun`], [`TrainError::Locked`], [`TrainError::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let folder = Folder::open(path)?;
        let lock = lock(&folder.path)?;
        let metrics = metrics(&folder)?;
        Ok(Self { folder, metrics, _lock: lock })
    }

    /// The folder, to read from.
    pub const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The run's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the recipe, for a run that goes on with another one.
    ///
    /// # Errors
    /// [`TrainError::Weights`] as every atomic write.
    pub fn write_recipe(&self, recipe: &str) -> Result<()> {
        Ok(atomic::write_bytes(self.folder.recipe_path(), recipe.as_bytes())?)
    }

    /// Writes the list of images that were not used; none for an empty one.
    ///
    /// # Errors
    /// [`TrainError::Weights`] as every atomic write.
    pub fn write_skipped(&self, skipped: &[defrost_data::Skipped]) -> Result<()> {
        if skipped.is_empty() {
            return Ok(());
        }
        let lines: String = skipped.iter().map(|s| format!("{s}\n")).collect();
        Ok(atomic::write_bytes_unflushed(self.folder.skipped_path(), lines.as_bytes())?)
    }

    /// Adds images that turned out not to be readable to the list of those that are not used.
    ///
    /// # Errors
    /// [`TrainError::Weights`] as every atomic write.
    pub fn add_skipped(&self, skipped: &[defrost_data::Skipped]) -> Result<()> {
        let path = self.folder.skipped_path();
        let mut text = fs::read_to_string(&path).unwrap_or_default();
        for line in skipped.iter().map(|s| s.to_string()) {
            if !text.lines().any(|l| l == line) {
                text += &line;
                text.push('\n');
            }
        }
        Ok(atomic::write_bytes(path, text.as_bytes())?)
    }

    /// Writes `validation.json`.
    ///
    /// # Errors
    /// [`TrainError::Weights`] as every atomic write.
    pub fn write_validation(&self, validation: &Validation) -> Result<()> {
        let bytes = serde_json::to_vec(validation).expect("plain data is always JSON");
        Ok(atomic::write_bytes(self.folder.validation_path(), &bytes)?)
    }

    /// Removes `validation.json`, which belongs to an end that is none any more.
    pub(crate) fn remove_validation(&self) -> Result<()> {
        let path = self.folder.validation_path();
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Appends a line to `metrics.jsonl`, in one write.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn log(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_vec(event).expect("plain data is always JSON");
        line.push(b'\n');
        self.metrics.write_all(&line).map_err(io("write to", &self.folder.metrics_path()))
    }

    /// `metrics.jsonl` once more, to wait until it is on the disk.
    pub(crate) fn metrics_file(&self) -> Result<File> {
        self.metrics.try_clone().map_err(io("open", &self.folder.metrics_path()))
    }

    /// The length of `metrics.jsonl` in bytes, of which not all may be on the disk yet.
    pub(crate) fn written_metrics_len(&self) -> Result<u64> {
        let path = self.folder.metrics_path();
        Ok(self.metrics.metadata().map_err(io("look at", &path))?.len())
    }

    /// Cuts `metrics.jsonl` to `len` bytes: what comes later belongs to work that is done again.
    pub(crate) fn rewind_metrics(&mut self, len: u64) -> Result<()> {
        let path = self.folder.metrics_path();
        if self.metrics.metadata().map_err(io("look at", &path))?.len() > len {
            self.metrics.set_len(len).map_err(io("cut", &path))?;
        }
        Ok(())
    }
}

/// Whether `name` can be a checkpoint's.
pub(crate) fn check_name(name: &str) -> Result<()> {
    checkpoint_name(name).map_err(|rule| TrainError::CheckpointName { name: name.into(), rule })
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TrainError {
    move |source| TrainError::Io { action, path: path.to_owned(), source }
}

fn metrics(folder: &Folder) -> Result<File> {
    let path = folder.metrics_path();
    OpenOptions::new().create(true).append(true).open(&path).map_err(io("open", &path))
}

/// Takes the lock of the run in `path`, or says who holds it. The system drops the lock with the process.
fn lock(path: &Path) -> Result<File> {
    let at = path.join(LOCK);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&at)
        .map_err(io("open", &at))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let read = file.read_to_string(&mut holder);
            let holder = match (read, holder.trim()) {
                (Ok(_), text) if !text.is_empty() => text.to_owned(),
                _ => "another process".to_owned(),
            };
            return Err(TrainError::Locked { path: path.to_owned(), holder });
        }
        // A file system without locks is no reason not to train.
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(e)) => return Err(io("lock", &at)(e)),
    }
    let program = std::env::args_os().next().map(PathBuf::from);
    let program =
        program.as_deref().and_then(Path::file_name).map_or("a program".into(), |n| n.to_string_lossy());
    let holder = format!("process {} ({program})\n", std::process::id());
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(holder.as_bytes())
    };
    write(&mut file).map_err(io("write to", &at))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["cat", "dog"].map(String::from).to_vec()
    }

    #[test]
    fn a_second_run_in_one_folder_is_refused_and_told_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let first = Run::create(&path, "seed = 0\n", &names()).unwrap();
        let error = Run::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(matches!(Run::create(&path, "", &names()), Err(TrainError::Locked { .. })));
        drop(first);
        // The lock file is still there, as after a crash; the lock is not.
        assert!(path.join(LOCK).exists());
        assert!(matches!(Run::create(&path, "", &names()), Err(TrainError::Occupied { .. })));
        Run::open(&path).unwrap();
        assert_eq!(Folder::open(&path).unwrap().classes().unwrap(), names());
        assert!(matches!(Run::open(dir.path()), Err(TrainError::NotARun { .. })));
    }

    #[test]
    fn events_are_lines_and_a_torn_one_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Run::create(dir.path(), "", &names()).unwrap();
        let warning = |message: &str| Event::Warning { message: message.into() };
        run.log(&warning("one")).unwrap();
        let len = run.written_metrics_len().unwrap();
        run.log(&warning("two")).unwrap();
        assert_eq!(run.folder().events().unwrap(), [warning("one"), warning("two")]);
        run.rewind_metrics(len).unwrap();
        run.log(&warning("three")).unwrap();
        run.metrics.write_all(b"{\"event\":\"warn").unwrap();
        assert_eq!(run.folder().events().unwrap(), [warning("one"), warning("three")]);
        let text = fs::read_to_string(run.folder().metrics_path()).unwrap();
        assert!(text.starts_with("{\"event\":\"warning\",\"message\":\"one\"}\n"), "{text}");
    }

    #[test]
    fn checkpoint_names_stay_in_their_folder() {
        for bad in ["", "../x", "a/b", ".hidden", "resume", "restore-best"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("stage-1").is_ok());
    }
}
