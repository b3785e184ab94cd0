//! The loader: batches of augmented images, made ahead of time, the same for any number of threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use defrost_augment::key::purpose;
use defrost_augment::{Image, Key, Pipeline, Size};

use crate::order::order;
use crate::queue::{Make, Queue};
use crate::{Batch, Dataset, DecodeError, Error, Sampling, Skipped, TargetKind};

/// The size at which decoded images are kept and augmented.
///
/// It changes pixels (slightly), so it is chosen by what is asked for, never by what fits into memory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Working {
    /// The shorter side is at most twice the longer side of the batch: what 500-pixel images are to a crop of
    /// 224. A photograph of 12 million pixels would otherwise be 36 MB for every epoch to read.
    #[default]
    Auto,
    /// As in the file.
    Full,
    /// The shorter side is at most this.
    Shorter(usize),
}

/// How samples become batches.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Images in a batch; the last one of an epoch may have fewer.
    pub batch: usize,
    /// Size of all images.
    pub size: Size,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// How an epoch chooses its samples.
    pub sampling: Sampling,
    /// Whether a last batch with fewer images is left out.
    pub drop_last: bool,
    /// Threads that decode and augment; 0 does it where the batches are asked for. The batches do not depend on it.
    pub threads: usize,
    /// Batches made ahead.
    pub ahead: usize,
    /// Bytes of decoded images that are kept from epoch to epoch; images that are kept at the size of their files, which are
    /// quick to decode again, take a quarter of it at most. The batches do not depend on it.
    pub cache_bytes: u64,
    /// The size at which images are decoded.
    pub working: Working,
    /// Whether an image that cannot be read ends the run.
    pub strict: bool,
}

impl LoaderOptions {
    /// For training: batches of 32 at 224 x 224, shuffled, as many threads as the machine has (at most 8), 512 MB of cache.
    pub fn train() -> Self {
        Self {
            batch: 32,
            size: Size::square(224),
            seed: 0,
            sampling: Sampling::Shuffled,
            drop_last: false,
            threads: std::thread::available_parallelism().map_or(1, usize::from).min(8),
            ahead: 4,
            cache_bytes: 512 << 20,
            working: Working::Auto,
            strict: false,
        }
    }

    /// For measuring: as [`LoaderOptions::train`], but every sample once, in the order of the data set.
    pub fn eval() -> Self {
        Self { sampling: Sampling::Sequential, ..Self::train() }
    }
}

/// Batches of a data set, epoch by epoch. Cheap to clone; clones share their cache.
#[derive(Clone)]
pub struct Loader {
    shared: Arc<Shared>,
}

struct Shared {
    dataset: Arc<Dataset>,
    pipeline: Pipeline,
    options: LoaderOptions,
    labels: Vec<u32>,
    shorter_side: Option<usize>,
    cache: Arc<Cache>,
    /// Samples that could not be read, by their index.
    failures: Mutex<BTreeMap<usize, Skipped>>,
}

/// Decoded images at their working size, shared by the loaders of one data set.
struct Cache {
    images: Vec<OnceLock<Image>>,
    bytes: AtomicU64,
}

impl Loader {
    /// A loader of a data set through an augmentation pipeline.
    ///
    /// # Errors
    /// [`Error::Option`] for a batch or size of zero or weights that do not fit the classes, [`Error::Augment`] for a
    /// parameter out of its range.
    pub fn new(dataset: Arc<Dataset>, pipeline: Pipeline, options: LoaderOptions) -> Result<Self, Error> {
        let images = (0..dataset.len()).map(|_| OnceLock::new()).collect();
        Self::with_cache(dataset, pipeline, options, Arc::new(Cache { images, bytes: AtomicU64::new(0) }))
    }

    /// The same loader with another pipeline: for views of test-time augmentation, and when the augmentation
    /// changes during a run. Images that are decoded already stay decoded.
    ///
    /// # Errors
    /// [`Error::Augment`] for a parameter out of its range.
    pub fn with_pipeline(&self, pipeline: Pipeline) -> Result<Self, Error> {
        let shared = &self.shared;
        let cache = Arc::clone(&shared.cache);
        Self::with_cache(Arc::clone(&shared.dataset), pipeline, shared.options.clone(), cache)
    }

