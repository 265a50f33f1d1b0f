//! Writing to people and pipes.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;

use super::error::Error;
use crate::config::ConfigError;

/// What to print a thing as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl From<bool> for Form {
    /// From the option `--json`.
    fn from(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

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
pub(super) fn print(text: &str) -> Result<Reader, Error> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Error::Output(error)),
    }
}

/// Writes a JSON document to standard output.
pub(super) fn print_json<T: Serialize + ?Sized>(document: &T) -> Result<Reader, Error> {
    let json = serde_json::to_string_pretty(document);
    let json = json.map_err(|error| Error::Output(error.into()))?;
    print(&format!("{}\n", printable_json(&json)))
}

/// The same document without what [`printable`] takes out of a text: outside of its strings
/// there is none of it.
pub(super) fn printable_json(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\n' | '\r' | '\t' => printable.push(character),
            _ if is_hostile(character) => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    let _ = write!(printable, "\\u{unit:04x}");
                }
            }
            _ => printable.push(character),
        }
    }
    printable
}

/// Whoever reads standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    There,
    Gone,
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
/// reach a terminal as escape sequences, as lines of their own, or turned around.
pub(super) fn printable(text: &str) -> String {
    let safe = |c: char| if is_hostile(c) { '\u{fffd}' } else { c };
    text.chars().map(safe).collect()
}

/// Controls of the terminal, of lines, and of the direction of writing (Unicode's
/// `Bidi_Control`).
fn is_hostile(character: char) -> bool {
    let turns_or_ends_a_line = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    character.is_control() || turns_or_ends_a_line
}
