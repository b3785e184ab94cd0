//! The feature cache: what the frozen prefix of the network gives for each view of each image, computed once.
//!
//! The cache knows itself by a key: a hash over the prefix's weights, the cut, preprocessing, pipelines, data, seed and
//! number of views. Whoever asks for another key gets a new one, so that it can never be stale.

use defrost_data::{Batches, Dataset};
use defrost_exec::{Images, Plan, Session};
use defrost_graph::{Graph, ParamStore};
use defrost_tensor::PixelScale;

use crate::state::hash;
use crate::store::{Storage, Values, Writer};
use crate::{Job, Result};

/// Features of one view of a data set, found by sample.
#[derive(Debug, Default)]
pub(crate) struct Features {
    /// Values an image.
    pub(crate) len: usize,
    /// Where each sample's values begin, in images; `None` for one that cannot be read.
    places: Vec<Option<usize>>,
    values: Values,
    /// Samples in the order of `values`.
    pub(crate) samples: Vec<usize>,
}

impl Features {
    /// Runs the prefix on `batches` and keeps what it gives in `storage`. `progress` is told the number of images of each and
    /// says whether to go on; `None` where it did not.
    pub(crate) fn compute(
        session: &mut dyn Session,
        data: &Dataset,
        batches: Batches,
        pixels: &PixelScale,
        storage: &Storage,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Option<Self>> {
        let mut all = Self { places: vec![None; data.len()], ..Self::default() };
        let mut writer = Writer::new(storage)?;
        for batch in batches {
            let batch = batch?;
            if batch.n == 0 {
                continue;
            }
            let values = session.features(batch.n, Images::Pixels(&batch.pixels, pixels))?;
            if all.samples.is_empty() {
                all.len = values.len() / batch.n;
                writer.reserve(all.len * data.len());
            }
            for &sample in &batch.samples {
                all.places[sample] = Some(all.samples.len());
                all.samples.push(sample);
            }
            writer.push(&values)?;
            if !progress(batch.n) {
                return Ok(None);
            }
        }
        all.values = writer.finish()?;
        Ok(Some(all))
    }

    /// Whether `sample` has features.
    pub(crate) fn has(&self, sample: usize) -> bool {
        self.places[sample].is_some()
    }

    /// The features of `samples`, one after another; those without are left out.
    pub(crate) fn gather(&self, samples: &[usize]) -> Vec<f32> {
        let mut out = Vec::with_capacity(samples.len() * self.len);
        for at in samples.iter().filter_map(|&s| self.places[s]) {
            out.extend_from_slice(&self.values[at * self.len..(at + 1) * self.len]);
        }
        out
    }

    /// The features of the images from the `first`-th of `samples` on, `n` of them.
    pub(crate) fn slice(&self, first: usize, n: usize) -> &[f32] {
        &self.values[first * self.len..(first + n) * self.len]
    }
}

/// Features of both parts of the data.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) key: String,
    /// The training part, view by view.
    pub(crate) views: Vec<Features>,
    pub(crate) val: Features,
}

/// What a cache for this plan would be known by.
pub(crate) fn key(job: &Job, plan: &Plan, params: &ParamStore, views: usize) -> String {
    let graph = &*job.graph;
    let mut before: Vec<bool> = vec![false; graph.params().len()];
    for id in graph.node_ids().take_while(|&id| id <= plan.cut) {
        graph.node(id).op.params().iter().for_each(|p| before[p.index()] = true);
    }
    let used = graph.params().iter().zip(params.iter()).zip(&before).filter(|(_, used)| **used);
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for ((param, (_, value)), _) in used {
        pieces.push(param.name.clone().into_bytes());
        pieces.push(value.data().iter().flat_map(|v| v.to_bits().to_le_bytes()).collect());
    }
    let recipe = &job.recipe;
    let text = format!(
        "{} {} {:?} {:?} {:?} {:?} {views} {} {} {}",
        graph.name(),
        graph.node(plan.cut).name,
        job.size(),
        job.pixels,
        job.eval,
        recipe.augment.train,
        recipe.seed,
        job.train.fingerprint(),
        job.val.fingerprint(),
    );
    pieces.push(text.into_bytes());
    hash(pieces.iter().map(Vec::as_slice))
}

/// What a phase caches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cached {
    /// Views an image.
    pub(crate) views: usize,
    /// Bytes of all features.
    pub(crate) bytes: u64,
    /// Whether they lie in a file.
    pub(crate) in_file: bool,
}

impl Cached {
    /// Whether a phase of `job` is cached, and why; `None` for one that is not.
    pub(crate) fn of(job: &Job, plan: &Plan) -> (Option<Self>, String) {
        match Self::decide(job, plan) {
            Ok((cached, why)) => (Some(cached), why),
            Err(why) => (None, why),
        }
    }

    fn decide(job: &Job, plan: &Plan) -> Result<(Self, String), String> {
        let (graph, recipe) = (&*job.graph, &job.recipe);
        if plan.cut == Graph::INPUT {
            return Err("everything trains from the first layer on".into());
        }
        if recipe.data.views == 0 {
            return Err("each epoch has its own views of the images (`data.views = 0`)".into());
        }
        if recipe.augment.mixup > 0.0 || recipe.augment.cutmix > 0.0 {
            return Err("images are mixed with one another (mixup, cutmix)".into());
        }
        let (len, input) = (cut_len(plan), graph.input_shape().image_len());
        if len == input {
            return Err(format!("the cut after `{}` is as large as the image", graph.node(plan.cut).name));
        }
        let random = recipe.augment.train.is_random();
        let views = if random { recipe.data.views } else { 1 };
        let bytes = ((views * job.train.len() + job.val.len()) * len * 4) as u64;
        let (memory, file) = (recipe.data.cache_memory, recipe.data.cache_file);
        let in_file = bytes > memory << 20;
        if in_file && bytes > file << 20 {
            let need = bytes.div_ceil(1 << 20);
            return Err(format!(
                "{need} MB of features are more than the {memory} MB allowed in memory and the {file} MB allowed in a file \
                 (`data.cache_memory`, `data.cache_file`)"
            ));
        }
        let what = match (random, views) {
            (false, _) => "no augmentation is random: one view an image".to_owned(),
            (true, 1) => {
                "one view an image, the one for evaluation (`data.views = 0` augments each epoch anew)".into()
            }
            (true, n) => {
                format!("{n} views an image, the one for evaluation and {} augmented ones, in turn", n - 1)
            }
        };
        let place = if in_file { ", in a file" } else { "" };
        Ok((Self { views, bytes, in_file }, what + place))
    }
}

/// Values an image at the cut of `plan`.
pub(crate) fn cut_len(plan: &Plan) -> usize {
    plan.values.info(plan.cut_value).layout.len() / plan.batch.max(1)
}
