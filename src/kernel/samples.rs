//! A node's desired states, as the three backends make them, for tests.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Scope;
use super::firewall::{
    Chain, Firewall, ForeignChain, Hook, Is, MARK, Match, Rule, Set, Table, Verdict,
};
use super::state::{
    Address, FdbEntry, KernelState, Link, LinkKind, Neighbour, Nexthop, PROTOCOL, Port, Route,
    RouteKey,
};
use crate::mac::Mac;

pub(super) fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

pub(super) fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(super) fn mac(last: u8) -> Mac {
    Mac::local([0, 0, 0, 0, 0, last])
}

pub(super) fn scope(desired: &KernelState) -> Scope {
    Scope::new(desired, net("100.96.0.0/16"), net("100.96.1.0/24"))
}

pub(super) fn vxlan_link() -> Link {
    Link {
        kind: LinkKind::Vxlan {
            vni: 1,
            port: 8472,
            local: ip("192.168.5.1"),
            underlay: "eth0".to_owned(),
            learning: false,
            gbp: false,
        },
        mac: Some(mac(1)),
        mtu: 1450,
        up: true,
        marked: true,
    }
}

pub(super) fn bridge_link() -> Link {
    Link {
        kind: LinkKind::Bridge,
        mac: Some(mac(0xb0)),
        mtu: 1450,
        up: true,
        marked: true,
    }
}

pub(super) fn tun_link() -> Link {
    Link {
        kind: LinkKind::Tun,
        mac: None,
        mtu: 1472,
        up: true,
        marked: true,
    }
}

pub(super) fn address(link: &str, address: &str) -> Address {
    Address {
        link: link.into(),
        address: net(address),
    }
}

pub(super) fn neighbour(link: &str, address: &str) -> Neighbour {
    Neighbour {
        link: link.into(),
        address: ip(address),
    }
}

pub(super) fn fdb(link: &str, mac: Mac) -> FdbEntry {
    FdbEntry {
        link: link.into(),
        mac,
    }
}

pub(super) fn key(destination: &str) -> RouteKey {
    RouteKey {
        destination: net(destination),
        metric: 0,
    }
}

/// A route by a gateway, as host-gw makes it.
pub(super) fn via(gateway: &str, link: &str) -> Route {
    Route {
        nexthop: None,
        link: link.into(),
        gateway: Some(ip(gateway)),
        onlink: false,
        source: None,
        protocol: PROTOCOL,
    }
}

pub(super) fn nexthop(gateway: &str, link: &str) -> Nexthop {
    Nexthop {
        link: link.into(),
        gateway: ip(gateway),
        onlink: true,
    }
}

pub(super) fn onlink(gateway: &str, link: &str) -> Route {
    Route {
        nexthop: None,
        onlink: true,
        ..via(gateway, link)
    }
}

/// A vxlan node with the peer 100.96.2.0/24.
pub(super) fn vxlan() -> KernelState {
    let mut state = KernelState::default();
    state.links.insert("flannel.1".to_owned(), vxlan_link());
    state
        .addresses
        .insert(address("flannel.1", "100.96.1.0/32"));
    add_peer(&mut state, 2);
    state
}

/// Adds the vxlan peer 100.96.n.0/24.
pub(super) fn add_peer(state: &mut KernelState, n: u8) {
    let base = format!("100.96.{n}.0");
    let row = neighbour("flannel.1", &base);
    state.neighbours.insert(row, mac(n));
    let to = Ipv4Addr::new(192, 168, 5, n);
    state.fdb.insert(fdb("flannel.1", mac(n)), to);
    let route = onlink(&base, "flannel.1");
    state.routes.insert(key(&format!("{base}/24")), route);
}

/// A host-gw node with the peer 100.96.2.0/24.
pub(super) fn host_gw() -> KernelState {
    let mut state = KernelState::default();
    let route = via("192.168.5.2", "eth0");
    state.routes.insert(key("100.96.2.0/24"), route);
    state
}

/// A udp node.
pub(super) fn udp() -> KernelState {
    let mut state = KernelState::default();
    state.links.insert("flannel0".to_owned(), tun_link());
    state.addresses.insert(address("flannel0", "100.96.1.0/32"));
    let route = Route {
        nexthop: None,
        link: "flannel0".into(),
        gateway: None,
        onlink: false,
        source: Some(ip("100.96.1.0")),
        protocol: PROTOCOL,
    };
    state.routes.insert(key("100.96.0.0/16"), route);
    state
}

/// A node that manages its containers' bridge.
pub(super) fn bridge() -> KernelState {
    let mut state = KernelState::default();
    state.links.insert("docker0".to_owned(), bridge_link());
    state.addresses.insert(address("docker0", "100.96.1.1/24"));
    state
}

/// Adds vxlan peers 100.96.10.0/24, 100.96.11.0/24 and so on.
pub(super) fn add_many_peers(state: &mut KernelState, count: u32) {
    for n in 0..count {
        let base = Ipv4Addr::from(0x6460_0000 + ((n + 10) << 8)).to_string();
        let [a, b, c, d] = n.to_be_bytes();
        let mac = Mac::local([0, 1, a, b, c, d]);
        let row = neighbour("flannel.1", &base);
        state.neighbours.insert(row, mac);
        let to = Ipv4Addr::from(0x0a00_0001 + n);
        state.fdb.insert(fdb("flannel.1", mac), to);
        let route = onlink(&base, "flannel.1");
        state.routes.insert(key(&format!("{base}/24")), route);
    }
}

/// A rule for packets from this network.
pub(super) fn rule(verdict: Verdict, from: &str) -> Rule {
    Rule {
        matches: vec![Match::Source(Is::In, net(from))],
        counted: false,
        verdict,
        comment: MARK.to_owned(),
    }
}

pub(super) fn hosts(last: &[u8]) -> Set {
    let host = |last: &u8| Ipv4Addr::new(192, 168, 5, *last);
    Set::Hosts(last.iter().map(host).collect())
}

/// A packet filter with one chain, one set and passes wherever they may be.
pub(super) fn firewall() -> Firewall {
    let chain = Chain {
        hook: Hook::Input,
        priority: -10,
        rules: vec![rule(Verdict::Drop, "203.0.113.0/24")],
    };
    let table = Table {
        sets: [("peers".to_owned(), hosts(&[2, 3]))].into(),
        chains: [("input".to_owned(), chain)].into(),
    };
    let pass = |chain| (chain, vec![rule(Verdict::Accept, "100.96.0.0/16")]);
    Firewall {
        table: Some(table),
        passes: ForeignChain::ALL.map(pass).into(),
        ..Firewall::default()
    }
}

/// Something on a bridge, with the MTU that it should have.
pub(super) fn port_of(bridge: &str) -> Port {
    let bridge = bridge.to_owned();
    Port { bridge, mtu: 1450 }
}
