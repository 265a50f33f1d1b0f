//! Defects of flannel that concern leases: each of these fails on that behaviour. The first, a
//! late renewal that steals, is among the lease faults.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::lab::{Lab, Shape};
use crate::support::process::until;
use crate::{PEER, VXLAN};

/// A list taken after the watch has lost its place says that the lease is there, as before: but
/// its holder has another address and another tunnel (flannel PR #1247).
#[test]
fn defect_04_an_address_that_changed_unseen_is_found_in_the_next_list() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    lab.write_lease("100.96.2.0-24", PEER, false);
    node.start();
    node.wait_until_ready();
    let fdb = "bridge fdb show dev flannel.1";
    node.wait_for(fdb, "02:00:00:00:00:60 dst 192.168.1.60");
    // the history that its watch would go on from is gone: a new etcd connection has to list
    node.signal(Signal::SIGSTOP);
    let moved = PEER.replace(".60", ".61").replace(":60", ":61");
    lab.write_lease("100.96.2.0-24", &moved, false);
    let revision = lab.lease("100.96.2.0-24").unwrap().revision;
    lab.etcdctl(&["put", "/elsewhere", "x"]);
    lab.etcdctl(&["compact", &(revision + 1).to_string()]);
    lab.must(
        "node1",
        "ip link set eth0 down; sleep 1; ip link set eth0 up; ip route add default via 192.168.1.1",
    );
    node.signal(Signal::SIGCONT);
    let took = node.wait_for(fdb, "02:00:00:00:00:61 dst 192.168.1.61");
    eprintln!("a change unseen was found after {took:.1?}");
    node.wait_for_end(fdb, ":60");
    node.wait_for(
        "ip neighbour show dev flannel.1",
        "100.96.2.0 lladdr 02:00:00:00:00:61",
    );
}

/// flannel with etcd v3 gives a reservation a lease, and it runs out (flannel reservations.md).
#[test]
fn defect_07_a_reservation_stays_one() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let value = r#"{"PublicIP":"192.168.1.48","PublicIPv6":null,"BackendType":"vxlan"}"#;
    lab.write_lease("100.96.77.0-24", value, true);
    let (mut node1, mut node2) = (lab.node(1), lab.bare_node(2));
    node2.write_config("[node]\nname = \"node2\"\n");
    node1.start();
    node2.start();
    for round in 0..2 {
        node1.wait_until_ready();
        node2.wait_until_ready();
        assert_eq!(node2.subnet_key(), "100.96.77.0-24");
        assert_eq!(lab.leases(), ["100.96.1.0-24", "100.96.77.0-24"]);
        let entry = lab.lease("100.96.77.0-24").unwrap();
        assert_eq!(entry.ttl, None, "round {round}");
        assert!(entry.value.contains("VtepMAC"), "{}", entry.value);
        let line = node2.wait_for_status("reserved");
        assert!(line.contains("100.96.77.0/24"), "{line}");
        node1.wait_for("ping -c1 -W1 -I 100.96.1.1 100.96.77.1", " 1 received");
        node2.kill();
        node2.start();
    }
}

/// Made while the node runs and holds another: it is told, and gone to when asked.
#[test]
fn a_reservation_that_comes_later_is_told_and_gone_to_when_asked() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    if !node.start_bus() {
        return;
    }
    node.write_config("[node]\nname = \"node1\"\n");
    node.start();
    node.wait_until_ready();
    let value = r#"{"PublicIP":"192.168.1.47","PublicIPv6":null,"BackendType":"vxlan"}"#;
    lab.write_lease("100.96.200.0-24", value, true);
    let text = "100.96.200.0/24 is reserved for this node's public IP, but it holds ";
    until("the reservation is told", || {
        node.status()["faults"].to_string().contains(text)
    });
    let (code, stdout, stderr) = node.program(&["renumber"]);
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (Some(0), "100.96.200.0/24\n", "")
    );
    node.wait_for_status("100.96.200.0/24 vxlan, 0 of 0 peers, reserved, datastore ok");
    assert_eq!(lab.leases(), ["100.96.200.0-24"]);
    assert_eq!(lab.lease("100.96.200.0-24").unwrap().ttl, None);
    node.wait_for("ip -4 address show docker0", "inet 100.96.200.1/24");
}

/// The key of a dual-stack node is another one for the same IPv4 subnet.
#[test]
fn defect_08_the_subnet_of_a_dual_stack_node_is_not_given_twice() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let dual = "100.96.1.0-24&fd00:0:0:1::-64";
    lab.write_lease(dual, PEER, false);
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    assert_ne!(node.subnet_key(), "100.96.1.0-24");
    node.wait_for_status("node.subnet asks for 100.96.1.0/24, which 192.168.1.60 has");
    node.wait_for("ip route", "100.96.1.0/24 via 100.96.1.0 dev flannel.1");
    assert_eq!(lab.leases().len(), 2);
}

/// flanneld reads its network config once.
#[test]
fn defect_15_the_network_config_is_followed_while_it_runs() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    lab.set_backend(r#"{"Type":"vxlan","VNI":42,"Port":4789,"MTU":1400}"#);
    let took = node.wait_for("ip -d link show flannel.42", "dstport 4789");
    eprintln!("another network config was followed after {took:.1?}");
    node.wait_for("ip link show flannel.42", "mtu 1350");
    node.wait_for_end("ip link", "flannel.1:");
    until("subnet.env follows", || {
        node.subnet_env().contains("FLANNEL_MTU=1350\n")
    });
    let value = lab.lease("100.96.1.0-24").unwrap().value;
    assert!(value.contains(r#""VNI":42"#), "{value}");
    thread::sleep(Duration::from_millis(300));
    node.wait_for_status("datastore ok");
}
