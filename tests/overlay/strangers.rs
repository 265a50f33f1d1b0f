//! Who may send to the tunnel's port, and in whose name.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::{PATIENCE, until};

/// Of nobody in the network: whether it arrives is for the port to decide alone.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 7);
const OF_NODE2: Ipv4Addr = Ipv4Addr::new(100, 96, 2, 9);
const OF_NODE3: Ipv4Addr = Ipv4Addr::new(100, 96, 3, 9);
const OF_NODE1: Ipv4Addr = Ipv4Addr::new(100, 96, 1, 9);
const OF_NOBODY: Ipv4Addr = Ipv4Addr::new(100, 96, 77, 9);
const CONTAINER: Ipv4Addr = Ipv4Addr::new(100, 96, 1, 2);

const VXLAN: &str = "vxlan";
const UDP: &str = "udp";

/// A socket that was made in a network namespace of the lab.
fn socket(lab: &Lab, name: &str, port: u16) -> UdpSocket {
    let namespace = PathBuf::from("/run/netns").join(lab.namespace(name));
    let socket = thread::spawn(move || {
        setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        UdpSocket::bind(("0.0.0.0", port)).unwrap()
    });
    let socket = socket.join().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// An IPv4 packet with a datagram for the container.
fn packet(source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(28 + payload.len()).unwrap().to_be_bytes();
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(CONTAINER.octets());
    let words = bytes.chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let checksum = u16::try_from(0xffff - sum % 0xffff).unwrap();
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend([0x30, 0x39, 0x27, 0x0f, length[0], length[1], 0, 0]);
    bytes.extend(payload);
    bytes
}

/// Three nodes, and who listens in the first one's container.
struct Scene {
    lab: Lab,
    nodes: [Node; 3],
    backend: &'static str,
    listener: UdpSocket,
    /// What comes before the inner packet.
    head: Vec<u8>,
    /// How many datagrams have been sent.
    sent: u32,
}

impl Scene {
    fn new(backend: &'static str) -> Option<Self> {
        let lab = Lab::with_backend(Shape::Flat, &format!(r#"{{"Type":"{backend}"}}"#))?;
        if lab.shown("net", "nft --version").is_empty() {
            eprintln!("skipped: this needs nft to look at the packet filter");
            return None;
        }
        let mut nodes = lab.start_all();
        if !nodes[0].start_bus() {
            return None;
        }
        lab.wait_until_connected();
        // it is not to judge what comes from outside
        nodes[0].must("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done");
        let listener = socket(&lab, "c1", 9999);
        let head = match backend {
            VXLAN => frame(&nodes[0]),
            _ => Vec::new(),
        };
        Some(Self {
            lab,
            nodes,
            backend,
            listener,
            head,
            sent: 0,
        })
    }

    fn port(&self) -> u16 {
        if self.backend == VXLAN { 8472 } else { 8285 }
    }

    /// Sends from a host to the tunnel's port of node1, and answers with what it sent.
    fn send(&mut self, host: &str, source: Ipv4Addr) -> String {
        self.sent += 1;
        let payload = format!("{} from {source} by {host}", self.sent);
        let inner = packet(source, payload.as_bytes());
        let datagram = [self.head.as_slice(), &inner].concat();
        let to = (Ipv4Addr::new(192, 168, 1, 47), self.port());
        socket(&self.lab, host, 0).send_to(&datagram, to).unwrap();
        payload
    }

    /// What arrives next in the container, and its sender.
    #[track_caller]
    fn next(&self) -> (String, Ipv4Addr) {
        let mut buffer = [0; 256];
        let (length, from) = self.listener.recv_from(&mut buffer).expect("a datagram");
        let payload = String::from_utf8_lossy(&buffer[..length]).into_owned();
        (payload, from.ip().to_string().parse().unwrap())
    }

    #[track_caller]
    fn arrives(&mut self, host: &str, source: Ipv4Addr) {
        let payload = self.send(host, source);
        assert_eq!(self.next(), (payload, source));
    }

    /// Whether a rule with this comment, or the data plane, has dropped and counted what was sent.
    #[track_caller]
    fn is_dropped(&mut self, host: &str, source: Ipv4Addr, by: &str) {
        let before = self.dropped(by);
        let payload = self.send(host, source);
        until(&format!("{payload} is dropped and counted"), || {
            self.dropped(by) > before
        });
        self.listener.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        let arrived = self.listener.recv(&mut buffer);
        assert!(arrived.is_err(), "{payload}: {arrived:?}");
        self.listener.set_nonblocking(false).unwrap();
    }

    fn dropped(&self, by: &str) -> u64 {
        if by == SPOOFED && self.backend == UDP {
            let status = self.nodes[0].status();
            return status["traffic"]["dropped_spoofed"].as_u64().unwrap();
        }
        let rules = self.nodes[0].shown("nft list table ip flannel-rs");
        let line = rules.lines().find(|line| line.contains(by));
        assert!(line.is_some(), "no {by:?} in {rules}");
        let line = line.unwrap();
        let (_, counted) = line.split_once("counter packets ").unwrap();
        let number = counted.split(' ').next().unwrap();
        number.parse().unwrap()
    }

    fn has_rule(&self, by: &str) -> bool {
        let rules = self.nodes[0].shown("nft list table ip flannel-rs");
        rules.contains(by)
    }

    /// Reads the config again with these lines in `[firewall]`.
    fn reload(&self, firewall: &str) {
        let node = &self.nodes[0];
        node.write_config(&format!(
            "[node]\nname = \"node1\"\nsubnet = \"100.96.1.0/24\"\n[firewall]\n{firewall}\n"
        ));
        let before = node.told("READY=1");
        node.signal(Signal::SIGHUP);
        until("the reload is over", || node.told("READY=1") > before);
    }
}

const CLOSED: &str = "closed to all but peers";
const SPOOFED: &str = "spoofed: not of the sender's subnet";
const TAGGED: [(u16, &str); 2] = [
    (0x8100, "spoofed: behind an 802.1Q tag"),
    (0x88a8, "spoofed: behind an 802.1ad tag"),
];

/// The headers of vxlan (RFC 7348) and Ethernet, to the tunnel of a node.
fn frame(node: &Node) -> Vec<u8> {
    let link = node.shown("ip -o link show flannel.1");
    let (_, rest) = link.split_once("link/ether ").unwrap();
    let mac = rest.split(' ').next().unwrap().split(':');
    let mut head = vec![8, 0, 0, 0, 0, 0, 1, 0];
    head.extend(mac.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    head.extend([2, 0, 0, 0, 0, 0x77, 8, 0]);
    head
}

fn only_peers_may_send(backend: &'static str) {
    let Some(mut scene) = Scene::new(backend) else {
        return;
    };
    scene.is_dropped("net", OUTSIDE, CLOSED);
    scene.arrives("node2", OUTSIDE);
    scene.arrives("node3", OUTSIDE);
    scene.nodes[2].kill();
    scene.lab.delete_lease("100.96.3.0-24");
    scene.nodes[0].wait_for_status("1 of 1 peers");
    scene.nodes[0].wait_for_end("nft list set ip flannel-rs peers", "192.168.1.49");
    scene.is_dropped("node3", OUTSIDE, CLOSED);
    scene.arrives("node2", OUTSIDE);
    scene.nodes[2].start();
    scene.nodes[2].wait_until_ready();
    scene.nodes[0].wait_for("nft list set ip flannel-rs peers", "192.168.1.49");
    scene.arrives("node3", OUTSIDE);
    scene.reload("protect-tunnel-port = false");
    until("the port is open", || !scene.has_rule(CLOSED));
    scene.arrives("net", OUTSIDE);
    scene.reload("protect-tunnel-port = true");
    until("the port is closed", || scene.has_rule(CLOSED));
    scene.is_dropped("net", OUTSIDE, CLOSED);
}

#[test]
fn only_peers_may_send_to_the_port_of_vxlan() {
    only_peers_may_send(VXLAN);
}

#[test]
fn only_peers_may_send_to_the_port_of_udp() {
    only_peers_may_send(UDP);
}

fn peers_speak_for_themselves_only(backend: &'static str) {
    let Some(mut scene) = Scene::new(backend) else {
        return;
    };
    scene.arrives("node2", OF_NODE2);
    for source in [OF_NODE3, OF_NODE1, OF_NOBODY] {
        scene.is_dropped("node2", source, SPOOFED);
    }
    scene.arrives("node3", OF_NODE3);
    scene.arrives("node2", OF_NODE2);
    let before = [CLOSED, SPOOFED].map(|by| scene.dropped(by));
    scene.lab.wait_until_connected();
    let after = [CLOSED, SPOOFED].map(|by| scene.dropped(by));
    assert_eq!(after, before, "peers lose nothing");
    scene.reload("verify-source = false");
    for source in [OF_NODE3, OF_NOBODY] {
        scene.arrives("node2", source);
    }
    scene.reload("verify-source = true");
    scene.is_dropped("node2", OF_NODE3, SPOOFED);
    scene.arrives("node2", OF_NODE2);
}

#[test]
fn vxlan_peers_speak_for_themselves_only() {
    peers_speak_for_themselves_only(VXLAN);
}

#[test]
fn udp_peers_speak_for_themselves_only() {
    peers_speak_for_themselves_only(UDP);
}

/// The kernel takes off a tag of VLAN 0 and goes on with what is behind it
/// (`__netif_receive_skb_core`), so a rule that looks for IPv4 at the usual place sees none.
#[test]
fn no_tag_hides_in_whose_name_a_vxlan_peer_speaks() {
    let Some(mut scene) = Scene::new(VXLAN) else {
        return;
    };
    let plain = scene.head.clone();
    let tagged = |tag: u16| {
        let (before, kind) = plain.split_at(plain.len() - 2);
        [before, &tag.to_be_bytes(), &[0, 0], kind].concat()
    };
    for (tag, comment) in TAGGED {
        scene.head = tagged(tag);
        scene.is_dropped("node2", OF_NODE3, comment);
    }
    scene.reload("verify-source = false");
    for (tag, comment) in TAGGED {
        until("tags are let through", || !scene.has_rule(comment));
        scene.head = tagged(tag);
        scene.arrives("node2", OF_NODE3);
    }
}
