//! How long the program takes until it answers, until its first training step begins, and until that is done.

use std::process::Command;

use clap::Args;
use serde_json::{Value, json};

use crate::job::{command, recipe};
use crate::process::run;
use crate::timing::median;
use crate::{Common, pictures};

#[derive(Args, Debug)]
pub(crate) struct Start {
    /// How often each is started; the middle counts
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

impl Start {
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Vec<Value>> {
        std::fs::create_dir_all(&common.folder)?;
        let folder = pictures::folder(&common.folder, 1000, 200, [400, 300])?;
        let file = common.folder.join("start.toml");
        let into = common.folder.join("start");
        let mut rows = Vec::new();
        let mut row = |what: &str, mut times: Vec<f64>| {
            let seconds = median(&mut times);
            println!("{what:45} {:8.1} ms (least {:.1})", seconds * 1e3, times[0] * 1e3);
            rows.push(json!({ "id": format!("start/{what}"), "value": seconds, "unit": "s", "what": what }));
        };
        let program = common.program()?;
        let version = |_| run(Command::new(&program).arg("--version"), |_| false).map(|ran| ran.seconds);
        row("defrost --version", (0..self.rounds).map(version).collect::<Result<_, _>>()?);
        for (what, phase) in [("everything", "all"), ("the head", "head")] {
            std::fs::write(&file, recipe(common.size, 16, 0, &[(phase, 1)]))?;
            let first = |_| {
                if into.exists() {
                    std::fs::remove_dir_all(&into)?;
                }
                let mut command = command(common, &folder, &file, &into)?;
                let ran = run(command.arg("--json"), |line| line.contains("\"event\":\"step\""))?;
                let step: Value =
                    ran.lines.last().map_or(Ok(Value::Null), |line| serde_json::from_str(line))?;
                // What the step waited for images is not training yet.
                let of = |field: &str| step[field].as_f64().unwrap_or(0.0);
                anyhow::Ok((ran.seconds - (of("seconds") - of("waited")), ran.seconds))
            };
            // The first reads the pictures from the disk.
            first(0)?;
            let times: Vec<_> = (0..self.rounds).map(first).collect::<Result<_, _>>()?;
            let (begin, done) = times.into_iter().unzip();
            row(&format!("until the first step of {what} begins"), begin);
            row(&format!("until it is done ({what})"), done);
        }
        if into.exists() {
            std::fs::remove_dir_all(&into)?;
        }
        Ok(rows)
    }
}
