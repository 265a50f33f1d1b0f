//! What a service that is gone has left is removed without one, and nothing else.

use std::fs::File;
use std::path::PathBuf;
use std::thread;

use flannel_rs::service::start::{self, StartError};
use flannel_rs::service::status::PlannedChange;
use nix::sched::{CloneFlags, setns};

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// Also a bridge of a container runtime, a neighbour and routes into the overlay.
const FOREIGN: &str = "
    ip link add foreign0 type veth peer name foreign2; ip link set foreign2 up
    ip address add 198.51.100.1/24 dev foreign0; ip link set foreign0 up
    ip route add 203.0.113.0/24 via 198.51.100.2 proto static
    ip route add 100.96.200.0/24 dev foreign0 proto static
    ip link add foreign1 type bridge; ip address add 172.20.0.1/16 dev foreign1
    ip neighbour add 198.51.100.9 lladdr 02:00:00:00:00:09 dev foreign0 nud permanent
    command -v nft >/dev/null || exit 0
    nft add table ip filter; nft add chain ip filter FORWARD '{ type filter hook forward priority 0 ; policy drop ; }'
    nft add rule ip filter FORWARD ip saddr 198.51.100.0/24 accept";

/// All that anybody may have set up, but for what a carrier that comes late alters.
fn everything(node: &Node) -> String {
    [
        "ip -4 route show table all",
        "ip -br link",
        "ip -4 -br address",
        "ip neighbour show nud permanent",
        "ip nexthop",
        "nft -s list ruleset",
    ]
    .map(|command| node.shown(command))
    .concat()
    .replace("linkdown ", "")
}

/// In the node's network namespace, as a thread of its own that enters it.
fn cleanup(lab: &Lab, node: &Node) -> Result<Vec<PlannedChange>, StartError> {
    let namespace =
        PathBuf::from("/run/netns").join(lab.namespace(&format!("node{}", node.number)));
    let config = node.config();
    let thread = thread::spawn(move || {
        setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        start::cleanup(&config)
    });
    thread.join().unwrap()
}

fn leaves_what_was_there_before(backend: &str) {
    let Some(lab) = Lab::with_backend(Shape::Flat, backend) else {
        return;
    };
    let mut nodes = [lab.node(1), lab.node(2)];
    nodes[0].must(FOREIGN);
    let before = everything(&nodes[0]);
    for node in &mut nodes {
        node.start();
        node.wait_until_ready();
    }
    let node = &mut nodes[0];
    node.wait_for_status("1 of 1 peers");
    let running = everything(node);
    let refused = cleanup(&lab, node).unwrap_err();
    assert!(matches!(refused, StartError::StillRunning), "{refused}");
    assert!(refused.to_string().contains("without --config"));
    assert_eq!(everything(node), running);

    node.kill();
    let removed = cleanup(&lab, node).unwrap();
    assert_eq!(everything(node), before, "{removed:?}");
    assert_eq!([node.file("subnet.env"), node.file("docker.env")], [""; 2]);
    assert!(removed.iter().all(|change| change.verb == "delete"));
    let objects: Vec<&str> = removed
        .iter()
        .map(|change| change.object.as_str())
        .collect();
    assert!(objects.contains(&"link docker0"), "{objects:?}");
    assert_eq!(cleanup(&lab, node).unwrap(), []);
    assert!(lab.leases().contains(&"100.96.1.0-24".to_owned()));

    // the same node takes part again as if nothing had been
    node.start();
    node.wait_until_ready();
    assert_eq!(node.subnet_key(), "100.96.1.0-24");
}

#[test]
fn nothing_of_vxlan_is_left() {
    leaves_what_was_there_before(r#"{"Type":"vxlan"}"#);
}

#[test]
fn nothing_of_host_gw_is_left() {
    leaves_what_was_there_before(r#"{"Type":"host-gw"}"#);
}

#[test]
fn nothing_of_udp_is_left() {
    leaves_what_was_there_before(r#"{"Type":"udp"}"#);
}

/// A bridge in use stays, and all else goes; so does a bridge that Docker has made its own.
#[test]
fn what_somebody_uses_is_named_and_left() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    lab.container(&node);
    node.kill();
    let error = cleanup(&lab, &node).unwrap_err().to_string();
    assert!(
        error.contains("docker0") && error.contains("stop"),
        "{error}"
    );
    let links = node.shown("ip -br link");
    assert!(links.contains("docker0") && !links.contains("flannel.1"));
    assert_eq!(node.file("subnet.env"), "");

    node.start();
    node.wait_until_ready();
    node.kill();
    node.must("ip address flush dev docker0; ip address add 172.17.0.1/16 dev docker0");
    cleanup(&lab, &node).unwrap();
    let bridge = node.shown("ip -4 -br address show dev docker0");
    assert!(bridge.contains("172.17.0.1/16"), "{bridge}");
    until("the tunnel is gone", || {
        !node.shown("ip -br link").contains("flannel")
    });
}

/// flanneld was started with our subnet before anybody has cleaned up: its device and files stay.
#[test]
fn what_flanneld_has_taken_over_is_left() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    let text = node.file("subnet.env");
    node.kill();
    node.must(
        "ip link delete flannel.1
         ip link add flannel.1 type vxlan id 1 dstport 8472 nolearning
         ip address add 100.96.1.0/32 dev flannel.1",
    );
    let removed = cleanup(&lab, &node).unwrap();
    assert_eq!(node.file("subnet.env"), text, "{removed:?}");
    let links = node.shown("ip -br link");
    assert!(links.contains("flannel.1") && !links.contains("docker0"));
    assert!(removed.iter().all(|change| !change.object.contains("file")));

    node.must("ip link delete flannel.1");
    cleanup(&lab, &node).unwrap();
    assert_eq!(node.file("subnet.env"), "");
}
