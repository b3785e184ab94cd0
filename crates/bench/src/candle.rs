//! candle beside this project: the same networks forward, by candle's own operations and by our kernels, in turn.
//!
//! candle's side is written as its users write it (`ResNet` of `candle-transformers`): its convolutions and pools, and
//! normalisation as four operations that broadcast; and once more with normalisations folded into convolutions by hand,
//! which is the best that its operations allow. All sides must give the same logits, or nothing is printed.

use std::collections::HashMap;
use std::hint::black_box;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use candle_core::{D, DType, Device, Tensor, Var};
use clap::Args;
use defrost_candle::{CandleEngine, CandleOptions, Place};
use defrost_exec::{Engine, Images, Session};
use defrost_graph::{Graph, Marking, Origin, ParamStore, Value};
use defrost_plan::{Options, Plan, Purpose};
use defrost_tensor::call::FoldNorm;
use defrost_tensor::{Activation, Call, HostTensor, Pads, PoolDesc};
use serde_json::json;

use crate::Common;
use crate::layers::{batch, graph, nets};
use crate::rivals::TUNED;
use crate::steps::cpu;
use crate::timing::in_turn;

/// How far logits may lie apart, relative to the largest.
const APART: f32 = 1e-3;

#[derive(Args, Debug)]
pub(crate) struct Candle {
    /// How often all sides run in turn; the least time of each counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

impl Candle {
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Vec<serde_json::Value>> {
        if !is_tuned(common) {
            return anew(common).map(|()| Vec::new());
        }
        println!(
            "candle {CANDLE}, {} threads; images a second of inference, {} pixels\n",
            common.threads, common.size
        );
        println!(
            "network       batch   candle   folded  candle:cpu      cpu  candle:cpu/best of candle   apart"
        );
        let mut rows = Vec::new();
        for net in nets(common) {
            rows.push(self.row(common, &net)?);
        }
        let refused = gradient_of_a_pool().err().context("candle has a gradient of ResNet's pool now")?;
        // A backtrace follows where the build has one.
        let refused = refused.to_string();
        println!(
            "\ncandle's own gradient of ResNet's first pool: {}",
            refused.lines().next().unwrap_or_default()
        );
        Ok(rows)
    }

    fn row(&self, common: &Common, net: &str) -> anyhow::Result<serde_json::Value> {
        let n = batch(common, net);
        let mut sides = Sides::new(common, net, n)?;
        let apart = sides.apart()?;
        let Sides { images, tensor, theirs: [plain, folded], mut ours } = sides;
        let [mine, base] = &mut ours;
        let ran = "it ran before";
        let seconds = in_turn(
            self.rounds,
            &mut [
                &mut || drop(black_box(plain.run(&tensor).expect(ran))),
                &mut || drop(black_box(folded.run(&tensor).expect(ran))),
                &mut || drop(black_box(mine.infer(n, Images::Array(&images)).expect(ran))),
                &mut || drop(black_box(base.infer(n, Images::Array(&images)).expect(ran))),
            ],
        );
        let rates: Vec<_> = seconds.iter().map(|s| n as f64 / s).collect();
        let ratio = rates[2] / rates[0].max(rates[1]);
        println!(
            "{net:13} {n:5} {:8.2} {:8.2} {:11.2} {:8.2} {ratio:26.2} {apart:7.0e}",
            rates[0], rates[1], rates[2], rates[3]
        );
        Ok(
            json!({ "id": format!("candle/{net}/infer/b{n}"), "value": rates[2], "unit": "images/s", "net": net, "batch": n,
            "size": common.size, "candle": rates[0], "candle_folded": rates[1], "cpu": rates[3], "ratio": ratio,
            "apart": apart }),
        )
    }
}

/// The version that the lock file has.
const CANDLE: &str = "0.11";

/// candle reads its number of threads, and glibc how it keeps pages, once at the start of a process.
fn is_tuned(common: &Common) -> bool {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    is("RAYON_NUM_THREADS", &common.threads.to_string()) && TUNED.iter().all(|(name, value)| is(name, value))
}

/// Runs this program once more with what candle is at its best with: as many threads as our side, and an allocator that
/// keeps its pages.
fn anew(common: &Common) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).envs(TUNED);
    let status = command.env("RAYON_NUM_THREADS", common.threads.to_string()).status()?;
    ensure!(status.success(), "the comparison with candle failed");
    Ok(())
}

/// One network on all sides.
struct Sides {
    images: Vec<f32>,
    tensor: Tensor,
    /// As it is, and with folded normalisations.
    theirs: [Network; 2],
    /// On `candle:cpu` and on `cpu`.
    ours: [Box<dyn Session>; 2],
}

impl Sides {
    fn new(common: &Common, net: &str, n: usize) -> anyhow::Result<Self> {
        let graph = graph(net, common.size)?;
        let params = params(&graph)?;
        let shape = graph.input_shape().with_batch(n);
        let images: Vec<_> = (0..shape.len()).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
        let tensor = Tensor::from_slice(&images, (n, shape.c, shape.h, shape.w), &Device::Cpu)?;
        let theirs = [Network::new(&graph, &params, n, false)?, Network::new(&graph, &params, n, true)?];
        let ours = [engine(common)?.open(graph.clone(), &params)?, cpu(common).open(graph, &params)?];
        Ok(Self { images, tensor, theirs, ours })
    }

