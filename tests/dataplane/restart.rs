//! The service ends, starts and changes its ways under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::capture::{Capture, packets};
use crate::cluster::{Cluster, UDP, Way, choose, has};
use crate::stream::{Load, Stream};
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// Streams in both directions that go on until they are told.
struct Streams {
    over: Arc<AtomicBool>,
    streams: Vec<Stream>,
}

impl Streams {
    fn start(cluster: &Cluster) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let paced = Load {
            pause: Duration::from_millis(5),
            ..Load::until(&over)
        };
        let pairs = [(1, 2), (2, 1), (3, 1)].map(|(from, to)| cluster.pair(from, to));
        let streams = pairs.iter().map(|pair| Stream::start(pair, paced.clone()));
        let streams = streams.collect();
        Self { over, streams }
    }

    /// Waits until some more has arrived on each.
    fn move_on(&self, what: &str) {
        for stream in &self.streams {
            let before = stream.received();
            until(what, || stream.received() > before + (256 << 10));
        }
    }

    /// Ends them; no pause was longer than that.
    fn finish(self, longest: Duration) {
        self.over.store(true, Ordering::Relaxed);
        for stream in self.streams {
            let moved = stream.finish();
            eprintln!("{moved:?}");
            assert!(moved.longest_pause < longest, "{moved:?}");
        }
    }
}

type End = fn(&mut Node);

fn kill(node: &mut Node) {
    node.kill();
}

fn stop(node: &mut Node) {
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn streams_outlive_restarts() {
    let Some(mut cluster) = Cluster::start(Shape::Flat, [Way::Offloads; 3]) else {
        return;
    };
    let streams = Streams::start(&cluster);
    let pings = [(1, 2), (3, 2)].map(|(from, to)| cluster.lab.ping(from, to));
    for (index, end) in [(0, kill as End), (1, stop), (1, kill), (0, stop)] {
        streams.move_on("streams move before the end");
        end(&mut cluster.nodes[index]);
        cluster.nodes[index].start();
        cluster.nodes[index].wait_until_ready();
        streams.move_on("streams move after the start");
    }
    // each doubles its retransmission timer while there is no service
    streams.finish(Duration::from_secs(10));
    for pings in pings {
        let tally = pings.finish();
        let (sent, lost) = (tally.sent as usize, tally.lost.len());
        eprintln!("four restarts: {lost} of {sent} pings lost");
        assert!(sent > 100 && lost < sent * 2 / 3, "{tally:?}");
    }
}

/// From which ports node 1 sends datagrams just now.
fn ports(cluster: &Cluster) -> BTreeSet<u16> {
    let net = cluster.lab.namespace("net");
    let ours = "udp and src host 192.168.1.47 and udp dst port 8285";
    let capture = Capture::start(&net, cluster.lab.folder(), "ports", ["node1", ours]);
    until("some datagrams have passed", || capture.size() > 50_000);
    let packets = packets(&capture.finish());
    let port = |packet: &Vec<u8>| u16::from_be_bytes([packet[20], packet[21]]);
    packets.iter().map(port).collect()
}

/// Whether the device of a node has several queues and takes bundles.
fn has_offloads(node: &Node) -> bool {
    let shown = node.shown("ip -d link show flannel0");
    let [queues, headers] = [" multi_queue ", " vnet_hdr on "].map(|part| shown.contains(part));
    assert_eq!(queues, headers, "{shown}");
    queues
}

#[test]
fn a_reload_changes_the_way_under_load() {
    if !has(&["tcpdump"]) {
        return;
    }
    let Some(cluster) = Cluster::start(Shape::Flat, [Way::Offloads; 3]) else {
        return;
    };
    let streams = Streams::start(&cluster);
    let shared = BTreeSet::from([8285]);
    for way in [Way::OnePort, Way::Plain, Way::Offloads] {
        streams.move_on("streams move before the change");
        let before = ports(&cluster);
        assert_eq!(before == shared, way == Way::Plain, "{before:?}");
        cluster.reload(1, way);
        until("the device is as the way wants it", || {
            has_offloads(&cluster.nodes[0]) == (way != Way::Plain)
        });
        until("the ports are as the way wants them", || {
            let ports = ports(&cluster);
            (ports == shared) == (way == Way::OnePort) && ports.contains(&8285) == (ports == shared)
        });
        cluster.nodes[0].wait_for_status("datastore ok");
    }
    streams.move_on("streams move after the last change");
    streams.finish(Duration::from_secs(10));
}

/// As the former version of the service, or the other way of this one, leaves its device.
fn a_device_is_taken_over(way: Way, queues: &str) {
    let Some(lab) = Lab::with_backend(Shape::Flat, UDP) else {
        return;
    };
    let mut nodes = [1, 2].map(|number| lab.node(number));
    choose(&nodes[0], way);
    nodes[0].must(&format!(
        "ip tuntap add dev flannel0 mode tun {queues}
         ip link set flannel0 alias flannel-rs mtu 1472 up
         ip address add 100.96.1.0/32 dev flannel0
         ip route add 100.96.0.0/16 dev flannel0 proto 96 src 100.96.1.0"
    ));
    for node in &mut nodes {
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    until("the containers reach each other", || {
        lab.reaches(1, 2) && lab.reaches(2, 1)
    });
    assert_eq!(has_offloads(&nodes[0]), way != Way::Plain);
    let shown = nodes[0].rows();
    for part in [
        "100.96.0.0/16 dev flannel0 proto 96 scope link src 100.96.1.0",
        "flannel0 UP 100.96.1.0/32",
        "mtu 1472",
        "alias flannel-rs",
    ] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    // and after a death, when the device is as it should be
    let index = nodes[0].must("cat /sys/class/net/flannel0/ifindex");
    nodes[0].kill();
    nodes[0].start();
    nodes[0].wait_until_ready();
    until("the containers reach each other", || lab.reaches(1, 2));
    assert_eq!(nodes[0].must("cat /sys/class/net/flannel0/ifindex"), index);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(nodes[0].rows(), shown);
}

#[test]
fn a_device_with_one_queue_is_taken_over() {
    a_device_is_taken_over(Way::Offloads, "");
}

#[test]
fn a_device_with_several_queues_is_taken_over() {
    a_device_is_taken_over(Way::Plain, "multi_queue vnet_hdr");
}
