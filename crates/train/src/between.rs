//! Between two epochs: the best so far, the recipe's decisions, what is to be saved.

use defrost_graph::ParamStore;
use defrost_policy::{Decision, Metric, Metrics, Mode, Phase, Start};

use crate::state::Best;
use crate::trainer::{Trainer, unsupported};
use crate::{Epoch, Event, Place, Result};

impl Trainer<'_> {
    /// What follows from an epoch that is done, and `measured` on the validation part where there is one. `params` are the
    /// weights that train, where somebody has read them.
    pub(crate) fn after_epoch(
        &mut self,
        phase: &Phase,
        epoch: Epoch,
        (metrics, measured): (&Metrics, bool),
        params: Option<ParamStore>,
    ) -> Result<()> {
        if self.saved.elapsed() >= self.options.save_pause && !self.writes_beside(phase)? {
            // What is written now need not lie beside a step's values. Of epochs that take milliseconds it would be most of the
            // time to give them back.
            self.session.release();
        }
        let params = params.map_or_else(|| self.session.params(), Ok)?;
        let snapshot = self.snapshot_of(params)?;
        self.refuse_broken(phase, &snapshot)?;
        let place = self.state.at;
        let best = self.is_best(metrics, measured);
        let epoch = Epoch { best, ..epoch };
        self.state.history.push(epoch.clone());
        if best {
            self.state.best = Some(Best {
                phase: place.phase,
                global_epoch: self.state.global_epoch,
                value: metrics.get(self.job.recipe.monitor).unwrap_or(0.0),
                loss: epoch.val_loss,
                accuracy: epoch.val_accuracy,
            });
            self.keep_weights("best", &snapshot, &epoch);
            self.answers = self.measured.take();
        }
        if self.keeps_epochs() {
            self.keep_weights(&epoch_name(self.state.global_epoch), &snapshot, &epoch);
        }
        self.emit(Event::Epoch(epoch.clone()))?;

        self.watch_thaw(phase, metrics);
        let was = self.state.controller.step();
        let decisions = self.state.controller.after_epoch(phase, place.epoch, metrics);
        if self.restorable(phase).contains(&place.epoch) {
            self.unsaved.restores.insert(place.epoch, snapshot.clone());
        }
        let (mut over, mut thawed) = (place.epoch + 1 >= phase.epochs, false);
        let mut end = (snapshot, epoch);
        for decision in decisions {
            let reason = decision.reason().to_owned();
            match decision {
                Decision::Restore { epoch, .. } => {
                    self.decide(format!("back to the weights of epoch {}", epoch + 1), reason)?;
                    let snapshot = match self.unsaved.restores.get(&epoch) {
                        Some(snapshot) => snapshot.clone(),
                        None => {
                            self.written()?;
                            self.run.read_restore(&self.job.graph, place.phase, epoch)?
                        }
                    };
                    self.session.set_params(&snapshot.params)?;
                    self.session.set_optimizer(&snapshot.optimizer)?;
                    self.session.set_average(snapshot.ema.as_ref())?;
                    let of = |e: &&Epoch| (e.phase, e.epoch) == (place.phase, epoch);
                    let epoch = self.state.history.iter().find(of).cloned().unwrap_or(end.1);
                    end = (snapshot, epoch);
                }
                Decision::Step { step, .. } => {
                    // Step n is what holds after n thaws.
                    let name = |step: usize| phase.thaws.get(step).map_or("", |s| s.name.as_str());
                    let what = match step > was {
                        true => format!("thaw {}", name(step - 1)),
                        false => format!("freeze {} again", name(step)),
                    };
                    self.decide(what, reason)?;
                    thawed = true;
                }
                Decision::Factor { factor, .. } => self.decide(format!("rates times {factor}"), reason)?,
                Decision::Stop { .. } => {
                    self.decide("end of the phase".into(), reason)?;
                    over = true;
                }
                _ => return Err(unsupported("a decision of the recipe", "this version does not know it")),
            }
        }
        self.keep_weights("last", &end.0, &end.1);
        self.state.global_epoch += 1;
        self.state.sums = Default::default();
        if over {
            if let Some(name) = &phase.save {
                self.keep_weights(name, &end.0, &end.1);
            }
            self.state.at = Place { phase: place.phase + 1, epoch: 0, step: 0 };
            self.unsaved.restores.clear();
        } else {
            self.state.at = Place { epoch: place.epoch + 1, step: 0, ..place };
        }
        if over || self.saved.elapsed() >= self.options.save_pause {
            self.write_all(&end.0)?;
        }
        if thawed && !over { self.thaw(phase) } else { Ok(()) }
    }

    /// Keeps the best value of what a rollback goes by, as [`Controller`](defrost_policy::Controller) does.
    fn watch_thaw(&mut self, phase: &Phase, metrics: &Metrics) {
        let Some(thaw) = &phase.thaw else { return };
        let (metric, mode) = match (&thaw.rollback, &thaw.plateau) {
            (Some(r), _) => (r.metric, r.mode),
            (None, Some(p)) => (p.metric, p.mode),
            (None, None) => (Metric::Loss, Mode::Auto),
        };
        if let Some(value) = metrics.get(metric).filter(|v| v.is_finite())
            && self.state.thaw_best.is_none_or(|(_, best)| better(mode, metric, value, best))
        {
            self.state.thaw_best = Some((self.state.at.epoch, value));
        }
    }

    /// The epochs of the phase that a decision may go back to.
    pub(crate) fn restorable(&self, phase: &Phase) -> Vec<usize> {
        let thaws = phase.thaw.as_ref().is_some_and(|t| t.restore_best || t.rollback.is_some());
        let stops = phase.early_stopping.as_ref().is_some_and(|r| r.restore_best);
        let thaw = self.state.thaw_best.filter(|_| thaws);
        let stop = self.state.controller.best().filter(|_| stops);
        thaw.iter().chain(&stop).map(|(epoch, _)| *epoch).collect()
    }

    fn is_best(&self, metrics: &Metrics, measured: bool) -> bool {
        let monitor = self.job.recipe.monitor;
        match (&self.state.best, metrics.get(monitor)) {
            (Some(best), Some(value)) => better(Mode::Auto, monitor, value, best.value),
            // Another epoch will be; where none is, what cannot be compared is the best when it is the latest.
            (_, None) if !measured => false,
            _ => true,
        }
    }

    /// Whether the weights of every epoch are written.
    fn keeps_epochs(&self) -> bool {
        self.job.recipe.checkpoints.every_epoch || self.before_best() > 0
    }

    /// How many epochs before the best one some phase starts from.
    fn before_best(&self) -> usize {
        let before = |p: &Phase| if let Start::Best { before } = p.start { before } else { 0 };
        self.job.phases.iter().map(before).max().unwrap_or(0)
    }

    /// The first epoch, over all phases, whose weights some phase may still start from.
    pub(crate) fn first_epoch_needed(&self) -> Option<usize> {
        let best = self.state.best.as_ref()?;
        let before =
            Some(self.before_best()).filter(|&b| b > 0 && !self.job.recipe.checkpoints.every_epoch)?;
        Some(best.global_epoch.saturating_sub(before))
    }
}

/// The name of the checkpoint with the weights after an epoch, counted from 0 over all phases.
pub(crate) fn epoch_name(global_epoch: usize) -> String {
    format!("epoch-{:03}", global_epoch + 1)
}

fn better(mode: Mode, metric: Metric, new: f64, old: f64) -> bool {
    let less = match mode {
        Mode::Auto => metric.less_is_better(),
        Mode::Min => true,
        _ => false,
    };
    if less { new < old } else { new > old }
}
