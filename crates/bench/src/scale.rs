//! Whether time grows with the pictures and memory does not, and what a second thread brings.

use clap::Args;
use serde_json::{Value, json};

use crate::job::{recipe, train};
use crate::machine::gain;
use crate::{Common, pictures};

#[derive(Args, Debug)]
pub(crate) struct Scale {
    /// Numbers of pictures
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 5000, 20_000])]
    images: Vec<usize>,
    /// Height and width of the network's input: small, since the loop is measured and not the kernels
    #[arg(long, default_value_t = 32)]
    pixels: usize,
}

impl Scale {
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Vec<Value>> {
        std::fs::create_dir_all(&common.folder)?;
        let mut rows = Vec::new();
        for &n in &self.images {
            let folder = pictures::folder(&common.folder, n, 20, [200, 150])?;
            let recipe = recipe(self.pixels, 32, 0, &[("all", 1)]);
            let found = train(common, &folder, &format!("scale-{n}"), &recipe, &[])?;
            let seconds = found.epochs.first().copied().unwrap_or(f64::NAN);
            println!(
                "{n:6} images: an epoch in {seconds:7.2} s, {:.3} ms an image, {:.0} MB",
                seconds * 1e3 / n as f64,
                found.ran.peak_mb
            );
            rows.push(json!({ "id": format!("scale/images/{n}"), "value": seconds, "unit": "s", "images": n,
                "ms_an_image": seconds * 1e3 / n as f64, "mb": found.ran.peak_mb }));
        }
        let folder = pictures::folder(&common.folder, 200, 20, [400, 300])?;
        // Two threads may be one core's, or share a core with a neighbour: what the machine gains by them says so.
        let mut machine = vec![gain(2)];
        let mut best = [f64::INFINITY; 2];
        for threads in [1, 2, 1, 2] {
            let common = Common { threads, ..common.clone() };
            let recipe = recipe(common.size, 16, 0, &[("all", 2)]);
            let found = train(&common, &folder, &format!("scale-threads-{threads}"), &recipe, &[])?;
            machine.push(gain(2));
            best[threads - 1] = found.epochs.iter().copied().fold(best[threads - 1], f64::min);
        }
        let [one, two] = best;
        println!(
            "an epoch of 200 images in {one:.2} s on one thread, {two:.2} s on two: {:.2} times as fast (least of four)",
            one / two
        );
        println!(
            "the machine's own peak on two threads, before, between and after: {machine:.2?} times that on one"
        );
        for (threads, seconds) in [(1, one), (2, two)] {
            rows.push(json!({ "id": format!("scale/threads/{threads}"), "value": seconds, "unit": "s",
                "threads": threads, "times": one / seconds, "machine_times": machine }));
        }
        Ok(rows)
    }
}
