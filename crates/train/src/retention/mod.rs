//! How far a network has moved from where it started, epoch by epoch, and what is left of the task it came from.
//!
//! Three measures, all of the weights that are validated (the average of the weights where there is one):
//!
//! - **Drift** of each stage's weights: `‖w - w₀‖ / ‖w₀‖` over its parameters, buffers not counted. Reads the weights once.
//! - **Similarity** of each stage's features on a fixed batch of validation images: [linear CKA](linear_cka) between the
//!   means over space that the stage puts out now and put out at the start. A stage that is as it was, behind stages that
//!   are as they were, has 1 and costs nothing; behind a cut only the stages after it are run.
//! - **Retained accuracy**: the network's answers to images of the source task, through the head it had there
//!   ([`SourceTask`]). A validation more each time.
//!
//! They are metrics of an epoch: `drift.STAGE`, `cka.STAGE`, `source_accuracy`. Nothing here changes a run: not a weight,
//! not a random number.

mod similarity;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use defrost_augment::Pipeline;
use defrost_data::{Dataset, Loader, LoaderOptions, Sampling};
use defrost_exec::{Engine, Images, Session};
use defrost_graph::{Graph, ParamStore};
use defrost_policy::{Loss, Metric};
use defrost_tensor::PixelScale;

use crate::evaluate::outputs;
use crate::trainer::Trainer;
use crate::{Event, Job, Options, Result, RetentionStart};
use similarity::Gram;
pub use similarity::linear_cka;

/// Metrics of an epoch whose names start with this are the drift of a stage's weights: `drift.layer1`.
pub const DRIFT: &str = "drift.";
/// Metrics of an epoch whose names start with this are the similarity of a stage's features to those of the start:
/// `cka.layer1`.
pub const SIMILARITY: &str = "cka.";
/// The metric that is the accuracy on the source task.
pub const SOURCE_ACCURACY: &str = "source_accuracy";

/// The task that a network comes from: its images, and the head that answered for them.
#[derive(Clone, Debug)]
pub struct SourceTask {
    /// The network with the head of the source task.
    pub graph: Arc<Graph>,
    /// The weights it had.
    pub params: ParamStore,
    /// The parameters that stay as they were, whatever is trained: the head's.
    pub kept: Vec<String>,
    /// Images of the source task, their labels the head's outputs.
    pub data: Arc<Dataset>,
    /// How pixels become the network's input.
    pub pixels: PixelScale,
    /// The transform for evaluation.
    pub eval: Pipeline,
}

/// What a trainer keeps to measure by. Made anew from the job by a resumed run, to the same bits.
pub(crate) struct Retention {
    /// Of the images that features are compared on.
    loader: Loader,
    /// What the network put out for them at the start: made when it is first asked for, which is after an epoch, and
    /// never where no feature moves.
    start: Option<Beginning>,
    known: Option<Known>,
    source: Option<Source>,
}

/// Images, and what the network put out for them at the start of the run.
struct Beginning {
    images: usize,
    pixels: Vec<u8>,
    /// Stage by stage.
    stages: Vec<Option<Gram>>,
}

impl Beginning {
    fn of(job: &Job, engine: &dyn Engine, loader: &Loader) -> Result<Self> {
        let (mut images, mut pixels) = (0, Vec::new());
        for batch in loader.epoch(0) {
            let batch = batch?;
            images += batch.n;
            pixels.extend(batch.pixels);
        }
        let mut all = Vec::new();
        if images > 1 {
            // In a session of its own: what is folded, and so the last bit, is not left to the phase that happens to run.
            let mut session = engine.open(Arc::clone(&job.graph), &job.params)?;
            let together = TOGETHER.min(job.recipe.batch_size);
            all = stages(&mut *session, images, Images::Pixels(&pixels, &job.pixels), together)?;
        }
        let stages = all.iter().map(|features| Gram::of(features, images)).collect();
        Ok(Self { images, pixels, stages })
    }
}

/// Images that go through the network together, at most: a batch for training takes more memory.
const TOGETHER: usize = 16;

/// What the current phase cannot change.
struct Known {
    /// Of the probe batch, at the cut.
    features: Vec<f32>,
    /// Similarity stage by stage; those behind the cut are not meant.
    similarity: Vec<Option<f64>>,
}

/// What measuring an epoch's weights gave.
#[derive(Default)]
pub(crate) struct Retained {
    pub(crate) metrics: BTreeMap<String, f64>,
    /// The weights that train: not to be read twice.
    pub(crate) params: Option<ParamStore>,
}

struct Source {
    session: Box<dyn Session>,
    loader: Loader,
}

