//! Whether time grows with the pictures and memory does not, and what a second thread brings: to steps alone, and to the whole
//! program beside itself held to one core. With one compute thread alone, decoding would have the second core for itself.

use clap::Args;
use serde_json::{Value, json};

use crate::job::{Cores, recipe, train};
use crate::machine::gain;
use crate::threads::Threads;
use crate::timing::median;
use crate::{Common, pictures};

#[derive(Args, Debug)]
pub(crate) struct Scale {
    /// Numbers of pictures
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 5000, 20_000])]
    images: Vec<usize>,
    /// Height and width of the network's input: such that the pictures, of 200×150 pixels, are kept as they are up to a quarter
    /// of the cache, 64 MB, which 745 of them fill
    #[arg(long, default_value_t = 128)]
    pixels: usize,
    /// How often one thread and two run in turn; the middle counts; 0: not at all
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

impl Scale {
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Vec<Value>> {
        std::fs::create_dir_all(&common.folder)?;
        let mut rows = Vec::new();
        for &n in &self.images {
            let folder = pictures::folder(&common.folder, n, 20, [200, 150])?;
            let recipe = recipe(self.pixels, 32, 0, &[("all", 1)]);
            let found = train(common, &folder, &format!("scale-{n}"), &recipe, Cores::All)?;
            let seconds = found.epochs.first().copied().unwrap_or(f64::NAN);
            println!(
                "{n:6} images: an epoch in {seconds:7.2} s, {:.3} ms an image, {:.0} MB",
                seconds * 1e3 / n as f64,
                found.ran.peak_mb
            );
            rows.push(json!({ "id": format!("scale/images/{n}"), "value": seconds, "unit": "s", "images": n,
                "ms_an_image": seconds * 1e3 / n as f64, "mb": found.ran.peak_mb }));
        }
        if self.rounds == 0 {
            return Ok(rows);
        }
        let steps = Common { nets: vec!["resnet18".into()], ..common.clone() };
        rows.extend(Threads::of(4 * self.rounds).run(&steps)?);
        let folder = pictures::folder(&common.folder, 200, 20, [400, 300])?;
        let what = match Cores::can_hold() {
            true => "an epoch of 200 images, the program on one core and on two",
            false => "an epoch of 200 images (no `taskset` here: decoding has all cores beside one thread)",
        };
        rows.extend(self.compare("cores", what, &|threads| {
            let common = Common { threads, ..common.clone() };
            let recipe = recipe(common.size, 16, 0, &[("all", 2)]);
            let cores = if threads == 1 { Cores::One } else { Cores::All };
            let found = train(&common, &folder, &format!("scale-threads-{threads}"), &recipe, cores)?;
            // The first epoch begins with what a run does once.
            Ok(found.epochs.last().copied().unwrap_or(f64::NAN))
        })?);
        Ok(rows)
    }

    /// Seconds on one thread and on two in turn. Two threads may be one core's, or share a core with a neighbour: what the
    /// machine gains by them right before and after says so.
    fn compare(
        &self,
        id: &str,
        what: &str,
        seconds: &dyn Fn(usize) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Vec<Value>> {
        let mut machine = vec![gain(2)];
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..self.rounds {
            for threads in [1, 2] {
                times[threads - 1].push(seconds(threads)?);
                machine.push(gain(2));
            }
        }
        let [one, two] = times.each_mut().map(|t| median(t));
        let of_machine = median(&mut machine);
        println!(
            "{what}: {one:.3} s on one thread, {two:.3} s on two: {:.2} times as fast (middle of {}); the machine's own peak \
             {of_machine:.2} times ({:.2} to {:.2} around each)",
            one / two,
            times[0].len(),
            machine[0],
            machine[machine.len() - 1]
        );
        let row = |threads: usize, seconds: f64| {
            json!({ "id": format!("scale/{id}/{threads}"), "value": seconds, "unit": "s", "what": what, "threads": threads,
                "times": one / seconds, "machine_times": machine })
        };
        Ok(vec![row(1, one), row(2, two)])
    }
}
