//! When and in which order a run's files are written.
//!
//! Weights come first, `resume` last: whatever it says is done has its files, and a crash between the two costs work
//! that is done again with the same bits. Epochs that take milliseconds are not each worth a file, so what is done may
//! wait in memory for a moment; the end of a phase, a stop and an error do not wait.
//!
//! Of networks that are not large, files are written beside the next steps. The next save waits for them, and so does
//! whoever reads one, an error and the end: that is when a failure is told.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use defrost_graph::{Graph, Param, ParamStore};
use defrost_policy::Phase;
use defrost_weights::atomic;

use crate::between::epoch_name;
use crate::checkpoint::Snapshot;
use crate::run::io;
use crate::step::rule;
use crate::trainer::Trainer;
use crate::{About, Epoch, Folder, Result, State};

/// Bytes of a snapshot up to which its files are written beside the next steps. A larger one would lie in memory beside
/// the values of these, and its epochs take long enough.
const BESIDE: usize = 256 << 20;

/// What is done and not yet on the disk.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    /// Weight files by name.
    weights: Weights,
    /// States that the phase may go back to, by epoch.
    pub(crate) restores: BTreeMap<usize, Snapshot>,
    writing: Background,
}

/// Weight files by name.
type Weights = BTreeMap<String, (ParamStore, About)>;

/// What a thread of its own writes while training goes on. It is over when this is dropped.
#[derive(Debug, Default)]
struct Background(Option<JoinHandle<Result<()>>>);

impl Background {
    fn start(write: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        Self(Some(std::thread::spawn(write)))
    }

    /// Waits for it.
    fn end(&mut self) -> Result<()> {
        // A panic there is a panic here.
        self.0.take().map_or(Ok(()), |t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // Whoever gives up has another error to tell.
            let _ = thread.join();
        }
    }
}

