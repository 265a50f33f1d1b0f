//! Links that do not let packets pass: told, and put right where that is wanted.

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

fn said(node: &Node, parameter: &str) -> String {
    node.shown(&format!("sysctl -n net.ipv4.{parameter}"))
        .trim()
        .to_owned()
}

#[test]
fn a_link_that_does_not_forward_is_told_and_left() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    node.must("sysctl -qw net.ipv4.conf.docker0.forwarding=0");
    let line = node.wait_for_status("forwarding: ");
    let command = "sysctl -w net.ipv4.conf.docker0.forwarding=1";
    assert!(line.contains(command), "{line}");
    assert!(!lab.reaches(1, 2));
    assert_eq!(said(node, "conf.docker0.forwarding"), "0", "not ours");
    node.must(command);
    node.wait_for_status("datastore ok");
    lab.wait_until_connected();
}

#[test]
fn with_repair_it_forwards_again() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut nodes = [1, 2, 3].map(|number| lab.node(number));
    nodes[0].write_config("[node]\nsubnet = \"100.96.1.0/24\"\n[host]\nrepair = true\n");
    for node in &mut nodes {
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    lab.wait_until_connected();
    let node = &nodes[0];
    for off in [
        "ip_forward=0",
        "conf.docker0.forwarding=0",
        "conf.flannel/1.forwarding=0",
    ] {
        node.must(&format!("sysctl -qw net.ipv4.{off}"));
        let took = until("it forwards", || {
            ["docker0", "flannel/1", "eth0"]
                .iter()
                .all(|link| said(node, &format!("conf.{link}.forwarding")) == "1")
        });
        println!("{off}: back after {took:?}");
    }
    lab.wait_until_connected();
    assert!(node.log().contains("forwarding on"), "{}", node.log());
    assert_eq!(said(node, "ip_forward"), "0", "somebody else's");
}
