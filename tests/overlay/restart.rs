//! Restarts of the service, which the packets do not notice.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::{Pings, Tally, until};

/// Ends and starts node1 and node2, twice each, under pings in both directions and past them.
fn restarts(lab: &Lab, nodes: &mut [Node; 3], end: impl Fn(&mut Node)) -> Vec<Tally> {
    let pings = [(1, 2), (2, 3), (3, 1)].map(|(from, to)| lab.ping(from, to));
    for index in [0, 1, 0, 1] {
        // some before, some after
        thread::sleep(Duration::from_millis(800));
        end(&mut nodes[index]);
        nodes[index].start();
        nodes[index].wait_until_ready();
    }
    pings.into_iter().map(Pings::finish).collect()
}

fn loses_nothing(backend: &str, end: impl Fn(&mut Node)) {
    let Some(lab) = Lab::with_backend(Shape::Flat, backend) else {
        return;
    };
    let mut nodes = lab.start_all();
    lab.wait_until_connected();
    let before = nodes[0].rows();
    for tally in restarts(&lab, &mut nodes, end) {
        assert!(tally.sent >= 200, "{tally:?}");
        assert_eq!(tally.lost, [0; 0], "of {}", tally.sent);
    }
    assert_eq!(nodes[0].rows(), before);
}

fn stop(node: &mut Node) {
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn kill_and_restart_lose_no_packet_with_vxlan() {
    loses_nothing(r#"{"Type":"vxlan"}"#, Node::kill);
}

#[test]
fn kill_and_restart_lose_no_packet_with_host_gw() {
    loses_nothing(r#"{"Type":"host-gw"}"#, Node::kill);
}

#[test]
fn stop_and_restart_lose_no_packet_with_vxlan() {
    loses_nothing(r#"{"Type":"vxlan"}"#, stop);
}

#[test]
fn stop_and_restart_lose_no_packet_with_host_gw() {
    loses_nothing(r#"{"Type":"host-gw"}"#, stop);
}

/// The data plane is in the process, so what comes while there is none is lost. The device and
/// all that is on it stay.
#[test]
fn restarts_with_udp_lose_packets_only_while_there_is_no_service() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"udp"}"#) else {
        return;
    };
    let mut nodes = lab.start_all();
    lab.wait_until_connected();
    let rows = nodes[0].rows();
    for tally in restarts(&lab, &mut nodes, Node::kill) {
        eprintln!(
            "udp, two restarts at each of two nodes: {} of {} lost",
            tally.lost.len(),
            tally.sent
        );
        let longest = longest_run(&tally.lost);
        assert!(longest < 300, "{longest} packets in a row: {tally:?}");
        assert!(tally.lost.len() < tally.sent as usize / 2, "{tally:?}");
    }
    assert_eq!(nodes[0].rows(), rows);
    nodes[0].kill();
    let left = nodes[0].shown("ip route") + &nodes[0].shown("ip address show flannel0");
    assert!(left.contains("100.96.0.0/16 dev flannel0"), "{left}");
    assert!(left.contains("inet 100.96.1.0/32"), "{left}");
    nodes[0].start();
    nodes[0].wait_until_ready();
    lab.wait_until_connected();
}

fn longest_run(numbers: &[u32]) -> usize {
    let (mut longest, mut run, mut last) = (0, 0, 0);
    for number in numbers {
        run = if *number == last + 1 { run + 1 } else { 1 };
        longest = longest.max(run);
        last = *number;
    }
    longest
}

#[test]
fn a_stop_leaves_lease_and_data_path() {
    for backend in [r#"{"Type":"vxlan"}"#, r#"{"Type":"host-gw"}"#] {
        let Some(lab) = Lab::with_backend(Shape::Flat, backend) else {
            return;
        };
        let mut nodes = lab.start_all();
        lab.wait_until_connected();
        let (leases, rows) = (lab.leases(), nodes[1].rows());
        let written = lab.lease("100.96.2.0-24").unwrap();
        for node in &mut nodes {
            assert_eq!(node.stop(), Some(0));
        }
        assert_eq!(lab.leases(), leases);
        let left = lab.lease("100.96.2.0-24").unwrap();
        assert_eq!(
            (left.value, left.revision),
            (written.value, written.revision)
        );
        assert_eq!(nodes[1].rows(), rows);
        assert!(lab.reaches(1, 2) && lab.reaches(3, 2));
    }
}

#[test]
fn subnet_and_mac_stay_the_same() {
    let Some(mut lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.bare_node(1);
    node.write_config("[node]\nname = \"node1\"\n");
    node.start();
    node.wait_until_ready();
    let mut other = lab.node(2);
    other.start();
    other.wait_until_ready();
    let (key, rows) = (node.subnet_key(), "ip -d -o link show flannel.1");
    let value = lab.lease(&key).unwrap().value;
    let check = |lab: &Lab, node: &Node, what: &str| {
        assert_eq!(node.subnet_key(), key, "{what}");
        assert_eq!(lab.lease(&key).unwrap().value, value, "{what}");
        assert_eq!(lab.leases().len(), 2, "{what}");
        let mac = value.split('"').rev().nth(1).unwrap();
        assert!(node.shown(rows).contains(mac), "{what}");
    };

    restart(&mut node, |_| {});
    check(&lab, &node, "restart");

    restart(&mut node, |node| {
        fs::remove_dir_all(node.folder().join("state")).unwrap();
        fs::remove_file(node.folder().join("subnet.env")).unwrap();
    });
    check(&lab, &node, "no memory");

    // a machine that starts anew has no links
    restart(&mut node, |node| {
        node.must("ip link delete flannel.1; ip link delete docker0");
    });
    check(&lab, &node, "no links");

    lab.kill_etcd();
    node.wait_for_status("datastore");
    lab.start_etcd();
    node.wait_for_status("datastore ok");
    check(&lab, &node, "etcd restarted");

    restart(&mut node, |_| {
        lab.kill_etcd();
        lab.start_etcd();
    });
    check(&lab, &node, "both restarted");
    until("the nodes reach each other", || {
        let gateway = key.replace(".0-24", ".1");
        !node
            .shown(&format!("ping -c1 -W1 -I {gateway} 100.96.2.1"))
            .contains(" 0 received")
    });
}

fn restart(node: &mut Node, meanwhile: impl FnOnce(&Node)) {
    node.kill();
    meanwhile(node);
    node.start();
    node.wait_until_ready();
}

#[test]
fn a_restart_while_etcd_is_down_keeps_the_data_path() {
    let Some(mut lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut nodes = lab.start_all();
    lab.wait_until_connected();
    let (rows, leases) = (nodes[0].rows(), lab.leases());
    let pings = [lab.ping(1, 2), lab.ping(3, 1)];
    lab.kill_etcd();
    nodes[0].kill();
    nodes[0].start();
    nodes[0].wait_for_status("waiting; datastore: ");
    assert!(!nodes[0].is_ready());
    assert_eq!(nodes[0].rows(), rows);
    lab.start_etcd();
    nodes[0].wait_until_ready();
    for pings in pings {
        let tally = pings.finish();
        assert_eq!(tally.lost, [0; 0], "of {}", tally.sent);
    }
    assert_eq!(nodes[0].rows(), rows);
    assert_eq!(lab.leases(), leases);
}
