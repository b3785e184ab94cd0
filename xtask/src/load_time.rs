//! `cargo xtask load-time FILE MODEL`: how long a weight file takes from the disk's cache to a network's parameters.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use defrost_zoo::{Arch, LoadOptions, ModelSpec, load, naming};

/// Times are the least of this many, after one that is not counted.
const ROUNDS: usize = 7;

/// Reads the file, gives its tensors the network's names and loads them, and prints the milliseconds of both.
pub(crate) fn run(file: &str, model: &str) -> anyhow::Result<()> {
    let arch: Arch = model.parse()?;
    let mut best = [Duration::MAX; 2];
    for round in 0..=ROUNDS {
        let start = Instant::now();
        let tensors = defrost_weights::read(Path::new(file))?;
        let read = start.elapsed();
        let named = naming::name(arch, tensors.into_iter().collect())?;
        let spec = ModelSpec::new(arch, 1000).with_geometry(named.geometry);
        let graph = spec.build().context("the network")?;
        let (store, report) = black_box(load(&graph, named.tensors, &LoadOptions::default())?);
        let whole = start.elapsed();
        if round == 0 {
            println!("{file}: {report}");
        } else {
            best = [best[0].min(read), best[1].min(whole)];
        }
        drop(store);
    }
    let ms = best.map(|d| d.as_secs_f64() * 1e3);
    println!("reading {:.1} ms, reading and loading {:.1} ms (least of {ROUNDS})", ms[0], ms[1]);
    Ok(())
}
