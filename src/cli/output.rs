//! Writing to people and pipes.

use std::io::{self, ErrorKind, IsTerminal, Write};

use super::Error;
use crate::config::ConfigError;

/// Whether to colour what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Palette {
    Plain,
    Colour,
}

/// The colours in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

impl Palette {
    /// What standard output bears: colour on a terminal, unless `NO_COLOR` asks for none
    /// (<https://no-color.org>).
    pub(super) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !unwanted {
            Self::Colour
        } else {
            Self::Plain
        }
    }

    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\x1b[{}m{text}\x1b[0m", colour as u8),
        }
    }
}

/// Writes to standard output. A reader that has gone, such as `head`, is no error.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes one line to standard error; if that cannot be, nobody is there to be told.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(text));
}

/// Writes what is wrong with a config to standard error, line by line as it stands: the carets
/// point at the line above them, and a tab in both keeps them there.
pub(super) fn point_out(error: &ConfigError) {
    let text = error.to_string();
    let cells = |line: &str| {
        line.split('\t')
            .map(printable)
            .collect::<Vec<_>>()
            .join("\t")
    };
    let lines: Vec<String> = text.lines().map(cells).collect();
    let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
}

/// Without control characters. Names and texts can come from a peer's lease, and must not
/// reach a terminal as escape sequences or as lines of their own.
pub(super) fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(safe).collect()
}
