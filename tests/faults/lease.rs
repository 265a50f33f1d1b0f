//! The own lease runs out, is taken, deleted, overwritten, or cannot be had.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;
use crate::{PEER, SHORT, VXLAN};

const OWN: &str = "100.96.1.0-24";

/// Two nodes with short leases and a container each.
fn two_short_lived() -> Option<(Lab, [Node; 2])> {
    let lab = Lab::with_backend(Shape::Flat, VXLAN)?;
    let nodes = short_lived(&lab, [1, 2]);
    until("the containers reach each other", || {
        lab.reaches(1, 2) && lab.reaches(2, 1)
    });
    Some((lab, nodes))
}

/// Nodes with short leases and a container each.
pub(crate) fn short_lived<const N: usize>(lab: &Lab, numbers: [u32; N]) -> [Node; N] {
    let mut nodes = numbers.map(|number| {
        let node = lab.bare_node(number);
        node.write_config(&format!(
            "[node]\nname = \"node{number}\"\nsubnet = \"100.96.{number}.0/24\"\n{SHORT}"
        ));
        node
    });
    for node in &mut nodes {
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    nodes
}

/// Nodes that are ready, with a container each.
pub(crate) fn ready<const N: usize>(lab: &Lab, numbers: [u32; N]) -> [Node; N] {
    let mut nodes = numbers.map(|number| lab.node(number));
    for node in &mut nodes {
        node.start();
        node.wait_until_ready();
        lab.container(node);
    }
    for node in &nodes {
        node.wait_for_status(&format!("{0} of {0} peers", N - 1));
    }
    nodes
}

#[test]
fn suspended_past_the_ttl_and_nobody_took_it() {
    let Some((lab, nodes)) = two_short_lived() else {
        return;
    };
    let before = lab.lease(OWN).unwrap().value;
    nodes[0].signal(Signal::SIGSTOP);
    until("the lease has expired", || lab.lease(OWN).is_none());
    nodes[1].wait_for_end("ip route", "100.96.1.0/24");
    nodes[0].signal(Signal::SIGCONT);
    let leased = until("the lease is back", || lab.lease(OWN).is_some());
    let reached = until("the container is reached again", || lab.reaches(2, 1));
    eprintln!("after a suspend: leased after {leased:.1?}, reached {reached:.1?} later");
    assert!(leased + reached < Duration::from_secs(10));
    assert_eq!(lab.lease(OWN).unwrap().value, before);
    nodes[0].wait_for_status("1 of 1 peers, lease 0h00m, datastore ok");
}

/// The first of flannel's defects: a renewal that comes late puts the key back, and the subnet has
/// two owners (flannel#1289).
#[test]
fn defect_01_a_late_renewal_steals_nothing() {
    let Some((lab, nodes)) = two_short_lived() else {
        return;
    };
    let rows = nodes[0].rows();
    nodes[0].signal(Signal::SIGSTOP);
    until("the lease has expired", || lab.lease(OWN).is_none());
    lab.write_lease(OWN, PEER, false);
    let theirs = lab.lease(OWN).unwrap();
    nodes[0].signal(Signal::SIGCONT);
    let began = Instant::now();
    nodes[0].wait_for_status("subnet-conflict: 100.96.1.0/24 is now leased to 192.168.1.60");
    eprintln!(
        "a subnet taken meanwhile was told after {:.1?}",
        began.elapsed()
    );
    thread::sleep(Duration::from_secs(4));
    let now = lab.lease(OWN).unwrap();
    assert_eq!((now.value, now.revision), (theirs.value, theirs.revision));
    assert_eq!(nodes[0].rows(), rows);
    lab.delete_lease(OWN);
    let back = until("the lease is back", || {
        let entry = lab.lease(OWN);
        entry.is_some_and(|entry| entry.value.contains("192.168.1.47"))
    });
    eprintln!("and had back {back:.1?} after it was free");
    nodes[0].wait_for_status("datastore ok");
}

/// An etcdctl put, or a flanneld that was away: its put asks nobody.
#[test]
fn overwritten_unfenced_by_a_flanneld() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = ready(&lab, [1, 2]);
    until("container 1 reaches container 2", || lab.reaches(1, 2));
    let (rows, own) = (nodes[0].rows(), lab.lease(OWN).unwrap().value);
    let began = Instant::now();
    lab.write_lease(OWN, PEER, false);
    let written = lab.lease(OWN).unwrap();
    nodes[0].wait_for_status(
        "subnet-conflict: 100.96.1.0/24 is now leased to 192.168.1.60 as 100.96.1.0/24; \
         forwarding goes on, but one of the two must give way: flannel-rs renumber",
    );
    eprintln!("a stolen subnet was told after {:.1?}", began.elapsed());
    thread::sleep(Duration::from_secs(2));
    let now = lab.lease(OWN).unwrap();
    assert_eq!((now.value, now.revision), (written.value, written.revision));
    assert_eq!(nodes[0].rows(), rows);
    lab.delete_lease(OWN);
    nodes[0].wait_for_status("1 of 1 peers, lease 23h59m, datastore ok");
    assert_eq!(lab.lease(OWN).unwrap().value, own);
    until("container 2 reaches container 1", || lab.reaches(2, 1));
}

