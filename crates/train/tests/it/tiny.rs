//! A network, data and recipes small enough to train in milliseconds.

use std::path::Path;
use std::sync::Arc;

use defrost_augment::{Key, Op, Pipeline};
use defrost_data::Dataset;
use defrost_graph::{Graph, GraphBuilder, Init, NodeId, ParamKind, ParamStore, op};
use defrost_ndarray::CpuEngine;
use defrost_policy::{
    AdamW, EarlyStopping, Ema, Metric, Optimizer, PhaseSpec, Recipe, Schedule, Sgd, Warmup,
};
use defrost_tensor::{Activation, ConvDesc, NormDesc, PixelScale, PoolDesc, Shape4};
use defrost_train::{Folder, Job, Options, Outcome, Run};

pub(crate) const CLASSES: [&str; 3] = ["red", "green", "blue"];

pub(crate) fn conv_bn_relu(b: &mut GraphBuilder, name: &str, desc: ConvDesc, x: NodeId) -> NodeId {
    let fan_out = desc.out_channels * 9;
    let init = Init::KaimingNormalFanOut { fan_out };
    let weight =
        b.param(format!("{name}.conv.weight"), desc.weight_shape(), ParamKind::ConvWeight, init).unwrap();
    let x = b.node(format!("{name}.conv"), op::Conv2d { desc, weight, bias: None }, &[x]).unwrap();
    let x = norm(b, &format!("{name}.bn"), desc.out_channels, x);
    b.node(format!("{name}.relu"), op::Activate(Activation::Relu), &[x]).unwrap()
}

fn norm(b: &mut GraphBuilder, name: &str, c: usize, x: NodeId) -> NodeId {
    let mut p =
        |part: &str, kind, v| b.param(format!("{name}.{part}"), [c], kind, Init::Constant(v)).unwrap();
    let weight = p("weight", ParamKind::NormWeight, 1.0);
    let bias = p("bias", ParamKind::NormBias, 0.0);
    let running_mean = p("running_mean", ParamKind::RunningMean, 0.0);
    let running_var = p("running_var", ParamKind::RunningVar, 1.0);
    let norm = op::BatchNorm { desc: NormDesc::torch(c), weight, bias, running_mean, running_var };
    b.node(name, norm, &[x]).unwrap()
}

/// Two convolutions, dropout, a dense layer: stages `stem`, `body`, `head`.
pub(crate) fn graph() -> Graph {
    let mut b = GraphBuilder::new("tiny", Shape4::new(1, 3, 8, 8));
    b.stage("stem", false);
    let x = conv_bn_relu(&mut b, "stem", ConvDesc::new(3, 4, 3, 1, 1), Graph::INPUT);
    b.stage("body", false);
    let x = conv_bn_relu(&mut b, "body", ConvDesc::new(4, 6, 3, 2, 1), x);
    let x = b.node("pool", op::AvgPool(PoolDesc::GLOBAL), &[x]).unwrap();
    let x = b.node("flatten", op::Flatten, &[x]).unwrap();
    b.stage("head", true);
    let x = b.node("dropout", op::Dropout { rate: 0.2, layer: 0 }, &[x]).unwrap();
    let weight =
        b.param("fc.weight", [3, 6], ParamKind::LinearWeight, Init::FanInUniform { fan_in: 6 }).unwrap();
    let bias = b.param("fc.bias", [3], ParamKind::Bias, Init::Constant(0.0)).unwrap();
    b.node("fc", op::Linear { in_features: 6, out_features: 3, weight, bias: Some(bias) }, &[x]).unwrap();
    b.finish()
}

/// The same with a normalisation of vectors in the head: it sees one value a channel and image.
pub(crate) fn graph_with_vector_norm() -> Graph {
    let mut b = GraphBuilder::new("tiny", Shape4::new(1, 3, 8, 8));
    b.stage("stem", false);
    let x = conv_bn_relu(&mut b, "stem", ConvDesc::new(3, 6, 3, 2, 1), Graph::INPUT);
    let x = b.node("pool", op::AvgPool(PoolDesc::GLOBAL), &[x]).unwrap();
    let x = b.node("flatten", op::Flatten, &[x]).unwrap();
    b.stage("head", true);
    let x = norm(&mut b, "head.bn", 6, x);
    let weight =
        b.param("fc.weight", [3, 6], ParamKind::LinearWeight, Init::FanInUniform { fan_in: 6 }).unwrap();
    b.node("fc", op::Linear { in_features: 6, out_features: 3, weight, bias: None }, &[x]).unwrap();
    b.finish()
}

