//! Thawing by hand: a run goes on with another recipe from where it stands.

use defrost_exec::Engine;

use crate::state::{Fingerprint, State};
use crate::trainer::{Begin, Trainer};
use crate::{Aspect, Epoch, Job, Options, Outcome, Place, Result, Run, TrainError};

/// How many phases of a run that stands at `at` count as done when it goes on with another recipe: those that are over,
/// and the one it stands in if an epoch of it is done.
pub fn phases_done(at: Place) -> usize {
    at.phase + usize::from(at.epoch > 0)
}

/// Ends the run in `run` where it stands, whether it is over or was interrupted, and goes on with another recipe: phase
/// [`phases_done`] of `job` begins with the weights that the run has, or those that its `start` names. `job` is for the
/// recipe [`after`](defrost_policy::Recipe::after) the run's own, which replaces it in the run's folder; epochs,
/// checkpoints and `metrics.jsonl` go on.
///
/// A run that was over gives the same bits as one by a recipe with all these phases from the start. Of a phase that was
/// interrupted the part of an epoch that was done stays in the weights; its checkpoint (`save`) is written now.
///
/// # Errors
/// [`TrainError::Different`] where more than the recipe differs and is not accepted, and as [`fit`](crate::fit).
pub fn proceed(engine: &dyn Engine, job: &Job, run: &mut Run, options: Options<'_>) -> Result<Outcome> {
    let now = Fingerprint::of(job);
    let mut differences = run.folder().state()?.fingerprint.differences(&now);
    differences.retain(|d| {
        d.what != Aspect::Recipe && (d.what.flag().is_none() || !options.accept.contains(&d.what))
    });
    if !differences.is_empty() {
        return Err(TrainError::Different(differences));
    }
    let (mut snapshot, mut state) = run.read_resume(&job.graph)?;
    let was = state.at;
    let next = phases_done(was);
    let Some(phase) = job.phases.get(next) else {
        return Err(TrainError::Finished { path: run.path().to_owned(), epochs: state.global_epoch });
    };
    if was.epoch == 0 && was.step > 0 {
        // The state belongs to an optimizer of which the recipe says nothing any more.
        snapshot.optimizer.clear();
    }
    snapshot.fit_average(job);
    let ended = (next > was.phase).then(|| state.history.last().cloned()).flatten();
    state.at = Place { phase: next, epoch: 0, step: 0 };
    state.sums = Default::default();
    state.fingerprint = now;
    compare_by(&mut state, job);
    run.rewind_metrics(state.metrics_len)?;
    run.write_recipe(&job.recipe.to_toml())?;
    run.remove_validation()?;
    let reason = format!("by hand: the run was resumed with another recipe {}", moment(was));
    let what = format!("phase `{}` begins", phase.name);
    let save = ended.and_then(|epoch| Some((job.phases[was.phase].save.clone()?, epoch)));
    let mut trainer = Trainer::new(engine, job, run, options, &snapshot, state)?;
    if let Some((name, epoch)) = save {
        trainer.keep_current(&name, &epoch)?;
    }
    trainer.train(Begin::Proceed { what, reason })
}

/// Where a run stood, in words.
fn moment(at: Place) -> String {
    match at {
        Place { phase: 0, epoch: 0, step: 0 } => "before its first step".into(),
        Place { phase, epoch: 0, step: 0 } => format!("after phase {phase}"),
        Place { phase, epoch, step: 0 } => format!("after epoch {epoch} of phase {}", phase + 1),
        Place { phase, epoch, step } => {
            format!("after step {step} of epoch {} of phase {}", epoch + 1, phase + 1)
        }
    }
}

/// Gives the best epoch so far the value it has by the metric that epochs are compared by now.
pub(crate) fn compare_by(state: &mut State, job: &Job) {
    let Some(best) = &mut state.best else { return };
    let monitor = job.recipe.monitor.name();
    let value = |epoch: &Epoch| match monitor {
        "loss" => epoch.val_loss,
        "accuracy" => epoch.val_accuracy,
        "train_loss" => Some(epoch.train_loss),
        other => epoch.metrics.get(other).copied(),
    };
    match state.history.iter().find(|e| e.global_epoch == best.global_epoch).and_then(value) {
        Some(value) => best.value = value,
        // What was not measured then cannot be compared now: the next epoch is the best.
        None if !job.val.is_empty() => state.best = None,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_counts_as_done_with_its_first_epoch() {
        let at = |phase, epoch, step| Place { phase, epoch, step };
        assert_eq!([at(0, 0, 3), at(0, 1, 0), at(1, 0, 0), at(1, 2, 5)].map(phases_done), [0, 1, 1, 2]);
        let said = [at(0, 0, 0), at(2, 0, 0), at(1, 4, 0), at(1, 4, 2)].map(moment);
        assert_eq!(
            said,
            [
                "before its first step",
                "after phase 2",
                "after epoch 4 of phase 2",
                "after step 2 of epoch 5 of phase 2"
            ]
        );
    }
}
