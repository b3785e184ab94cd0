//! What is known of data and weights before a run, for the rules that find doubts in it; and the learning-rate finder.

use std::sync::Arc;

use defrost_augment::{Interpolation, Op, Pipeline, ResizeMode};
use defrost_data::{Dataset, TargetKind, Warning, duplicates};
use defrost_policy::{Doubt, Facts, Severity, Sweep};
use defrost_train::{LrFind, Options};
use defrost_zoo::Preprocess;

use crate::model::eval_pipeline;
use crate::{Error, Prepared};

/// Pairs of names that a message may show.
const PAIRS: usize = 1000;

impl Prepared {
    /// What is legal in this run and mostly a mistake, warnings first: all rules of [`defrost_policy::lint()`], and what was
    /// odd in the data.
    pub fn lint(&self) -> Vec<Doubt> {
        let recipe = &self.fine_tune.recipe;
        let mut doubts = defrost_policy::lint(recipe, &self.phases, &self.model.graph, &self.facts());
        // Three of the data's own warnings are rules too, which say what to set.
        let said = |w: &&Warning| {
            let rule = matches!(
                w,
                Warning::NotInValidation { .. } | Warning::FewImages { .. } | Warning::InBothParts { .. }
            );
            !rule
        };
        doubts
            .extend(self.splits.warnings.iter().filter(said).map(|w| Doubt::warning("data", w.to_string())));
        doubts.sort_by_key(|d| std::cmp::Reverse(d.severity));
        doubts
    }

    /// The warnings of [`Prepared::lint`].
    pub fn warnings(&self) -> impl Iterator<Item = Doubt> {
        self.lint().into_iter().filter(|d| d.severity == Severity::Warning)
    }

    /// What the rules may know.
    fn facts(&self) -> Facts {
        let (splits, model) = (&self.splits, &self.model);
        let name = |data: &Dataset, i: usize| data.samples()[i].name.clone();
        let pairs = duplicates(&splits.train, &splits.val).into_iter().take(PAIRS);
        let mut facts = Facts::default();
        if splits.train.kind() != TargetKind::Values {
            facts.classes = splits.train.classes().to_vec();
            facts.train = counts(&splits.train);
            if !splits.val.is_empty() {
                facts.val = counts(&splits.val);
            }
        }
        facts.shared = pairs.map(|(a, b)| (name(&splits.train, a), name(&splits.val, b))).collect();
        facts.pretrained = model.report.is_some();
        if facts.pretrained {
            let own = model.overridden.as_ref().unwrap_or(&model.preprocess);
            let used = model.eval_pipeline(self.fine_tune.recipe.data.resize.clone());
            facts.trained_size = Some(own.crop);
            facts.preprocessing = Some((words(own, &eval_pipeline(own)), words(&model.preprocess, &used)));
        }
        facts
    }

    /// The loss of a phase (from 0) at rates that rise step by step, and what four readings of that curve suggest. Ratios
    /// between groups stay. It runs on the weights as they are now, in a session of its own: no trace of it is left.
    ///
    /// # Errors
    /// The data, the device, and what training refuses.
    pub fn lr_find(&self, phase: usize, sweep: &Sweep, options: &Options<'_>) -> Result<LrFind, Error> {
        let job = self.job();
        let mut session = self.engine.open(Arc::clone(&job.graph), &job.params)?;
        let curve = defrost_train::lr_find(&mut *session, &job, &job.phases[phase], sweep, options)?;
        Ok(defrost_train::lr_found(phase, &curve, sweep))
    }
}

/// Images of each class, or with each label.
fn counts(data: &Dataset) -> Vec<usize> {
    match data.kind() {
        TargetKind::Classes => {
            let mut counts = vec![0; data.classes().len()];
            for i in 0..data.len() {
                let labels = counts.iter_mut().zip(data.targets(i));
                labels.for_each(|(count, &there)| *count += usize::from(there > 0.5));
            }
            counts
        }
        _ => data.class_counts(),
    }
}

/// How an image is prepared: by this transform, then with these constants.
fn words(preprocess: &Preprocess, pipeline: &Pipeline) -> String {
    let one = |op: &Op| match op {
        Op::Resize(resize) => {
            let how = match resize.interpolation {
                Interpolation::Nearest => "the nearest pixel",
                Interpolation::Bicubic => "bicubic interpolation",
                _ => "bilinear interpolation",
            };
            match resize.mode {
                ResizeMode::Center => {
                    format!("the middle {:.1} % of the shorter side by {how}", 100.0 * resize.crop)
                }
                ResizeMode::Squash => format!("the whole image squashed by {how}"),
                _ => format!("the whole image with a border by {how}"),
            }
        }
        other => other.name().to_owned(),
    };
    let rounded = |values: &[f64]| values.iter().map(|v| (v * 1000.0).round() / 1000.0).collect::<Vec<_>>();
    let (mean, std) = (rounded(&preprocess.mean), rounded(&preprocess.std));
    let order = if preprocess.reversed { ", blue first" } else { "" };
    let size = pipeline.0.iter().map(one).collect::<Vec<_>>().join(", ");
    format!("{size}, mean {mean:?} and deviation {std:?} of 1{order}")
}
