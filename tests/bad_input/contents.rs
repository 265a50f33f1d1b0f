//! The network config is missing or malformed, or has no room for us.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;
use crate::{CONFIG_PLACE, PEER, VXLAN};

#[test]
fn it_waits_for_the_network_config() {
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    lab.start_etcd();
    let mut node = lab.node(1);
    node.start();
    node.wait_for_status(&format!(
        "waiting; network-config: there is no network config {CONFIG_PLACE}: put one there, or \
         add [network] to this node's config"
    ));
    lab.set_backend(VXLAN);
    node.wait_until_ready();
}

#[test]
fn the_first_node_brings_the_network_config_and_no_other_changes_it() {
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    lab.start_etcd();
    let mut nodes = [1, 2].map(|number| lab.node(number));
    for (node, network) in nodes.iter_mut().zip(["10.77.0.0/16", "10.88.0.0/16"]) {
        node.write_config(&format!(
            "[network]\nnetwork = \"{network}\"\n[network.backend]\ntype = \"vxlan\"\n"
        ));
        node.start();
        node.wait_until_ready();
        assert!(node.subnet_env().contains("FLANNEL_NETWORK=10.77.0.0/16\n"));
    }
    let config = lab.etcdctl(&["get", "/coreos.com/network/config", "--print-value-only"]);
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["Network"], "10.77.0.0/16");
}

#[test]
fn a_malformed_network_config_is_named_until_it_is_right() {
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    lab.start_etcd();
    let mut node = lab.node(1);
    node.start();
    let wrong = [
        (
            "hello",
            "not a JSON object: expected value at line 1 column 1",
        ),
        (
            r#"{"Backend":{"Type":"vxlan"}}"#,
            "Network is missing: expected an IPv4 network such as \"100.96.0.0/16\"",
        ),
        (
            r#"{"Network":"100.96.0.0/16","SubnetLen":"x"}"#,
            "SubnetLen = \"x\": expected a prefix length, 0 to 30",
        ),
        (
            r#"{"Network":"100.96.0.0/16","SubnetLen":15}"#,
            "SubnetLen = 15: expected 18 to 30 for the network 100.96.0.0/16",
        ),
        (
            r#"{"Network":"100.96.0.0/16","SubnetMin":"10.0.0.0"}"#,
            "SubnetMin = 10.0.0.0: outside of the network 100.96.0.0/16",
        ),
        (
            r#"{"Network":"100.96.0.0/16","Backend":{"Type":"ipip"}}"#,
            "the backend \"ipip\" is not supported by flannel-rs: it does host-gw, vxlan and udp",
        ),
        (
            r#"{"Network":"100.96.0.0/16","EnableIPv6":true,"Backend":{"Type":"vxlan"}}"#,
            "EnableIPv6 = true is not supported by flannel-rs: it leases IPv4 subnets only",
        ),
        (
            r#"{"Network":"100.96.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}"#,
            "VNI = 16777216: expected a VXLAN network identifier, 0 to 16777215",
        ),
    ];
    for (json, reason) in wrong {
        lab.configure(json);
        let line = node.wait_for_status(reason);
        assert_eq!(
            line,
            format!("waiting; network-config: the network config {CONFIG_PLACE}: {reason}")
        );
    }
    assert!(node.is_running());
    lab.set_backend(VXLAN);
    node.wait_until_ready();
    node.wait_for_status("datastore ok");
}

#[test]
fn a_network_config_that_becomes_malformed_changes_nothing() {
    let Some((lab, nodes)) = two_nodes() else {
        return;
    };
    let rows = nodes.each_ref().map(Node::rows);
    let pings = lab.ping(1, 2);
    lab.configure(r#"{"Network":"100.96.0.0/16","Backend":{"Type":"vxlan","VNI":"one"}}"#);
    for node in &nodes {
        node.wait_for_status(&format!(
            "1 of 1 peers, lease 23h59m, network-config: the network config {CONFIG_PLACE}: VNI = \
             \"one\": expected a VXLAN network identifier, 0 to 16777215; the one before stays in \
             force"
        ));
    }
    lab.etcdctl(&["del", "/coreos.com/network/config"]);
    thread::sleep(Duration::from_millis(600));
    assert_eq!(nodes.each_ref().map(Node::rows), rows);
    lab.set_backend(VXLAN);
    for node in &nodes {
        node.wait_for_status("datastore ok");
    }
    let tally = pings.finish();
    assert!(tally.lost.is_empty() && tally.sent >= 30, "{tally:?}");
}

#[test]
fn a_wish_that_cannot_be_granted_is_told() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    lab.write_lease("100.96.1.0-24", PEER, false);
    let mut nodes = [1, 2].map(|number| lab.node(number));
    nodes[1].write_config("[node]\nsubnet = \"10.1.2.0/24\"\n");
    for (node, reason) in nodes.iter_mut().zip([
        "asks for 100.96.1.0/24, which 192.168.1.60 has; holding 100.96.",
        "asks for 10.1.2.0/24, for which 100.96.0.0/16 has no place; holding 100.96.",
    ]) {
        node.start();
        node.wait_until_ready();
        node.wait_for_status(&format!("other-subnet: node.subnet {reason}"));
    }
}

/// Two nodes, ready, with a container each.
fn two_nodes() -> Option<(Lab, [Node; 2])> {
    let lab = Lab::with_backend(Shape::Flat, VXLAN)?;
    let mut nodes = [1, 2].map(|number| lab.node(number));
    for node in &mut nodes {
        node.start();
        node.wait_until_ready();
        lab.container(node);
    }
    until("container 1 reaches container 2", || lab.reaches(1, 2));
    until("container 2 reaches container 1", || lab.reaches(2, 1));
    for node in &nodes {
        node.wait_for_status("1 of 1 peers");
    }
    Some((lab, nodes))
}
