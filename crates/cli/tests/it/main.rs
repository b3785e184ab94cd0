//! The program as a user runs it.

mod augment;
mod before;
mod by_hand;
mod export;
mod folder;
mod interrupt;
mod pull;
mod table;
mod usage;
mod weights;

use std::process::{Command, Output};

/// The program, in `folder`.
fn defrost(folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_defrost"));
    command.current_dir(folder);
    command
}

/// Runs the program and expects `code`.
fn run(folder: &std::path::Path, arguments: &[&str], code: i32) -> Output {
    let output = defrost(folder).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        output.status.code(),
        Some(code),
        "defrost {arguments:?}\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
