//! Somebody else, or the kernel by itself, changes what the service relies on. Containers send
//! pings all the while; what each fault cost is printed.
//!
//! Rows that one command breaks, and that are simply put back, stand in a table for each backend.
//! What takes more than that has a test of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::VXLAN;
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::{Tally, until};

mod device;
mod fights;
mod flood;
mod uplink;

/// A repair takes no longer than this, what it takes to see it included.
pub(crate) const BOUND: Duration = Duration::from_secs(3);

pub(crate) const HOST_GW: &str = r#"{"Type":"host-gw"}"#;
pub(crate) const UDP: &str = r#"{"Type":"udp"}"#;

/// A name, and what breaks it on any node.
type Fault = (&'static str, &'static str);

#[test]
fn vxlan_device_is_put_right() {
    each_is_put_right(
        VXLAN,
        &[
            ("link deleted", "ip link delete flannel.1"),
            (
                "link bounced",
                "ip link set flannel.1 down; ip link set flannel.1 up",
            ),
            (
                "link renamed",
                "ip link set flannel.1 down; ip link set flannel.1 name other up",
            ),
            ("MTU changed", "ip link set flannel.1 mtu 1300"),
            ("alias removed", "ip link set flannel.1 alias ''"),
            ("link down", "ip link set flannel.1 down"),
            (
                "link bounced, slowly",
                "ip link set flannel.1 down; sleep 0.5; ip link set flannel.1 up",
            ),
        ],
    );
}

#[test]
fn vxlan_rows_are_put_right() {
    each_is_put_right(
        VXLAN,
        &[
            ("routes flushed", "ip route flush proto 96"),
            (
                "neighbours flushed",
                "ip neighbour flush dev flannel.1 nud permanent",
            ),
            (
                "FDB flushed",
                "for mac in $(bridge fdb show dev flannel.1 | cut -d' ' -f1); do \
                   bridge fdb delete $mac dev flannel.1; done",
            ),
            ("address removed", "ip address flush dev flannel.1"),
            ("docker0's address removed", "ip address flush dev docker0"),
            (
                "MAC changed",
                "ip link set flannel.1 address 02:00:00:00:00:99",
            ),
            ("docker0 down", "ip link set docker0 down"),
            ("docker0's MTU changed", "ip link set docker0 mtu 1300"),
        ],
    );
}

#[test]
fn host_gw_routes_are_put_right() {
    each_is_put_right(
        HOST_GW,
        &[
            ("routes flushed", "ip route flush proto 96"),
            (
                "uplink bounced",
                "ip link set eth0 down; sleep 0.2; ip link set eth0 up
                 ip route replace default via 192.168.1.1",
            ),
            ("docker0's address removed", "ip address flush dev docker0"),
            (
                "a route led astray",
                "for to in $(ip route show proto 96 | cut -d' ' -f1); do
                   ip route replace $to via 192.168.1.1 dev eth0; done",
            ),
        ],
    );
}

#[test]
fn udp_device_and_route_are_put_right() {
    each_is_put_right(
        UDP,
        &[
            ("TUN device deleted", "ip link delete flannel0"),
            (
                "TUN device bounced",
                "ip link set flannel0 down; ip link set flannel0 up",
            ),
            (
                "TUN device renamed",
                "ip link set flannel0 down; ip link set flannel0 name other up",
            ),
            ("MTU changed", "ip link set flannel0 mtu 1300"),
            ("alias removed", "ip link set flannel0 alias ''"),
            ("route flushed", "ip route flush proto 96"),
            ("address removed", "ip address flush dev flannel0"),
            (
                "TUN device renamed, mark removed",
                "ip link set flannel0 down; ip link set flannel0 name other alias ''
                 ip link set other up",
            ),
            (
                "uplink bounced",
                "ip link set eth0 down; sleep 0.2; ip link set eth0 up
                 ip route replace default via 192.168.1.1",
            ),
        ],
    );
}

/// Does each on one node after the other, so that no node takes it for a fight.
fn each_is_put_right(backend: &str, faults: &[Fault]) {
    let Some(lab) = Lab::with_backend(Shape::Flat, backend) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let before = [0, 1, 2].map(|at: usize| whole(&nodes[at]));
    for (turn, (name, script)) in faults.iter().enumerate() {
        let at = turn % 3;
        let (node, peer) = (&nodes[at], &nodes[(at + 1) % 3]);
        let log = node.log();
        let pings = lab.ping(node.number, peer.number);
        let began = Instant::now();
        node.must(script);
        until(
            &format!("{backend}, {name}, back to\n{}", before[at]),
            || whole(node) == before[at],
        );
        let took = began.elapsed();
        until("an answer", || lab.reaches(node.number, peer.number));
        let tally = pings.finish();
        let news = node.log()[log.len()..].trim_end().to_owned();
        eprintln!(
            "{backend}, {name}: repaired after {took:.0?}, {}; log: {news}",
            outage(&tally, began.elapsed())
        );
        assert!(took < BOUND, "{name}: {took:?}");
        assert!(!news.is_empty(), "{name}: there was nothing to repair");
    }
    lab.wait_until_connected();
    for (node, before) in nodes.iter().zip(&before) {
        node.wait_for_status("datastore ok");
        assert_eq!(&whole(node), before);
    }
}

/// All that the service has set up, and the names of all links that have its mark.
pub(crate) fn whole(node: &Node) -> String {
    let links = node.shown("ip -o link");
    let marked = links
        .lines()
        .filter(|line| line.contains("alias flannel-rs"));
    let names = marked.filter_map(|line| line.split(": ").nth(1));
    // a device made anew has another place in the list
    let names: BTreeSet<&str> = names.collect();
    format!("{}marked: {names:?}", node.rows())
}

/// How long no ping was answered, in words.
pub(crate) fn outage(tally: &Tally, time: Duration) -> String {
    let longest = longest_run(&tally.lost);
    let silence = time.mul_f64(f64::from(longest) / f64::from(tally.sent.max(1)));
    let lost = tally.lost.len();
    format!(
        "{lost} of {} pings lost, silent for {silence:.0?}",
        tally.sent
    )
}

fn longest_run(numbers: &[u32]) -> u32 {
    let (mut longest, mut run, mut last) = (0, 0, 0);
    for number in numbers {
        run = if *number == last + 1 { run + 1 } else { 1 };
        last = *number;
        longest = longest.max(run);
    }
    longest
}

/// The process of a node's service.
pub(crate) fn process(lab: &Lab, node: &Node) -> u32 {
    let namespace = lab.namespace(&format!("node{}", node.number));
    let pids = node.must(&format!("ip netns pids {namespace}"));
    let is_ours = |pid: &&str| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("flannel-rs")
    };
    let pid = pids.lines().find(is_ours).expect("a running service");
    pid.parse().unwrap()
}

/// As [`Lab::start_all`], with a bus on node1.
pub(crate) fn start_with_bus(lab: &Lab) -> [Node; 3] {
    let mut nodes = [1, 2, 3].map(|number| lab.node(number));
    nodes[0].start_bus();
    for node in &mut nodes {
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    lab.wait_until_connected();
    nodes
}

/// Asserts that something took no longer than it may, and prints what it took.
pub(crate) fn within(bound: Duration, took: Duration, what: &str) {
    eprintln!("{what}: after {took:.0?}");
    assert!(took < bound, "{what}: {took:?}");
}
