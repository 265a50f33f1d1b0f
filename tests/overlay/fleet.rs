//! A fleet that is declared in the config: three nodes, no server.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::lab::{ETCD, Lab, Shape};
use crate::support::node::Node;
use crate::support::process::{Pings, until};

/// Addresses and subnets of the documents.
const PLACES: [(u32, &str, &str); 3] = [
    (1, "192.168.1.47", "100.96.1.0/24"),
    (2, "192.168.1.48", "100.96.2.0/24"),
    (3, "192.168.1.49", "100.96.3.0/24"),
];

fn network(backend: &str) -> String {
    format!("[network]\nnetwork = \"100.96.0.0/16\"\nbackend = {{ type = \"{backend}\" }}\n")
}

/// The tables that declare these nodes.
fn fleet(backend: &str, places: &[(u32, &str, &str)]) -> String {
    let nodes: String = places
        .iter()
        .map(|(number, address, subnet)| {
            format!("node{number} = {{ public-ip = \"{address}\", subnet = \"{subnet}\" }}\n")
        })
        .collect();
    let network = network(backend);
    format!("[datastore]\ntype = \"static\"\n[datastore.nodes]\n{nodes}{network}")
}

fn node_table(node: &Node) -> String {
    format!("[node]\nname = \"node{}\"\n", node.number)
}

fn declare(node: &Node, tables: &str) {
    node.write_config_with_store(&node_table(node), tables);
}

fn reload(node: &Node, tables: &str) {
    declare(node, tables);
    node.signal(Signal::SIGHUP);
}

