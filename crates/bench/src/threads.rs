//! What a second thread brings to steps: one thread, two networks of one thread each at once, and two threads of one network,
//! step by step in turn in this process, since what a virtual machine's cores give changes within seconds. What two networks
//! that share nothing reach together is what the machine has for two threads.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use clap::Args;
use defrost_exec::KernelTime;
use serde_json::{Value, json};

use crate::Common;
use crate::layers::{batch, nets};
use crate::steps::{Step, cpu, label};
use crate::timing::median;

#[derive(Args, Clone, Debug)]
pub(crate) struct Threads {
    /// What trains: all, stage, head, or infer
    #[arg(long, value_delimiter = ',', default_value = "all")]
    modes: Vec<String>,
    /// Rounds: in each, two steps of every kind
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// Prints what each kernel gains
    #[arg(long)]
    profile: bool,
}

impl Threads {
    /// Of so many rounds, everything training.
    pub(crate) fn of(rounds: usize) -> Self {
        Self { modes: vec!["all".into()], rounds, profile: false }
    }

    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Vec<Value>> {
        anyhow::ensure!(self.rounds > 0, "--rounds 0 measures nothing: give 1 or more");
        let mut rows = Vec::new();
        for net in nets(common) {
            for mode in &self.modes {
                rows.extend(self.compare(common, &net, mode)?);
            }
        }
        Ok(rows)
    }

    fn compare(&self, common: &Common, net: &str, mode: &str) -> anyhow::Result<Vec<Value>> {
        let n = batch(common, net);
        let stepper = |threads: usize| Stepper::start(common, net, mode, n, threads, self.profile);
        let (first, second, both) = (stepper(1), stepper(1), stepper(2));
        // Seconds of a step on one thread; of one step each of two networks; of a step on two threads.
        let (mut one, mut apart, mut two) = (Vec::new(), Vec::new(), Vec::new());
        let (mut gains, mut limits) = (Vec::new(), Vec::new());
        let mut kernels = [Vec::new(), Vec::new(), Vec::new()];
        for stepper in [&first, &second, &both] {
            stepper.go();
            stepper.wait()?;
        }
        for _ in 0..self.rounds {
            // Two steps of each, in an order that changes sides: what drifts within a round drops out.
            let (mut alone, mut pairs, mut together) = (0.0, 0.0, 0.0);
            for stepper in [&first, &second] {
                both.go();
                let ran = both.wait()?;
                together += ran.seconds;
                kernels[2].extend(ran.kernels);
                stepper.go();
                let ran = stepper.wait()?;
                alone += ran.seconds;
                kernels[0].extend(ran.kernels);
                first.go();
                second.go();
                for ran in [first.wait()?, second.wait()?] {
                    pairs += ran.seconds / 2.0;
                    kernels[1].extend(ran.kernels);
                }
            }
            gains.push(alone / together);
            limits.push(2.0 * alone / pairs);
            one.push(alone / 2.0);
            apart.push(pairs / 2.0);
            two.push(together / 2.0);
        }
        let [one, apart, two] = [&mut one, &mut apart, &mut two].map(|times| median(times));
        let spread = |ratios: &mut Vec<f64>| {
            let middle = median(ratios);
            (middle, ratios[ratios.len() / 4], ratios[ratios.len() * 3 / 4])
        };
        let ((gain, low, high), (limit, least, most)) = (spread(&mut gains), spread(&mut limits));
        println!(
            "{net:13} {mode:6} b{n}: {:.1} ms on one thread, {:.1} ms on two: {gain:.2} times as fast ({low:.2} to {high:.2}, \
             quartiles of {} rounds); two networks of one thread each {limit:.2} times ({least:.2} to {most:.2})",
            one * 1e3,
            two * 1e3,
            self.rounds
        );
        if self.profile {
            print_kernels(&kernels, 2 * self.rounds);
        }
        let what = format!("a step of {n} images, {net}, {mode}");
        let row = |threads: usize, seconds: f64, times: f64| {
            json!({ "id": format!("scale/steps/{net}/{mode}/{threads}"), "value": seconds, "unit": "s", "what": what,
                "threads": threads, "times": times, "machine_times": [limit] })
        };
        Ok(vec![
            row(1, one, 1.0),
            row(2, two, gain),
            json!({ "id": format!("scale/steps/{net}/{mode}/apart"), "value": apart, "unit": "s",
                "what": format!("{what}: two networks of one thread each, at once"), "threads": 2, "times": limit }),
        ])
    }
}

/// One network's step on a thread of its own.
struct Stepper {
    go: Sender<()>,
    done: Receiver<anyhow::Result<Ran>>,
}

/// One step that ran.
struct Ran {
    seconds: f64,
    kernels: Vec<KernelTime>,
}

impl Stepper {
    fn start(common: &Common, net: &str, mode: &str, n: usize, threads: usize, profile: bool) -> Self {
        let ((go, asked), (say, done)) = (channel(), channel());
        let common = Common { threads, ..common.clone() };
        let (net, mode) = (net.to_owned(), mode.to_owned());
        std::thread::spawn(move || {
            let mut step = Step::new(&cpu(&common), &common, &net, &mode, n);
            while asked.recv().is_ok() {
                let ran = match &mut step {
                    Ok(step) => time(step, profile),
                    Err(e) => Err(anyhow::anyhow!("{e:#}")),
                };
                if say.send(ran).is_err() {
                    return;
                }
            }
        });
        Self { go, done }
    }

    /// Starts a step.
    fn go(&self) {
        let _ = self.go.send(()); // A thread that is gone is seen by `wait`.
    }

    /// Waits for it.
    fn wait(&self) -> anyhow::Result<Ran> {
        self.done.recv().map_err(|_| anyhow::anyhow!("a step did not end"))?
    }
}

fn time(step: &mut Step, profile: bool) -> anyhow::Result<Ran> {
    step.profile(profile);
    let start = Instant::now();
    step.run()?;
    Ok(Ran { seconds: start.elapsed().as_secs_f64(), kernels: step.kernels() })
}

/// For each kernel, milliseconds of a step: alone on one thread, beside another network, on two threads.
fn print_kernels(kernels: &[Vec<KernelTime>; 3], steps: usize) {
    let mut times: BTreeMap<String, [f64; 3]> = BTreeMap::new();
    for (kind, rows) in kernels.iter().enumerate() {
        let steps = if kind == 1 { 2 * steps } else { steps };
        for row in rows {
            times.entry(label(row)).or_default()[kind] += row.time.as_secs_f64() * 1e3 / steps as f64;
        }
    }
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_by(|(_, a), (_, b)| b[2].total_cmp(&a[2]));
    println!("  {:32} {:>9} {:>9} {:>9} {:>7} {:>7}", "ms a step", "one", "apart", "two", "apart", "two");
    for (name, [one, apart, two]) in times {
        println!("  {name:32} {one:9.2} {apart:9.2} {two:9.2} {:7.2} {:7.2}", 2.0 * one / apart, one / two);
    }
}
