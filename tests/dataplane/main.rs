//! The data plane of the udp backend under traffic: the whole service on a real etcd and the real
//! kernel, and what arrives is compared with what was sent.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "clippy takes only functions marked #[test] for tests"
)]

mod capture;
mod cluster;
mod datagrams;
mod decoder;
#[expect(dead_code, reason = "a part of it is for the tests it was made for")]
#[path = "../interop/flanneld.rs"]
mod flanneld;
mod noise;
mod path;
mod peers;
mod restart;
mod soak;
mod stream;
#[path = "../support/mod.rs"]
mod support;
mod transfers;
mod wire;
