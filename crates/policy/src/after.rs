//! One recipe after another in the same run: thawing by hand.

use crate::Recipe;

impl Recipe {
    /// With what a run cannot change on its way: the network, the data and the seed of `run`, the recipe it began with.
    #[must_use]
    pub fn like(self, run: &Self) -> Self {
        Self { model: run.model.clone(), data: run.data.clone(), seed: run.seed, ..self }
    }

    /// With the first `done` phases of `run` in front: what a run is trained by that did these and now goes on with this
    /// recipe. Phases of this recipe may start from checkpoints that those saved. All else is this recipe's; a phase that
    /// was ended by hand keeps the length it was meant to have.
    #[must_use]
    pub fn after(self, run: &Self, done: usize) -> Self {
        let name = if done == 0 { self.name.clone() } else { format!("{} + {}", run.name, self.name) };
        let mut checkpoints = self.checkpoints;
        checkpoints.every_epoch |= run.checkpoints.every_epoch;
        let phases = run.phases.iter().take(done).cloned().chain(self.phases).collect();
        Self { name, checkpoints, phases, ..self }
    }
}

#[cfg(test)]
mod tests {
    use crate::{PhaseSpec, Recipe, Start};

    fn recipe(name: &str, phases: &[&str]) -> Recipe {
        let all = Recipe::new(name, "mobilenet_v2");
        phases.iter().fold(all, |r, p| r.phase(PhaseSpec::new(*p, 2, "head").save(format!("after-{p}"))))
    }

    #[test]
    fn what_was_done_comes_first_and_the_network_stays() {
        let mut run = recipe("run", &["a", "b", "c"]).image_size(160).seed(7);
        run.checkpoints.every_epoch = true;
        let mut next = Recipe::new("next", "resnet50").batch_size(8);
        next = next.phase(PhaseSpec::new("d", 1, "all").start(Start::Named("after-b".into())));
        assert!(next.check().is_err(), "nothing was saved before");
        let both = next.clone().like(&run).after(&run, 2);
        both.check().unwrap();
        let names: Vec<_> = both.phases.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "d"]);
        assert_eq!((both.name.as_str(), both.seed, both.batch_size), ("run + next", 7, 8));
        assert_eq!((both.model.arch.as_str(), both.data.image_size), ("mobilenet_v2", 160));
        assert!(both.checkpoints.every_epoch, "`best-1` finds its epoch");
        assert!(next.after(&run, 1).check().is_err(), "`after-b` was not reached");
    }
}
