//! Three nodes join: every container reaches every other, and kernel, files and etcd show what
//! the documents show.

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;

/// A day, the time that flanneld's leases live, in seconds.
const DAY: i64 = 24 * 3600;

/// Each line of what a command prints on the node must have all of these words in this order.
fn has_line(node: &Node, command: &str, words: &str) {
    let output = node.shown(command);
    let has = |line: &str| {
        let mut rest = line.split_whitespace();
        words
            .split_whitespace()
            .all(|word| rest.any(|other| other == word))
    };
    assert!(
        output.lines().any(has),
        "{command}: no line with {words:?} in\n{output}"
    );
}

/// The Ethernet address of the node's link.
fn mac(node: &Node, link: &str) -> String {
    node.must(&format!("cat /sys/class/net/{link}/address"))
        .trim()
        .to_owned()
}

fn address(number: u32) -> String {
    format!("192.168.1.{}", 46 + number)
}

fn has_lease(lab: &Lab, number: u32, value: &str) {
    let entry = lab
        .lease(&format!("100.96.{number}.0-24"))
        .expect("a lease of the node");
    assert_eq!(entry.value, value);
    let ttl = entry.ttl.expect("an expiry");
    assert!((DAY - 120..=DAY).contains(&ttl), "lives for {ttl} s");
}

fn has_files(node: &Node, mtu: u32) {
    let gateway = format!("100.96.{}.1/24", node.number);
    let expected = format!(
        "FLANNEL_NETWORK=100.96.0.0/16\nFLANNEL_SUBNET={gateway}\nFLANNEL_MTU={mtu}\n\
         FLANNEL_IPMASQ=true\n"
    );
    assert_eq!(node.subnet_env(), expected);
    let expected = format!(
        "DOCKER_OPT_BIP=\"--bip={gateway}\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=false\"\n\
         DOCKER_OPT_MTU=\"--mtu={mtu}\"\n\
         DOCKER_OPTS=\" --bip={gateway} --ip-masq=false --mtu={mtu}\"\n"
    );
    assert_eq!(node.file("docker.env"), expected);
    let docker0 = format!(
        "100.96.{0}.0/24 dev docker0 proto kernel scope link src 100.96.{0}.1",
        node.number
    );
    has_line(node, "ip route", &docker0);
    has_line(node, "ip link show docker0", &format!("docker0: mtu {mtu}"));
}

#[test]
fn vxlan_joins_three_nodes() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let macs: Vec<String> = nodes.iter().map(|node| mac(node, "flannel.1")).collect();
    for node in &nodes {
        let own = &macs[node.number as usize - 1];
        has_files(node, 1450);
        let (public_ip, base) = (address(node.number), format!("100.96.{}.0/32", node.number));
        let value = format!(
            r#"{{"PublicIP":"{public_ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{own}"}}}}"#
        );
        has_lease(&lab, node.number, &value);
        let device = format!("vxlan id 1 local {public_ip} dev eth0 dstport 8472 nolearning");
        has_line(
            node,
            "ip -d -o link show flannel.1",
            &format!("mtu 1450 {device}"),
        );
        has_line(
            node,
            "ip -4 -o address show flannel.1",
            &format!("inet {base}"),
        );
        for peer in nodes.iter().filter(|peer| peer.number != node.number) {
            let (n, mac) = (peer.number, &macs[peer.number as usize - 1]);
            let route = format!("100.96.{n}.0/24 via 100.96.{n}.0 dev flannel.1 onlink");
            has_line(node, "ip route", &route);
            let neighbour = format!("100.96.{n}.0 lladdr {mac} PERMANENT");
            has_line(node, "ip neighbour show dev flannel.1", &neighbour);
            let entry = format!("{mac} dst {} self permanent", address(n));
            has_line(node, "bridge fdb show dev flannel.1", &entry);
        }
    }
    assert_eq!(
        lab.leases(),
        ["100.96.1.0-24", "100.96.2.0-24", "100.96.3.0-24"]
    );
}

#[test]
fn host_gw_joins_three_nodes() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"host-gw"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    for node in &nodes {
        has_files(node, 1500);
        let public_ip = address(node.number);
        let value =
            format!(r#"{{"PublicIP":"{public_ip}","PublicIPv6":null,"BackendType":"host-gw"}}"#);
        has_lease(&lab, node.number, &value);
        for peer in nodes.iter().filter(|peer| peer.number != node.number) {
            let route = format!(
                "100.96.{}.0/24 via {} dev eth0",
                peer.number,
                address(peer.number)
            );
            has_line(node, "ip route", &route);
        }
    }
}

#[test]
fn udp_joins_three_nodes() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"udp"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    for node in &nodes {
        has_files(node, 1472);
        let public_ip = address(node.number);
        has_lease(
            &lab,
            node.number,
            &format!(r#"{{"PublicIP":"{public_ip}","PublicIPv6":null}}"#),
        );
        let route = format!(
            "100.96.0.0/16 dev flannel0 scope link src 100.96.{}.0",
            node.number
        );
        has_line(node, "ip route", &route);
        let base = format!("inet 100.96.{}.0/32", node.number);
        has_line(node, "ip -4 -o address show flannel0", &base);
        has_line(
            node,
            "ip -d -o link show flannel0",
            "mtu 1472 tun type tun persist on",
        );
        has_line(node, "ss -Huln", &format!("{public_ip}:8285"));
    }
}

#[test]
fn vxlan_crosses_a_router() {
    let Some(lab) = Lab::with_backend(Shape::Routed, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let entry = "dst 192.168.2.49 self permanent";
    has_line(&nodes[0], "bridge fdb show dev flannel.1", entry);
}

#[test]
fn udp_crosses_a_router() {
    let Some(lab) = Lab::with_backend(Shape::Routed, r#"{"Type":"udp"}"#) else {
        return;
    };
    let _nodes = lab.start_all();
    lab.wait_until_connected();
}

#[test]
fn host_gw_does_not_cross_a_router_and_says_so() {
    let Some(lab) = Lab::with_backend(Shape::Routed, r#"{"Type":"host-gw"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    nodes[0].wait_for("ip route", "100.96.2.0/24 via 192.168.1.48 dev eth0");
    nodes[1].wait_for("ip route", "100.96.1.0/24 via 192.168.1.47 dev eth0");
    assert!(lab.reaches(1, 2) && lab.reaches(2, 1));
    let reason = "192.168.2.49 is behind a router as seen from eth0, and host-gw needs all nodes \
                  on one link; use vxlan or udp";
    let line = nodes[0].wait_for_status(reason);
    assert!(line.contains("1 of 2 peers"), "{line}");
    assert!(nodes[0].log().contains(reason));
    let routes = nodes[0].shown("ip route");
    assert!(!routes.contains("100.96.3.0/24"), "{routes}");
    nodes[2].wait_for_status("0 of 2 peers");
}

#[test]
fn direct_routing_takes_the_tunnel_only_where_it_must() {
    let backend = r#"{"Type":"vxlan","DirectRouting":true}"#;
    let Some(lab) = Lab::with_backend(Shape::Routed, backend) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    has_line(
        &nodes[0],
        "ip route",
        "100.96.2.0/24 via 192.168.1.48 dev eth0",
    );
    has_line(
        &nodes[0],
        "ip route",
        "100.96.3.0/24 via 100.96.3.0 dev flannel.1 onlink",
    );
    for peer in ["100.96.1.0/24", "100.96.2.0/24"] {
        has_line(
            &nodes[2],
            "ip route",
            &format!("{peer} dev flannel.1 onlink"),
        );
    }
}
