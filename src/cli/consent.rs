//! Asking before something is taken away.

use std::io::{self, BufRead, IsTerminal, Write};

use super::error::Error;
use super::output::printable;

/// Whether somebody has agreed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    Given,
    Open,
}

impl From<bool> for Consent {
    /// From the option `--yes`.
    fn from(yes: bool) -> Self {
        if yes { Self::Given } else { Self::Open }
    }
}

/// Asks whoever sits at the terminal, once, after saying what will happen. A script is not
/// asked: whoever wrote it has thought about it, as for `systemctl` and `networkctl`.
pub(super) fn seek(
    consent: Consent,
    consequence: impl FnOnce() -> Result<String, Error>,
) -> Result<(), Error> {
    let somebody_is_there = io::stdin().is_terminal() && io::stderr().is_terminal();
    if consent == Consent::Given || !somebody_is_there {
        return Ok(());
    }
    let consequence = printable(&consequence()?);
    let mut stderr = io::stderr().lock();
    let asked = write!(stderr, "{consequence}\nGo on? [y/N] ").and_then(|()| stderr.flush());
    asked.map_err(Error::Output)?;
    let mut answer = String::new();
    // no answer is no consent
    let _ = io::stdin().lock().read_line(&mut answer);
    match is_yes(&answer) {
        true => Ok(()),
        false => Err(Error::Declined),
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for yes in ["y\n", "Y\n", " yes \n", "YES"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "ye\n", "yes please\n", "\u{0}y\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
