//! Linear probes: how much of a new task each stage of a network knows already.
//!
//! All images run through the frozen network once; what each stage puts out, averaged over space, is kept. On each
//! stage's features a multinomial logistic regression is fitted to the training part (Alain and Bengio 2016) and measured
//! by cross-validation within it: what is left out of one fit is what it is measured on. So the place of the cut is chosen
//! without the validation part, on which the probes are measured once, at the end. Where the accuracy rises from stage to
//! stage, the source network carries; where it no longer rises, its stages are about the source task and of no use to this
//! one as they are: there is the cut.

mod logistic;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use defrost_data::{Loader, NO_LABEL, TargetKind};
use defrost_exec::{Images, Session};
use defrost_graph::Graph;
use defrost_tensor::PixelScale;
use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};

use crate::trainer::unsupported;
use crate::{Result, TrainError};
use logistic::{Standard, Weights};

/// The strengths of the L2 penalty that are tried, strongest first: each fit starts from the one before.
pub const STRENGTHS: [f64; 6] = [1.0, 0.3, 0.1, 0.03, 0.01, 0.003];

/// Parts of the training images in cross-validation, if there are as many images.
pub const FOLDS: usize = 5;

/// The probes of a network on a data set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Probes {
    /// The architecture's name.
    pub model: String,
    /// Classes.
    pub classes: usize,
    /// Images that the probes were fitted to.
    pub train_images: usize,
    /// Images of the validation part.
    pub val_images: usize,
    /// Parts of the training images, each left out of one fit and measured by it.
    pub folds: usize,
    /// The accuracy of always naming the most frequent class, on the training images.
    pub chance: f64,
    /// Seconds of the one pass over all images and of all fits.
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
    /// Part of the images that a probe which has not seen them names right: the mean over folds.
    pub accuracy: f64,
    /// Its standard error: the deviation between folds over the root of their number.
    pub error: f64,
    /// The cross-entropy on images that were left out, by which the strength of the penalty was chosen.
    pub loss: f64,
    /// Part of the training images that the probe which is fitted to all of them names right.
    pub train_accuracy: f64,
    /// Part of the validation images that it names right.
    pub val_accuracy: f64,
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
        let (error, percent) = (best.error, |a: f64| format!("{:.1} %", 100.0 * a));
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
                percent(cut.error)
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
    for (part, purpose) in [(&fitted, "fit probes to"), (&measured, "measure probes on")] {
        if part.labels.is_empty() {
            return Err(TrainError::NoImages { purpose });
        }
    }
    if fitted.labels.len() < 2 {
        return Err(unsupported("a linear probe of one image", "part of the images is left out of each fit"));
    }
    let folds = folds(&fitted.labels);
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
                    let probe = one(&fitted, &measured, body[i], &folds, classes);
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
    let frequent = counts.iter().max().copied().unwrap_or(0);
    Ok(Some(Probes {
        model: graph.name().to_owned(),
        classes,
        train_images: fitted.labels.len(),
        val_images: measured.labels.len(),
        folds: folds.iter().max().map_or(0, |last| last + 1),
        chance: frequent as f64 / fitted.labels.len() as f64,
        seconds: began.elapsed().as_secs_f64(),
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

/// The fold of each image. Images of a class are spread over folds as evenly as folds are filled, in their order.
fn folds(labels: &[usize]) -> Vec<usize> {
    let k = FOLDS.min(labels.len());
    let mut order: Vec<_> = (0..labels.len()).collect();
    order.sort_by_key(|&i| labels[i]);
    let mut folds = vec![0; labels.len()];
    order.into_iter().enumerate().for_each(|(place, i)| folds[i] = place % k);
    folds
}

/// One fit and what it is measured on, standardised by what it is fitted to.
struct Fit {
    x: Array2<f64>,
    labels: Vec<usize>,
    held: Array2<f64>,
    held_labels: Vec<usize>,
    w: Weights,
}

impl Fit {
    fn new(
        (mut x, labels): (Array2<f64>, Vec<usize>),
        (mut held, held_labels): (Array2<f64>, Vec<usize>),
        classes: usize,
    ) -> Self {
        let standard = Standard::of(x.view());
        standard.apply(&mut x);
        standard.apply(&mut held);
        let w = Weights::zeros((x.ncols() + 1, classes));
        Self { x, labels, held, held_labels, w }
    }

    /// Fits on with another strength of the penalty; the loss and the accuracy on what was left out.
    fn at(&mut self, l2: f64) -> (f64, f64) {
        let start = std::mem::take(&mut self.w);
        self.w = logistic::fit(self.x.view(), &self.labels, l2, start);
        logistic::measure(self.held.view(), &self.held_labels, &self.w)
    }
}

/// The probe of one stage: of all strengths of the penalty the one with the least loss on what was left out.
fn one(fitted: &Part, measured: &Part, stage: usize, folds: &[usize], classes: usize) -> Probe {
    let began = Instant::now();
    let matrix = |part: &Part| {
        let n = part.labels.len();
        let values: Vec<f64> = part.stages[stage].iter().map(|v| f64::from(*v)).collect();
        let features = values.len() / n;
        Array2::from_shape_vec((n, features), values).expect("as many values as features an image")
    };
    let all = matrix(fitted);
    let k = folds.iter().max().map_or(0, |last| last + 1);
    let select = |chosen: &dyn Fn(usize) -> bool| {
        let rows: Vec<_> = (0..folds.len()).filter(|&i| chosen(folds[i])).collect();
        (all.select(Axis(0), &rows), rows.iter().map(|&i| fitted.labels[i]).collect::<Vec<_>>())
    };
    let mut fits: Vec<_> =
        (0..k).map(|fold| Fit::new(select(&|f| f != fold), select(&|f| f == fold), classes)).collect();
    let mut best = Probe { features: all.ncols(), loss: f64::INFINITY, ..Probe::default() };
    for l2 in STRENGTHS {
        let found: Vec<_> = fits.iter_mut().map(|fit| fit.at(l2)).collect();
        let mean = |of: fn(&(f64, f64)) -> f64| found.iter().map(of).sum::<f64>() / k as f64;
        let (loss, accuracy) = (mean(|f| f.0), mean(|f| f.1));
        if loss >= best.loss {
            break; // Weaker ones only fit what they are fitted to more closely.
        }
        let squares = found.iter().map(|f| (f.1 - accuracy) * (f.1 - accuracy)).sum::<f64>();
        let error = (squares / (k - 1) as f64 / k as f64).sqrt();
        best = Probe { accuracy, error, loss, l2, ..best };
    }
    drop(fits);
    let mut whole =
        Fit::new((all, fitted.labels.clone()), (matrix(measured), measured.labels.clone()), classes);
    let (_, val_accuracy) = whole.at(best.l2);
    let (_, train_accuracy) = logistic::measure(whole.x.view(), &whole.labels, &whole.w);
    Probe { val_accuracy, train_accuracy, seconds: began.elapsed().as_secs_f64(), ..best }
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
        let stage = |(i, &accuracy): (usize, &f64)| Probe {
            stage: format!("s{i}"),
            accuracy,
            error: 0.04,
            ..Probe::default()
        };
        let stages = accuracies.iter().enumerate().map(stage).collect();
        Probes { chance, stages, ..Probes::default() }
    }

    #[test]
    fn the_cut_is_the_first_stage_within_an_error_of_the_best() {
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
    #[test]
    fn folds_are_even_and_so_are_classes_in_them() {
        let labels: Vec<_> = (0..47).map(|i| usize::from(i % 4 == 0)).collect();
        let folds = folds(&labels);
        for fold in 0..FOLDS {
            let of = |class: usize| (0..47).filter(|&i| folds[i] == fold && labels[i] == class).count();
            assert!((9..=10).contains(&(of(0) + of(1))) && (2..=3).contains(&of(1)));
        }
        assert_eq!(super::folds(&[0, 1, 0]), [0, 2, 1], "each image is a fold where there are few");
    }

    #[test]
    fn accuracy_is_that_on_images_which_were_left_out() {
        // The first feature tells the classes apart, but for one image in ten; 60 more tell each image from all others.
        let n = 100;
        let part = |seed: u64| {
            let random = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) ^ seed) % 1000;
            let noise = move |i: usize, j: usize| random((i * 61 + j) as u64 * 7 + seed) as f32 / 1000.0;
            let row = move |i: usize| {
                let side = (i % 2) as f32 * if i.is_multiple_of(10) { -4.0 } else { 4.0 };
                std::iter::once(side).chain((0..60).map(move |j| noise(i, j)))
            };
            let labels = (0..n).map(|i| if i % 10 == 3 { 0 } else { i % 2 }).collect::<Vec<_>>();
            Part { labels, stages: vec![(0..n).flat_map(row).collect()] }
        };
        let (fitted, measured) = (part(3), part(8));
        let probe = one(&fitted, &measured, 0, &folds(&fitted.labels), 2);
        assert_eq!((probe.features, probe.l2), (61, 0.3));
        // scikit-learn 1.9.1: LogisticRegression(C=2 / (n l2), tol=1e-8) on the same folds. Two classes have two rows of
        // weights here and one there, hence the 2. What a fit reaches on its own images is no measure of others.
        let close =
            |found: f64, theirs: f64, bound: f64| assert!((found - theirs).abs() < bound, "{probe:?}");
        close(probe.accuracy, 0.69, 1e-9);
        close(probe.error, 0.029154759, 1e-8);
        close(probe.loss, 0.57156571, 1e-4);
        close(probe.train_accuracy, 0.9, 1e-9);
        close(probe.val_accuracy, 0.86, 1e-9);
    }
}
