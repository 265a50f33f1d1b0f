//! Three nodes, one overlay: the whole service on a real etcd and the real kernel, with all
//! three backends.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "clippy takes only functions marked #[test] for tests"
)]

mod adoption;
mod bridge;
mod cleanup;
mod docker;
mod drift;
mod firewall;
mod firewalld;
mod fleet;
mod join;
mod leases;
mod passages;
mod restart;
mod settings;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
