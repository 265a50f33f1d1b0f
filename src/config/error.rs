//! What is wrong, where, and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

/// The config cannot be used. Displayed in the form of compilers, without a last newline:
///
/// ```text
/// /etc/flannel-rs/config.toml:3:1: unknown key `interfaec` (did you mean `interface`?), expected …
///   |
/// 3 | interfaec = "eth0"
///   | ^^^^^^^^^
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: PathBuf,
    place: Option<Place>,
    message: String,
}

/// A stretch of one line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    /// In characters, at least 1.
    width: usize,
    /// The whole line, fit to be printed.
    text: String,
}

impl ConfigError {
    /// An error of the file rather than of a place in it.
    pub(super) fn whole_file(file: &Path, message: String) -> Self {
        Self {
            file: file.to_owned(),
            place: None,
            message,
        }
    }

    /// Line and column of the offending text, both from 1, in characters. `None` when the file
    /// could not be read.
    #[must_use]
    pub fn position(&self) -> Option<(usize, usize)> {
        self.place.as_ref().map(|place| (place.line, place.column))
    }

    /// What is wrong and what would be right, on one line, without the position.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let Some(place) = &self.place else {
            return write!(f, "{file}: {}", self.message);
        };
        let (line, column) = (place.line, place.column);
        writeln!(f, "{file}:{line}:{column}: {}", self.message)?;
        let gutter = " ".repeat(line.to_string().len());
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{line} | {}", place.text)?;
        // a tab before the carets is as wide as the one above it
        let before = place.text.chars().take(column - 1);
        let indent: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
        write!(f, "{gutter} | {indent}{}", "^".repeat(place.width))
    }
}

impl std::error::Error for ConfigError {}

/// An error that knows its bytes in the text, but not yet the text.
#[derive(Debug)]
pub(super) struct Fault {
    span: Range<usize>,
    message: String,
}

impl Fault {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { span, message }
    }

    /// `key = value: reason`, at the value.
    pub(super) fn value<T: fmt::Debug>(value: &Spanned<T>, key: &str, reason: &str) -> Self {
        let found: String = format!("{:?}", value.get_ref()).chars().take(80).collect();
        Self::new(value.span(), format!("{key} = {found}: {reason}"))
    }

    /// TOML's own errors, and serde's about keys and types.
    pub(super) fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or_default();
        let message = error.message().trim_end().replace('\n', ", ");
        let message = match unknown_key(&message) {
            Some((key, expected)) => {
                let hint = nearest(key, expected.split('`').skip(1).step_by(2))
                    .map(|near| format!(" (did you mean `{near}`?)"))
                    .unwrap_or_default();
                let key: String = key.chars().take(80).collect();
                format!("unknown key `{key}`{hint}, {expected}")
            }
            None if message.starts_with("invalid type") => in_words_of_toml(&message),
            None if span.start >= text.len() => format!("the file ends here: {message}"),
            None => message,
        };
        Self { span, message }
    }

    pub(super) fn in_text(self, text: &str, file: &Path) -> ConfigError {
        ConfigError {
            file: file.to_owned(),
            place: Some(Place::of(&self.span, text)),
            // a quoted key may hold anything
            message: self.message.replace(char::is_control, "\u{fffd}"),
        }
    }
}

/// Key and rest of serde's "unknown field `key`, expected …".
fn unknown_key(message: &str) -> Option<(&str, &str)> {
    let (key, rest) = message.strip_prefix("unknown field `")?.split_once('`')?;
    Some((key, rest.trim_start_matches(", ")))
}

/// serde says "map" and "sequence", and repeats a string, which may be a secret.
fn in_words_of_toml(message: &str) -> String {
    let (found, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let found = match found.trim_start_matches("invalid type: ") {
        "map" => "table",
        "sequence" => "array",
        found if found.starts_with("string ") => "string",
        found => found,
    };
    let expected = expected.replace("a sequence", "an array");
    let expected = expected.replace("a map", "a table");
    format!("invalid type: {found}, expected {expected}")
}

/// The known word that `word` is a misspelling of, if there is one close enough.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // `cafile` and `ca_file` are nearer to `ca-file` than their distance says
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let word = plain(word);
    known
        .map(|known| (strsim::damerau_levenshtein(&word, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .map(|(_, known)| known)
}

impl Place {
    fn of(span: &Range<usize>, text: &str) -> Self {
        let boundary = |at: usize| text.floor_char_boundary(at.min(text.len()));
        let mut start = boundary(span.start);
        // an unfinished last line is where a text that ends too early is wrong
        if start == text.len() {
            start = text.trim_end_matches(['\n', '\r']).len();
        }
        let head = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let tail = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[head..tail].trim_end_matches('\r');
        let end = boundary(span.end).clamp(start, tail);
        Self {
            line: 1 + text[..head].matches('\n').count(),
            column: 1 + text[head..start].chars().count(),
            width: text[start..end].trim_end().chars().count().max(1),
            text: printable(line),
        }
    }
}

/// The line as it may be shown: without control characters, which could talk to the terminal,
/// and without passwords, which do not belong into a config but may be the very mistake.
fn printable(line: &str) -> String {
    let mut shown: String = line
        .chars()
        .map(|c| match c {
            '\t' => c,
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect();
    // same length as the key it stands for, so that positions in both texts agree
    let words = shown
        .to_ascii_lowercase()
        .replace("password-file", "-------------");
    let word = ["pass", "secret", "token"]
        .iter()
        .filter_map(|word| words.find(word))
        .min();
    if let Some(equals) = word.and_then(|at| Some(at + words[at..].find('=')?)) {
        let stars = stars(&shown[equals + 1..]);
        shown.replace_range(equals + 1.., &stars);
    }
    // user:password@ of a URL
    let scheme = shown.find("://").map(|at| at + 3);
    let start = scheme.or_else(|| shown.find(['"', '\'']).map(|at| at + 1));
    if let (Some(start), Some(end)) = (start, shown.rfind('@'))
        && start < end
    {
        let stars = stars(&shown[start..end]);
        shown.replace_range(start..end, &stars);
    }
    shown
}

fn stars(text: &str) -> String {
    text.chars()
        .map(|c| if c == ' ' { ' ' } else { '*' })
        .collect()
}
