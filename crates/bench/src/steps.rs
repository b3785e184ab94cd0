//! Images a second: whole steps of training and inference.

use std::collections::BTreeMap;
use std::time::Instant;

use clap::Args;
use defrost_exec::{Engine, Images, KernelTime, Options, Phase, Rate, Rule, Session, TrainBatch};
use defrost_graph::{Graph, Loss, Marking, ParamMask, ParamStore};
use defrost_ndarray::{CpuEngine, CpuOptions};
use serde_json::{Value, json};

use crate::Common;
use crate::layers::{batch, graph, nets};
use crate::timing::median;

#[derive(Args, Debug)]
pub(crate) struct Steps {
    /// What trains: all, stage (the last one and the head), head, or infer; all of them by default
    #[arg(long, value_delimiter = ',')]
    modes: Vec<String>,
    /// Steps that are timed
    #[arg(long, default_value_t = 7)]
    steps: usize,
    /// Prints where the time of a step goes
    #[arg(long)]
    profile: bool,
}

impl Steps {
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Vec<Value>> {
        let modes = if self.modes.is_empty() {
            ["all", "stage", "head", "infer"].map(str::to_owned).to_vec()
        } else {
            self.modes.clone()
        };
        let engine = engine(common)?;
        let mut rows = Vec::new();
        for net in nets(common) {
            let n = batch(common, &net);
            for mode in &modes {
                let mut bench = Step::new(&*engine, common, &net, mode, n)?;
                let mut times = Vec::new();
                bench.run()?;
                bench.run()?;
                bench.session.set_profiling(self.profile);
                for _ in 0..self.steps {
                    let start = Instant::now();
                    bench.run()?;
                    times.push(start.elapsed().as_secs_f64());
                }
                let (middle, least) = (median(&mut times), times[0]);
                println!(
                    "{net:13} {mode:6} b{n}: {:8.2} images/s (best {:.2}), step {:.1} ms",
                    n as f64 / middle,
                    n as f64 / least,
                    middle * 1e3
                );
                let mb = crate::process::high_water("self").unwrap_or_default();
                rows.push(json!({ "id": format!("steps/{net}/{mode}/b{n}/{}", common.backend), "value": n as f64 / middle,
                    "unit": "images/s", "net": net, "mode": mode, "batch": n, "mb": mb,
                    "best_images_s": n as f64 / least, "step_ms": middle * 1e3 }));
                if self.profile {
                    print_profile(&*bench.session, self.steps);
                }
            }
        }
        Ok(rows)
    }
}

/// One network in one mode, ready to step.
pub(crate) struct Step {
    session: Box<dyn Session>,
    images: Vec<f32>,
    targets: Vec<f32>,
    keys: Vec<f32>,
    rates: Vec<Rate>,
    n: usize,
    infer: bool,
}

impl Step {
    pub(crate) fn new(
        engine: &dyn Engine,
        common: &Common,
        net: &str,
        mode: &str,
        n: usize,
    ) -> anyhow::Result<Self> {
        let graph = graph(net, common.size)?;
        let params = ParamStore::init(&graph, 1);
        let mut session = engine.open_owned(graph.clone(), params)?;
        let mask = trained(&graph, net, mode);
        let infer = mode == "infer";
        let rates = mask.iter().map(|param| Rate { param, lr: 1e-4, weight_decay: 0.0 }).collect();
        if !infer {
            let marking = Marking::new(&graph, mask);
            session.begin(Phase {
                marking,
                loss: Loss::CrossEntropy,
                options: Options::default().applying(true).cutting(true),
            })?;
        }
        let pixels = graph.input_shape().with_batch(n).len();
        let images = (0..pixels).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
        let classes = graph.classes();
        let mut targets = vec![0.0; n * classes];
        (0..n).for_each(|i| targets[i * classes + i % classes] = 1.0 / n as f32);
        let keys = (0..2 * n).map(|i| i as f32).collect();
        Ok(Self { session, images, targets, keys, rates, n, infer })
    }

