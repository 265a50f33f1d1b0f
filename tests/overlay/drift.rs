//! Somebody changes what the service has set up: it is put right, and what is not the service's
//! own stays. What breaks by itself or at once as a whole is among the faults.

use std::time::Duration;

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// A repair takes no longer than this, in all.
const BOUND: Duration = Duration::from_secs(5);

const UPLINK_BOUNCES: &str = "ip link set eth0 down; sleep 0.2; ip link set eth0 up; \
                              ip route replace default via 192.168.1.1";

/// What is not the service's own: links, addresses and routes, some of them inside the overlay.
const FOREIGN: &str = "
    ip link add foreign0 type veth peer name foreign2; ip link set foreign2 up; ip address add 198.51.100.1/24 dev foreign0
    ip link set foreign0 up; ip route add 203.0.113.0/24 via 198.51.100.2 proto static
    ip route add 100.96.200.0/24 dev foreign0 proto static
    ip route add 100.97.0.0/16 via 198.51.100.3 proto bird
    ip link add foreign1 type bridge; ip address add 172.20.0.1/16 dev foreign1
    ip neighbour add 198.51.100.9 lladdr 02:00:00:00:00:09 dev foreign0 nud permanent";

fn foreign_rows(node: &Node) -> String {
    [
        "ip route",
        "ip -br address",
        "ip neighbour show nud permanent",
    ]
    .map(|command| {
        let output = node.shown(command);
        let foreign = ["foreign", "192.0.2."];
        let lines = output
            .lines()
            .filter(|line| foreign.iter().any(|f| line.contains(f)));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    })
    .concat()
}

/// Makes each change on node1 and sees it undone.
fn repairs(lab: &Lab, nodes: &[Node; 3], changes: &[&str]) {
    let node = &nodes[0];
    lab.wait_until_connected();
    let rows = node.rows();
    node.must(FOREIGN);
    let foreign = foreign_rows(node);
    assert_eq!(foreign.lines().count(), 8, "{foreign}");
    for change in changes {
        node.must(change);
        let took = until(&format!("{change}\nis undone, back to\n{rows}"), || {
            node.rows() == rows
        });
        eprintln!("{took:>9.0?} to undo: {change}");
        assert!(took < BOUND, "{took:?} to undo: {change}");
        lab.wait_until_connected();
        assert_eq!(foreign_rows(node), foreign, "{change}");
    }
    node.wait_for_status("datastore ok");
}

#[test]
fn vxlan_is_put_right() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    let changes = [
        UPLINK_BOUNCES,
        "ip address add 100.96.77.1/24 dev docker0",
        "ip link set flannel.1 type vxlan local 192.168.1.46",
        "ip link set flannel.1 type vxlan learning",
        "ip route replace 100.96.2.0/24 via 192.168.1.49 dev eth0",
        "ip neighbour replace 100.96.2.0 lladdr 02:00:00:00:00:98 dev flannel.1 nud permanent",
        // in one go: else the service, being faster, may make one in between
        "printf 'link delete flannel.1\\nlink add flannel.1 up type vxlan id 1 dev eth0 dstport 4789\\n' \
         | ip -force -batch - || true",
    ];
    repairs(&lab, &nodes, &changes);
}

#[test]
fn host_gw_is_put_right() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"host-gw"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    let changes = [
        "ip route delete 100.96.2.0/24",
        "ip route add 100.96.77.0/24 via 192.168.1.49 dev eth0 proto 96",
        "ip link set docker0 mtu 1300",
    ];
    repairs(&lab, &nodes, &changes);
}

#[test]
fn udp_is_put_right() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"udp"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    let changes = [
        "ip link set flannel0 down",
        "ip route add 100.96.77.0/24 dev flannel0",
        "ip address add 100.96.77.0/32 dev flannel0",
    ];
    repairs(&lab, &nodes, &changes);
}

/// The service takes a bridge with somebody else's address for theirs, so this is apart.
#[test]
fn an_address_that_somebody_adds_to_docker0_stays() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    nodes[0].must("ip address add 192.0.2.1/24 dev docker0; ip link set docker0 mtu 1300");
    nodes[0].must("ip link delete flannel.1");
    nodes[0].wait_for("ip link show docker0", "mtu 1450");
    lab.wait_until_connected();
    assert!(
        nodes[0]
            .shown("ip address show docker0")
            .contains("192.0.2.1/24")
    );
}

/// A container runtime may give its links another MTU than the network has.
#[test]
fn a_container_of_another_mtu_changes_nothing() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let rows = nodes[0].rows();
    nodes[0].must(
        "ip link add port0 mtu 1500 type veth peer name port1; ip link set port0 master docker0
         ip link set port0 up; ip link set port1 up
         ip link show docker0 | grep -q 'mtu 1450'",
    );
    // a repair of something else comes after one of the bridge
    nodes[0].must("ip route delete 100.96.2.0/24");
    until("the route is back", || nodes[0].rows() == rows);
    let log = nodes[0].log();
    let repairs: Vec<_> = log
        .lines()
        .filter(|line| line.contains("repaired"))
        .collect();
    assert_eq!(repairs.len(), 1, "{repairs:?}");
    assert!(repairs[0].contains("100.96.2.0/24"), "{repairs:?}");
}
