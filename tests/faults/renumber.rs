//! What moves a node to another subnet: only that somebody asks for it.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;
use crate::{PEER, VXLAN};

/// Two nodes whose network config has changed to `100.97.0.0/16`, which they have not followed.
fn left_behind() -> Option<(Lab, [Node; 2])> {
    let lab = Lab::with_backend(Shape::Flat, VXLAN)?;
    let mut nodes = [1, 2].map(|number| lab.node(number));
    for node in &mut nodes {
        if !node.start_bus() {
            return None;
        }
        node.start();
        node.wait_until_ready();
        lab.container(node);
    }
    until("container 1 reaches container 2", || lab.reaches(1, 2));
    lab.configure(r#"{"Network":"100.97.0.0/16","Backend":{"Type":"vxlan"}}"#);
    for node in &nodes {
        let number = node.number;
        node.wait_for_status(&format!(
            "renumber-required: the network config has changed to 100.97.0.0/16, which has no \
             place for 100.96.{number}.0/24; the one before stays in force until this node is \
             moved: flannel-rs renumber"
        ));
    }
    Some((lab, nodes))
}

/// The subnet that Docker is told, once it is everywhere on the host.
fn is_set_up(node: &Node) -> String {
    let written = node.subnet_env();
    assert!(
        written.contains("FLANNEL_NETWORK=100.97.0.0/16\n"),
        "{written}"
    );
    let gateway = node.subnet_key().replace(".0-24", ".1/24");
    let options = node.file("docker.env");
    assert!(options.contains(&format!("--bip={gateway}\"")), "{options}");
    let bridge = node.shown("ip -4 address show docker0");
    assert!(bridge.contains(&gateway), "{bridge}");
    node.subnet_key().replace('-', "/")
}

#[test]
fn a_network_without_a_place_for_the_own_subnet_is_not_moved_to_by_itself() {
    let Some((lab, nodes)) = left_behind() else {
        return;
    };
    let rows = nodes.each_ref().map(Node::rows);
    let pings = lab.ping(1, 2);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(nodes.each_ref().map(Node::rows), rows);
    assert_eq!(lab.leases(), ["100.96.1.0-24", "100.96.2.0-24"]);
    let refused = nodes[0].program(&["renumber", "100.96.9.0/24"]);
    assert_eq!(refused.0, Some(1));
    assert!(refused.2.contains("of 100.97.0.0/16"), "{refused:?}");
    lab.set_backend(VXLAN);
    for node in &nodes {
        node.wait_for_status("datastore ok");
    }
    let tally = pings.finish();
    assert!(tally.lost.is_empty() && tally.sent >= 30, "{tally:?}");
}

#[test]
fn a_network_without_a_place_for_the_own_subnet_is_moved_to_when_asked() {
    let Some((lab, nodes)) = left_behind() else {
        return;
    };
    let began = Instant::now();
    for (node, asked) in nodes.iter().zip([Some("100.97.5.0/24"), None]) {
        let (code, stdout, stderr) = match asked {
            Some(asked) => node.program(&["renumber", asked]),
            None => node.program(&["renumber"]),
        };
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(asked.is_none_or(|asked| stdout == format!("{asked}\n")));
        // whoever waited for the answer may start Docker on it
        assert_eq!(is_set_up(node), stdout.trim_end());
    }
    let moved = began.elapsed();
    assert_eq!(nodes[0].subnet_key(), "100.97.5.0-24");
    let gateway = |node: &Node| node.subnet_key().replace(".0-24", ".1");
    for (from, to) in [(0, 1), (1, 0)] {
        let (from, to) = (&nodes[from], &nodes[to]);
        let ping = format!("ping -c1 -W1 -I {} {}", gateway(from), gateway(to));
        from.wait_for(&ping, " 1 received");
    }
    eprintln!("two nodes were moved, one after the other, in {moved:.1?}");
    let mut keys = nodes.each_ref().map(Node::subnet_key);
    keys.sort_unstable();
    assert_eq!(lab.leases(), keys);
    for node in &nodes {
        node.wait_for_status("1 of 1 peers, lease 23h59m, ");
        let address = format!("{}/24", gateway(node));
        node.wait_for("ip -4 address show docker0", &address);
        let rows = node.rows();
        assert!(!rows.contains("100.96."), "{rows}");
    }
}

/// One of the two must give way: the one that is asked to.
#[test]
fn who_has_lost_its_subnet_moves_when_asked() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    if !node.start_bus() {
        return;
    }
    node.start();
    node.wait_until_ready();
    let (code, _, stderr) = node.program(&["renumber"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("no need to leave 100.96.1.0/24"),
        "{stderr}"
    );
    lab.write_lease("100.96.1.0-24", PEER, false);
    let theirs = lab.lease("100.96.1.0-24").unwrap();
    node.wait_for_status("subnet-conflict: ");
    let (code, _, stderr) = node.program(&["renumber", "100.96.1.0/24"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("is taken by 192.168.1.60"), "{stderr}");
    let (code, stdout, stderr) = node.program(&["renumber", "100.96.8.0/24"]);
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (Some(0), "100.96.8.0/24\n", "")
    );
    // the wish of its config is for one that somebody else has now
    node.wait_for_status("100.96.8.0/24 vxlan, 1 of 1 peers");
    node.wait_for_status("other-subnet: node.subnet asks for 100.96.1.0/24, which 192.168.1.60");
    let now = lab.lease("100.96.1.0-24").unwrap();
    assert_eq!((now.value, now.revision), (theirs.value, theirs.revision));
    node.wait_for("ip route", "100.96.1.0/24 via 100.96.1.0 dev flannel.1");
}