    /// How far the logits of any two sides lie apart, relative to the largest.
    fn apart(&mut self) -> anyhow::Result<f32> {
        let n = self.tensor.dim(0)?;
        let mut all = Vec::new();
        for network in &self.theirs {
            all.push(network.run(&self.tensor)?.flatten_all()?.to_vec1::<f32>()?);
        }
        for session in &mut self.ours {
            all.push(session.infer(n, Images::Array(&self.images))?);
        }
        let largest = all[0].iter().fold(0f32, |m, v| m.max(v.abs()));
        let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        let most = all.iter().skip(1).map(|other| apart(&all[0], other)).fold(0f32, f32::max) / largest;
        ensure!(most <= APART, "logits lie {most:e} apart: the sides do not compute the same");
        Ok(most)
    }
}

/// The device of candle's that `--backend` names, its CPU where it names none.
pub(crate) fn engine(common: &Common) -> anyhow::Result<CandleEngine> {
    let place = match common.backend.strip_prefix("candle") {
        None | Some("" | ":cpu") => Place::Cpu { threads: Some(common.threads) },
        Some(":cuda") => Place::Cuda(0),
        Some(":metal") => Place::Metal(0),
        Some(_) => bail!("--backend {}: it takes candle, candle:cuda and candle:metal", common.backend),
    };
    Ok(CandleEngine::new(&CandleOptions::new(place))?)
}

/// Random weights, with statistics that are not the identity.
fn params(graph: &Graph) -> anyhow::Result<ParamStore> {
    let mut params = ParamStore::init(graph, 1);
    for param in graph.params() {
        let range = match param.name.rsplit('.').next() {
            Some("running_mean") => [-0.1, 0.1],
            Some("running_var") => [0.5, 1.5],
            _ => continue,
        };
        let value = |i: usize| range[0] + (range[1] - range[0]) * (i * 37 % 101) as f32 / 100.0;
        params
            .set(&param.name, HostTensor::new(param.shape.clone(), (0..param.len()).map(value).collect())?)?;
    }
    Ok(params)
}

/// A network as operations of candle's: those of a plan for inference in which nothing is fused.
struct Network {
    plan: Plan,
    params: HashMap<Value, Tensor>,
    /// The last call that reads a value: a user's variables go out of scope, too.
    last: HashMap<Value, usize>,
}

impl Network {
    fn new(graph: &Graph, params: &ParamStore, n: usize, fold: bool) -> anyhow::Result<Self> {
        let mut options = Options::raw();
        options.fold = fold;
        let purpose = Purpose::Infer { until: graph.output() };
        let plan = Plan::new(graph, &Marking::frozen(graph), n, purpose, options)?;
        let mut tensors = HashMap::new();
        for (value, info) in plan.values.iter() {
            if let Origin::Param(id) = info.origin {
                let tensor = params.get(&graph.param(id).name).context("a parameter without a value")?;
                tensors.insert(value, Tensor::from_slice(tensor.data(), tensor.shape(), &Device::Cpu)?);
            }
        }
        for instruction in &plan.setup {
            let Call::FoldNorm(call) = instruction.call else { bail!("folding does more than fold") };
            let [weight, bias] = fold_norm(&call, &tensors)?;
            tensors.extend([(call.folded_weight, weight), (call.folded_bias, bias)]);
        }
        let reads =
            plan.calls().enumerate().flat_map(|(at, i)| i.call.reads().into_iter().map(move |v| (v, at)));
        let last = reads.collect();
        Ok(Self { plan, params: tensors, last })
    }

    /// The logits.
    fn run(&self, images: &Tensor) -> anyhow::Result<Tensor> {
        let input =
            self.plan.values.iter().find(|(_, info)| info.origin == Origin::Input).context("no input")?.0;
        let mut values = HashMap::from([(input, images.clone())]);
        for (at, instruction) in self.plan.calls().enumerate() {
            let (out, y) = {
                let get = |v: Value| {
                    values
                        .get(&v)
                        .or_else(|| self.params.get(&v))
                        .context("a value is read before it is made")
                };
                step(&instruction.call, &get)?
            };
            values.insert(out, y);
            values.retain(|v, _| *v == self.plan.output || self.last.get(v).is_some_and(|&last| last > at));
        }
        values.remove(&self.plan.output).context("no output")
    }
}

