//! Bad input and bad hosts: each is named in one line, what stood before it stays, and once it
//! is put right the service goes on by itself.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked #[test] for tests"
)]

mod contents;
mod datastore;
mod files;
mod host;
mod leases;
#[path = "../support/mod.rs"]
mod support;

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;
const UDP: &str = r#"{"Type":"udp"}"#;

/// Where the lab's etcd keeps the network config.
const CONFIG_PLACE: &str = "/coreos.com/network/config in etcd at http://192.168.1.1:2379";

/// A lease as a vxlan member would write it.
const PEER: &str = r#"{"PublicIP":"192.168.1.60","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:60"}}"#;
