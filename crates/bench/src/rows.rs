//! The rows of the bar: each network in each mode, in a process of its own, in turn with the rival.

use std::process::Command;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use crate::layers::{batch, nets};
use crate::process::run;
use crate::timing::median;
use crate::{Common, rivals};

#[derive(Args, Debug)]
pub(crate) struct Rows {
    /// What trains: all, stage (the last one and the head), head, or infer; all of them by default
    #[arg(long, value_delimiter = ',')]
    modes: Vec<String>,
    /// How often both sides run in turn; the middle counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Steps that are timed in a round
    #[arg(long, default_value_t = 7)]
    steps: usize,
    /// Of the rival: f32, or bf16 under autocast
    #[arg(long, default_value = "f32")]
    rival_dtype: String,
}

/// Images a second and MB.
pub(crate) type Figures = (f64, f64);

impl Rows {
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Vec<Value>> {
        std::fs::create_dir_all(&common.folder)?;
        let all = ["all", "stage", "head", "infer"].map(str::to_owned).to_vec();
        let modes = if self.modes.is_empty() { all } else { self.modes.clone() };
        let mut rows = Vec::new();
        for net in nets(common) {
            for mode in &modes {
                rows.push(self.row(common, &net, mode)?);
                if let (Some(path), last) = (&common.json, rows.len() - 1) {
                    // Rows take minutes: what is done is kept.
                    let machine = crate::machine::describe(common.threads);
                    let done = json!({ "rows": [rows[last]] });
                    crate::write(path, &machine, done.as_object().context("an object")?)?;
                }
            }
        }
        Ok(rows)
    }

    fn row(&self, common: &Common, net: &str, mode: &str) -> anyhow::Result<Value> {
        let n = batch(common, net);
        let (mut own, mut torch, mut ort) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            own.push(own_step(common, net, mode, self.steps)?);
            if common.against.is_some() {
                torch.push(rivals::torch(common, net, mode, n, &self.rival_dtype)?);
                if mode == "infer" && net != "vgg16" && self.rival_dtype == "f32" {
                    ort.push((rivals::onnxruntime(common, net)?, 0.0));
                }
            }
        }
        let (rate, memory) = middle(own).context("at least one round")?;
        print!("{net:13} {mode:6} b{n}: {rate:8.2} images/s, {memory:5.0} MB");
        let mut row = json!({ "id": format!("rows/{net}/{mode}/b{n}/{}/{}", common.backend, self.rival_dtype),
            "value": rate, "unit": "images/s", "net": net, "mode": mode, "batch": n, "mb": memory });
        for (name, figures) in [("torch", middle(torch)), ("onnxruntime", middle(ort))] {
            let Some((other, mb)) = figures else { continue };
            print!(" | {name} {other:8.2}: {:.2} times as fast", rate / other);
            row[name] = json!({ "value": other, "ratio": rate / other });
            if mb > 0.0 {
                print!(", {mb:5.0} MB: {:.2} of it", memory / mb);
                row[name]["mb"] = mb.into();
                row[name]["mb_ratio"] = (memory / mb).into();
            }
        }
        println!();
        Ok(row)
    }
}

/// Images a second and MB of this project's step, in a process of its own.
pub(crate) fn own_step(common: &Common, net: &str, mode: &str, steps: usize) -> anyhow::Result<Figures> {
    let json = common.folder.join(format!("row-{}.json", std::process::id()));
    let _ = std::fs::remove_file(&json);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["steps", "--net", net, "--modes", mode, "--backend", &common.backend]);
    command.args(["--steps", &steps.to_string(), "--threads", &common.threads.to_string()]);
    command.args(["--batch", &common.batch.to_string(), "--size", &common.size.to_string()]);
    command.arg("--json").arg(&json);
    run(&mut command, |_| false)?;
    let found = crate::read(&json)?;
    std::fs::remove_file(&json)?;
    let row = &found["steps"][0];
    let field = |name: &str| row[name].as_f64().with_context(|| format!("a step without {name}"));
    Ok((field("value")?, field("mb")?))
}

/// The middle of each figure.
fn middle(figures: Vec<Figures>) -> Option<Figures> {
    let (mut a, mut b): (Vec<_>, Vec<_>) = figures.into_iter().unzip();
    (!a.is_empty()).then(|| (median(&mut a), median(&mut b)))
}
