//! The bridge in the hands of a container runtime: seen, named with its remedy, and taken only when
//! somebody says so.

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// A container as Docker leaves it: its interface has the MTU that Docker believes in.
const CONTAINER: &str = "
    ip link add port0 mtu 1500 type veth peer name port1 mtu 1500
    ip link set port0 master docker0; ip link set port0 up; ip link set port1 up";

/// The text of a fault, if it stands.
fn fault(node: &Node, code: &str) -> Option<String> {
    let status = node.status();
    let faults = status["faults"].as_array().unwrap().iter();
    let mut faults = faults.filter(|fault| fault["code"] == code);
    Some(faults.next()?["text"].as_str().unwrap().to_owned())
}

pub(crate) fn wait_for_fault(node: &Node, code: &str, words: &[&str]) {
    let mut text = None;
    until(&format!("fault {code} with {words:?}"), || {
        text = fault(node, code);
        let has = |words: &&str| text.as_ref().is_some_and(|text| text.contains(*words));
        words.iter().all(has)
    });
}

pub(crate) fn wait_until_cleared(node: &Node, code: &str) {
    until(&format!("fault {code} clears"), || {
        fault(node, code).is_none()
    });
}

pub(crate) fn addresses(node: &Node) -> String {
    let shown = node.shown("ip -4 -o -br address show dev docker0");
    let words: Vec<&str> = shown.split_whitespace().skip(2).collect();
    words.join(" ")
}

#[test]
fn a_bridge_that_docker_had_before_is_named_and_taken_on_request() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.node(1);
    if !node.start_bus() {
        return;
    }
    node.must("ip link add docker0 type bridge; ip address add 172.17.0.1/16 dev docker0; ip link set docker0 up");
    node.must(CONTAINER);
    node.start();
    node.wait_until_ready();
    let remedy = "have dockerd started with the options in ";
    wait_for_fault(
        &node,
        "foreign-link",
        &[
            "it has 172.17.0.1/16, not 100.96.1.1/24",
            remedy,
            "\"bip\": \"100.96.1.1/24\"",
            "systemctl restart docker",
        ],
    );
    let counted = "1 of 1 interfaces of containers on docker0 (port0 first) have an MTU of up to 1500, and the overlay carries 1450";
    wait_for_fault(&node, "docker", &[counted, remedy, "\"mtu\": 1450"]);
    assert_eq!(addresses(&node), "172.17.0.1/16");

    let (code, taken, said) = node.program(&["take-bridge"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let expected = [
        "delete address 172.17.0.1/16 dev docker0",
        "set link docker0 alias flannel-rs mtu 1450",
        "add address 100.96.1.1/24 dev docker0",
    ];
    assert_eq!(taken.lines().collect::<Vec<_>>(), expected);
    assert_eq!(addresses(&node), "100.96.1.1/24");
    assert_eq!(fault(&node, "foreign-link"), None);
    let again = node.program(&["take-bridge"]);
    assert_eq!((again.0, again.1.as_str()), (Some(1), ""), "{again:?}");
    assert!(
        again.2.contains("nothing to take: docker0 is ours already"),
        "{again:?}"
    );

    // the container has what it had, until somebody gives it another
    assert!(node.shown("ip link show port0").contains("mtu 1500"));
    wait_for_fault(&node, "docker", &[counted]);
    node.must("ip link set port0 mtu 1450");
    wait_until_cleared(&node, "docker");
}

/// dockerd puts back what it remembers, and starts its containers in that.
#[test]
fn a_bridge_of_ours_that_docker_has_given_another_address_stays_so() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.node(1);
    if !node.start_bus() {
        return;
    }
    node.start();
    node.wait_until_ready();
    for other in ["172.17.0.1/16", "100.96.9.1/24"] {
        node.must(
            "ip link add port0 mtu 1450 type veth peer name port1
             ip link set port0 master docker0; ip link set port0 up; ip link set port1 up",
        );
        let readdress = |from: &str, to: &str| {
            format!(
                "printf 'address delete {from} dev docker0\\naddress add {to} dev docker0\\n' | \
                 ip -batch -"
            )
        };
        node.must(&readdress("100.96.1.1/24", other));
        let words = format!("it has {other}, not 100.96.1.1/24");
        wait_for_fault(&node, "foreign-link", &[&words]);
        let reconciled = node.program(&["reconcile"]);
        assert_eq!(reconciled.0, Some(0), "{reconciled:?}");
        assert_eq!(addresses(&node), other, "it was taken back");
        // dockerd, restarted with our address
        node.must(&readdress(other, "100.96.1.1/24"));
        wait_until_cleared(&node, "foreign-link");
        node.must("ip link delete port0");
    }
    node.must("printf 'address delete 100.96.1.1/24 dev docker0\naddress add 100.96.9.1/24 dev docker0\n' | ip -batch -");
    until("a bridge that nothing hangs on is put right", || {
        addresses(&node) == "100.96.1.1/24"
    });
}

/// dockerd has made it before it was managed here, or was told the address and not the MTU.
#[test]
fn a_bridge_with_our_address_and_another_mtu_is_named() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.node(1);
    if !node.start_bus() {
        return;
    }
    node.must("ip link add docker0 type bridge; ip address add 100.96.1.1/24 dev docker0; ip link set docker0 up");
    node.start();
    node.wait_until_ready();
    wait_for_fault(&node, "docker", &["MTU 1500 and not 1450", "take-bridge"]);
    let (code, taken, said) = node.program(&["take-bridge"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(taken, "set link docker0 alias flannel-rs mtu 1450\n");
    assert_eq!(fault(&node, "docker"), None);
}

#[test]
fn a_bridge_that_is_not_managed_here_is_not_taken() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.bare_node(1);
    if !node.start_bus() {
        return;
    }
    node.write_config("[node]\nname = \"node1\"\n[docker]\nmanage-bridge = false\n");
    node.start();
    node.wait_until_ready();
    let (code, taken, said) = node.program(&["take-bridge", "--restart-docker"]);
    assert_eq!((code, taken.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("manage-bridge is false"), "{said}");
}

#[test]
fn a_file_for_dockerd_is_there_when_the_service_is_ready_and_goes_with_it() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.bare_node(1);
    if !node.start_bus() {
        return;
    }
    let place = |name: &str| {
        let folder = node.folder().display();
        format!(
            "[node]\nname = \"node1\"\nsubnet = \"100.96.1.0/24\"\n[docker]\n\
             daemon-json = \"{folder}/{name}\"\n"
        )
    };
    let (first, second) = (place("daemon.json"), place("other.json"));
    node.write_config(&first);
    node.start();
    node.wait_until_ready();
    let text = node.file("daemon.json");
    let options: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(options["bip"], "100.96.1.1/24", "{text}");
    assert_eq!(options["mtu"], 1450, "{text}");

    node.write_config(&second);
    assert_eq!(node.program(&["reload"]).0, Some(0));
    until("the file is where it is wanted now", || {
        node.file("other.json") == text && node.file("daemon.json").is_empty()
    });
    assert_eq!(node.program(&["cleanup", "--yes"]).0, Some(0));
    assert_eq!(node.file("other.json"), "");
}
