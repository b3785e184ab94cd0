//! Each distinct convolution of the networks, beside a matrix product of the same size.

use clap::Args;
use defrost_kernels::conv::{self, ConvShape, Epilogue};
use defrost_kernels::rival::product;
use defrost_kernels::{AlignedBuf, Threads};
use serde_json::{Value, json};

use crate::Common;
use crate::layers::{Layer, batch, convolutions, nets};
use crate::machine::Machine;
use crate::timing::in_turn;

#[derive(Args, Debug)]
pub(crate) struct Kernels {
    /// Only layers whose name contains this, as in `3x3`
    #[arg(long, default_value = "")]
    filter: String,
    /// Rounds, of which the fastest counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Leaves the `gemm` crate out
    #[arg(long)]
    alone: bool,
}

/// What is measured of a convolution.
pub(crate) const PASSES: [&str; 3] = ["forward", "grad input", "grad weight"];

impl Kernels {
    pub(crate) fn run(&self, common: &Common, machine: &Machine) -> anyhow::Result<Vec<Value>> {
        let threads = Threads::new(common.threads);
        let mut rows = Vec::new();
        for net in nets(common) {
            println!(
                "\n{net}\n{:24} {:>2} | ms, GFLOP/s, share of the peak, time of gemm / own",
                "layer", "n"
            );
            let mut sums = [0.0; 3];
            for layer in convolutions(&net, batch(common, &net), common.size)? {
                if !layer.name().contains(&self.filter) {
                    continue;
                }
                let times = self.layer(&threads, &layer);
                let flops = 2.0 * layer.desc.macs(layer.input)? as f64;
                print!("{:24} {:>2}", layer.name(), layer.forward);
                for (pass, (own, gemm)) in times.iter().enumerate() {
                    let runs = if pass == 1 { layer.grad_input } else { layer.forward };
                    if runs == 0 {
                        print!(" | {:33}", "");
                        continue;
                    }
                    sums[pass] += own * runs as f64;
                    let rate = flops / own / 1e9;
                    let share = rate / machine.peak[1];
                    print!(" | {:8.3} {rate:7.1} {:5.0}% {:5.2}", own * 1e3, share * 100.0, gemm / own);
                    rows.push(json!({ "id": format!("kernels/{net}/{}/{}", layer.name(), PASSES[pass]), "value": rate,
                        "unit": "GFLOP/s", "net": net, "layer": layer.name(), "pass": PASSES[pass], "runs": runs,
                        "ms": own * 1e3, "gflops": rate, "share": share, "gemm_over_own": gemm / own }));
                }
                println!();
            }
            println!(
                "all of a step, ms: forward {:.1}, grad input {:.1}, grad weight {:.1}; together {:.1}",
                sums[0] * 1e3,
                sums[1] * 1e3,
                sums[2] * 1e3,
                sums.iter().sum::<f64>() * 1e3
            );
        }
        Ok(rows)
    }

    /// Seconds of (own, `gemm`) for each pass.
    fn layer(&self, threads: &Threads, layer: &Layer) -> [(f64, f64); 3] {
        let shape = ConvShape::new(layer.desc, layer.input).expect("a planned convolution fits");
        let output = shape.output();
        let weights: usize = layer.desc.weight_shape().iter().product();
        let (x, w, g) = (random(layer.input.len()), random(weights), random(output.len()));
        let (mut y, mut gx, mut gw) = (random(output.len()), random(layer.input.len()), random(weights));
        let workspace = conv::forward_workspace(threads, &shape)
            .max(conv::grad_input_workspace(threads, &shape))
            .max(conv::grad_weight_workspace(threads, &shape));
        let mut ws = random(workspace);
        // The same products as matrices: rows of pixels, columns of channels.
        let (m, n, k) = (output.rows(), output.c, weights / output.c);
        let deep = layer.desc.groups == 1 && !self.alone;
        let columns = if deep { random(m * k) } else { AlignedBuf::empty() };
        let mut c = if deep { random((m * n).max(m * k).max(n * k)) } else { AlignedBuf::empty() };
        let mut times = [(f64::NAN, f64::NAN); 3];
        for (pass, time) in times.iter_mut().enumerate() {
            if pass == 1 && layer.grad_input == 0 {
                continue;
            }
            let mut own = || match pass {
                0 => conv::forward(threads, &shape, &x, &w, &Epilogue::default(), &mut y, &mut ws),
                1 => conv::grad_input(threads, &shape, &g, &w, false, &mut gx, &mut ws),
                _ => conv::grad_weight(threads, &shape, &x, &g, false, &mut gw, &mut ws),
            };
            if !deep {
                time.0 = in_turn(self.rounds, &mut [&mut own])[0];
                continue;
            }
            let mut other = || match pass {
                0 => product(threads.count(), [m, n, k], &columns, [k, 1], &w, [n, 1], &mut c),
                1 => product(threads.count(), [m, k, n], &g, [n, 1], &w, [1, n], &mut c),
                _ => product(threads.count(), [k, n, m], &columns, [1, k], &g, [n, 1], &mut c),
            };
            let both = in_turn(self.rounds, &mut [&mut own, &mut other]);
            *time = (both[0], both[1]);
        }
        times
    }
}

/// Numbers in ±1.
fn random(len: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(len).expect("room for a layer");
    let mut state = 12345u32;
    for v in buf.iter_mut() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *v = (state >> 8) as f32 / 8_388_608.0 - 1.0;
    }
    buf
}
