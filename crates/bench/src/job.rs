//! The whole job, program start included: ResNet18, five epochs of the head, then two of everything. What the rival's script
//! does not do is not asked for: validation comes once at the end of each phase (there once at the very end), and how far the
//! network moved is not measured.

use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::{Value, json};

use crate::process::{Ran, run};
use crate::{Common, pictures, rivals};

#[derive(Args, Debug)]
pub(crate) struct Job {
    /// Pictures to train on; a fifth of it to validate on
    #[arg(long, default_value_t = 1000)]
    images: usize,
    /// Views an image that are cached for the head; 0: new ones each epoch
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1])]
    views: Vec<usize>,
    /// Epochs of the head
    #[arg(long, default_value_t = 5)]
    head: usize,
    /// Epochs of everything
    #[arg(long, default_value_t = 2)]
    all: usize,
}

impl Job {
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Vec<Value>> {
        std::fs::create_dir_all(&common.folder)?;
        let folder = pictures::folder(&common.folder, self.images, self.images / 5, [400, 300])?;
        let mut rows = Vec::new();
        for &views in &self.views {
            let phases = [("head", self.head), ("all", self.all)];
            let ran = train(
                common,
                &folder,
                &format!("job-{views}"),
                &recipe(224, 16, views, &phases),
                Cores::All,
            )?;
            println!(
                "job of {} images, {}, validation at the end of each phase, no drift: {:.1} s, {:.0} MB; seconds an epoch {:.2?}, of which steps \
                 waited for images {:.3?}",
                self.images,
                if views == 0 { "new views each epoch".to_owned() } else { format!("{views} views cached") },
                ran.ran.seconds,
                ran.ran.peak_mb,
                ran.epochs,
                ran.waits
            );
            rows.push(
                json!({ "id": format!("job/{}/{views}", self.images), "value": ran.ran.seconds, "unit": "s",
                "views": views, "images": self.images, "mb": ran.ran.peak_mb, "epoch_s": ran.epochs,
                "wait_s": ran.waits }),
            );
        }
        if common.against.is_some() {
            let data = std::path::absolute(&folder)?.display().to_string();
            let (head, all) = (self.head.to_string(), self.all.to_string());
            let args = [data.as_str(), "--freeze-epochs", &head, "--epochs", &all];
            let (ran, found) = rivals::script(common, "e2e_torch.py", &args)?;
            let mb = found["peak_rss_sum_mb"].as_f64().unwrap_or_default();
            println!("torch: {:.1} s, {mb:.0} MB in all processes", ran.seconds);
            for row in &mut rows {
                let (seconds, own) =
                    (row["value"].as_f64().unwrap_or_default(), row["mb"].as_f64().unwrap_or_default());
                println!(
                    "  views {}: {:.2} times as fast, {:.2} of the memory",
                    row["views"],
                    ran.seconds / seconds,
                    own / mb
                );
                row["torch"] = json!({ "value": ran.seconds, "ratio": ran.seconds / seconds, "mb": mb,
                    "mb_ratio": own / mb, "details": found });
            }
        }
        Ok(rows)
    }
}

/// A run of the program.
pub(crate) struct Trained {
    pub(crate) ran: Ran,
    /// Seconds of each epoch.
    pub(crate) epochs: Vec<f64>,
    /// Seconds that steps of each epoch waited for images.
    pub(crate) waits: Vec<f64>,
}

/// Runs `defrost train`.
pub(crate) fn train(
    common: &Common,
    data: &Path,
    name: &str,
    recipe: &str,
    cores: Cores,
) -> anyhow::Result<Trained> {
    let (file, folder) = (common.folder.join(format!("{name}.toml")), common.folder.join(name));
    std::fs::write(&file, recipe)?;
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let mut command = command(common, data, &file, &folder)?;
    command.arg("--quiet");
    let ran = run(&mut cores.hold(command), |_| false)?;
    let events = std::fs::read_to_string(folder.join("metrics.jsonl"))?;
    let events = events.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let epochs: Vec<_> = events.filter(|e| e["event"] == "epoch").collect();
    let all = |field: &str| epochs.iter().filter_map(|e| e[field].as_f64()).collect();
    std::fs::remove_dir_all(&folder)?;
    Ok(Trained { ran, epochs: all("seconds"), waits: all("wait_seconds") })
}

/// What a program may run on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cores {
    /// All of the machine.
    All,
    /// The first, where the system has `taskset`.
    One,
}

impl Cores {
    /// Whether a program can be held to one core here.
    pub(crate) fn can_hold() -> bool {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    }

    fn hold(self, command: Command) -> Command {
        if self == Self::All || !Self::can_hold() {
            return command;
        }
        let mut held = Command::new("taskset");
        held.args(["-c", "0"]).arg(command.get_program()).args(command.get_args());
        held
    }
}

/// `defrost train` with a recipe's file, into a folder.
pub(crate) fn command(common: &Common, data: &Path, recipe: &Path, run: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(common.program()?);
    command.arg("train").arg(data).arg("--recipe").arg(recipe).arg("--run").arg(run);
    command.args(["--device", &common.backend]);
    if common.backend == "cpu" {
        command.args(["--threads", &common.threads.to_string()]);
    }
    Ok(command)
}

/// ResNet18 with random weights, SGD at 0.01 with momentum 0.9, in phases of so many epochs, each measured at its end.
pub(crate) fn recipe(size: usize, batch: usize, views: usize, phases: &[(&str, usize)]) -> String {
    let mut text = format!(
        "name = \"bench\"\nabout = \"a benchmark\"\nbatch_size = {batch}\n[model]\narch = \"resnet18\"\nweights = \"none\"\n\
         [data]\nimage_size = {size}\nviews = {views}\ndrop_last = true\n[validation]\nevery = 0\n[retention]\nevery = 0\n"
    );
    for (what, epochs) in phases {
        text += &format!(
            "[[phase]]\nname = \"{what}\"\nepochs = {epochs}\ntrain = \"{what}\"\nlr = 0.01\n\
             optimizer = {{ kind = \"sgd\", momentum = 0.9 }}\n"
        );
    }
    text
}
