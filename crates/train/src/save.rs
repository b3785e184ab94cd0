//! When and in which order a run's files are written.
//!
//! Weights come first, `resume` last: whatever it says is done has its files, and a crash between the two costs work
//! that is done again with the same bits. Epochs that take milliseconds are not each worth a file, so what is done may
//! wait in memory for a moment; the end of a phase, a stop and an error do not wait.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::Instant;

use defrost_graph::ParamStore;
use defrost_weights::atomic;

use crate::between::epoch_name;
use crate::checkpoint::Snapshot;
use crate::trainer::Trainer;
use crate::{About, Epoch, Result};

/// What is done and not yet on the disk.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    /// Weight files by name.
    weights: BTreeMap<String, (ParamStore, About)>,
    /// States that the phase may go back to, by epoch.
    pub(crate) restores: BTreeMap<usize, Snapshot>,
    start: Background,
}

/// What a thread of its own writes: the start of a run, while its first batch is made. It is over when this is dropped.
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
        let (params, optimizer) = (self.session.params()?, self.session.optimizer()?);
        Ok(Snapshot { params, optimizer, ema: self.session.averaged()? })
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
        self.unsaved.start = Background::start(move || {
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

    /// Writes all that waits, then where the run stands.
    pub(crate) fn write_all(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.unsaved.start.end()?;
        self.write_weights()?;
        let (phase, job) = (self.state.at.phase, self.job);
        let kept = job.phases.get(phase).map_or_else(Vec::new, |p| self.restorable(p));
        for (epoch, snapshot) in std::mem::take(&mut self.unsaved.restores) {
            if kept.contains(&epoch) {
                self.run.write_restore(phase, epoch, &snapshot)?;
            }
        }
        self.state.seconds = self.clock.seconds();
        self.state.metrics_len = self.run.metrics_len()?;
        self.run.folder().write_resume(snapshot, &self.state)?;
        self.saved = Instant::now();
        // Only now, because the resume file of before may have wanted the others.
        self.run.keep_restores(phase, &kept);
        let first = self.first_epoch_needed().unwrap_or(0);
        (0..first).try_for_each(|epoch| self.run.remove(&epoch_name(epoch)))
    }

    /// Writes the weight files that wait.
    pub(crate) fn write_weights(&mut self) -> Result<()> {
        while let Some((name, (params, about))) = self.unsaved.weights.pop_first() {
            self.run.save(&name, &self.job.graph, &params, &about)?;
        }
        Ok(())
    }
}
