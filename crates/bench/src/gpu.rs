//! A GPU beside the CPU: whole steps, where their time goes, and what they compute and move on paper.

use std::time::Instant;

use anyhow::bail;
use clap::Args;
use defrost_exec::Engine;
use defrost_graph::{Graph, Loss, Marking};
use defrost_plan::{Options, Plan, Purpose, flops};
use defrost_wgpu::{KernelTime, WgpuEngine, WgpuOptions};
use serde_json::{Value, json};

use crate::Common;
use crate::layers::{batch, graph, nets};
use crate::steps::{Step, cpu, trained};
use crate::timing::median;

/// Cards by NVIDIA's data sheets: f32 operations outside tensor cores (boost clock) and bytes of memory a second.
const CARDS: [(&str, f64, f64); 2] = [("H100 SXM", 67e12, 3.35e12), ("RTX 4060 Laptop", 14.6e12, 256e9)];

/// What trains: the head alone, everything.
const MODES: [&str; 2] = ["head", "all"];

#[derive(Args, Debug)]
pub(crate) struct Gpu {
    /// Steps that are timed
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Runs nothing: only what steps compute and move, and what that allows
    #[arg(long)]
    paper: bool,
    /// Leaves the CPU out
    #[arg(long)]
    alone: bool,
    /// Kernels to list of each step; 0 for none
    #[arg(long, default_value_t = 8)]
    kernels: usize,
}

/// What a step computes, moves and holds of activations an image, and the images a second that this allows on each card.
struct Paper {
    gflop: f64,
    megabytes: f64,
    held: f64,
    limits: [f64; CARDS.len()],
}

impl Gpu {
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Vec<Value>> {
        if self.paper {
            return on_paper(common);
        }
        let engine = engine(common, false)?;
        let adapter = engine.kernels().adapter().clone();
        println!("GPU: {adapter}\nCPU: {}", cpu(common).device());
        println!(
            "{} pixels, the median of {} steps; on paper: GFLOP and MB an image,",
            common.size, self.steps
        );
        println!(
            "images/s that the roofline allows call by call on {}\n",
            CARDS.map(|c| c.0).join(" and on ")
        );
        println!("network       trains batch  GPU im/s  CPU im/s  GPU/CPU     GFLOP      MB    H100  laptop");
        let mut rows = Vec::new();
        for net in nets(common) {
            let n = batch(common, &net);
            for mode in MODES {
                let gpu = self.speed(&engine, common, &net, mode, n)?;
                let cpu = match self.alone {
                    false => Some(self.speed(&cpu(common), common, &net, mode, n)?),
                    true => None,
                };
                let beside =
                    cpu.map_or(format!("{:>9} {:>8}", "-", "-"), |c| format!("{c:>9.2} {:>8.3}", gpu / c));
                let paper =
                    paper(&*graph(&net, common.size)?, &net, mode, n, common.backend.ends_with(",f16"))?;
                let Paper { gflop, megabytes, limits: [large, small], .. } = paper;
                println!(
                    "{net:<13} {mode:<6} {n:>5} {gpu:>9.2} {beside} {gflop:>9.2} {megabytes:>7.1} {large:>7.0} {small:>7.0}"
                );
                rows.push(json!({ "id": format!("gpu/{net}/{mode}/b{n}/{}", common.backend), "value": gpu,
                    "unit": "images/s", "net": net, "mode": mode, "batch": n, "adapter": adapter.to_string(),
                    "cpu_images_s": cpu, "gflop": gflop, "megabytes": megabytes,
                    "roofline": CARDS.iter().zip([large, small]).map(|(c, v)| (c.0, v)).collect::<Vec<_>>() }));
            }
        }
        if self.kernels > 0 && !adapter.timestamps {
            println!("\nThis adapter has no timestamps, so kernels are not timed.");
        } else if self.kernels > 0 {
            for net in nets(common) {
                for mode in MODES {
                    rows.extend(self.profile(common, &net, mode)?);
                }
            }
        }
        Ok(rows)
    }