    /// One step.
    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        let images = Images::Array(&self.images);
        if self.infer {
            self.session.infer(self.n, images)?;
            return Ok(());
        }
        let batch = TrainBatch { n: self.n, images, targets: &self.targets, weights: &[], keys: &self.keys };
        self.session.step(&batch, Rule::Sgd { momentum: 0.9, nesterov: false }, &self.rates)?;
        Ok(())
    }

    /// Starts to time kernels anew, or does not.
    pub(crate) fn profile(&mut self, on: bool) {
        self.session.set_profiling(on);
    }

    /// Times since then.
    pub(crate) fn kernels(&self) -> Vec<KernelTime> {
        self.session.profile()
    }
}

/// The device that is asked for.
fn engine(common: &Common) -> anyhow::Result<Box<dyn Engine>> {
    let options = CpuOptions::default().with_threads(common.threads);
    match common.backend.as_str() {
        "cpu" => Ok(Box::new(cpu(common))),
        "cpu,bf16" => Ok(Box::new(CpuEngine::with_options(options.bf16()))),
        "cpu,exact" => Ok(Box::new(CpuEngine::with_options(options.exact()))),
        #[cfg(feature = "wgpu")]
        name if name.starts_with("wgpu") => Ok(Box::new(crate::gpu::engine(common, false)?)),
        #[cfg(feature = "candle")]
        name if name.starts_with("candle") => Ok(Box::new(crate::candle::engine(common)?)),
        other => anyhow::bail!("--backend {other} is not in this build"),
    }
}

/// The CPU, for what is compared with it too.
pub(crate) fn cpu(common: &Common) -> CpuEngine {
    CpuEngine::new(Some(common.threads))
}

/// What trains in a mode.
pub(crate) fn trained(graph: &Graph, net: &str, mode: &str) -> ParamMask {
    ParamMask::of(graph, |id| trains(net, mode, &graph.param(id).name))
}

/// Whether `param` trains: as in the rivals' scripts.
fn trains(net: &str, mode: &str, param: &str) -> bool {
    let head = ["fc.", "classifier."].iter().any(|p| param.starts_with(p));
    let last = match net {
        "mobilenet_v2" => {
            let block = param.strip_prefix("features.").and_then(|p| p.split('.').next()?.parse().ok());
            block.is_some_and(|b: usize| b >= 14)
        }
        "vgg16" => ["features.24.", "features.26.", "features.28."].iter().any(|p| param.starts_with(p)),
        _ => param.starts_with("layer4."),
    };
    match mode {
        "all" => true,
        "stage" => head || last,
        "head" => head,
        _ => false,
    }
}

/// A kernel with the part of the step that it ran in.
pub(crate) fn label(row: &KernelTime) -> String {
    let pass = row.pass.map_or(String::new(), |p| format!("{p:?} ").to_lowercase());
    format!("{pass}{}", row.kernel)
}

/// Kernels by time, and the slowest nodes of each.
fn print_profile(session: &dyn Session, steps: usize) {
    let rows = session.profile();
    let mut kernels: BTreeMap<String, (f64, u64)> = BTreeMap::new();
    for row in &rows {
        let sum = kernels.entry(label(row)).or_default();
        sum.0 += row.time.as_secs_f64();
        sum.1 += row.flops;
    }
    let total: f64 = kernels.values().map(|(t, _)| t).sum();
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let ms = |t: f64| t * 1e3 / steps as f64;
    for (name, (time, flops)) in &kernels {
        let rate = *flops as f64 / time / 1e9;
        println!("  {name:32} {:8.2} ms {:5.1}% {rate:8.1} GFLOP/s", ms(*time), time / total * 100.0);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|r| std::cmp::Reverse(r.time));
    for row in rows.iter().take(25) {
        let name = row.node.map_or("", |n| session.graph().node(n).name.as_str());
        let shape = row.node.map_or(String::new(), |n| format!("{}", session.graph().node(n).shape));
        let rate = row.flops as f64 / row.time.as_secs_f64() / 1e9;
        println!(
            "    {name:28} {:20} {shape:16} {:8.3} ms {rate:8.1}",
            row.kernel,
            ms(row.time.as_secs_f64())
        );
    }
}
