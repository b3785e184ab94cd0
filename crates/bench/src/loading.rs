//! Loading: JPEG files decoded, and batches made of them by the training pipeline.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use defrost_augment::{Pipeline, Size};
use defrost_data::{DecodeOptions, Loader, LoaderOptions, Options, Splits, decode};
use serde_json::{Value, json};

use crate::{Common, pictures, rivals};

#[derive(Args, Debug)]
pub(crate) struct Loading {
    /// Rounds, of which the fastest counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Sizes of the pictures, and how many of them.
const SIZES: [([u32; 2], usize); 3] = [([400, 300], 200), ([1024, 768], 60), ([4000, 3000], 10)];

impl Loading {
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Vec<Value>> {
        std::fs::create_dir_all(&common.folder)?;
        let mut rows = Vec::new();
        for (size, n) in SIZES {
            let folder = pictures::folder(&common.folder, n, 10, size)?;
            let name = format!("{}x{}", size[0], size[1]);
            let mut row = |what: &str, threads: usize, rate: f64| {
                println!("{name:10} {what:44} {threads} threads: {rate:7.0} images/s");
                rows.push(json!({ "id": format!("loading/{name}/{what}/{threads}"), "value": rate, "unit": "images/s",
                    "size": name, "what": what, "threads": threads }));
            };
            let files = files(&folder.join("train"))?;
            for (what, shorter_side) in [("decode", None), ("decode to what a crop of 224 needs", Some(448))]
            {
                let options = DecodeOptions { shorter_side, ..DecodeOptions::default() };
                row(
                    what,
                    1,
                    self.rate(files.len(), || {
                        files
                            .iter()
                            .try_for_each(|bytes| decode(bytes, &options).map(drop))
                            .map_err(Into::into)
                    })?,
                );
            }
            let train = Arc::new(Splits::open(&folder, &Options::default())?.train);
            for (what, cache_bytes) in
                [("batches for training", 0), ("the same, pictures kept in memory", 1 << 30)]
            {
                for threads in [1, common.threads] {
                    let size = Size::square(common.size);
                    let options =
                        LoaderOptions { batch: 16, size, threads, cache_bytes, ..LoaderOptions::train() };
                    let loader = Loader::new(Arc::clone(&train), Pipeline::train(), options)?;
                    let mut epoch = 0;
                    row(
                        what,
                        threads,
                        self.rate(train.len(), || {
                            epoch += 1;
                            loader.epoch(epoch).try_for_each(|batch| batch.map(drop)).map_err(Into::into)
                        })?,
                    );
                }
            }
            if common.against.is_some() && size[0] < 2000 {
                let parent = std::path::absolute(folder.join("train"))?;
                let (ran, _) = rivals::script(common, "bench_jpeg_py.py", &[&parent.display().to_string()])?;
                for found in ran.lines.iter().filter_map(|l| serde_json::from_str::<Value>(l).ok()) {
                    let (Some(job), Some(rate)) = (found["job"].as_str(), found["img_s"].as_f64()) else {
                        continue;
                    };
                    row(job, 1, rate);
                }
            }
        }
        Ok(rows)
    }

    /// Images a second of the fastest round.
    fn rate(&self, n: usize, mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let mut best = f64::INFINITY;
        // One more, so that what is kept is kept and threads have their buffers.
        for _ in 0..=self.rounds {
            let start = Instant::now();
            run()?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(n as f64 / best)
    }
}

fn files(folder: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for class in std::fs::read_dir(folder)? {
        for file in std::fs::read_dir(class?.path())? {
            all.push(std::fs::read(file?.path())?);
        }
    }
    Ok(all)
}
