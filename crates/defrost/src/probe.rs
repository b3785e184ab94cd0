//! What a network knows of a task before it is trained for it, and the recipe that follows.

use defrost_augment::Size;
use defrost_data::{Loader, LoaderOptions};
use defrost_policy::{Norm, NormMode, PhaseSpec, Recipe, Schedule, Selection, Selector, Start as From};
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

/// `base`, frozen up to the cut: its first phase that trains the head alone, then its last that trains more, of which only
/// what lies behind the cut is left, each stage at the rate that it has there. Where probes show no place to cut, because they
/// get better up to the last stage, `base` is what they recommend; where nothing carries, everything trains.
fn recommended(base: &Recipe, probes: &Probes, advice: &Advice) -> Recipe {
    let mut recipe = base.clone();
    recipe.name = "probed".into();
    let Some(cut) = advice.freeze.checked_sub(1).and_then(|i| probes.stages.get(i)) else {
        recipe.about = "by probes: nothing carries, so everything trains".into();
        let head = PhaseSpec::new("head", 1, Selector::Head).lr(3e-3).schedule(Schedule::one_cycle());
        let all = PhaseSpec::new("everything", 25, Selector::All).lr(2e-3).schedule(Schedule::one_cycle());
        recipe.phases = vec![head, all];
        return recipe;
    };
    if advice.freeze >= advice.of {
        recipe.about = format!("by probes: the whole body carries; as {}", base.name);
        return recipe;
    }
    recipe.about = format!("by probes: frozen up to {}, trained behind it", cut.stage);
    let alone = Selection::from(Selector::Head);
    let head = base.phases.iter().find(|phase| phase.train == alone).cloned();
    let body =
        base.phases.iter().rev().find(|phase| phase.train != alone && !phase.train.0.is_empty()).cloned();
    let defaults = || {
        let head = PhaseSpec::new("head", 5, Selector::Head).lr(3e-3).schedule(Schedule::one_cycle());
        let body = PhaseSpec::new("", 10, Selector::All).lr([2e-5, 1e-3]).schedule(Schedule::one_cycle());
        (head, body.norm(Norm::from(NormMode::AffineOnly)))
    };
    let (head, mut body) = (head.unwrap_or_else(|| defaults().0), body.unwrap_or_else(|| defaults().1));
    body.name = "behind the cut".into();
    // The head is one stage more.
    body.train = Selector::LastStages(advice.of - advice.freeze + 1).into();
    (body.thaw, body.start) = (None, From::Last);
    recipe.phases = vec![head, body];
    recipe
}

#[cfg(test)]
mod tests {
    use super::*;
    use defrost_train::Probe;

    fn probes(accuracies: &[f64]) -> Probes {
        let mut probes = Probes::default();
        (probes.folds, probes.chance) = (5, 0.1);
        for (i, &accuracy) in accuracies.iter().enumerate() {
            let mut probe = Probe::default();
            (probe.stage, probe.accuracy, probe.error) = (format!("features.{i}"), accuracy, 0.02);
            probes.stages.push(probe);
        }
        probes
    }

    #[test]
    fn what_is_recommended_freezes_up_to_the_cut_and_can_run() {
        let base = Recipe::named("two-stage").unwrap();
        let graph = defrost_zoo::ModelSpec::new(defrost_zoo::Arch::MobilenetV2, 10).build().unwrap();
        let whole = base.resolve(&graph).unwrap();
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
            // Where all of the body carries, nothing says where to cut.
            let want = if freeze == of { 0 } else { freeze };
            assert_eq!((frozen(&phases[0]), frozen(&phases[1])), (of, want), "{}", advice.reason);
            // A stage that trains does so at the rate that it has in the recipe that this one comes from.
            let rate = |phase: &defrost_policy::Phase, id| {
                phase.groups.iter().find(|g| g.params.contains(&id)).map_or(0.0, |g| g.lr)
            };
            for id in graph.param_ids().filter(|&id| freeze > 0 && phases[1].marking.params.trains(id)) {
                let (rate, own) = (rate(&phases[1], id), rate(&whole[1], id));
                assert!((rate / own - 1.0).abs() < 1e-9, "{}: {rate}, not {own}", graph.param(id).name);
            }
            assert!(phases.iter().all(|p| p.warnings.is_empty()), "{:?}", phases[1].warnings);
        }
    }
}