#[test]
fn deleted_by_an_administrator() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = ready(&lab, [1, 2]);
    until("container 1 reaches container 2", || lab.reaches(1, 2));
    let before = lab.lease(OWN).unwrap();
    let rows = nodes[0].rows();
    lab.delete_lease(OWN);
    let took = until("node1 has claimed its lease again", || {
        lab.lease(OWN).is_some()
    });
    eprintln!("a deleted lease was claimed again after {took:.1?}");
    let after = lab.lease(OWN).unwrap();
    assert_eq!(after.value, before.value);
    assert!(after.ttl.is_some());
    nodes[0].wait_for_status("100.96.1.0/24 vxlan, 1 of 1 peers, lease 23h59m, datastore ok");
    assert_eq!(nodes[0].rows(), rows);
    until("container 2 reaches container 1", || lab.reaches(2, 1));
}

/// All at once, in the order of their keys: those before ours too.
#[test]
fn all_leases_deleted_by_an_administrator() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let rows = nodes.each_ref().map(Node::rows);
    let pings = [lab.ping(1, 3), lab.ping(3, 1), lab.ping(2, 1)];
    lab.etcdctl(&["del", "--prefix", "/coreos.com/network/subnets/"]);
    let took = until("all leases are back", || lab.leases().len() == 3);
    eprintln!("three deleted leases were claimed again after {took:.1?}");
    thread::sleep(Duration::from_secs(1));
    for pings in pings {
        let tally = pings.finish();
        assert_eq!(tally.lost, [0; 0], "of {}", tally.sent);
    }
    assert_eq!(nodes.each_ref().map(Node::rows), rows);
}

/// Leases of nodes that are gone fill the network.
#[test]
fn exhaustion_by_dead_leases_is_told_and_ends_with_the_first_of_them() {
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    lab.start_etcd();
    lab.configure(r#"{"Network":"100.96.0.0/22","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#);
    let key = |number: u32| format!("100.96.{number}.0-24");
    lab.write_lease_for(&key(2), PEER, Duration::from_secs(12));
    lab.write_lease(&key(1), &PEER.replace(".60", ".61"), false);
    lab.write_lease(&key(3), &PEER.replace(".60", ".62"), true);
    let mut node = lab.node(1);
    node.write_config("");
    node.start();
    node.wait_for_status(
        "waiting; lease: no free subnet: all /24 subnets from 100.96.1.0 to 100.96.3.0 are leased \
         (3 leases, 1 of them reservations that never expire, longest not renewed 100.96.2.0/24 of \
         192.168.1.60); release leases of nodes that are gone, or widen the network",
    );
    assert!(node.is_running());
    until("the dead lease expires", || {
        lab.lease(&key(2)).is_none_or(|e| e.value != PEER)
    });
    let began = Instant::now();
    node.wait_until_ready();
    eprintln!(
        "a full network: ready {:.1?} after the first lease ran out",
        began.elapsed()
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(node.subnet_key(), key(2));
}
