//! How long the program takes until it answers, and until its first training step is done.

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
            println!("{what:55} {:8.1} ms (least {:.1})", seconds * 1e3, times[0] * 1e3);
            rows.push(json!({ "id": format!("start/{what}"), "value": seconds, "unit": "s", "what": what }));
        };
        let program = common.program()?;
        let version = |_| run(Command::new(&program).arg("--version"), |_| false).map(|ran| ran.seconds);
        row("defrost --version", (0..self.rounds).map(version).collect::<Result<_, _>>()?);
        for (what, phase) in
            [("to the first step of everything", "all"), ("to the first step of the head", "head")]
        {
            std::fs::write(&file, recipe(common.size, 16, 0, &[(phase, 1)]))?;
            let first = |_| {
                if into.exists() {
                    std::fs::remove_dir_all(&into)?;
                }
                let mut command = command(common, &folder, &file, &into)?;
                anyhow::Ok(run(command.arg("--json"), |line| line.contains("\"event\":\"step\""))?.seconds)
            };
            // The first reads the pictures from the disk.
            first(0)?;
            row(what, (0..self.rounds).map(first).collect::<Result<_, _>>()?);
        }
        if into.exists() {
            std::fs::remove_dir_all(&into)?;
        }
        Ok(rows)
    }
}
