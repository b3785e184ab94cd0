//! Linear probes: how much of a new task each stage of a network knows already.
//!
//! All images run through the frozen network once; what each stage puts out, averaged over space, is kept. On each
//! stage's features a multinomial logistic regression is fitted to the training part and measured on the validation
//! part (Alain and Bengio 2016). Where the accuracy rises from stage to stage, the source network carries; where it no
//! longer rises, its stages are about the source task and of no use to this one as they are: there is the cut.

mod logistic;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use defrost_data::{Loader, NO_LABEL, TargetKind};
use defrost_exec::{Images, Session};
use defrost_graph::Graph;
use defrost_tensor::PixelScale;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::trainer::unsupported;
use crate::{Result, TrainError};
use logistic::{Standard, Weights};

/// The strengths of the L2 penalty that are tried, strongest first: each fit starts from the one before.
pub const STRENGTHS: [f64; 6] = [1.0, 0.3, 0.1, 0.03, 0.01, 0.003];

/// The probes of a network on a data set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Probes {
    /// The architecture's name.
    pub model: String,
    /// Classes.
    pub classes: usize,
    /// Images that the probes were fitted to.
    pub train_images: usize,
    /// Images that they were measured on.
    pub val_images: usize,
    /// The accuracy of always naming the most frequent class of the training part.
    pub chance: f64,
    /// Seconds of the one pass over all images.
    pub seconds: f64,
    /// One for each stage but the head, from the input to the output.
    pub stages: Vec<Probe>,
}

/// The probe of one stage.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Probe {
    /// The stage.
    pub stage: String,
    /// Its features: channels of what it puts out.
    pub features: usize,
    /// Part of the validation images that the probe names right.
    pub accuracy: f64,
    /// Its cross-entropy on them, by which the strength of the penalty was chosen.
    pub loss: f64,
    /// Part of the training images that it names right.
    pub train_accuracy: f64,
    /// The strength of its L2 penalty.
    pub l2: f64,
    /// The part of the network's work, in multiply-accumulates, that is done when this stage is.
    pub work: f64,
    /// Seconds of fitting.
    pub seconds: f64,
}

/// Where to freeze, by the probes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Advice {
    /// How many stages from the input on to freeze; 0: none.
    pub freeze: usize,
    /// Stages without the head.
    pub of: usize,
    /// Why, in one or two sentences.
    pub reason: String,
}

impl Probes {
    /// The standard error of an accuracy on the validation images.
    pub fn error(&self, accuracy: f64) -> f64 {
        (accuracy * (1.0 - accuracy) / self.val_images.max(1) as f64).sqrt()
    }

    /// The stage with the best probe; the first of equals. `None` without stages.
    pub fn best(&self) -> Option<&Probe> {
        self.stages.iter().rev().max_by(|a, b| a.accuracy.total_cmp(&b.accuracy))
    }

    /// Where to freeze: up to the first stage whose probe is within one standard error of the best (the one-standard-error
    /// rule of Breiman et al. 1984). Stages behind it add nothing that can be measured as they are, so they are free to
    /// learn; nothing is frozen where even the best is within two errors of chance.
    pub fn advice(&self) -> Advice {
        let of = self.stages.len();
        let Some(best) = self.best() else {
            return Advice { freeze: 0, of, reason: "there is no stage to probe".into() };
        };
        let (error, percent) = (self.error(best.accuracy), |a: f64| format!("{:.1} %", 100.0 * a));
        if best.accuracy <= self.chance + 2.0 * error {
            let reason = format!(
                "the best probe ({}, {}) is no better than chance ({}) by more than two standard errors: these weights \
                 know nothing of this task, so everything trains",
                best.stage,
                percent(best.accuracy),
                percent(self.chance)
            );
            return Advice { freeze: 0, of, reason };
        }
        let near = |p: &Probe| p.accuracy >= best.accuracy - error;
        let at = self.stages.iter().position(near).unwrap_or(of - 1);
        let cut = &self.stages[at];
        let reason = if at + 1 == of {
            format!(
                "probes get better up to the last stage, {} ({} ± {}): the source network carries all the way",
                cut.stage,
                percent(cut.accuracy),
                percent(error)
            )
        } else if cut.stage == best.stage {
            format!(
                "the probe of {} is the best ({} ± {}); what comes behind it is about the source task",
                cut.stage,
                percent(cut.accuracy),
                percent(error)
            )
        } else {
            format!(
                "the probe of {} ({}) is within one standard error of the best ({}, {} ± {}): the stages behind it add \
                 nothing that can be measured as they are",
                cut.stage,
                percent(cut.accuracy),
                best.stage,
                percent(best.accuracy),
                percent(error)
            )
        };
        Advice { freeze: at + 1, of, reason }
    }
}

