//! What a network knows of a task before it is trained for it, and the recipe that follows.

use defrost_augment::Size;
use defrost_data::{Loader, LoaderOptions};
use defrost_policy::{
    Norm, NormMode, PhaseSpec, Plateau, Recipe, Rollback, Schedule, Selector, Start as From, Thaw,
};
use defrost_train::{Advice, Probes};
use std::sync::Arc;

use crate::{Error, Prepared};

/// Linear probes of every stage, and what follows from them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Probed {
    /// The probes.
    pub probes: Probes,
    /// Where to cut, and why.
    pub advice: Advice,
    /// A recipe that freezes up to there: `defrost train DATA --recipe FILE` runs it.
    pub recipe: Recipe,
}

impl Prepared {
    /// Fits a linear probe to each stage of the network as its weights are now; nothing is trained. `progress` is told how
    /// many images are done and says whether to go on; `None` where it did not.
    ///
    /// # Errors
    /// Data without classes, without a training or without a validation part; the device.
    pub fn probe(&self, progress: &mut dyn FnMut(usize) -> bool) -> Result<Option<Probed>, Error> {
        let (recipe, model) = (&self.fine_tune.recipe, &self.model);
        let [height, width] = model.spec.image_size;
        let options = LoaderOptions {
            batch: recipe.batch_size,
            size: Size { width, height },
            cache_bytes: 0,
            ..LoaderOptions::eval()
        };
        let eval = model.eval_pipeline(recipe.data.resize.clone());
        let open =
            |data: &defrost_data::Dataset| Loader::new(Arc::new(data.clone()), eval.clone(), options.clone());
        let (train, val) = (open(&self.splits.train)?, open(&self.splits.val)?);
        let pixels = model.pixels();
        let mut session = self.engine.open(Arc::clone(&model.graph), &model.params)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let probes = defrost_train::probe(&mut *session, &train, &val, &pixels, threads, progress)?;
        Ok(probes.map(|probes| {
            let advice = probes.advice();
            let recipe = recommended(recipe, &probes, &advice);
            Probed { probes, advice, recipe }
        }))
    }
}

/// `base` with the phases that the advice asks for: the head on what is frozen, then all that lies behind the cut, then, as
/// long as it helps, one stage after another in front of it.
fn recommended(base: &Recipe, probes: &Probes, advice: &Advice) -> Recipe {
    let mut recipe = base.clone();
    recipe.name = "probed".into();
    let cut = advice.freeze.checked_sub(1).and_then(|i| probes.stages.get(i));
    recipe.about = match cut {
        Some(stage) if advice.freeze < advice.of => {
            format!("by probes: frozen up to {}, trained behind it", stage.stage)
        }
        Some(_) => "by probes: the whole body carries; its last stage is tried first".into(),
        None => "by probes: nothing carries, so everything trains".into(),
    };
    let head =
        |epochs| PhaseSpec::new("head", epochs, Selector::Head).lr(3e-3).schedule(Schedule::one_cycle());
    let quiet = || Norm::from(NormMode::AffineOnly);
    if advice.freeze == 0 {
        let all = PhaseSpec::new("everything", 25, Selector::All).lr(2e-3).schedule(Schedule::one_cycle());
        recipe.phases = vec![head(1), all];
        return recipe;
    }
    // The head is one stage more; behind the last stage there is nothing but the head, so that stage is the first to try.
    let behind = (advice.of - advice.freeze).max(1) + 1;
    // What is frozen is computed once for each view: one view would be a training part without augmentation.
    recipe.data.views = recipe.data.views.max(4);
    let tune = PhaseSpec::new("behind the cut", 8, Selector::LastStages(behind))
        .norm(quiet())
        .lr([2e-5, 5e-4])
        .schedule(Schedule::one_cycle());
    let mut thaw = Thaw::default();
    (thaw.every, thaw.restore_best, thaw.lr_factor) = (2, true, 0.7);
    let (mut plateau, mut rollback) = (Plateau::default(), Rollback::default());
    (plateau.patience, rollback.patience, rollback.tolerance) = (1, 2, 0.01);
    (thaw.plateau, thaw.rollback) = (Some(plateau), Some(rollback));
    let mut phases = vec![head(4), tune];
    if advice.freeze > 1 {
        let before = PhaseSpec::new("before the cut", 8, Selector::LastStages(behind))
            .norm(quiet())
            .lr([1e-5, 2e-4])
            .schedule(Schedule::FlatCosine { flat: 0.75, div_final: 1e5 })
            .start(From::Best { before: 0 })
            .thaw(thaw);
        phases.push(before);
    }
    recipe.phases = phases;
    recipe
}

#[cfg(test)]
mod tests {
    use super::*;
    use defrost_train::Probe;

    fn probes(accuracies: &[f64]) -> Probes {
        let mut probes = Probes::default();
        (probes.val_images, probes.chance) = (400, 0.1);
        for (i, &accuracy) in accuracies.iter().enumerate() {
            let mut probe = Probe::default();
            (probe.stage, probe.accuracy) = (format!("features.{i}"), accuracy);
            probes.stages.push(probe);
        }
        probes
    }

    #[test]
    fn what_is_recommended_freezes_up_to_the_cut_and_can_run() {
        let base = Recipe::named("two-stage").unwrap();
        let graph = defrost_zoo::ModelSpec::new(defrost_zoo::Arch::MobilenetV2, 10).build().unwrap();
        let of = graph.stages().iter().filter(|s| !s.head).count();
        for freeze in 0..=of {
            let rising = |i: usize| if freeze == 0 { 0.1 } else { 0.2 + 0.04 * i.min(freeze - 1) as f64 };
            let mut probes = probes(&(0..of).map(rising).collect::<Vec<_>>());
            // Behind the cut it falls.
            (freeze..of).filter(|_| freeze > 0).for_each(|i| probes.stages[i].accuracy -= 0.1);
            let advice = probes.advice();
            assert_eq!(advice.freeze, freeze);
            let recipe = recommended(&base, &probes, &advice);
            assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
            let phases = recipe.resolve(&graph).unwrap();
            let frozen = |phase: &defrost_policy::Phase| {
                let trains = |s: usize| {
                    graph.param_ids().any(|id| graph.stage_of(id) == s && phase.marking.params.trains(id))
                };
                (0..of).take_while(|&s| !trains(s)).count()
            };
            let want = if freeze == 0 { 0 } else { freeze.min(of - 1) };
            assert_eq!((frozen(&phases[0]), frozen(&phases[1])), (of, want), "{}", advice.reason);
            assert!(phases.iter().all(|p| p.warnings.is_empty()), "{:?}", phases[1].warnings);
        }
    }
}
