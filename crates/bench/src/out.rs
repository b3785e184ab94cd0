//! Words to stdout, whose reader may have gone away.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Prints; ends the program where nobody reads any more, or where nothing can be written.
pub(crate) fn print(words: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let Err(error) = out.write_fmt(words).and_then(|()| out.flush()) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    eprintln!("error: writing to stdout: {error}");
    std::process::exit(1);
}
