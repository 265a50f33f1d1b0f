//! The service on a real message bus: what clients see, who may do what, and what happens when
//! the bus goes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip, also in their helpers"
)]

mod authority;
mod commands;
mod connection;
mod hostile;
mod introspection;
mod links;
mod log_control;
mod managers;
mod polkit;
mod properties;
mod scene;
mod stand_in;
#[path = "../support/mod.rs"]
mod support;
mod traffic;

use std::process::Output;

use flannel_rs::service::dbus::ERROR_PREFIX;

const PEER_2: &str = "/org/flannelrs/Flannel1/peer/_100_96_2_0_24";
const PEER_3: &str = "/org/flannelrs/Flannel1/peer/_100_96_3_0_24";
const LINK_1: &str = "/org/flannelrs/Flannel1/interface/_flannel_2e1";

/// Name and text of one of the service's own errors.
fn refusal(error: &zbus::Error) -> String {
    let zbus::Error::MethodError(name, text, _) = error else {
        panic!("{error:?}");
    };
    let kind = name.strip_prefix(ERROR_PREFIX).unwrap();
    let kind = kind.trim_start_matches('.');
    format!("{kind}: {}", text.as_deref().unwrap())
}

/// What a program that succeeded, or was not there, wrote.
fn said(output: Option<Output>) -> String {
    output.map_or_else(String::new, |output| {
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    })
}
