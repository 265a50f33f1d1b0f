//! What the tests of the command line show.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::service::status::{DatastoreStatus, PeerPath, PeerStatus, Provision, State, Status};

/// Microseconds since 1970.
pub(super) const NOW: u64 = 1_800_000_000_000_000;

/// A healthy node with two peers.
pub(super) fn running() -> Status {
    let peer = |third: u8, path, mac: Option<&str>| PeerStatus {
        subnet: format!("100.96.{third}.0/24"),
        public_ip: Ipv4Addr::new(192, 168, 1, 46 + third),
        backend: "vxlan".to_owned(),
        mac: mac.map(str::to_owned),
        path,
        obstacle: None,
        traffic: None,
    };
    Status {
        version: "0.1.0".to_owned(),
        state: State::Running,
        faults: Vec::new(),
        node_name: "node1".to_owned(),
        node_id: "0123456789abcdef0123456789abcdef".to_owned(),
        backend: Some("vxlan".to_owned()),
        network: Some("100.96.0.0/16".to_owned()),
        subnet: Some("100.96.1.0/24".to_owned()),
        interface: Some("eth0".to_owned()),
        public_ip: Some(Ipv4Addr::new(192, 168, 1, 47)),
        mtu: 1450,
        lease_expires_usec: Some(NOW + 86_399_000_000),
        datastore: DatastoreStatus {
            name: "etcd at http://192.168.1.47:2379".to_owned(),
            connected: true,
            revision: 42,
        },
        peers: Arc::new(vec![
            peer(2, PeerPath::Tunnel, Some("02:1a:5f:00:10:2b")),
            peer(3, PeerPath::Direct, None),
        ]),
        garbage: Vec::new(),
        log_level: "info".to_owned(),
        interfaces: Arc::default(),
        last_reconcile_usec: Some(NOW - 3_000_000),
        repairs: 0,
        provision: Some(Provision {
            bridge: Some("docker0".to_owned()),
            tunnel_port: Some(8472),
            masquerade: true,
            forward: true,
            subnet_env: "/run/flannel/subnet.env".to_owned(),
            docker_env: "/run/flannel/docker.env".to_owned(),
        }),
        traffic: None,
    }
}
