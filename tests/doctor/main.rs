//! `flannel-rs doctor` on real nodes: it finds nothing where nothing is wrong, and each planted fault
//! by its name, with a fix that helps.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "clippy takes only functions marked #[test] for tests"
)]

mod alone;
mod clean;
mod planted;
#[path = "../support/mod.rs"]
mod support;
mod ward;
