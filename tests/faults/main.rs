//! Faults, one named test each: what the service says meanwhile, what stays, and how soon all is
//! right again afterwards.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "clippy takes only functions marked #[test] for tests"
)]

mod clones;
mod datastore;
mod defects;
mod defects_kernel;
mod defects_lease;
mod kernel;
mod lease;
mod outage;
mod renumber;
mod site;
#[path = "../support/mod.rs"]
mod support;

const VXLAN: &str = r#"{"Type":"vxlan"}"#;

/// A lease as a vxlan member would write it.
const PEER: &str = r#"{"PublicIP":"192.168.1.60","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:60"}}"#;

/// Leases that live for eight seconds and are renewed every two: a busy machine must not let one
/// run out.
const SHORT: &str = "[lease]\nttl = \"8s\"\nrenew-margin = \"6s\"\n";