/// Images of one part with their features, stage by stage.
struct Part {
    labels: Vec<usize>,
    stages: Vec<Vec<f32>>,
}

/// Probes every stage of the session's network but its head. The loaders should hand out images in order, transformed for
/// evaluation. `progress` is told the number of images done and says whether to go on; `None` where it did not.
///
/// `threads` fit probes side by side; they change no bit.
///
/// # Errors
/// The data, the device; data without classes; [`TrainError::NoImages`].
pub fn probe(
    session: &mut dyn Session,
    train: &Loader,
    val: &Loader,
    pixels: &PixelScale,
    threads: usize,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Probes>> {
    if train.dataset().kind() != TargetKind::Class {
        return Err(unsupported("a linear probe", "it tells classes apart, and this data has other targets"));
    }
    let began = Instant::now();
    let Some(fitted) = features(session, train, pixels, progress)? else { return Ok(None) };
    let before = fitted.labels.len();
    let Some(measured) = features(session, val, pixels, &mut |done| progress(before + done))? else {
        return Ok(None);
    };
    let seconds = began.elapsed().as_secs_f64();
    for (part, purpose) in [(&fitted, "fit probes to"), (&measured, "measure probes on")] {
        if part.labels.is_empty() {
            return Err(TrainError::NoImages { purpose });
        }
    }
    let graph = session.graph();
    let classes = train.dataset().classes().len();
    let body: Vec<_> = (0..graph.stages().len()).filter(|&s| !graph.stages()[s].head).collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(vec![Probe::default(); body.len()]);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, body.len().max(1)) {
            scope.spawn(|| {
                // The stages at the end have most features: first the long work.
                while let Some(i) = body.len().checked_sub(1 + next.fetch_add(1, Ordering::Relaxed)) {
                    let probe = one(&fitted, &measured, body[i], classes);
                    found.lock().unwrap_or_else(PoisonError::into_inner)[i] = probe;
                }
            });
        }
    });
    let mut stages = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let work = work(graph);
    for (probe, &stage) in stages.iter_mut().zip(&body) {
        (probe.stage, probe.work) = (graph.stages()[stage].name.clone(), work[stage]);
    }
    let mut counts = vec![0usize; classes];
    fitted.labels.iter().for_each(|&l| counts[l] += 1);
    let frequent = (0..classes).rev().max_by_key(|&c| counts[c]).unwrap_or(0);
    let named = measured.labels.iter().filter(|l| **l == frequent).count();
    Ok(Some(Probes {
        model: graph.name().to_owned(),
        classes,
        train_images: fitted.labels.len(),
        val_images: measured.labels.len(),
        chance: named as f64 / measured.labels.len() as f64,
        seconds,
        stages,
    }))
}