/// One call by candle's operations: what it writes.
fn step<'t>(
    call: &Call<Value, Value>,
    get: &dyn Fn(Value) -> anyhow::Result<&'t Tensor>,
) -> anyhow::Result<(Value, Tensor)> {
    let channels = |v: Value| Ok::<_, anyhow::Error>(get(v)?.reshape((1, (), 1, 1))?);
    Ok(match *call {
        Call::Conv2d(c) => {
            let (d, Pads { top, left, bottom, right }) = (c.desc, c.desc.pads(c.input.h, c.input.w));
            let square = [bottom, left, right] == [top; 3] && d.stride[0] == d.stride[1];
            ensure!(square && d.dilation[0] == d.dilation[1], "candle's convolutions are square");
            let y = get(c.x)?.conv2d(get(c.weight)?, top, d.stride[0], d.dilation[0], d.groups)?;
            (
                c.out,
                c.bias.map_or_else(
                    || Ok(y.clone()),
                    |bias| Ok::<_, anyhow::Error>(y.broadcast_add(&channels(bias)?)?),
                )?,
            )
        }
        // As `candle_nn::BatchNorm::forward_eval`.
        Call::NormEval(c) => {
            let spread = (channels(c.running_var)? + f64::from(c.desc.eps))?.sqrt()?;
            let x = get(c.x)?.broadcast_sub(&channels(c.running_mean)?)?.broadcast_div(&spread)?;
            (c.out, x.broadcast_mul(&channels(c.weight)?)?.broadcast_add(&channels(c.bias)?)?)
        }
        Call::Activate(c) => (
            c.out,
            match c.activation {
                Activation::Relu => get(c.x)?.relu()?,
                Activation::Relu6 => get(c.x)?.clamp(0f32, 6f32)?,
                other => bail!("{other:?} is not written in candle"),
            },
        ),
        Call::Add(c) => (c.out, (get(c.a)? + get(c.b)?)?),
        Call::Copy(c) => (c.out, get(c.x)?.clone()),
        Call::MaxPool(c) => {
            let PoolDesc::Window { kernel, stride, padding: [y, x], .. } = c.desc else {
                bail!("a pool without windows")
            };
            // After a ReLU zeros are as good as nothing.
            let padded = get(c.x)?.pad_with_zeros(D::Minus1, x, x)?.pad_with_zeros(D::Minus2, y, y)?;
            (c.out, padded.max_pool2d_with_stride((kernel[0], kernel[1]), (stride[0], stride[1]))?)
        }
        Call::AvgPool(c) if c.desc == PoolDesc::GLOBAL => {
            (c.out, get(c.x)?.mean(D::Minus1)?.mean(D::Minus1)?)
        }
        Call::AvgPool(c) if c.desc == PoolDesc::Adaptive { out: [c.input.h, c.input.w] } => {
            (c.out, get(c.x)?.clone())
        }
        Call::Flatten(c) => (c.out, get(c.x)?.reshape((c.input.n, c.input.image_len()))?),
        Call::Gemm(c) => {
            let matrix = |v: Value, rows: usize, columns: usize, transposed: bool| {
                let x = get(v)?.reshape(if transposed { (columns, rows) } else { (rows, columns) })?;
                Ok::<_, anyhow::Error>(if transposed { x.t()? } else { x })
            };
            let y = matrix(c.a, c.m, c.k, c.transpose_a)?.matmul(&matrix(c.b, c.k, c.n, c.transpose_b)?)?;
            (
                c.c,
                c.bias.map_or_else(
                    || Ok(y.clone()),
                    |bias| Ok::<_, anyhow::Error>(y.broadcast_add(get(bias)?)?),
                )?,
            )
        }
        _ => bail!("{} is not written in candle", call.name()),
    })
}

/// Weights and bias of a convolution with the normalisation after it.
fn fold_norm(call: &FoldNorm<Value, Value>, tensors: &HashMap<Value, Tensor>) -> anyhow::Result<[Tensor; 2]> {
    let get = |v: Value| tensors.get(&v).context("a parameter without a value");
    let scale = get(call.norm_weight)?.div(&(get(call.running_var)? + f64::from(call.desc.eps))?.sqrt()?)?;
    let weight = get(call.weight)?.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?;
    let off = match call.bias {
        Some(bias) => (get(bias)? - get(call.running_mean)?)?,
        None => get(call.running_mean)?.neg()?,
    };
    Ok([weight, (get(call.norm_bias)? + (scale * off)?)?])
}

/// What candle's autograd makes of windows that overlap, as those of ResNet's first pool.
fn gradient_of_a_pool() -> candle_core::Result<()> {
    let x = Var::zeros((1, 1, 8, 8), DType::F32, &Device::Cpu)?;
    x.max_pool2d_with_stride(3, 2)?.sum_all()?.backward().map(|_| ())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn all_sides_give_the_same_logits() {
        let common = crate::Cli::parse_from(["bench", "--size", "64", "--threads", "2"]).common;
        for net in ["resnet18", "mobilenet_v2"] {
            let apart = Sides::new(&common, net, 1).unwrap().apart().unwrap();
            assert!(apart > 0.0 && apart < 1e-4, "{net}: {apart:e}");
        }
    }

    #[test]
    fn candle_has_no_gradient_of_the_pool_of_resnets() {
        let error = gradient_of_a_pool().unwrap_err().to_string();
        assert!(error.contains("backward not supported for maxpool2d"), "{error}");
    }
}
