//! Leases come, go, and are fought over.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

const VXLAN: &str = r#"{"Type":"vxlan"}"#;

#[test]
fn a_node_that_leaves_takes_its_rows_along_and_brings_them_back() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let [node1, node2, mut node3] = lab.start_all();
    lab.wait_until_connected();
    let rows = [node1.rows(), node2.rows()];
    node3.kill();
    lab.delete_lease("100.96.3.0-24");
    for node in [&node1, &node2] {
        let took = [
            node.wait_for_end("ip route", "100.96.3.0/24"),
            node.wait_for_end("ip neighbour", "100.96.3.0"),
            node.wait_for_end("bridge fdb show dev flannel.1", "192.168.1.49"),
        ];
        assert!(
            took.iter().sum::<Duration>() < Duration::from_secs(5),
            "{took:?}"
        );
        node.wait_for_status("1 of 1 peers");
    }
    assert!(lab.reaches(1, 2) && lab.reaches(2, 1));
    node3.start();
    node3.wait_until_ready();
    lab.wait_until_connected();
    assert_eq!([node1.rows(), node2.rows()], rows);
}

#[test]
fn the_lease_of_a_dead_node_expires_and_those_of_the_living_do_not() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut nodes = [1, 2, 3].map(|number| lab.node(number));
    for node in &mut nodes {
        node.write_config(&format!(
            "[node]\nname = \"node{0}\"\nsubnet = \"100.96.{0}.0/24\"\n\
             [lease]\nttl = \"5s\"\nrenew-margin = \"3s\"\n",
            node.number
        ));
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    lab.wait_until_connected();
    let first = lab.lease("100.96.1.0-24").unwrap();
    let pings = [lab.ping(1, 2), lab.ping(2, 1)];
    let began = Instant::now();
    nodes[2].kill();
    let gone = until("the lease of node3 expires", || {
        lab.lease("100.96.3.0-24").is_none()
    });
    eprintln!("a lease of 5 s was gone {gone:.0?} after its node");
    for node in &nodes[..2] {
        node.wait_for_end("ip route", "100.96.3.0/24");
        node.wait_for_end("ip neighbour", "100.96.3.0");
        node.wait_for_end("bridge fdb show dev flannel.1", "192.168.1.49");
    }
    while began.elapsed() < Duration::from_secs(16) {
        assert_eq!(lab.leases(), ["100.96.1.0-24", "100.96.2.0-24"]);
        thread::sleep(Duration::from_millis(100));
    }
    for pings in pings {
        let tally = pings.finish();
        assert_eq!(tally.lost, [0; 0], "of {}", tally.sent);
    }
    let last = lab.lease("100.96.1.0-24").unwrap();
    assert_eq!(last.value, first.value);
    assert!(
        last.revision > first.revision + 3,
        "renewed: {first:?} to {last:?}"
    );
    nodes[2].start();
    nodes[2].wait_until_ready();
    lab.wait_until_connected();
}

/// Undoes what a service has left on the node and in etcd, so that it starts as if new.
fn forget(lab: &Lab, nodes: &mut [Node]) {
    for node in nodes {
        node.kill();
        fs::remove_dir_all(node.folder().join("state")).unwrap();
        fs::remove_file(node.folder().join("subnet.env")).unwrap();
    }
    for lease in lab.leases() {
        lab.delete_lease(&lease);
    }
}

/// Waits until each node reaches each other, from bridge to bridge.
fn wait_until_bridges_reach_each_other(nodes: &[Node]) {
    let gateway = |node: &Node| node.subnet_key().replace(".0-24", ".1");
    for from in nodes {
        for to in nodes.iter().filter(|to| to.number != from.number) {
            let ping = format!("ping -c1 -W1 -I {} {}", gateway(from), gateway(to));
            from.wait_for(&ping, " 1 received");
        }
    }
}

fn start_at_once(nodes: &mut [Node]) {
    for node in &mut *nodes {
        node.start();
    }
    for node in nodes {
        node.wait_until_ready();
    }
}