/// The first three nodes, all with the same list.
fn start_all(lab: &Lab, backend: &str) -> [Node; 3] {
    let mut nodes = [1, 2, 3].map(|number| lab.bare_node(number));
    for node in &mut nodes {
        declare(node, &fleet(backend, &PLACES));
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    lab.wait_until_connected();
    nodes
}

fn keys(nodes: &[Node; 3]) -> [String; 3] {
    nodes.each_ref().map(Node::subnet_key)
}

const KEYS: [&str; 3] = ["100.96.1.0-24", "100.96.2.0-24", "100.96.3.0-24"];

fn is_well(node: &mut Node) {
    assert!(node.is_running());
    node.wait_for_status("2 of 2 peers");
    let log = node.log();
    let mut complaints =
        (log.lines()).filter(|line| line.contains("WARN") || line.contains("ERROR"));
    assert_eq!(complaints.find(|line| !line.contains("D-Bus")), None);
}

fn joins(backend: &str) {
    let Some(lab) = Lab::new(Shape::Flat) else {
        return;
    };
    let mut nodes = start_all(&lab, backend);
    assert_eq!(keys(&nodes), KEYS);
    let pings = [(1, 2), (2, 3)].map(|(from, to)| lab.ping(from, to));
    nodes.iter_mut().for_each(is_well);
    let rows = nodes[0].rows();
    let config = nodes[0].config();
    let plan = nodes[0].program(&["plan", "--config", config.to_str().unwrap()]);
    assert_eq!(plan, (Some(0), String::new(), String::new()));
    for tally in pings.map(Pings::finish) {
        assert_eq!(tally.lost, [0; 0], "of {}", tally.sent);
    }

    assert_eq!(nodes[0].stop(), Some(0));
    if nodes[0].start_bus() {
        nodes[0].start();
        nodes[0].wait_until_ready();
        let status = nodes[0].status();
        assert_eq!(status["state"], "running", "{status}");
        assert_eq!(status["faults"], serde_json::json!([]), "{status}");
        assert_eq!(status["lease_expires_usec"], serde_json::Value::Null);
        let (code, page, _) = nodes[0].program(&["status"]);
        assert_eq!(code, Some(0), "{page}");
        assert!(page.contains("reserved, never expires"), "{page}");
        assert!(page.contains("the fleet declared in the config"), "{page}");
        let (code, _, error) = nodes[0].program(&["renumber", "100.96.9.0/24"]);
        assert_eq!(code, Some(1), "{error}");
        assert!(
            error.contains("the fleet is declared in the config"),
            "{error}"
        );
        assert_eq!(nodes[0].rows(), rows);
    }
    nodes.iter_mut().for_each(is_well);
}

#[test]
fn vxlan_joins_a_fleet() {
    joins("vxlan");
}

#[test]
fn host_gw_joins_a_fleet() {
    joins("host-gw");
}

#[test]
fn udp_joins_a_fleet() {
    joins("udp");
}

/// One file for all hosts; a tunnel device of before gets the address that all others compute.
#[test]
fn each_host_finds_itself_by_its_host_name() {
    let Some(lab) = Lab::new(Shape::Flat) else {
        return;
    };
    let mut nodes = [1, 2].map(|number| lab.bare_node(number));
    nodes[0].must(
        "ip link add flannel.1 address 02:00:00:00:00:99 type vxlan id 1 local 192.168.1.47 \
         dev eth0 dstport 8472 nolearning",
    );
    for node in &mut nodes {
        node.write_config_with_store("", &fleet("vxlan", &PLACES));
        let number = node.number;
        node.start_after(&format!(
            "exec unshare --uts sh -ec 'echo node{number} >/proc/sys/kernel/hostname\n\
             exec \"$@\"' sh \"$@\""
        ));
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    until("the containers reach each other", || {
        lab.reaches(1, 2) && lab.reaches(2, 1)
    });
    let own = "cat /sys/class/net/flannel.1/address";
    let macs = nodes
        .each_ref()
        .map(|node| node.must(own).trim().to_owned());
    assert_ne!(macs[0], "02:00:00:00:00:99");
    let neighbour = |third, mac: &str| format!("100.96.{third}.0 lladdr {mac} PERMANENT");
    nodes[0].wait_for("ip neighbour show dev flannel.1", &neighbour(2, &macs[1]));
    nodes[1].wait_for("ip neighbour show dev flannel.1", &neighbour(1, &macs[0]));

    let mut stranger = lab.bare_node(3);
    stranger.write_config_with_store("", &fleet("vxlan", &PLACES));
    let config = stranger.config();
    let (code, _, error) = stranger.program(&["plan", "--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(78), "{error}");
    assert!(
        error.contains("which is not a node of the fleet"),
        "{error}"
    );
    assert!(error.contains("\"node1\", \"node2\", \"node3\""), "{error}");
    let checked = stranger.program(&["check", config.to_str().unwrap()]);
    assert_eq!(checked, (Some(0), String::new(), String::new()));
    declare(&stranger, &fleet("vxlan", &PLACES));
    stranger.start();
    stranger.wait_until_ready();
}

#[test]
fn a_reload_adds_changes_and_removes_nodes() {
    let Some(lab) = Lab::new(Shape::Flat) else {
        return;
    };
    let mut nodes = start_all(&lab, "vxlan");
    let before = nodes[0].rows();
    let pings = lab.ping(1, 2);
    let fourth = (4, "192.168.1.50", "100.96.4.0/24");
    let four = [&PLACES[..], &[fourth]].concat();
    nodes
        .iter()
        .for_each(|node| reload(node, &fleet("vxlan", &four)));
    for node in &nodes {
        node.wait_for_status("3 of 3 peers");
        node.wait_for("ip route", "100.96.4.0/24 via 100.96.4.0 dev flannel.1");
        node.wait_for("bridge fdb show dev flannel.1", "dst 192.168.1.50");
    }
    let moved = [&PLACES[..], &[(4, "192.168.1.51", "100.96.5.0/24")]].concat();
    reload(&nodes[0], &fleet("vxlan", &moved));
    nodes[0].wait_for("bridge fdb show dev flannel.1", "dst 192.168.1.51");
    nodes[0].wait_for_end("ip route", "100.96.4.0/24");
    reload(&nodes[0], &fleet("vxlan", &PLACES));
    nodes[0].wait_for_end("ip route", "100.96.5.0/24");
    until("all is as it was", || nodes[0].rows() == before);
    let tally = pings.finish();
    assert_eq!(tally.lost, [0; 0], "of {}", tally.sent);

    // the whole fleet changes its backend
    for node in &nodes {
        reload(node, &fleet("host-gw", &PLACES));
    }
    for node in &mut nodes {
        node.wait_for_status("host-gw, 2 of 2 peers");
        assert!(node.is_running());
    }
    lab.wait_until_connected();
}

#[test]
fn a_node_that_the_config_moves_or_forgets_stays_where_it_is() {
    let Some(lab) = Lab::new(Shape::Flat) else {
        return;
    };
    let mut nodes = start_all(&lab, "vxlan");
    let rows = nodes[0].rows();
    reload(&nodes[0], &fleet("vxlan", &PLACES[1..]));
    let line = nodes[0].wait_for_status("not a node of the fleet");
    assert!(line.contains("config"), "{line}");
    assert_eq!(nodes[0].rows(), rows);
    assert!(lab.reaches(1, 2));

    // the others still send to the subnet of before
    let elsewhere = [(1, "192.168.1.47", "100.96.9.0/24"), PLACES[1], PLACES[2]];
    reload(&nodes[0], &fleet("vxlan", &elsewhere));
    let line = nodes[0].wait_for_status("other-subnet");
    assert!(line.contains("flannel-rs renumber"), "{line}");
    assert_eq!(nodes[0].rows(), rows);
    assert!(lab.reaches(1, 2));
    assert_eq!(nodes[0].subnet_key(), "100.96.1.0-24");

    reload(&nodes[0], &fleet("vxlan", &PLACES));
    nodes[0].wait_for_status("datastore ok");
    reload(&nodes[0], &fleet("vxlan", &elsewhere));
    nodes[0].wait_for_status("other-subnet");
    assert_eq!(nodes[0].stop(), Some(0));
    let bus = nodes[0].start_bus();
    nodes[0].start();
    nodes[0].wait_until_ready();
    assert_eq!(nodes[0].subnet_key(), "100.96.9.0-24");
    nodes[0].wait_for("ip -4 address show docker0", "inet 100.96.9.1/24");
    nodes[0].wait_for_status("2 of 2 peers");

    reload(&nodes[0], &fleet("vxlan", &PLACES));
    nodes[0].wait_for_status("other-subnet");
    if bus {
        let (code, subnet, error) = nodes[0].program(&["renumber"]);
        assert_eq!(
            (code, subnet.contains("100.96.1.0/24")),
            (Some(0), true),
            "{error}"
        );
        nodes[0].wait_for("ip -4 address show docker0", "inet 100.96.1.1/24");
        nodes[0].wait_for_status("2 of 2 peers, reserved, datastore ok");
        until("all is as it was", || nodes[0].rows() == rows);
        lab.wait_until_connected();
    }
}

/// Restarts all nodes with other tables.
fn migrate(lab: &Lab, nodes: &mut [Node; 3], tables: &str) {
    for node in nodes.iter_mut() {
        assert_eq!(node.stop(), Some(0));
        declare(node, tables);
    }
    for node in nodes.iter_mut() {
        node.start();
    }
    for node in nodes.iter_mut() {
        node.wait_until_ready();
    }
    lab.wait_until_connected();
}

/// To etcd and back, with or without a reboot in between, which leaves the state folder alone.
fn keeps_every_subnet(backend: &str, forget: impl Fn(&Node)) {
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    let mut nodes = start_all(&lab, backend);
    lab.start_etcd();
    nodes.iter().for_each(forget);
    let network = network(backend);
    let etcd = format!("[datastore]\nendpoints = [\"{ETCD}\"]\n{network}");
    migrate(&lab, &mut nodes, &etcd);
    assert_eq!(keys(&nodes), KEYS);
    assert_eq!(lab.leases(), KEYS);
    for (number, address, _) in PLACES {
        let lease = lab.lease(&format!("100.96.{number}.0-24")).unwrap();
        assert!(lease.value.contains(&format!("\"{address}\"")), "{lease:?}");
        assert!(lease.ttl.is_some(), "{lease:?}");
    }
    nodes.iter_mut().for_each(is_well);

    migrate(&lab, &mut nodes, &fleet(backend, &PLACES));
    lab.kill_etcd();
    assert_eq!(keys(&nodes), KEYS);
    nodes.iter_mut().for_each(is_well);
}

#[test]
fn a_fleet_with_vxlan_moves_to_etcd_and_back() {
    keeps_every_subnet("vxlan", |node| {
        fs::remove_file(node.folder().join("subnet.env")).unwrap();
    });
}

#[test]
fn a_fleet_with_host_gw_moves_to_etcd_and_back() {
    keeps_every_subnet("host-gw", |_| {});
}

/// Two names for one thing, found before anything is touched.
#[test]
fn what_two_nodes_have_in_common_stops_the_start() {
    let Some(lab) = Lab::new(Shape::Flat) else {
        return;
    };
    let node = lab.bare_node(1);
    declare(
        &node,
        &fleet("vxlan", &[PLACES[0], (2, "192.168.1.48", "100.96.1.0/24")]),
    );
    let mut service = node.command().spawn().unwrap();
    assert_eq!(service.wait().unwrap().code(), Some(78));
    let log = node.log();
    assert!(log.contains("of \"node2\" and of \"node1\""), "{log}");
    assert!(!node.shown("ip link").contains("flannel"));
}
