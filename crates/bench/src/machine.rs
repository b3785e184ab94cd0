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

/// How many times as much all threads multiply as one, now: what a neighbour leaves of a core, or two threads of one core.
/// Means over a while and not the best of it, because a run has the bad moments too.
pub(crate) fn gain(threads: usize) -> f64 {
    let (one, all) = (Threads::serial(), Threads::new(threads));
    let both = (0..10).map(|_| (probe::peak_flops(&one), probe::peak_flops(&all)));
    let (one, all) = both.fold((0.0, 0.0), |sum, now| (sum.0 + now.0, sum.1 + now.1));
    all / one
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
            "date": date(*time), "rustc": rustc(), "defrost": env!("CARGO_PKG_VERSION") })
    }
}

/// The version of the compiler at hand.
fn rustc() -> String {
    let said = std::process::Command::new("rustc").arg("--version").output().ok();
    said.map_or_else(String::new, |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// The day of a time since 1970, as in 2026-11-21 (Howard Hinnant's `civil_from_days`).
fn date(seconds: u64) -> String {
    let z = (seconds / 86_400) as i64 + 719_468;
    let (era, day) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{:02}", of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_have_their_dates() {
        let days = [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_795_219_200, "2026-11-21")];
        days.into_iter().for_each(|(seconds, day)| assert_eq!(date(seconds), day));
    }
}