    fn with_cache(
        dataset: Arc<Dataset>,
        pipeline: Pipeline,
        options: LoaderOptions,
        cache: Arc<Cache>,
    ) -> Result<Self, Error> {
        pipeline.check()?;
        let refuse = |option, value: String, rule| Err(Error::Option { option, value, rule });
        if options.batch == 0 {
            return refuse("batch", "0".into(), "at least 1");
        }
        if options.size.width == 0 || options.size.height == 0 {
            return refuse("size", format!("{:?}", options.size), "at least 1 x 1");
        }
        match &options.sampling {
            Sampling::Balanced | Sampling::ClassWeights(_) if dataset.kind() != TargetKind::Class => {
                return refuse(
                    "sampling",
                    format!("{:?}", options.sampling),
                    "sequential or shuffled for this data",
                );
            }
            Sampling::ClassWeights(weights)
                if weights.len() != dataset.classes().len()
                    || weights.iter().any(|w| !w.is_finite() || *w < 0.0)
                    || !weights.iter().zip(dataset.class_counts()).any(|(w, n)| *w > 0.0 && n > 0) =>
            {
                return refuse(
                    "class weights",
                    format!("{weights:?}"),
                    "one number of 0 or more for each class",
                );
            }
            _ => {}
        }
        let shorter_side = match options.working {
            Working::Auto => Some(2 * options.size.width.max(options.size.height)),
            Working::Full => None,
            Working::Shorter(side) => Some(side.max(1)),
        };
        let labels = dataset.samples().iter().map(|s| s.label).collect();
        Ok(Self {
            shared: Arc::new(Shared {
                dataset,
                pipeline,
                options,
                labels,
                shorter_side,
                cache,
                failures: Mutex::new(BTreeMap::new()),
            }),
        })
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.shared.dataset
    }

    /// The options the loader was made with.
    pub fn options(&self) -> &LoaderOptions {
        &self.shared.options
    }

    /// Batches in an epoch.
    pub fn batches(&self) -> usize {
        let (n, batch) = (self.shared.dataset.len(), self.shared.options.batch);
        if self.shared.options.drop_last { n / batch } else { n.div_ceil(batch) }
    }

    /// Images in an epoch.
    pub fn images(&self) -> usize {
        self.shared.dataset.len().min(self.batches() * self.shared.options.batch)
    }

    /// The samples of an epoch in their order.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        let shared = &self.shared;
        let classes = shared.dataset.classes().len();
        order(&shared.options.sampling, &shared.labels, classes, shared.options.seed, epoch)
    }

    /// The batches of an epoch. Threads start at once and end when the iterator is dropped.
    pub fn epoch(&self, epoch: u64) -> Batches {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from the batch with this number on: the same as if the ones before had been taken.
    pub fn epoch_from(&self, epoch: u64, first_batch: usize) -> Batches {
        let (shared, order) = (Arc::clone(&self.shared), self.order(epoch));
        let make = Arc::new(move |batch: usize, stop: &AtomicBool| shared.batch(epoch, batch, &order, stop));
        let (end, threads) = (self.batches(), self.shared.options.threads);
        let queue = (threads > 0).then(|| {
            Queue::start(first_batch, end, threads, self.shared.options.ahead, Arc::clone(&make) as _)
        });
        Batches { next: first_batch, end, queue, make }
    }

    /// Images that could not be read so far, each once, in the order of the data set.
    pub fn failures(&self) -> Vec<Skipped> {
        self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The image that a sample shows in an epoch, as it is in a batch.
    ///
    /// # Errors
    /// [`Error::Sample`] if it cannot be read.
    pub fn view(&self, epoch: u64, sample: usize) -> Result<Image, Error> {
        self.shared.view(epoch, sample).map_err(|e| match e {
            Failed::Sample(reason) => Error::Sample(self.shared.dataset.skipped_sample(sample, reason)),
            Failed::Augment(error) => Error::Augment(error),
        })
    }
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader")
            .field("images", &self.shared.dataset.len())
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

/// The batches of one epoch, in order.
pub struct Batches {
    next: usize,
    end: usize,
    queue: Option<Queue>,
    make: Arc<Make>,
}

impl Iterator for Batches {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let batch = match &self.queue {
            Some(queue) => queue.take(self.next),
            None => (self.make)(self.next, &AtomicBool::new(false)),
        };
        self.next = if batch.is_ok() { self.next + 1 } else { self.end };
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.end.saturating_sub(self.next)))
    }
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batches({}..{})", self.next, self.end)
    }
}

