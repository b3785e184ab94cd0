//! The first batches of an epoch, made before it begins: while a network is put on its device, and while the epoch before
//! is measured. The batches are the same; steps do not wait for the first one.

use defrost_data::{Batches, Loader};
use defrost_policy::Phase;

use crate::clock::Clock;
use crate::step::batches_a_step;
use crate::trainer::Trainer;
use crate::{Job, State};

/// Batches on their way, and of which epoch (over all phases) from which batch on they are.
#[derive(Debug)]
pub(crate) struct Early {
    of: (u64, usize),
    batches: Batches,
}

impl Early {
    /// Begins with the batch `first` of `epoch`.
    pub(crate) fn start(loader: &Loader, epoch: u64, first: usize) -> Self {
        Self { of: (epoch, first), batches: loader.epoch_from(epoch, first) }
    }

    /// Begins with what comes next in a run that stands at `state`, if that is an epoch on images.
    pub(crate) fn at(job: &Job, clock: &Clock, loader: &Loader, state: &State) -> Option<Self> {
        let at = state.at;
        let first = at.step * batches_a_step(job.phases.get(at.phase)?, job.recipe.batch_size);
        let reads = reads_images(job, clock, at.phase, at.epoch > 0 || at.step > 0);
        (reads && first < loader.batches()).then(|| Self::start(loader, state.global_epoch as u64, first))
    }

    /// The batches, if they are these.
    pub(crate) fn take(self, epoch: u64, first: usize) -> Option<Batches> {
        (self.of == (epoch, first)).then_some(self.batches)
    }
}

impl Trainer<'_> {
    /// Begins with the epoch after this one, which is about to be measured.
    pub(crate) fn begin_next_early(&mut self, phase: &Phase) {
        let at = self.state.at;
        let goes_on = at.epoch + 1 < phase.epochs;
        let next = if goes_on { at.phase } else { at.phase + 1 };
        if reads_images(self.job, &self.clock, next, goes_on) {
            self.early = Some(Early::start(&self.train, self.state.global_epoch as u64 + 1, 0));
        }
    }
}

/// Whether a phase begins, or goes on, with steps on images: neither features nor a finder of rates come first.
fn reads_images(job: &Job, clock: &Clock, phase: usize, goes_on: bool) -> bool {
    let finds = |phase: &Phase| phase.find_lr.is_some() && !goes_on;
    job.phases.get(phase).is_some_and(|phase| phase.epochs > 0 && !finds(phase)) && !clock.fills(phase)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use defrost_augment::{Pipeline, Size};
    use defrost_data::{Dataset, LoaderOptions};

    use super::*;

    #[test]
    fn what_was_made_early_is_taken_for_its_own_epoch_alone() {
        let classes = ["a", "b"].map(String::from).to_vec();
        let data = Dataset::from_arrays(vec![7; 5 * 8 * 8], [8, 8, 1], vec![0, 1, 0, 1, 0], classes);
        let data = Arc::new(data.unwrap());
        let options = LoaderOptions { batch: 2, size: Size::square(8), ..LoaderOptions::train() };
        let loader = Loader::new(data, Pipeline::default(), options).unwrap();
        let samples = |batches: Batches| batches.flat_map(|b| b.unwrap().samples).collect::<Vec<_>>();
        let of_epoch = samples(loader.epoch(3));
        assert_eq!(samples(Early::start(&loader, 3, 0).take(3, 0).unwrap()), of_epoch);
        assert_eq!(samples(Early::start(&loader, 3, 1).take(3, 1).unwrap()), of_epoch[2..]);
        assert!(Early::start(&loader, 3, 0).take(4, 0).is_none());
        assert!(Early::start(&loader, 3, 0).take(3, 1).is_none());
    }
}
