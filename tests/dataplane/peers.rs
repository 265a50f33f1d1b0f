//! A peer that is dead or slow, flooded by a container, beside one that is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::cluster::{Cluster, Way};
use crate::datagrams::{Datagrams, Volley};
use crate::stream::{Load, Moved, Stream};
use crate::support::lab::Shape;
use crate::support::process::shown;

/// The longest time without progress that a stream to a well peer may have.
/// A lost segment's timer alone takes 200 ms, and twice as long each time, on a machine at rest.
const STALL: Duration = Duration::from_secs(2);
const STREAMS: usize = 8;

/// Floods container 3 and answers what became of streams to container 2 meanwhile.
fn beside_a_flood(cluster: &Cluster) -> Vec<Moved> {
    let over = Arc::new(AtomicBool::new(false));
    let flood = Volley {
        together: 20,
        // some 10,000 datagrams in a second, more than the way takes
        pause: Duration::from_millis(2),
        ..Volley::of(&[1400], &over)
    };
    let flood = Datagrams::start(&cluster.pair(1, 3), flood);
    // the neighbour is asked for and given up, the queues fill
    thread::sleep(Duration::from_secs(1));
    let paced = Load {
        pause: Duration::from_millis(20),
        ..Load::until(&over)
    };
    let pair = cluster.pair(1, 2);
    let streams: Vec<Stream> = (0..STREAMS)
        .map(|_| Stream::start(&pair, paced.clone()))
        .collect();
    thread::sleep(Duration::from_secs(5));
    over.store(true, Ordering::Relaxed);
    flood.finish();
    streams.into_iter().map(Stream::finish).collect()
}

/// At least so many of the streams are not held up.
fn keep_going(way: Way, moved: &[Moved], least: usize) {
    eprintln!("{way:?}: {moved:?}");
    let is_well = |moved: &&Moved| moved.longest_pause < STALL && moved.bytes > 256 << 10;
    let well = moved.iter().filter(is_well).count();
    assert!(well >= least, "{well} of {} go on: {moved:?}", moved.len());
}

fn a_dead_peer_holds_nobody_up(way: Way) {
    let Some(cluster) = Cluster::start(Shape::Flat, [way; 3]) else {
        return;
    };
    cluster.lab.must("net", "ip link set node3 down");
    cluster.nodes[0].must("ip neighbour flush to 192.168.1.49");
    keep_going(way, &beside_a_flood(&cluster), STREAMS);
    cluster.lab.must("net", "ip link set node3 up");
    cluster.lab.wait_until_connected();
}

/// A queue that sends ten megabits in a second; what does not fit into it waits with the sender,
/// or is lost.
fn slow(namespace: &str, device: &str) -> bool {
    let tbf = format!("tc qdisc add dev {device} root tbf rate 10mbit burst 10k limit 100m");
    shown(namespace, &tbf);
    let taken = shown(namespace, &format!("tc qdisc show dev {device}")).contains("tbf");
    if !taken {
        eprintln!("skipped: this needs tc and the queueing discipline tbf");
    }
    taken
}

fn was_slow(namespace: &str, device: &str) {
    let shown = shown(namespace, &format!("tc -s qdisc show dev {device}"));
    assert!(!shown.contains("overlimits 0"), "{shown}");
}

/// Node 3 has a slow line: the queue is elsewhere.
fn a_slow_peer_holds_nobody_up(way: Way) {
    let Some(cluster) = Cluster::start(Shape::Flat, [way; 3]) else {
        return;
    };
    let net = cluster.lab.namespace("net");
    if slow(&net, "node3") {
        keep_going(way, &beside_a_flood(&cluster), STREAMS);
        was_slow(&net, "node3");
    }
}

/// Node 1 has a slow line to node 3, whose queue fills the buffer of the socket that the flood
/// goes through. Flows that share the socket with it share its fate; these are few, as each node
/// has several.
fn a_slow_line_holds_few_up(way: Way) {
    let Some(cluster) = Cluster::start(Shape::Flat, [way; 3]) else {
        return;
    };
    let node = cluster.lab.namespace("node1");
    let line = format!(
        "ip link add slow1 type veth peer name slow netns {node}
         ip link set slow1 master br1 up"
    );
    cluster.lab.must("net", &line);
    cluster.nodes[0].must(
        "ip link set slow up
         ip route add 192.168.1.49 dev slow src 192.168.1.47",
    );
    if slow(&node, "slow") {
        keep_going(way, &beside_a_flood(&cluster), STREAMS / 2);
        was_slow(&node, "slow");
    }
}

#[test]
fn a_dead_peer_holds_nobody_up_with_offloads() {
    a_dead_peer_holds_nobody_up(Way::Offloads);
}

#[test]
fn a_dead_peer_holds_nobody_up_plain() {
    a_dead_peer_holds_nobody_up(Way::Plain);
}

#[test]
fn a_slow_peer_holds_nobody_up_with_offloads() {
    a_slow_peer_holds_nobody_up(Way::Offloads);
}

#[test]
fn a_slow_peer_holds_nobody_up_plain() {
    a_slow_peer_holds_nobody_up(Way::Plain);
}

#[test]
fn a_slow_line_holds_few_up_with_offloads() {
    a_slow_line_holds_few_up(Way::Offloads);
}

#[test]
fn a_slow_line_holds_few_up_plain() {
    a_slow_line_holds_few_up(Way::Plain);
}