#[test]
fn of_two_nodes_that_ask_for_one_subnet_one_gets_another() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut nodes = [lab.bare_node(1), lab.bare_node(2)];
    for node in &nodes {
        let name = format!("[node]\nname = \"node{}\"\n", node.number);
        node.write_config(&format!("{name}subnet = \"100.96.7.0/24\"\n"));
    }
    for round in 0..4 {
        start_at_once(&mut nodes);
        let keys = [nodes[0].subnet_key(), nodes[1].subnet_key()];
        assert_ne!(keys[0], keys[1], "round {round}");
        let winner = keys.iter().position(|key| key == "100.96.7.0-24");
        let winner = winner.unwrap_or_else(|| panic!("nobody has it: {keys:?}"));
        let (winner, loser) = (&nodes[winner], &nodes[1 - winner]);
        let line = loser.wait_for_status("other-subnet");
        let address = format!("192.168.1.{}", 46 + winner.number);
        let text = format!("node.subnet asks for 100.96.7.0/24, which {address} has");
        assert!(line.contains(&text), "{line}");
        assert!(
            winner.status_line().ends_with("datastore ok"),
            "{}",
            winner.status_line()
        );
        for (node, key) in nodes.iter().zip(&keys) {
            let value = lab.lease(key).unwrap().value;
            assert!(
                value.contains(&format!("192.168.1.{}", 46 + node.number)),
                "{value}"
            );
        }
        assert_eq!(lab.leases().len(), 2);
        wait_until_bridges_reach_each_other(&nodes);
        forget(&lab, &mut nodes);
    }
}

#[test]
fn three_nodes_that_start_at_once_share_four_subnets() {
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    lab.start_etcd();
    lab.configure(
        r#"{"Network":"100.96.0.0/16","SubnetMin":"100.96.1.0","SubnetMax":"100.96.4.0","Backend":{"Type":"vxlan"}}"#,
    );
    let mut nodes = [1, 2, 3].map(|number| lab.bare_node(number));
    for node in &nodes {
        node.write_config(&format!("[node]\nname = \"node{}\"\n", node.number));
    }
    for round in 0..5 {
        start_at_once(&mut nodes);
        let mut keys: Vec<String> = nodes.iter().map(Node::subnet_key).collect();
        keys.sort_unstable();
        assert_eq!(lab.leases(), keys, "round {round}");
        keys.dedup();
        assert_eq!(keys.len(), 3, "round {round}: {keys:?}");
        wait_until_bridges_reach_each_other(&nodes);
        for node in &nodes {
            assert!(
                node.status_line().ends_with("datastore ok"),
                "{}",
                node.status_line()
            );
        }
        forget(&lab, &mut nodes);
    }
}

#[test]
fn an_etcd_that_has_lost_everything_gets_its_leases_back() {
    let Some(mut lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let rows = nodes[0].rows();
    let entries = lab
        .leases()
        .into_iter()
        .map(|key| lab.lease(&key).unwrap().value);
    let entries: Vec<String> = entries.collect();
    let pings = [lab.ping(1, 2), lab.ping(2, 3), lab.ping(3, 1)];
    lab.kill_etcd();
    fs::remove_dir_all(lab.folder().join("etcd")).unwrap();
    lab.start_etcd();
    lab.set_backend(VXLAN);
    until("all leases are back", || lab.leases().len() == 3);
    let back = lab
        .leases()
        .into_iter()
        .map(|key| lab.lease(&key).unwrap().value);
    assert_eq!(back.collect::<Vec<_>>(), entries);
    for node in &nodes {
        node.wait_for_status("2 of 2 peers, lease 23h59m, datastore ok");
    }
    for pings in pings {
        let tally = pings.finish();
        assert_eq!(tally.lost, [0; 0], "of {}", tally.sent);
    }
    assert_eq!(nodes[0].rows(), rows);
}

/// Until then it may just be slower than others to come back.
#[test]
fn an_etcd_that_has_lost_everything_forgets_a_dead_node_after_a_while() {
    let Some(mut lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut nodes = lab.start_all();
    lab.wait_until_connected();
    nodes[2].kill();
    lab.kill_etcd();
    fs::remove_dir_all(lab.folder().join("etcd")).unwrap();
    lab.start_etcd();
    lab.set_backend(VXLAN);
    let living = ["100.96.1.0-24", "100.96.2.0-24"];
    until("the leases of the living are back", || {
        lab.leases() == living
    });
    assert!(lab.reaches(1, 3) && lab.reaches(3, 2));
    let took = nodes[0].wait_for_end("ip route", "100.96.3.0/24");
    eprintln!(
        "a node that was lost with all leases was dropped {took:.0?} after the others were back"
    );
    nodes[1].wait_for_end("ip route", "100.96.3.0/24");
    assert!(lab.reaches(1, 2) && lab.reaches(2, 1));
}