    /// Images a second: the median, after two steps that make pipelines and grow workspaces. A step waits for its loss,
    /// and so for the update before it.
    fn speed(
        &self,
        engine: &dyn Engine,
        common: &Common,
        net: &str,
        mode: &str,
        n: usize,
    ) -> anyhow::Result<f64> {
        let mut step = Step::new(engine, common, net, mode, n)?;
        step.run()?;
        step.run()?;
        let mut times = Vec::new();
        for _ in 0..self.steps.max(1) {
            let start = Instant::now();
            step.run()?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(n as f64 / median(&mut times))
    }

    /// Each kernel's time in one step, by the adapter's timestamps.
    fn profile(&self, common: &Common, net: &str, mode: &str) -> anyhow::Result<Vec<Value>> {
        let engine = engine(common, true)?;
        let mut step = Step::new(&engine, common, net, mode, batch(common, net))?;
        step.run()?;
        step.run()?;
        engine.kernels().take_times();
        step.run()?;
        let times = engine.kernels().take_times();
        let total: f64 = times.iter().map(|t| t.seconds).sum();
        println!("\n{net}, {mode}: {:.1} ms in kernels", 1e3 * total);
        let share = |t: &KernelTime| 100.0 * t.seconds / total;
        for t in times.iter().take(self.kernels) {
            println!(
                "{:>5.1} %  {:>9.2} ms  {:>4} x  {}: {}",
                share(t),
                1e3 * t.seconds,
                t.count,
                t.call,
                t.kernel
            );
        }
        let row = |t: &KernelTime| {
            let id = format!("gpu/{net}/{mode}/{}/{}/{}", common.backend, t.call, t.kernel);
            json!({ "id": id, "value": 1e3 * t.seconds, "unit": "ms", "net": net, "mode": mode, "call": t.call, "kernel": t.kernel, "count": t.count,
                "share": share(t) })
        };
        Ok(times.iter().map(row).collect())
    }
}

/// The table of what steps compute and move.
fn on_paper(common: &Common) -> anyhow::Result<Vec<Value>> {
    let [large, small] = CARDS.map(|c| c.0);
    println!(
        "{} pixels\n| network | trains | batch | GFLOP an image | MB moved | MB held | {large} im/s | {small} im/s |",
        common.size
    );
    println!("|---|---|---|---|---|---|---|---|");
    for net in nets(common) {
        let n = batch(common, &net);
        for mode in MODES {
            let paper = paper(&*graph(&net, common.size)?, &net, mode, n, common.backend.ends_with(",f16"))?;
            let Paper { gflop, megabytes, held, limits: [large, small] } = paper;
            println!(
                "| {net} | {mode} | {n} | {gflop:.2} | {megabytes:.1} | {held:.1} | {large:.0} | {small:.0} |"
            );
        }
    }
    Ok(Vec::new())
}

/// The GPU that `--backend` names, the fastest kind without a name.
pub(crate) fn engine(common: &Common, profile: bool) -> anyhow::Result<WgpuEngine> {
    let (name, half) = match common.backend.strip_suffix(",f16") {
        Some(name) => (name, true),
        None => (common.backend.as_str(), false),
    };
    let mut options = WgpuOptions::default();
    options.adapter = match name.split_once(':') {
        Some(("wgpu", adapter)) => Some(adapter.to_owned()),
        None if ["wgpu", "cpu"].contains(&name) => None,
        _ => bail!("--backend {name}: a GPU is called wgpu, wgpu:INDEX or wgpu:NAME"),
    };
    (options.half, options.profile) = (half, profile);
    Ok(WgpuEngine::new(&options)?)
}

/// Each call of the plan computes its operations and reads and writes each operand once; of a card's two limits the slower
/// one counts, call by call. The update of what trains (SGD with momentum) reads three numbers a weight and writes two.
fn paper(graph: &Graph, net: &str, mode: &str, n: usize, half: bool) -> anyhow::Result<Paper> {
    let mask = trained(graph, net, mode);
    let weights: usize = mask.iter().map(|id| graph.param(id).len()).sum();
    let plan = Plan::new(
        graph,
        &Marking::new(graph, mask),
        n,
        Purpose::Train(Loss::CrossEntropy),
        // Gradients of activations have 32 bits, too, where these have 16.
        Options::default().storing(if half { 2 } else { 4 }),
    )?;
    let calls = plan.calls().map(|i| {
        let operands = i.call.reads().into_iter().chain(i.call.writes());
        let moved: usize = operands.map(|v| plan.bytes(v)).sum();
        (flops(&i.call) as f64, moved as f64)
    });
    let (mut operations, mut moved, mut seconds) = (0.0, 0.0, [0.0; CARDS.len()]);
    for (computed, bytes) in calls.chain([(0.0, 20.0 * weights as f64)]) {
        (operations, moved) = (operations + computed, moved + bytes);
        for (seconds, (_, peak, bandwidth)) in seconds.iter_mut().zip(CARDS) {
            *seconds += f64::max(computed / peak, bytes / bandwidth);
        }
    }
    let (n, held) = (n as f64, plan.memory(graph, 1).activations as f64);
    Ok(Paper {
        gflop: operations / n / 1e9,
        megabytes: moved / n / 1e6,
        held: held / n / 1e6,
        limits: seconds.map(|s| n / s),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_on_paper_computes_what_the_network_does_and_moves_less_in_16_bits() {
        let graph = graph("resnet18", 224).unwrap();
        let of = |mode, half| paper(&graph, "resnet18", mode, 2, half).unwrap();
        let (head, all, half) = (of("head", false), of("all", false), of("all", true));
        // The frozen body once, two operations a product; everything that trains about three times.
        let forward = 2e-9 * graph.macs() as f64;
        assert!((head.gflop / forward - 1.0).abs() < 0.05, "{} of {forward}", head.gflop);
        assert!((2.8..3.1).contains(&(all.gflop / forward)), "{} of {forward}", all.gflop);
        assert!(half.gflop == all.gflop && half.megabytes < all.megabytes && half.held < 0.75 * all.held);
        // No card does better than its peak on operations alone.
        for (limit, (card, peak, _)) in all.limits.iter().zip(CARDS) {
            assert!(*limit <= peak / (1e9 * all.gflop), "{card}: {limit}");
        }
    }
}
