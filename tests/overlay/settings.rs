//! Settings change while the service runs: those of the network, in etcd, and the node's own.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// What each backend leaves no trace of once another is in force.
fn is_swept(node: &Node, backend: &str) {
    let links = node.shown("ip -br link");
    let routes = node.shown("ip route");
    let traces: &[&str] = match backend {
        "vxlan" => &["flannel0", "via 192.168.1.4", "100.96.0.0/16"],
        "host-gw" => &["flannel.", "flannel0", "100.96.0.0/16"],
        _ => &["flannel.", "via 192.168.1.4", "via 100.96."],
    };
    for trace in traces {
        assert!(
            !links.contains(trace) && !routes.contains(trace),
            "{trace}:\n{links}{routes}"
        );
    }
}

#[test]
fn another_backend_takes_over_while_all_nodes_run() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut nodes = lab.start_all();
    lab.wait_until_connected();
    let first = nodes[0].rows();
    let leases = lab.leases();
    for (backend, mtu) in [("host-gw", 1500), ("udp", 1472), ("vxlan", 1450)] {
        lab.set_backend(&format!(r#"{{"Type":"{backend}"}}"#));
        for node in &nodes {
            node.wait_for_status(&format!("{backend}, 2 of 2 peers"));
        }
        lab.wait_until_connected();
        for node in &nodes {
            is_swept(node, backend);
            let env = node.subnet_env();
            assert!(
                env.contains(&format!("FLANNEL_MTU={mtu}\n")),
                "{backend}: {env}"
            );
            node.wait_for_status("datastore ok");
        }
        assert_eq!(lab.leases(), leases);
    }
    assert_eq!(nodes[0].rows(), first);
    assert!(nodes.iter_mut().all(Node::is_running));
}

#[test]
fn another_vni_and_port_take_over_while_all_nodes_run() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let first = nodes[0].rows();
    lab.set_backend(r#"{"Type":"vxlan","VNI":42,"Port":4789}"#);
    for node in &nodes {
        node.wait_for("ip -d link show flannel.42", "vxlan id 42");
        node.wait_for("ip route", "dev flannel.42 proto 96 onlink");
    }
    lab.wait_until_connected();
    for node in &nodes {
        let links = node.shown("ip -d link");
        assert!(
            links.contains("dstport 4789") && !links.contains("flannel.1"),
            "{links}"
        );
        let value = lab.lease(&node.subnet_key()).unwrap().value;
        assert!(value.contains(r#""VNI":42"#), "{value}");
    }
    lab.set_backend(r#"{"Type":"vxlan"}"#);
    lab.wait_until_connected();
    until("all is as it was", || nodes[0].rows() == first);
    nodes[0].wait_for_end("ip link", "flannel.42");
}

#[test]
fn a_bad_network_config_changes_nothing() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let rows = nodes[0].rows();
    for config in [
        "{",
        r#"{"Network":"100.96.0.0/16","Backend":{"Type":"vxlna"}}"#,
    ] {
        lab.configure(config);
        let line = nodes[0].wait_for_status(
            "network-config: the network config /coreos.com/network/config in etcd",
        );
        assert!(line.contains("vxlan, 2 of 2 peers"), "{line}");
        assert_eq!(nodes[0].rows(), rows);
        lab.set_backend(r#"{"Type":"vxlan"}"#);
        nodes[0].wait_for_status("datastore ok");
    }
    lab.configure(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#);
    nodes[0].wait_for_status("renumber-required");
    assert_eq!(nodes[0].rows(), rows);
    assert!(lab.reaches(1, 2) && lab.reaches(2, 3));
}

#[test]
fn a_reload_applies_a_good_config_and_rejects_a_bad_one() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    let config = fs::read_to_string(node.config()).unwrap();
    let reload = |node: &Node, text: &str| {
        fs::write(node.config(), text).unwrap();
        node.signal(Signal::SIGHUP);
    };

    reload(&node, &format!("{config}[docker]\nbridge = \"cni0\"\n"));
    node.wait_for("ip -4 address show cni0", "inet 100.96.1.1/24");
    node.wait_for_end("ip link", "docker0");
    node.wait_for_status("datastore ok");

    let rows = node.rows();
    reload(&node, &format!("{config}[docker]\nbrigde = \"docker0\"\n"));
    let line = node.wait_for_status("config: ");
    assert!(
        line.contains("config.toml:") && line.contains("brigde"),
        "{line}"
    );
    assert_eq!(node.rows(), rows);
    node.must("ip link set cni0 mtu 1300");
    node.wait_for("ip link show cni0", "mtu 1450");

    reload(&node, &format!("{config}[docker]\nmanage-bridge = false\n"));
    node.wait_for_status("datastore ok");
    node.wait_for_end("ip link", "cni0");

    reload(&node, &config);
    node.wait_for("ip -4 address show docker0", "inet 100.96.1.1/24");
    assert!(node.is_running());
    assert_eq!(node.stop(), Some(0));
}

/// sd_notify(3): the watchdog is fed when it is asked for, and a reload is announced and ended.
#[test]
fn the_service_manager_is_told() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"host-gw"}"#) else {
        return;
    };
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    assert_eq!(node.told("READY=1"), 1);
    node.signal(Signal::SIGHUP);
    until("the end of the reload", || node.told("READY=1") == 2);
    assert_eq!(node.told("RELOADING=1"), 1);
    assert_eq!(node.told("MONOTONIC_USEC="), 1);
    assert_eq!(node.told("WATCHDOG=1"), 0);
    assert_eq!(node.stop(), Some(0));
    until("the end", || node.told("STOPPING=1") == 1);

    node.start_after("export WATCHDOG_USEC=4000000");
    node.wait_until_ready();
    until("the watchdog is fed", || node.told("WATCHDOG=1") >= 2);
}
