//! What several integration tests need.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "every test binary compiles all of this and uses a part; `expect` fails where it uses all"
)]

pub(crate) mod bus;
pub(crate) mod certificates;
pub(crate) mod etcd;
pub(crate) mod flanneld;
pub(crate) mod lab;
pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod served;
