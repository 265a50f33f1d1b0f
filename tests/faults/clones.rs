//! Machines that were cloned, or share an address.

use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::VXLAN;
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// Starts the service on a machine with this id.
fn start_with_machine_id(node: &mut Node, id: &str) {
    let path = node.folder().join("machine-id");
    fs::write(&path, format!("{id}\n")).unwrap();
    node.start_after(&format!("mount --bind {} /etc/machine-id", path.display()));
    node.wait_until_ready();
}

fn copy_state(from: &Node, to: &Node) {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from.folder().join("state"));
    assert!(copy.arg(to.folder()).status().unwrap().success());
}

fn bridges_reach_each_other(lab: &Lab, nodes: &[Node; 2]) {
    for (from, to) in [(0, 1), (1, 0)] {
        let gateway = |node: &Node| node.subnet_key().replace(".0-24", ".1");
        let (from, to) = (&nodes[from], &nodes[to]);
        let ping = format!("ping -c1 -W1 -I {} {}", gateway(from), gateway(to));
        from.wait_for(&ping, " 1 received");
    }
    assert_eq!(lab.leases().len(), 2);
}

fn macs(lab: &Lab, nodes: &[Node; 2]) -> [String; 2] {
    nodes.each_ref().map(|node| {
        let value = lab.lease(&node.subnet_key()).unwrap().value;
        let value: serde_json::Value = serde_json::from_str(&value).unwrap();
        value["BackendData"]["VtepMAC"].as_str().unwrap().to_owned()
    })
}

/// Same machine-id, same host name: the same tunnel address is derived.
#[test]
fn two_machines_with_one_machine_id_get_two_tunnel_addresses() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut nodes = [lab.bare_node(1), lab.bare_node(2)];
    for node in &mut nodes {
        let subnet = format!("100.96.{}.0/24", node.number);
        node.write_config(&format!(
            "[node]\nname = \"clone\"\nsubnet = \"{subnet}\"\n"
        ));
        start_with_machine_id(node, "0123456789abcdef0123456789abcdef");
    }
    let ids = nodes.each_ref().map(|node| node.file("state/node-id"));
    assert_eq!(ids[0], ids[1]);
    let healed = until("the tunnel addresses differ", || {
        let [one, two] = macs(&lab, &nodes);
        one != two
    });
    eprintln!("two clones had two tunnel addresses after {healed:.1?}");
    let before = macs(&lab, &nodes);
    bridges_reach_each_other(&lab, &nodes);
    for node in &mut nodes {
        node.wait_for_status("1 of 1 peers, lease 23h59m, datastore ok");
        node.kill();
        start_with_machine_id(node, "0123456789abcdef0123456789abcdef");
    }
    bridges_reach_each_other(&lab, &nodes);
    assert_eq!(macs(&lab, &nodes), before);
}

#[test]
fn a_cloned_disk_with_a_machine_id_of_its_own_starts_anew() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut nodes = [lab.bare_node(1), lab.bare_node(2)];
    for node in &nodes {
        node.write_config("[node]\nname = \"clone\"\n");
    }
    start_with_machine_id(&mut nodes[0], "0123456789abcdef0123456789abcdef");
    copy_state(&nodes[0], &nodes[1]);
    let own = lab.lease(&nodes[0].subnet_key()).unwrap();
    start_with_machine_id(&mut nodes[1], "fedcba9876543210fedcba9876543210");
    assert_ne!(nodes[0].subnet_key(), nodes[1].subnet_key());
    let log = nodes[1].log();
    let told = log.matches("was copied from another machine").count();
    assert_eq!(told, 1, "{log}");
    let now = lab.lease(&nodes[0].subnet_key()).unwrap();
    assert_eq!((now.value, now.revision), (own.value, own.revision));
    bridges_reach_each_other(&lab, &nodes);
    // from now on the folder is its own
    let key = nodes[1].subnet_key();
    nodes[1].kill();
    start_with_machine_id(&mut nodes[1], "fedcba9876543210fedcba9876543210");
    assert_eq!(nodes[1].subnet_key(), key);
    assert_eq!(nodes[1].log().matches("copied from").count(), 1);
}

/// Nothing local tells the clone from the original that has changed its address.
#[test]
fn a_whole_clone_takes_the_lease_and_the_original_says_so_and_gives_way_when_asked() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut nodes = [lab.bare_node(1), lab.bare_node(2)];
    if !nodes[0].start_bus() {
        return;
    }
    for node in &nodes {
        node.write_config("[node]\nname = \"clone\"\n");
    }
    start_with_machine_id(&mut nodes[0], "0123456789abcdef0123456789abcdef");
    let (key, rows) = (nodes[0].subnet_key(), nodes[0].rows());
    copy_state(&nodes[0], &nodes[1]);
    start_with_machine_id(&mut nodes[1], "0123456789abcdef0123456789abcdef");
    assert_eq!(nodes[1].subnet_key(), key);
    let began = Instant::now();
    let line = nodes[0].wait_for_status("subnet-conflict: ");
    eprintln!("a taken-over lease was told after {:.1?}", began.elapsed());
    assert!(line.contains("leased to 192.168.1.48"), "{line}");
    assert!(line.contains("a clone of this machine"), "{line}");
    assert_eq!(lab.leases(), [key.as_str()]);
    assert_eq!(nodes[0].rows(), rows);

    let (code, stdout, stderr) = nodes[0].program(&["renumber"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    until("the new subnet is in use", || nodes[0].subnet_key() != key);
    let subnet = nodes[0].subnet_key().replace("-24", "/24");
    assert_eq!(stdout, format!("{subnet}\n"));
    nodes[0].wait_for_status("1 of 1 peers, lease 23h59m, datastore ok");
    nodes[1].wait_for_status("1 of 1 peers, lease 23h59m, datastore ok");
    bridges_reach_each_other(&lab, &nodes);
    let [one, two] = macs(&lab, &nodes);
    assert_ne!(one, two);
}

/// Each takes the one lease for its own, as flannel's identity is the address.
#[test]
fn one_public_ip_on_two_hosts_is_told_by_both_and_does_not_keep_the_datastore_busy() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut nodes = [lab.bare_node(1), lab.bare_node(2)];
    for node in &nodes {
        let name = format!("[node]\nname = \"node{}\"\n", node.number);
        node.write_config(&format!(
            "{name}interface = \"eth0\"\npublic-ip = \"192.168.1.47\"\n"
        ));
    }
    for node in &mut nodes {
        node.start();
        node.wait_until_ready();
    }
    let began = Instant::now();
    let rows = nodes.each_ref().map(Node::rows);
    for node in &nodes {
        node.wait_for_status(
            "subnet-conflict: somebody else keeps writing this node's lease with the same public \
             IP 192.168.1.47; set node.interface or node.public-ip",
        );
    }
    eprintln!(
        "one address on two hosts was told by both after {:.1?}",
        began.elapsed()
    );
    let key = nodes[0].subnet_key();
    let said = nodes.each_ref().map(|node| node.log().lines().count());
    let first = lab.lease(&key).unwrap().revision;
    thread::sleep(Duration::from_secs(10));
    let writes = lab.lease(&key).unwrap().revision - first;
    assert!(writes < 10, "{writes} writes in ten seconds");
    for (node, said) in nodes.iter().zip(said) {
        let more = node.log().lines().count() - said;
        assert!(more < 10, "{more} lines: {}", node.log());
    }
    assert_eq!(lab.leases(), [key]);
    assert_eq!(nodes.each_ref().map(Node::rows), rows);
}
