//! What a doctor says.

use serde::Serialize;

/// Something that keeps containers from reaching others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable name to match on: those of docs/doctor.md.
    pub code: String,
    /// What it is about: a link, a subnet, a file, a program.
    pub about: String,
    /// What is wrong, and how that was seen, in one line.
    pub text: String,
    /// What makes it go away: a command, or what to do.
    pub fix: String,
}

/// Something that was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Omission {
    /// What.
    pub what: String,
    /// Why, and what would help.
    pub why: String,
}

/// All that a doctor says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// What is wrong; empty on a healthy host.
    pub findings: Vec<Finding>,
    /// What was not looked at.
    pub omitted: Vec<Omission>,
    /// Where packets were sent from, such as `a container with 100.96.1.254 on docker0`; `None`
    /// if none were.
    pub vantage: Option<String>,
}

impl Finding {
    pub(super) fn new(
        code: &str,
        about: impl Into<String>,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            code: code.to_owned(),
            about: about.into(),
            text: text.into(),
            fix: fix.into(),
        }
    }
}

impl Omission {
    pub(super) fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
        }
    }
}