enum Failed {
    Sample(DecodeError),
    Augment(defrost_augment::Error),
}

impl Shared {
    fn batch(&self, epoch: u64, number: usize, order: &[usize], stop: &AtomicBool) -> Result<Batch, Error> {
        let size = self.options.size;
        let channels = self.dataset.channels();
        let from = number * self.options.batch;
        let to = (from + self.options.batch).min(order.len());
        let mut batch = Batch {
            pixels: Vec::with_capacity((to - from) * size.width * size.height * channels),
            h: size.height,
            w: size.width,
            channels,
            ..Batch::default()
        };
        let mut lost = None;
        for (position, &sample) in order[from..to].iter().enumerate().map(|(i, s)| (from + i, s)) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match self.readable(epoch, sample, position)? {
                Ok((sample, view)) => {
                    batch.pixels.extend_from_slice(view.data());
                    batch.labels.push(self.labels[sample]);
                    batch.targets.extend_from_slice(self.dataset.targets(sample));
                    batch.samples.push(sample);
                    batch.n += 1;
                }
                Err(skipped) => lost = lost.or(Some(skipped)),
            }
        }
        match lost {
            Some(first) if batch.n == 0 => Err(Error::BatchLost { batch: number, first }),
            _ => Ok(batch),
        }
    }

    /// The view of a sample; if it cannot be read, in training that of another sample of its class, so that a step
    /// has as many images as planned, and in measuring none, so that nothing is counted twice.
    fn readable(
        &self,
        epoch: u64,
        sample: usize,
        position: usize,
    ) -> Result<Result<(usize, Image), Skipped>, Error> {
        let first = match self.attempt(epoch, sample)? {
            Ok(view) => return Ok(Ok((sample, view))),
            Err(skipped) => skipped,
        };
        if self.options.sampling != Sampling::Sequential {
            let alike: Vec<usize> =
                (0..self.labels.len()).filter(|&i| self.labels[i] == self.labels[sample]).collect();
            let mut random =
                Key::new(self.options.seed, epoch, position as u64).op(purpose::SUBSTITUTE).random();
            for _ in 0..8 {
                let other = alike[random.below(alike.len())];
                if let Ok(view) = self.attempt(epoch, other)? {
                    return Ok(Ok((other, view)));
                }
            }
        }
        Ok(Err(first))
    }

    /// The view of a sample; a failure is remembered, and an error if strictness was asked for.
    fn attempt(&self, epoch: u64, sample: usize) -> Result<Result<Image, Skipped>, Error> {
        match self.view(epoch, sample) {
            Ok(view) => Ok(Ok(view)),
            Err(Failed::Augment(error)) => Err(error.into()),
            Err(Failed::Sample(reason)) => {
                let skipped = self.dataset.skipped_sample(sample, reason);
                if self.options.strict {
                    return Err(Error::Sample(skipped));
                }
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.entry(sample).or_insert_with(|| skipped.clone());
                Ok(Err(skipped))
            }
        }
    }

    fn view(&self, epoch: u64, sample: usize) -> Result<Image, Failed> {
        let key = Key::new(self.options.seed, epoch, sample as u64);
        let apply =
            |image: &Image| self.pipeline.apply(image, self.options.size, key).map_err(Failed::Augment);
        if let Some(image) = self.cache.images[sample].get() {
            return apply(image);
        }
        let image = self.dataset.load(sample, self.shorter_side).map_err(Failed::Sample)?;
        let bytes = image.data().len() as u64;
        let was_larger = self.shorter_side.is_some_and(|side| image.width().min(image.height()) >= side);
        let room = self.options.cache_bytes / if was_larger { 1 } else { 4 };
        let reserve = |used: u64| (used + bytes <= room).then_some(used + bytes);
        if self.dataset.is_decoded_anew()
            && self.cache.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_ok()
        {
            if self.cache.images[sample].set(image).is_err() {
                // Another thread was quicker with the same sample.
                self.cache.bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            return apply(self.cache.images[sample].get().expect("set just now"));
        }
        apply(&image)
    }
}
