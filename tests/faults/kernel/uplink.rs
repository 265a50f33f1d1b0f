//! The interface to the other nodes changes: its address, itself, or which one it is.

use std::thread;
use std::time::{Duration, Instant};

use super::{BOUND, HOST_GW, UDP, outage, whole, within};
use crate::VXLAN;
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// A new uplink is not believed at once: it might be gone in a moment.
const MOVE_BOUND: Duration = Duration::from_secs(6);

/// DHCP gives another address. A secondary address survives its primary one only where the host
/// says so, as systemd does.
const NEW_FIRST: &str = "echo 1 > /proc/sys/net/ipv4/conf/all/promote_secondaries
    ip address add 192.168.1.60/24 dev eth0; ip address delete 192.168.1.49/24 dev eth0";
const OLD_FIRST: &str = "ip address delete 192.168.1.48/24 dev eth0
    ip address add 192.168.1.61/24 dev eth0; ip route replace default via 192.168.1.1";

#[test]
fn another_address_of_the_uplink_under_vxlan() {
    another_address(VXLAN);
}

#[test]
fn another_address_of_the_uplink_under_host_gw() {
    another_address(HOST_GW);
}

#[test]
fn another_address_of_the_uplink_under_udp() {
    another_address(UDP);
}

fn another_address(backend: &str) {
    let Some(lab) = Lab::with_backend(Shape::Flat, backend) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let leases = lab.leases();
    for (at, name, script, old, new) in [
        (2, "new first", NEW_FIRST, "192.168.1.49", "192.168.1.60"),
        (1, "old first", OLD_FIRST, "192.168.1.48", "192.168.1.61"),
    ] {
        let node: &Node = &nodes[at];
        let what = format!("{backend}, renumbered, {name}");
        let pings = lab.ping(1, node.number);
        let began = Instant::now();
        node.must(script);
        until("the lease names the new address", || {
            is_leased(&lab, node, new)
        });
        let published = began.elapsed();
        until("the containers reach each other", || {
            lab.reaches(1, node.number) && lab.reaches(node.number, 1)
        });
        let took = began.elapsed();
        let tally = pings.finish();
        eprintln!(
            "{what}: in the lease after {published:.0?}; {}",
            outage(&tally, began.elapsed())
        );
        within(BOUND, took, &what);
        lab.wait_until_connected();
        until("no peer knows the old address any more", || {
            nodes.iter().all(|node| !whole(node).contains(old))
        });
    }
    assert_eq!(lab.leases(), leases);
    for node in &nodes {
        node.wait_for_status("datastore ok");
    }
}

#[test]
fn uplink_deleted_and_made_anew() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[2];
    let before = whole(node);
    let leases = lab.leases();
    for (name, address) in [
        ("same address", "192.168.1.49"),
        ("another", "192.168.1.62"),
    ] {
        let log = node.log().lines().count();
        node.must("ip link delete eth0");
        let line = node.wait_for_status("uplink: ");
        thread::sleep(Duration::from_secs(2));
        let lines = node.log().lines().count() - log;
        eprintln!("uplink deleted: {line} ({lines} lines logged)");
        assert!(lines < 8, "{}", node.log());
        assert!(line.contains("100.96.3.0/24 vxlan"), "{line}");
        let began = Instant::now();
        plug(&lab, "eth0", &format!("{address}/24"));
        node.must("ip route add default via 192.168.1.1");
        node.wait_for("ip route", "100.96.1.0/24 via 100.96.1.0 dev flannel.1");
        within(
            BOUND,
            began.elapsed(),
            &format!("uplink made anew, {name}, device and routes back"),
        );
        // by ARP requests of the host the others find out its new Ethernet address
        until("the host reaches the others", || {
            ["192.168.1.47", "192.168.1.48"].iter().all(|peer| {
                let said = node.shown(&format!("ping -c 1 -W 1 {peer}"));
                said.contains(" 0% packet loss")
            })
        });
        until("the containers reach each other", || {
            lab.reaches(1, 3) && lab.reaches(3, 1)
        });
        within(
            MOVE_BOUND,
            began.elapsed(),
            &format!("uplink made anew, {name}"),
        );
        lab.wait_until_connected();
        assert!(is_leased(&lab, node, address));
        node.wait_for_status("datastore ok");
    }
    assert_eq!(whole(node).replace("192.168.1.62", "192.168.1.49"), before);
    assert_eq!(lab.leases(), leases);
}

#[test]
fn default_route_elsewhere_for_a_moment() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[2];
    second_uplink(&lab, node);
    let (lease, before) = (lab.lease("100.96.3.0-24"), whole(node));
    let pings = lab.ping(1, 3);
    let began = Instant::now();
    node.must(
        "ip route replace default via 192.168.9.1; sleep 0.8
         ip route replace default via 192.168.1.1",
    );
    thread::sleep(Duration::from_secs(4));
    let tally = pings.finish();
    eprintln!(
        "default route elsewhere for 800 ms: {}",
        outage(&tally, began.elapsed())
    );
    assert_eq!(
        lab.lease("100.96.3.0-24").unwrap().value,
        lease.clone().unwrap().value
    );
    assert_eq!(
        lab.lease("100.96.3.0-24").unwrap().revision,
        lease.unwrap().revision
    );
    assert_eq!(whole(node), before);
    node.wait_for_status("datastore ok");
}

#[test]
fn default_route_moved_for_good() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[2];
    let leases = lab.leases();
    second_uplink(&lab, node);
    for (gateway, address) in [
        ("192.168.9.1", "192.168.9.49"),
        ("192.168.1.1", "192.168.1.49"),
    ] {
        let pings = lab.ping(1, 3);
        let began = Instant::now();
        node.must(&format!("ip route replace default via {gateway}"));
        until("the lease names the other uplink", || {
            is_leased(&lab, node, address)
        });
        within(
            MOVE_BOUND,
            began.elapsed(),
            &format!("default route moved to {gateway}, leased"),
        );
        until("the containers reach each other", || {
            lab.reaches(1, 3) && lab.reaches(3, 1)
        });
        within(
            MOVE_BOUND,
            began.elapsed(),
            &format!("default route moved to {gateway}, all well"),
        );
        eprintln!("{}", outage(&pings.finish(), began.elapsed()));
        lab.wait_until_connected();
        nodes[0].wait_for("bridge fdb show dev flannel.1", &format!("dst {address} "));
        node.wait_for_status("datastore ok");
    }
    assert_eq!(lab.leases(), leases);
}

fn is_leased(lab: &Lab, node: &Node, address: &str) -> bool {
    let entry = lab.lease(&format!("100.96.{}.0-24", node.number)).unwrap();
    entry.value.contains(&format!(r#""PublicIP":"{address}""#))
}

/// Gives node3 an interface on the lab's switch, as the lab does.
fn plug(lab: &Lab, interface: &str, address: &str) {
    let node = lab.namespace("node3");
    lab.must(
        "net",
        &format!(
            "ip link add port type veth peer name {interface} netns {node}
             ip link set port name node3 master br1 up
             ip -n {node} address add {address} dev {interface}
             ip -n {node} link set {interface} up"
        ),
    );
}

/// Gives node3 a second way to the others, over the router's network 192.168.9.0/24.
fn second_uplink(lab: &Lab, node: &Node) {
    let namespace = lab.namespace("node3");
    lab.must(
        "net",
        &format!(
            "ip link add second type veth peer name eth1 netns {namespace}
             ip address add 192.168.9.1/24 dev second; ip link set second up"
        ),
    );
    node.must("ip address add 192.168.9.49/24 dev eth1; ip link set eth1 up");
}
