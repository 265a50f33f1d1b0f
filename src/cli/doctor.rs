//! `flannel-rs doctor`.

use std::fmt::Write;

use super::bus;
use super::error::{DONE, Error, FINDINGS};
use super::output::{self, Colour, Form, Palette, printable};
use crate::doctor::{self, Diagnosis, Probing};

/// Examines this host and prints what is wrong; answers with the exit code.
pub(super) fn run(form: Form, probing: Probing) -> Result<u8, Error> {
    let described = bus::describe();
    let status = match &described {
        Ok(description) => Ok(&description.status),
        Err(error) => Err(error.to_string()),
    };
    let diagnosis = doctor::diagnose(status, probing);
    match form {
        Form::Json => output::print_json(&diagnosis)?,
        Form::Text => output::print(&page(&diagnosis, Palette::of_stdout()))?,
    };
    Ok(if diagnosis.findings.is_empty() {
        DONE
    } else {
        FINDINGS
    })
}

impl From<bool> for Probing {
    /// From the option `--no-probes`.
    fn from(reads_only: bool) -> Self {
        if reads_only {
            Self::Reading
        } else {
            Self::Packets
        }
    }
}

/// A paragraph for each finding, and below what was left out.
fn page(diagnosis: &Diagnosis, palette: Palette) -> String {
    let mut page = String::new();
    for finding in &diagnosis.findings {
        let code = palette.paint(Colour::Red, &printable(&finding.code));
        let _ = writeln!(page, "{code}: {}", printable(&finding.about));
        let _ = writeln!(page, "  {}", printable(&finding.text));
        let _ = writeln!(page, "  fix: {}\n", printable(&finding.fix));
    }
    if diagnosis.findings.is_empty() {
        page.push_str("nothing found\n");
    }
    for omission in &diagnosis.omitted {
        let (what, why) = (printable(&omission.what), printable(&omission.why));
        let _ = writeln!(page, "not looked at: {what}: {why}");
    }
    if let Some(vantage) = &diagnosis.vantage {
        let _ = writeln!(page, "packets were sent from {}", printable(vantage));
    }
    page
}

#[cfg(test)]
mod tests;