/// What all stages put out for the images of a loader.
fn features(
    session: &mut dyn Session,
    loader: &Loader,
    pixels: &PixelScale,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Part>> {
    let mut part = Part { labels: Vec::new(), stages: Vec::new() };
    for batch in loader.epoch(0) {
        let batch = batch?;
        if batch.n == 0 {
            continue;
        }
        let stages = session.stages(batch.n, Images::Pixels(&batch.pixels, pixels))?;
        part.stages.resize_with(stages.len(), Vec::new);
        for (all, new) in part.stages.iter_mut().zip(&stages) {
            let each = new.len() / batch.n;
            let known = new.chunks_exact(each.max(1)).zip(&batch.labels).filter(|(_, l)| **l != NO_LABEL);
            known.for_each(|(row, _)| all.extend_from_slice(row));
        }
        part.labels.extend(batch.labels.iter().filter(|l| **l != NO_LABEL).map(|l| *l as usize));
        if !progress(part.labels.len()) {
            return Ok(None);
        }
    }
    Ok(Some(part))
}

/// The probe of one stage: of all strengths of the penalty the one with the least validation loss.
fn one(fitted: &Part, measured: &Part, stage: usize, classes: usize) -> Probe {
    let began = Instant::now();
    let matrix = |part: &Part| {
        let n = part.labels.len();
        let values: Vec<f64> = part.stages[stage].iter().map(|v| f64::from(*v)).collect();
        let features = values.len() / n;
        Array2::from_shape_vec((n, features), values).expect("as many values as features an image")
    };
    let (mut x, mut y) = (matrix(fitted), matrix(measured));
    let standard = Standard::of(x.view());
    standard.apply(&mut x);
    standard.apply(&mut y);
    let mut w = Weights::zeros((x.ncols() + 1, classes));
    let mut best = Probe { features: x.ncols(), loss: f64::INFINITY, ..Probe::default() };
    for l2 in STRENGTHS {
        w = logistic::fit(x.view(), &fitted.labels, l2, w);
        let (loss, accuracy) = logistic::measure(y.view(), &measured.labels, &w);
        if loss >= best.loss {
            break; // Weaker ones only fit the training part more closely.
        }
        let train_accuracy = logistic::measure(x.view(), &fitted.labels, &w).1;
        best = Probe { accuracy, loss, train_accuracy, l2, ..best };
    }
    Probe { seconds: began.elapsed().as_secs_f64(), ..best }
}

/// For each stage, the part of the network's multiply-accumulates up to its end.
fn work(graph: &Graph) -> Vec<f64> {
    let mut macs = vec![0; graph.stages().len()];
    for id in graph.node_ids().skip(1) {
        let node = graph.node(id);
        macs[graph.blocks()[node.block].stage] += node.op.macs(&graph.input_shapes(id, 1));
    }
    let all = macs.iter().sum::<u64>().max(1) as f64;
    let mut sum = 0;
    let up_to = |m: u64| {
        sum += m;
        sum as f64 / all
    };
    macs.into_iter().map(up_to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(accuracies: &[f64], chance: f64) -> Probes {
        let stage =
            |(i, &accuracy): (usize, &f64)| Probe { stage: format!("s{i}"), accuracy, ..Probe::default() };
        let stages = accuracies.iter().enumerate().map(stage).collect();
        Probes { val_images: 100, chance, stages, ..Probes::default() }
    }

    #[test]
    fn the_cut_is_the_first_stage_within_an_error_of_the_best() {
        // The error of 80 % of 100 images is 4 points.
        let freeze = |a: &[f64]| probes(a, 0.1).advice().freeze;
        assert_eq!(freeze(&[0.3, 0.5, 0.77, 0.8, 0.6]), 3);
        assert_eq!(freeze(&[0.3, 0.5, 0.75, 0.8, 0.6]), 4);
        assert_eq!(freeze(&[0.3, 0.5, 0.7, 0.75, 0.8]), 5);
        assert_eq!(freeze(&[0.8, 0.7, 0.6]), 1);
        let advice = probes(&[0.3, 0.5, 0.8, 0.79], 0.1).advice();
        assert!(advice.reason.contains("s2 is the best (80.0 % ± 4.0 %)"), "{}", advice.reason);
    }

    #[test]
    fn weights_that_know_nothing_are_not_frozen() {
        let advice = probes(&[0.11, 0.12, 0.15], 0.1).advice();
        assert_eq!((advice.freeze, advice.of), (0, 3));
        assert!(advice.reason.contains("no better than chance"), "{}", advice.reason);
        assert_eq!(probes(&[], 0.1).advice().freeze, 0);
    }
}
