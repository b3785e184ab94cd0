//! The machine: what figures mean nothing without.

use std::time::{SystemTime, UNIX_EPOCH};

use defrost_kernels::{Threads, probe};
use serde_json::{Value, json};

/// A machine and its peak with some threads.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) isa: &'static str,
    pub(crate) threads: usize,
    /// GFLOP/s in f32, one thread and all.
    pub(crate) peak: [f64; 2],
    /// Seconds since 1970.
    pub(crate) time: u64,
}

/// Describes this machine, measuring its peak.
pub(crate) fn describe(threads: usize) -> Machine {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map(|l| l.trim_start_matches([' ', '\t', ':']));
    let one = Threads::serial();
    Machine {
        cpu: cpu.unwrap_or(std::env::consts::ARCH).to_owned(),
        isa: one.isa().name(),
        threads,
        peak: [probe::peak_flops(&one) / 1e9, probe::peak_flops(&Threads::new(threads)) / 1e9],
        time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
    }
}

impl Machine {
    /// One line of words.
    pub(crate) fn line(&self) -> String {
        let Self { cpu, isa, threads, peak: [one, all], .. } = self;
        format!("{cpu}, {isa}, {threads} threads: peak {one:.0} GFLOP/s on one, {all:.0} on all")
    }

    pub(crate) fn json(&self) -> Value {
        let Self { cpu, isa, threads, peak: [one, all], time } = self;
        json!({ "cpu": cpu, "isa": isa, "threads": threads, "peak_one": one, "peak_all": all, "time": time,
            "defrost": env!("CARGO_PKG_VERSION") })
    }
}