impl Retention {
    /// `None` where the recipe does not ask for it.
    pub(crate) fn new(engine: &dyn Engine, job: &Job, options: &Options<'_>) -> Result<Option<Self>> {
        let asked = &job.recipe.retention;
        if asked.every == 0 {
            return Ok(None);
        }
        let from = if job.val.is_empty() { &job.train } else { &job.val };
        let n = asked.images.min(from.len());
        // Samples stand class by class, so even steps are even over classes.
        let chosen: Vec<_> = (0..n).map(|i| i * from.len() / n).collect();
        let loader_options = LoaderOptions {
            batch: job.recipe.batch_size,
            size: job.size(),
            sampling: Sampling::Sequential,
            threads: options.loader_threads.unwrap_or(LoaderOptions::eval().threads),
            cache_bytes: 0,
            ..LoaderOptions::eval()
        };
        let loader = Loader::new(Arc::new(from.subset(&chosen)), job.eval.clone(), loader_options.clone())?;
        let source = |task: &SourceTask| -> Result<Source> {
            let session = engine.open(Arc::clone(&task.graph), &task.params)?;
            let options = LoaderOptions { cache_bytes: options.image_cache, ..loader_options.clone() };
            Ok(Source { session, loader: Loader::new(Arc::clone(&task.data), task.eval.clone(), options)? })
        };
        let source = job.source.as_ref().map(source).transpose()?;
        Ok(Some(Self { loader, start: None, known: None, source }))
    }

    /// What trains has changed, or weights were loaded.
    pub(crate) fn forget(&mut self) {
        self.known = None;
    }

    /// The accuracy of `params` on the source task; `None` where there is none, or where `go_on` did not.
    fn on_source(
        &mut self,
        job: &Job,
        params: &ParamStore,
        go_on: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Option<f64>> {
        let (Some(source), Some(task)) = (&mut self.source, &job.source) else { return Ok(None) };
        let mut all = task.params.clone();
        for (name, value) in params.iter().filter(|(name, _)| !task.kept.iter().any(|k| k == name)) {
            if all.get(name).is_some_and(|old| old.shape() == value.shape()) {
                all.set(name, value.clone())?;
            }
        }
        source.session.set_params(&all)?;
        let batches = source.loader.epoch(0);
        let found = outputs(&mut *source.session, &task.data, batches, &task.pixels, go_on)?;
        Ok(found.map(|o| o.metrics(&Loss::default(), &[]).get(Metric::Accuracy).unwrap_or(0.0)))
    }
}

impl Trainer<'_> {
    /// Whether the run has not said yet how well the images of the source task are answered at its start: they were given
    /// first, or others were, when it was resumed.
    pub(crate) fn source_is_new(&self) -> Result<bool> {
        let Some(source) = self.job.source.as_ref().filter(|_| self.retention.is_some()) else {
            return Ok(false);
        };
        let said = self.run.folder().events()?.into_iter().rev().find_map(|event| match event {
            Event::Retention(start) => Some(start.source_images),
            _ => None,
        });
        Ok(said != Some(source.data.len()))
    }

    /// Measures where the run started from, and says so.
    pub(crate) fn retention_starts(&mut self) -> Result<()> {
        let Some(mut retention) = self.retention.take() else { return Ok(()) };
        let began = Instant::now();
        // A stop waits: without this nothing later has anything to be compared with.
        let source_accuracy = retention.on_source(self.job, &self.job.params, &mut |_| true)?;
        let source_images = self.job.source.as_ref().map_or(0, |s| s.data.len());
        let images = retention.loader.dataset().len();
        self.retention = Some(retention);
        let seconds = began.elapsed().as_secs_f64();
        self.emit(Event::Retention(RetentionStart { images, source_images, source_accuracy, seconds }))
    }

    /// The retention metrics of the epoch that is done, empty where it is not its turn, and the weights that train where they
    /// were read for that; `None` where it was stopped from outside.
    pub(crate) fn retained(&mut self) -> Result<Option<Retained>> {
        let turn = (self.state.global_epoch + 1).is_multiple_of(self.job.recipe.retention.every.max(1));
        let Some(mut retention) = self.retention.take_if(|_| turn) else {
            return Ok(Some(Retained::default()));
        };
        let metrics = self.measure_retention(&mut retention);
        self.retention = Some(retention);
        metrics
    }

    fn measure_retention(&mut self, retention: &mut Retention) -> Result<Option<Retained>> {
        let (job, averaged) = (self.job, self.job.recipe.ema.is_some());
        // What is validated is the average, where there is one.
        self.session.swap_average();
        let measured = self.session.params();
        let similarity = match &measured {
            Ok(params) if retention.loader.dataset().len() > 1 => {
                Some(self.similarity(retention, params, !averaged))
            }
            _ => None,
        };
        self.session.swap_average();
        let params = measured?;
        let measured = &params;
        let graph = &*job.graph;
        let mut metrics = BTreeMap::new();
        for (stage, drift) in graph.stages().iter().zip(drift(graph, &job.params, measured)) {
            metrics.extend(drift.map(|d| (format!("{DRIFT}{}", stage.name), d)));
        }
        if let Some(similarity) = similarity {
            for (stage, value) in graph.stages().iter().zip(similarity?).filter(|(s, _)| !s.head) {
                metrics.extend(value.map(|v| (format!("{SIMILARITY}{}", stage.name), v)));
            }
        }
        let stop = self.options.stop;
        let mut go_on = |_| !stop.is_some_and(|s| s.load(std::sync::atomic::Ordering::Relaxed));
        if retention.source.is_some() {
            match retention.on_source(job, measured, &mut go_on)? {
                Some(accuracy) => metrics.insert(SOURCE_ACCURACY.to_owned(), accuracy),
                None => return Ok(None),
            };
        }
        Ok(Some(Retained { metrics, params: Some(params).filter(|_| !averaged) }))
    }