impl Trainer<'_> {
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        self.snapshot_of(self.session.params()?)
    }

    /// The same where the weights that train are at hand.
    pub(crate) fn snapshot_of(&self, params: ParamStore) -> Result<Snapshot> {
        Ok(Snapshot { params, optimizer: self.session.optimizer()?, ema: self.session.averaged()? })
    }

    /// Has a weight file written with the next save: the average of the weights where there is one, because it is what
    /// was measured.
    pub(crate) fn keep_weights(&mut self, name: &str, snapshot: &Snapshot, epoch: &Epoch) {
        let mut metrics = epoch.metrics.clone();
        let own = [
            ("loss", epoch.val_loss),
            ("accuracy", epoch.val_accuracy),
            ("train_loss", Some(epoch.train_loss)),
        ];
        metrics.extend(own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let about = About {
            model: self.job.graph.name().to_owned(),
            classes: self.job.train.classes().to_vec(),
            spec: self.job.spec.clone(),
            preprocess: self.job.preprocess.clone(),
            phase: Some(epoch.phase),
            epoch: Some(epoch.global_epoch),
            metrics,
            loss: self.job.recipe.loss.clone(),
            scale: self.targets.scale().cloned(),
        };
        let params = snapshot.ema.as_ref().unwrap_or(&snapshot.params).clone();
        self.unsaved.weights.insert(name.to_owned(), (params, about));
    }

    /// The same of the weights as they are now.
    pub(crate) fn keep_current(&mut self, name: &str, epoch: &Epoch) -> Result<()> {
        let snapshot = self.snapshot()?;
        self.keep_weights(name, &snapshot, epoch);
        Ok(())
    }

    /// Has the start of a run saved beside its first steps; the next save, or the end, waits for it.
    pub(crate) fn save_start(&mut self, snapshot: Snapshot) -> Result<()> {
        if let Some(phase) = self.job.phases.get(self.state.at.phase) {
            self.refuse_broken(phase, &snapshot)?;
        }
        self.state.seconds = self.clock.seconds();
        self.state.metrics_len = self.run.written_metrics_len()?;
        let (folder, state) = (self.run.folder().clone(), self.state.clone());
        self.unsaved.writing = Background::start(move || {
            // What a new run has written so far was not waited for.
            atomic::flush_folder(folder.path())?;
            folder.write_resume(&snapshot, &state)
        });
        self.saved = Instant::now();
        Ok(())
    }

    /// Saves everything as it is now.
    pub(crate) fn save(&mut self) -> Result<()> {
        let snapshot = self.snapshot()?;
        if let Some(phase) = self.job.phases.get(self.state.at.phase) {
            self.refuse_broken(phase, &snapshot)?;
        }
        self.write_all(&snapshot)
    }

    /// Has all that waits written, then where the run stands.
    pub(crate) fn write_all(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.written()?;
        let phase = self.state.at.phase;
        let kept = self.job.phases.get(phase).map_or_else(Vec::new, |p| self.restorable(p));
        let mut restores = std::mem::take(&mut self.unsaved.restores);
        restores.retain(|epoch, _| kept.contains(epoch));
        self.state.seconds = self.clock.seconds();
        self.state.metrics_len = self.run.written_metrics_len()?;
        let save = Save {
            folder: self.run.folder().clone(),
            metrics: self.run.metrics_file()?,
            graph: Arc::clone(&self.job.graph),
            weights: std::mem::take(&mut self.unsaved.weights),
            phase,
            restores,
            kept,
            snapshot: snapshot.clone(),
            state: self.state.clone(),
            first_epoch: self.first_epoch_needed().unwrap_or(0),
        };
        self.saved = Instant::now();
        if snapshot.bytes() > BESIDE {
            return save.write();
        }
        self.unsaved.writing = Background::start(move || save.write());
        Ok(())
    }

    /// Whether the files of a phase's epochs are sure to be written beside the next steps.
    pub(crate) fn writes_beside(&self, phase: &Phase) -> Result<bool> {
        let values: usize = self.job.graph.params().iter().map(Param::len).sum();
        let copies = 1 + rule(&phase.optimizer, None)?.state() + usize::from(self.job.recipe.ema.is_some());
        Ok(4 * copies * values <= BESIDE)
    }

    /// Waits until all that was to be written is.
    pub(crate) fn written(&mut self) -> Result<()> {
        self.unsaved.writing.end()
    }

    /// Writes the weight files that wait.
    pub(crate) fn write_weights(&mut self) -> Result<()> {
        self.written()?;
        write_weights(self.run.folder(), &self.job.graph, std::mem::take(&mut self.unsaved.weights))
    }
}

/// All files of a moment of a run.
struct Save {
    folder: Folder,
    metrics: File,
    graph: Arc<Graph>,
    weights: Weights,
    phase: usize,
    restores: BTreeMap<usize, Snapshot>,
    /// Epochs of the phase whose states stay.
    kept: Vec<usize>,
    snapshot: Snapshot,
    state: State,
    /// The first epoch whose weights may still be wanted.
    first_epoch: usize,
}

impl Save {
    fn write(self) -> Result<()> {
        let folder = &self.folder;
        write_weights(folder, &self.graph, self.weights)?;
        for (epoch, snapshot) in self.restores {
            folder.write_restore(self.phase, epoch, &snapshot)?;
        }
        self.metrics.sync_data().map_err(io("write to", &folder.metrics_path()))?;
        folder.write_resume(&self.snapshot, &self.state)?;
        // Only now, because the resume file of before may have wanted the others.
        folder.keep_restores(self.phase, &self.kept);
        (0..self.first_epoch).try_for_each(|epoch| folder.remove(&epoch_name(epoch)))
    }
}

/// Writes weight files. What is the same as the one before it (the last epoch, and it is the best) is a link to its file: no
/// file of weights is ever changed, only replaced.
fn write_weights(folder: &Folder, graph: &Graph, weights: Weights) -> Result<()> {
    let mut before: Option<(String, (ParamStore, About))> = None;
    for (name, (params, about)) in weights {
        let same = before.as_ref().filter(|(_, (p, a))| *a == about && p.shares(&params));
        if same.is_none_or(|(other, _)| !folder.link(other, &name)) {
            folder.save(&name, graph, &params, &about)?;
        }
        before = Some((name, (params, about)));
    }
    Ok(())
}
