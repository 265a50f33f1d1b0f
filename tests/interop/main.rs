//! One cluster of this service and of a real flanneld, which the variable `FLANNELD` names by
//! path. Without one every test here is skipped with a message.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "clippy takes only functions marked #[test] for tests"
)]

mod flanneld;
mod leases;
mod mixed;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
