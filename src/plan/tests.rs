use std::net::SocketAddrV4;

use super::*;
use crate::kernel::firewall::Wishes;
use crate::kernel::state::{Address, FdbEntry, Link, LinkKind, Neighbour, Route, RouteKey};

mod docker;
mod firewall;
mod leases;

const MACS: [Mac; 3] = [
    Mac::new([2, 0, 0, 0, 0, 1]),
    Mac::new([2, 0, 0, 0, 0, 2]),
    Mac::new([2, 0, 0, 0, 0, 3]),
];

/// node1 of the documents' lab: 192.168.1.47 has 100.96.1.0/24.
fn node(backend: &str) -> Node {
    let json = format!(r#"{{"Network":"100.96.0.0/16","Backend":{backend}}}"#);
    let network = Network::from_json(&json).unwrap();
    let uplink = Uplink {
        name: "eth0".into(),
        mtu: 1500,
        address: "192.168.1.47".parse().unwrap(),
        public_ip: "192.168.1.47".parse().unwrap(),
        networks: vec!["192.168.1.0/24".parse().unwrap()],
    };
    let lease = Lease {
        subnet: Subnet::from_key("100.96.1.0-24").unwrap(),
        attrs: attrs(&network, &uplink, MACS[0]),
    };
    Node {
        network,
        lease,
        uplink,
        bridge: Some("docker0".into()),
        subnet_env: "/run/flannel/subnet.env".into(),
        docker_env: "/run/flannel/docker.env".into(),
        daemon_json: None,
        firewall: Wishes::default(),
        repair: false,
        tuning: Tuning::default(),
    }
}

fn peer(node: &Node, key: &str, ip: &str, mac: Mac) -> Lease {
    let uplink = Uplink {
        public_ip: ip.parse().unwrap(),
        ..node.uplink.clone()
    };
    Lease {
        subnet: Subnet::from_key(key).unwrap(),
        attrs: attrs(&node.network, &uplink, mac),
    }
}

/// node2 on the same link, node3 behind a router.
fn peers(node: &Node) -> Vec<Lease> {
    vec![
        peer(node, "100.96.2.0-24", "192.168.1.48", MACS[1]),
        peer(node, "100.96.3.0-24", "192.168.2.49", MACS[2]),
    ]
}

fn made(backend: &str) -> Plan {
    let node = node(backend);
    plan(&node, &peers(&node))
}

fn paths(plan: &Plan) -> Vec<Path> {
    plan.paths.values().cloned().collect()
}

fn route(plan: &Plan, destination: &str) -> Option<Route> {
    let key = RouteKey {
        destination: destination.parse().unwrap(),
        metric: 0,
    };
    plan.kernel.routes.get(&key).cloned()
}

fn address(link: &str, cidr: &str) -> Address {
    Address {
        link: link.into(),
        address: cidr.parse().unwrap(),
    }
}

#[test]
fn vxlan_makes_a_device_and_three_rows_for_each_peer() {
    let plan = made(r#"{"Type":"vxlan"}"#);
    let device = Link {
        kind: LinkKind::Vxlan {
            vni: 1,
            port: 8472,
            local: "192.168.1.47".parse().unwrap(),
            underlay: "eth0".into(),
            learning: false,
            gbp: false,
        },
        mac: Some(MACS[0]),
        mtu: 1450,
        up: true,
        marked: true,
    };
    assert_eq!(plan.kernel.links["flannel.1"], device);
    let device_address = address("flannel.1", "100.96.1.0/32");
    assert!(plan.kernel.addresses.contains(&device_address));
    let link = || "flannel.1".into();
    let base = "100.96.2.0".parse().unwrap();
    let neighbour = Neighbour {
        link: link(),
        address: base,
    };
    assert_eq!(plan.kernel.neighbours[&neighbour], MACS[1]);
    let entry = FdbEntry {
        link: link(),
        mac: MACS[1],
    };
    assert_eq!(plan.kernel.fdb[&entry].to_string(), "192.168.1.48");
    let expected = Route {
        nexthop: None,
        link: link(),
        gateway: Some(base),
        onlink: true,
        source: None,
        protocol: 96,
    };
    assert_eq!(route(&plan, "100.96.2.0/24"), Some(expected));
    assert_eq!(paths(&plan), [Path::Tunnel, Path::Tunnel]);
    assert_eq!((plan.kernel.routes.len(), plan.kernel.fdb.len()), (2, 2));
}

#[test]
fn vxlan_options_reach_the_device() {
    let plan =
        made(r#"{"Type":"vxlan","VNI":7,"Port":4789,"MTU":1400,"GBP":true,"Learning":true}"#);
    let device = &plan.kernel.links["flannel.7"];
    let LinkKind::Vxlan {
        vni,
        port,
        learning,
        gbp,
        ..
    } = device.kind
    else {
        panic!("{device:?}")
    };
    assert_eq!(
        (vni, port, learning, gbp, device.mtu),
        (7, 4789, true, true, 1350)
    );
}

#[test]
fn direct_routing_takes_the_shared_link_and_the_tunnel_elsewhere() {
    let plan = made(r#"{"Type":"vxlan","DirectRouting":true}"#);
    assert_eq!(paths(&plan), [Path::Direct, Path::Tunnel]);
    assert_eq!(route(&plan, "100.96.2.0/24").unwrap().link.as_ref(), "eth0");
    assert_eq!(
        route(&plan, "100.96.3.0/24").unwrap().link.as_ref(),
        "flannel.1"
    );
    assert_eq!(
        (plan.kernel.fdb.len(), plan.kernel.neighbours.len()),
        (1, 1)
    );
}

#[test]
fn host_gw_routes_by_way_of_the_peer_and_says_why_it_cannot() {
    let plan = made(r#"{"Type":"host-gw"}"#);
    let expected = Route {
        nexthop: None,
        link: "eth0".into(),
        gateway: Some("192.168.1.48".parse().unwrap()),
        onlink: false,
        source: None,
        protocol: 96,
    };
    assert_eq!(route(&plan, "100.96.2.0/24"), Some(expected));
    assert_eq!(route(&plan, "100.96.3.0/24"), None);
    let Path::None(obstacle) = &paths(&plan)[1] else {
        panic!()
    };
    let text = obstacle.to_string();
    assert!(
        text.starts_with("192.168.2.49 is behind a router as seen from eth0"),
        "{text}"
    );
    assert_eq!(plan.kernel.links.keys().collect::<Vec<_>>(), ["docker0"]);
}

#[test]
fn host_gw_objects_to_nat() {
    let mut node = node(r#"{"Type":"host-gw"}"#);
    assert_eq!(plan(&node, &[]).objection, None);
    node.uplink.public_ip = "203.0.113.7".parse().unwrap();
    assert!(plan(&node, &[]).objection.unwrap().contains("203.0.113.7"));
}

#[test]
fn udp_makes_one_route_and_a_table() {
    let plan = made(r#"{"Type":"udp"}"#);
    let base: Ipv4Addr = "100.96.1.0".parse().unwrap();
    let expected = Route {
        nexthop: None,
        link: "flannel0".into(),
        gateway: None,
        onlink: false,
        source: Some(base),
        protocol: 96,
    };
    assert_eq!(route(&plan, "100.96.0.0/16"), Some(expected));
    assert_eq!(plan.kernel.routes.len(), 1);
    let device = &plan.kernel.links["flannel0"];
    assert_eq!((&device.kind, device.mtu), (&LinkKind::Tun, 1472));
    let proxy = plan.proxy.unwrap();
    let settings = Settings {
        device: "flannel0".into(),
        mtu: 1472,
        bind: SocketAddrV4::new("192.168.1.47".parse().unwrap(), 8285),
        verify: Some("100.96.0.0/16".parse().unwrap()),
        tuning: Tuning::default(),
    };
    assert_eq!(proxy.settings, settings);
    let table = Table::new([
        (
            "100.96.2.0/24".parse().unwrap(),
            "192.168.1.48".parse().unwrap(),
        ),
        (
            "100.96.3.0/24".parse().unwrap(),
            "192.168.2.49".parse().unwrap(),
        ),
    ]);
    assert_eq!(proxy.table, table);
}

#[test]
fn the_bridge_and_the_files_carry_the_first_address_and_the_mtu() {
    let plan = made(r#"{"Type":"vxlan"}"#);
    let bridge = &plan.kernel.links["docker0"];
    assert_eq!((&bridge.kind, bridge.mtu), (&LinkKind::Bridge, 1450));
    let gateway = address("docker0", "100.96.1.1/24");
    assert!(plan.kernel.addresses.contains(&gateway));
    assert_eq!(
        plan.files[std::path::Path::new("/run/flannel/subnet.env")],
        "FLANNEL_NETWORK=100.96.0.0/16\nFLANNEL_SUBNET=100.96.1.1/24\nFLANNEL_MTU=1450\n\
         FLANNEL_IPMASQ=true\n"
    );
    assert_eq!(
        plan.files[std::path::Path::new("/run/flannel/docker.env")],
        "DOCKER_OPT_BIP=\"--bip=100.96.1.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=false\"\n\
         DOCKER_OPT_MTU=\"--mtu=1450\"\n\
         DOCKER_OPTS=\" --bip=100.96.1.1/24 --ip-masq=false --mtu=1450\"\n"
    );
}

#[test]
fn a_bridge_that_is_not_ours_to_manage_is_not_planned() {
    let node = Node {
        bridge: None,
        ..node(r#"{"Type":"host-gw"}"#)
    };
    assert!(plan(&node, &[]).kernel.links.is_empty());
}

#[test]
fn a_vtep_mac_depends_on_node_and_vni_alone() {
    let mac = vtep_mac("a", 1);
    assert_eq!(mac, vtep_mac("a", 1));
    assert!(mac != vtep_mac("a", 2) && mac != vtep_mac("b", 1));
    assert_eq!(mac.bytes()[0] & 3, 2);
}

#[test]
fn an_earlier_subnet_env_tells_the_subnet() {
    for (text, want) in [
        (
            "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\n",
            Some("10.5.52.0-24"),
        ),
        (
            "export FLANNEL_SUBNET=\"10.5.52.1/24\" # mine",
            Some("10.5.52.0-24"),
        ),
        ("FLANNEL_SUBNET=bad,10.5.52.1/24", Some("10.5.52.0-24")),
        ("FLANNEL_SUBNET=10.5.52.1/24,10.5.53.1/24", None),
        ("FLANNEL_SUBNET=10.5.52.1/33", None),
        ("#FLANNEL_SUBNET=10.5.52.1/24", None),
        ("", None),
    ] {
        let want = want.map(|key| Subnet::from_key(key).unwrap());
        assert_eq!(previous_subnet(text), want, "{text:?}");
    }
}

#[test]
fn the_footprint_is_what_others_must_leave_alone_or_let_through() {
    for (backend, link, port) in [
        (r#"{"Type":"host-gw"}"#, None, None),
        (r#"{"Type":"vxlan"}"#, Some("flannel.1"), Some(8472)),
        (
            r#"{"Type":"vxlan","VNI":7,"Port":4789}"#,
            Some("flannel.7"),
            Some(4789),
        ),
        (r#"{"Type":"udp"}"#, Some("flannel0"), Some(8285)),
    ] {
        let mut node = node(backend);
        let footprint = plan(&node, &peers(&node)).footprint;
        let links: Vec<_> = footprint.links.iter().map(String::as_str).collect();
        let expected: Vec<_> = ["docker0"].into_iter().chain(link).collect();
        assert_eq!(links, expected, "{backend}");
        assert_eq!(footprint.network, Some(node.network.net), "{backend}");
        let tunnel = footprint.tunnel;
        let found = tunnel.as_ref().map(|tunnel| tunnel.port);
        assert_eq!(found, port, "{backend}");
        assert!(tunnel.is_none_or(|tunnel| tunnel.uplink == "eth0"));

        node.bridge = None;
        node.firewall.forward = false;
        let footprint = plan(&node, &peers(&node)).footprint;
        assert!(!footprint.links.contains("docker0"), "{backend}");
        assert_eq!(footprint.network, None, "{backend}");
    }
}
