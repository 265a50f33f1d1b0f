use std::sync::Arc;

use super::*;
use crate::cli::samples::running;
use crate::service::status::{PeerPath, PeerTraffic};

fn found(name: &str) -> Vec<String> {
    let mut status = running();
    Arc::make_mut(&mut status.peers).push(PeerStatus {
        subnet: "100.96.4.0/24,fd00:4::/64".to_owned(),
        public_ip: [192, 168, 1, 48].into(),
        backend: "vxlan".to_owned(),
        mac: None,
        path: PeerPath::Direct,
        obstacle: None,
        traffic: None,
    });
    let peers = named(&status, name).unwrap_or_default();
    peers.into_iter().map(|peer| peer.subnet).collect()
}

#[test]
fn a_peer_is_meant_by_its_subnet_an_address_in_it_or_its_public_ip() {
    for name in [
        "100.96.3.0/24",
        "100.96.3.77/24",
        "100.96.3.77",
        "192.168.1.49",
    ] {
        assert_eq!(found(name), ["100.96.3.0/24"], "{name}");
    }
    assert_eq!(found("100.96.4.1"), ["100.96.4.0/24,fd00:4::/64"]);
    assert_eq!(found("100.96.4.0/24,fd00:4::/64").len(), 1);
    let both = ["100.96.2.0/24", "100.96.4.0/24,fd00:4::/64"];
    assert_eq!(found("192.168.1.48"), both);
}

#[test]
fn whatever_is_no_peer_is_not_found() {
    for name in [
        "100.96.9.1",
        "100.96.3.0/25",
        "100.96.0.0/16",
        "node2",
        "",
        "\u{1b}[31m",
    ] {
        assert!(found(name).is_empty(), "{name}");
    }
    let told = |name| named(&running(), name).unwrap_err().to_string();
    assert_eq!(
        told("100.96.9.1"),
        "no peer is 100.96.9.1; name one by its subnet, an address in it, or its public IP"
    );
    for own in ["100.96.1.9", "100.96.1.0/24", "192.168.1.47"] {
        assert!(told(own).ends_with("; that one is this node"), "{own}");
    }
}

#[test]
fn one_peer_shows_all_that_is_known_of_it() {
    let mut peer = running().peers[0].clone();
    let expected = "\
100.96.2.0/24
  public IP  192.168.1.48
  backend    vxlan
  MAC        02:1a:5f:00:10:2b
  path       tunnel
";
    assert_eq!(page(&peer), expected);
    peer.traffic = Some(PeerTraffic {
        sent_bytes: 999,
        received_bytes: 12_000,
        dropped_too_big: 3,
        ..PeerTraffic::default()
    });
    let line = "  traffic    sent 999 B, received 12.0 kB, dropped 3: 3 too big\n";
    assert_eq!(page(&peer), format!("{expected}{line}"));
    assert_eq!(
        table(&[peer.clone()]),
        table(&running().peers[..1]),
        "no column"
    );
    peer.traffic = None;
    peer.path = PeerPath::None;
    peer.mac = None;
    peer.obstacle = Some("of another\nbackend".to_owned());
    let expected = "\
100.96.2.0/24
  public IP  192.168.1.48
  backend    vxlan
  path       none
  why not    of another\u{fffd}backend
";
    assert_eq!(pages(&[peer]), expected);
}
