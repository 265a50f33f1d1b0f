//! A node that takes over from flanneld: the device stays, and so does what the peers know.

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// What flanneld leaves when it ends, in its own words to the kernel.
const FLANNELD: &str = "
    ip link add flannel.1 type vxlan id 1 local 192.168.1.47 dev eth0 dstport 8472 nolearning
    ip link set flannel.1 address 3e:11:22:33:44:55 mtu 1450 up
    ip address add 100.96.1.0/32 dev flannel.1
    ip route add 100.96.2.0/24 via 100.96.2.0 dev flannel.1 onlink
    ip route add 100.96.9.0/24 via 100.96.9.0 dev flannel.1 onlink
    ip neighbour add 100.96.9.0 lladdr 3e:00:00:00:00:09 dev flannel.1 nud permanent
    bridge fdb add 3e:00:00:00:00:09 dev flannel.1 dst 192.168.1.99
    ip link add docker0 type bridge
    ip address add 100.96.1.1/24 dev docker0
    ip link set docker0 up";

/// A node1 that ran flanneld, and a node2 that runs the service.
fn lab() -> Option<(Lab, Node, Node)> {
    let lab = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#)?;
    let (node1, mut node2) = (lab.node(1), lab.node(2));
    node2.start();
    node2.wait_until_ready();
    lab.container(&node2);
    node1.must(FLANNELD);
    Some((lab, node1, node2))
}

fn index(node: &Node) -> String {
    node.must("cat /sys/class/net/flannel.1/ifindex")
}

fn is_taken_over(lab: &Lab, node1: &Node, index_before: &str) {
    assert_eq!(index(node1), index_before, "made anew");
    let shown = node1.shown("ip -d link show flannel.1");
    assert!(shown.contains("alias flannel-rs"), "{shown}");
    let rows = node1.rows();
    for stale in ["100.96.9.0", "3e:00:00:00:00:09", "192.168.1.99"] {
        assert!(!rows.contains(stale), "{rows}");
    }
    let route = "100.96.2.0/24 via 100.96.2.0 dev flannel.1 proto 96 onlink";
    let routes = node1.shown("ip route");
    assert!(routes.contains(route), "{routes}");
    lab.container(node1);
    let reached = [(1, 2), (2, 1)];
    for (from, to) in reached {
        until("the containers reach each other", || lab.reaches(from, to));
    }
}

#[test]
fn a_device_that_flanneld_left_is_taken_over() {
    let Some((lab, mut node1, _node2)) = lab() else {
        return;
    };
    let before = index(&node1);
    node1.start();
    node1.wait_until_ready();
    is_taken_over(&lab, &node1, &before);
    let lease = lab.lease("100.96.1.0-24").unwrap();
    let mac = node1.must("cat /sys/class/net/flannel.1/address");
    assert!(
        lease.value.contains(mac.trim()),
        "{mac} is not in {}",
        lease.value
    );
}

#[test]
fn a_lease_that_flanneld_wrote_is_kept_and_so_is_its_mac() {
    let Some((lab, mut node1, node2)) = lab() else {
        return;
    };
    let value = r#"{"PublicIP":"192.168.1.47","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"3e:11:22:33:44:55"}}"#;
    lab.write_lease("100.96.1.0-24", value, false);
    node2.wait_for("ip route", "100.96.1.0/24");
    let (before, rows) = (index(&node1), node2.rows());
    node1.start();
    node1.wait_until_ready();
    is_taken_over(&lab, &node1, &before);
    let lease = lab.lease("100.96.1.0-24").unwrap();
    assert_eq!(lease.value, value);
    assert!(lease.ttl.unwrap() > 600, "{lease:?}");
    let mac = node1.must("cat /sys/class/net/flannel.1/address");
    assert_eq!(mac.trim(), "3e:11:22:33:44:55");
    assert_eq!(node2.rows(), rows);
    // and after a restart
    node1.kill();
    node1.start();
    node1.wait_until_ready();
    assert_eq!(lab.lease("100.96.1.0-24").unwrap().value, value);
    assert_eq!(index(&node1), before);
}
