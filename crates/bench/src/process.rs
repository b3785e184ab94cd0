//! Programs that are measured from outside: seconds, peak memory, and when they say what.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// What a program came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ran {
    /// Seconds from its start to its end.
    pub(crate) seconds: f64,
    /// The most memory that was resident, in MB; 0 where the system does not say.
    pub(crate) peak_mb: f64,
    /// Its lines on stdout.
    pub(crate) lines: Vec<String>,
}

/// Runs `command` to its end, or until `enough` says so of a line of its output.
pub(crate) fn run(command: &mut Command, mut enough: impl FnMut(&str) -> bool) -> anyhow::Result<Ran> {
    let words = format!("{command:?}");
    let start = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| words.clone())?;
    let over = Arc::new(AtomicBool::new(false));
    let peak = Arc::new(Mutex::new(0.0));
    let watch = {
        let (over, peak, id) = (Arc::clone(&over), Arc::clone(&peak), child.id());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if let Some(now) = high_water(&id.to_string()) {
                    *peak.lock().unwrap_or_else(PoisonError::into_inner) = now;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let mut lines = Vec::new();
    let mut stopped = false;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line?;
        stopped = enough(&line);
        lines.push(line);
        if stopped {
            break;
        }
    }
    let mut seconds = start.elapsed().as_secs_f64();
    let status = end(&mut child, stopped)?;
    if !stopped {
        seconds = start.elapsed().as_secs_f64();
    }
    over.store(true, Ordering::Relaxed);
    let _ = watch.join();
    if !stopped && !status {
        bail!("{words} failed");
    }
    let peak_mb = *peak.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Ran { seconds, peak_mb, lines })
}

fn end(child: &mut Child, kill: bool) -> anyhow::Result<bool> {
    if kill {
        child.kill()?;
    }
    Ok(child.wait()?.success())
}

/// The most memory of the process `id` (or `self`) that was ever resident, in MB.
pub(crate) fn high_water(id: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}
