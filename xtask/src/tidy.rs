//! `cargo xtask tidy`: the rules on structure. It is itself run as a test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::root;

/// The level of each package; an edge may only point to a lower one. Two at one level never see one another.
const LEVELS: &[(&str, u32)] = &[
    ("defrost-resize", 0),
    ("defrost-tensor", 0),
    ("defrost-kernels", 1),
    ("defrost-graph", 1),
    ("defrost-augment", 1),
    ("defrost-zoo", 2),
    ("defrost-weights", 2),
    ("defrost-hub", 2),
    ("defrost-policy", 2),
    ("defrost-plan", 2),
    ("defrost-data", 2),
    ("defrost-exec", 3),
    ("defrost-onnx", 3),
    ("defrost-ndarray", 4),
    ("defrost-wgpu", 4),
    ("defrost-candle", 4),
    ("defrost-train", 5),
    ("defrost-report", 6),
    ("defrost", 7),
    ("defrost-cli", 8),
    ("defrost-bench", 9),
    ("defrost-conformance", 9),
    ("defrost-tests", 10),
    ("xtask", 9),
];

/// Files longer than this are looked at again; a longer one needs an entry in [`LONG`].
const LONGEST: usize = 600;

/// Files that may be longer, each with the reason.
const LONG: &[(&str, &str)] = &[("crates/tensor/src/call.rs", "the instruction set: one table, read as one")];

/// Who may hold `unsafe`, and to map a file is to promise that it stays.
const UNSAFE: &[&str] =
    &["crates/kernels/", "crates/weights/", "crates/ndarray/", "crates/train/src/store.rs"];

/// Checks every rule and reports all that is wrong.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut wrong = levels()?;
    for file in sources(&root())? {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(root())?.to_string_lossy().replace('\\', "/");
        wrong.extend(source(&name, &text));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("tidy:\n  {}", wrong.join("\n  "))
}

/// Edges between packages that do not point down.
fn levels() -> anyhow::Result<Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .context("cargo metadata did not start")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let level: BTreeMap<_, _> = LEVELS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(own) = level.get(name) else {
            wrong.push(format!("{name}: give it a level in xtask/src/tidy.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let (to, dev) = (dependency["name"].as_str().unwrap_or_default(), dependency["kind"] == "dev");
            if let Some(other) = level.get(to).filter(|other| !dev && *other >= own) {
                wrong.push(format!("{name} (level {own}) depends on {to} (level {other}): edges point down"));
            }
        }
    }
    Ok(wrong)
}

/// All Rust sources of the workspace.
fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && !["target", "runs", "datasets"].contains(&name.as_str())
        {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What is wrong with one source file.
fn source(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if !text.lines().any(|line| line.starts_with("//!")) {
        wrong.push(format!("{name}: say in a `//!` line what the module is for"));
    }
    let lines = text.lines().count();
    if lines > LONGEST && !LONG.iter().any(|(long, _)| *long == name) {
        wrong.push(format!("{name}: {lines} lines; split it, or give the reason in xtask/src/tidy.rs"));
    }
    let mut forbid = |what: &str, why: &str| {
        if let Some(at) = text.lines().position(|line| line.contains(what)) {
            wrong.push(format!("{name}:{}: {why}", at + 1));
        }
    };
    // Spelled in two parts, so that this file does not find itself.
    forbid(concat!("todo", "!("), "unfinished code");
    forbid(concat!("unimplemented", "!("), "unfinished code");
    forbid(concat!("#[should", "_panic"), "test the error, not the panic");
    forbid(concat!("#[ignore", "]"), "an ignored test needs a reason");
    if !UNSAFE.iter().any(|folder| name.starts_with(folder)) {
        forbid(concat!("unsafe", " {"), "only kernels and the memory map may hold it");
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        run().unwrap();
    }

    #[test]
    fn what_is_untidy_is_found() {
        assert_eq!(source("a.rs", "fn main() {}").len(), 1);
        assert_eq!(source("a.rs", &format!("//! x\n{}", "\n".repeat(LONGEST))).len(), 1);
        assert_eq!(source("a.rs", concat!("//! x\ntodo", "!()")).len(), 1);
        assert_eq!(source("crates/zoo/a.rs", concat!("//! x\nunsafe", " {}")).len(), 1);
        assert_eq!(source("crates/kernels/a.rs", concat!("//! x\nunsafe", " {}")).len(), 0);
    }
}