/// `n` images whose class is the channel that is a little brighter, among much noise.
pub(crate) fn data(n: usize, seed: u64) -> Dataset {
    let mut pixels = Vec::new();
    let labels: Vec<u32> = (0..n).map(|i| (i % 3) as u32).collect();
    for (i, &label) in labels.iter().enumerate() {
        let mut random = Key::new(seed, 0, i as u64).random();
        for _ in 0..64 {
            for c in 0..3 {
                let bright = if c == label { 140.0 } else { 100.0 };
                pixels.push((bright + 40.0 * random.normal()).clamp(0.0, 255.0) as u8);
            }
        }
    }
    Dataset::from_arrays(pixels, [8, 8, 3], labels, CLASSES.map(String::from).to_vec()).unwrap()
}

pub(crate) fn sgd(momentum: f64) -> Optimizer {
    Optimizer::Sgd(Sgd { momentum, weight_decay: 1e-3, ..Sgd::default() })
}

/// A head phase of two epochs, then everything for two more, with batches of 8.
pub(crate) fn recipe() -> Recipe {
    let mut all =
        PhaseSpec::new("all", 2, "all").lr([1e-3, 1e-2]).optimizer(sgd(0.9)).schedule(Schedule::one_cycle());
    all.warmup = Some(Warmup { epochs: 0.5, start: 0.1 });
    let mut recipe = Recipe::new("tiny", "tiny")
        .phase(PhaseSpec::new("head", 2, "head").lr(1e-2).optimizer(Optimizer::AdamW(AdamW::default())))
        .phase(all);
    recipe.seed = 7;
    recipe.batch_size = 8;
    recipe.augment.train = Pipeline(vec![Op::FlipHorizontal(Default::default())]);
    recipe
}

/// The same without phases.
pub(crate) fn bare() -> Recipe {
    let mut recipe = recipe();
    recipe.phases.clear();
    recipe
}

pub(crate) fn ema(every: usize, warmup: bool) -> Ema {
    let mut ema = Ema::default();
    (ema.decay, ema.every, ema.warmup) = (0.9, every, warmup);
    ema
}

/// Early stopping by the validation loss.
pub(crate) fn patience(patience: usize) -> EarlyStopping {
    let mut rule = EarlyStopping::default();
    (rule.metric, rule.patience, rule.restore_best) = (Metric::Loss, patience, true);
    rule
}

pub(crate) fn job(recipe: Recipe) -> Job {
    job_for(recipe, graph())
}

pub(crate) fn job_for(recipe: Recipe, graph: Graph) -> Job {
    let graph = Arc::new(graph);
    Job {
        params: ParamStore::init(&graph, 1),
        phases: recipe.resolve(&graph).unwrap(),
        recipe,
        graph,
        train: Arc::new(data(44, 1)),
        val: Arc::new(data(21, 2)),
        source: None,
        pixels: PixelScale { scale: vec![1.0 / 128.0; 3], shift: vec![-1.0; 3], reversed: false },
        eval: Pipeline(Vec::new()),
        spec: "{}".into(),
        preprocess: "{}".into(),
    }
}

pub(crate) fn engine() -> CpuEngine {
    CpuEngine::new(Some(1))
}

pub(crate) fn options<'a>() -> Options<'a> {
    Options { loader_threads: Some(0), ..Options::default() }
}

pub(crate) fn new_run(path: &Path) -> Run {
    Run::create(path, "name = \"tiny\"\n", &CLASSES.map(String::from)).unwrap()
}

pub(crate) fn fit(job: &Job, path: &Path) -> Outcome {
    defrost_train::fit(&engine(), job, &mut new_run(path), options()).unwrap()
}

/// The bytes of all weights of a checkpoint, names first.
pub(crate) fn weights(folder: &Folder, name: &str) -> Vec<(String, Vec<u32>)> {
    bits(&folder.load(name, &graph()).unwrap().0)
}

pub(crate) fn bits(params: &ParamStore) -> Vec<(String, Vec<u32>)> {
    let bits = |t: &defrost_tensor::HostTensor| t.data().iter().map(|v| v.to_bits()).collect();
    params.iter().map(|(name, value)| (name.to_owned(), bits(value))).collect()
}

/// Images whose labels mean nothing.
pub(crate) fn shuffled(n: usize, seed: u64) -> Dataset {
    let images = data(n, seed);
    let order = Key::new(seed, 1, 0).random().permutation(n);
    let labels = order.iter().map(|&i| images.samples()[i].label).collect();
    let pixels = (0..n).flat_map(|i| images.load(i, None).unwrap().into_data()).collect();
    Dataset::from_arrays(pixels, [8, 8, 3], labels, images.classes().to_vec()).unwrap()
}

/// Images of one channel.
pub(crate) fn grey(n: usize) -> Dataset {
    let labels = (0..n).map(|i| (i % 3) as u32).collect();
    Dataset::from_arrays(vec![9; n * 64], [8, 8, 1], labels, CLASSES.map(String::from).to_vec()).unwrap()
}