    /// Linear CKA of each stage with the start, from the weights that the session holds, which are `params`. `trained`
    /// says that they are those that train, so that nothing before the cut has changed within the phase.
    fn similarity(
        &mut self,
        retention: &mut Retention,
        params: &ParamStore,
        trained: bool,
    ) -> Result<Vec<Option<f64>>> {
        let job = self.job;
        let graph = &*job.graph;
        let moved = first_moved(graph, &job.params, params);
        let body = graph.stages().iter().filter(|s| !s.head).count();
        if moved >= body {
            return Ok(vec![Some(1.0); body]);
        }
        let Retention { loader, start, known, .. } = retention;
        let begun = match start.take() {
            Some(begun) => begun,
            None => {
                self.session.release();
                Beginning::of(job, self.engine, loader)?
            }
        };
        let Beginning { images: n, pixels, stages: start } = start.insert(begun);
        let (n, together) = (*n, TOGETHER.min(job.recipe.batch_size));
        let pixels = Images::Pixels(pixels, &job.pixels);
        let compare = |stages: Vec<Vec<f32>>| -> Vec<Option<f64>> {
            let one = |(i, (now, then)): (usize, (&Vec<f32>, &Option<Gram>))| match then {
                _ if i < moved => Some(1.0),
                Some(then) if !now.is_empty() => Some(Gram::of(now, n)?.cka(then)),
                _ => None,
            };
            stages.iter().zip(&*start).enumerate().map(one).collect()
        };
        let cut = self.session.plan(job.recipe.batch_size.min(job.train.len()))?.cut;
        if !trained || cut == Graph::INPUT {
            return Ok(compare(stages(&mut *self.session, n, pixels, together)?));
        }
        let made = match known.take() {
            Some(known) => known,
            None => {
                let similarity = compare(stages(&mut *self.session, n, pixels, together)?);
                let features = parts(n, pixels, together).map(|(n, images)| self.session.features(n, images));
                let features = features.collect::<std::result::Result<Vec<_>, _>>()?.concat();
                Known { features, similarity }
            }
        };
        let known = known.insert(made);
        let behind = compare(stages(&mut *self.session, n, Images::Features(&known.features), together)?);
        Ok(behind.into_iter().zip(&known.similarity).map(|(now, before)| now.or(*before)).collect())
    }
}

/// [`Session::stages`] of `n` images, so many of them at a time.
fn stages(session: &mut dyn Session, n: usize, images: Images<'_>, together: usize) -> Result<Vec<Vec<f32>>> {
    let mut all: Vec<Vec<f32>> = Vec::new();
    for (n, images) in parts(n, images, together) {
        let part = session.stages(n, images)?;
        all.resize(part.len(), Vec::new());
        all.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
    }
    Ok(all)
}

/// `n` images, so many of them at a time.
fn parts(n: usize, images: Images<'_>, together: usize) -> impl Iterator<Item = (usize, Images<'_>)> {
    (0..n).step_by(together.max(1)).map(move |first| {
        let last = n.min(first + together);
        let part = match images {
            Images::Pixels(all, scale) => {
                Images::Pixels(&all[all.len() / n * first..all.len() / n * last], scale)
            }
            Images::Array(all) => Images::Array(&all[all.len() / n * first..all.len() / n * last]),
            Images::Features(all) => Images::Features(&all[all.len() / n * first..all.len() / n * last]),
            other => other,
        };
        (last - first, part)
    })
}

/// `‖w - w₀‖ / ‖w₀‖` of each stage's parameters; `None` for a stage without any, or one that began at 0 and did not stay.
pub(crate) fn drift(graph: &Graph, start: &ParamStore, now: &ParamStore) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0.0); graph.stages().len()];
    let values = start.iter().zip(now.iter());
    for (id, ((_, then), (_, now))) in graph.param_ids().zip(values) {
        if !graph.param(id).kind.is_trainable() {
            continue;
        }
        let (moved, norm) = &mut sums[graph.stage_of(id)];
        for (a, b) in then.data().iter().zip(now.data()) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            *moved += (b - a) * (b - a);
            *norm += a * a;
        }
    }
    let ratio = |(moved, norm): (f64, f64)| (norm > 0.0).then(|| (moved / norm).sqrt());
    sums.into_iter().map(ratio).collect()
}

/// The first stage in which a bit of a parameter or buffer has changed; as many as there are where none has.
fn first_moved(graph: &Graph, start: &ParamStore, now: &ParamStore) -> usize {
    let differs = |a: &f32, b: &f32| a.to_bits() != b.to_bits();
    let values = start.iter().zip(now.iter());
    let changed = graph
        .param_ids()
        .zip(values)
        .filter(|(_, ((_, then), (_, now)))| then.data().iter().zip(now.data()).any(|(a, b)| differs(a, b)));
    changed.map(|(id, _)| graph.stage_of(id)).min().unwrap_or(graph.stages().len())
}
