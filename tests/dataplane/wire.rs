//! The datagrams between nodes as a cable would carry them, read by an independent decoder, and
//! what the other end makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn,
};

use crate::capture::{Capture, packets};
use crate::cluster::{Cluster, Way, has, within};
use crate::datagrams::{Datagrams, Volley};
use crate::decoder::{Frame, PROGRAMS, decode};
use crate::stream::{Load, Stream};
use crate::support::lab::Shape;

const BETWEEN: &str = "udp and host 192.168.1.47 and host 192.168.1.48";

/// Two nodes whose uplinks leave nothing to a card, as there is none, and container 2, where the
/// kernel takes all bundles apart.
fn cabled(ways: [Way; 3]) -> Option<Cluster> {
    if !has(&PROGRAMS) {
        return None;
    }
    let cluster = Cluster::start(Shape::Flat, ways)?;
    let off = "tx off tso off gso off gro off tx-udp-segmentation off";
    for node in &cluster.nodes[..2] {
        let number = node.number;
        node.must(&format!(
            "ethtool -K eth0 {off}; ethtool -K veth-c{number} {off}"
        ));
        let port = format!("ethtool -K node{number} gro off");
        cluster.lab.must("net", &port);
        // offers and takes ECN
        let container = format!("c{number}");
        let ecn = "echo 1 > /proc/sys/net/ipv4/tcp_ecn";
        cluster.lab.must(&container, ecn);
    }
    Some(cluster)
}

/// A bit of everything between containers 1 and 2.
fn mixed_traffic(cluster: &Cluster) {
    let over = Arc::new(AtomicBool::new(false));
    let both = [cluster.pair(1, 2), cluster.pair(2, 1)];
    let datagrams = both.iter().flat_map(|pair| {
        let bundles = |length, together| Volley {
            together,
            pause: Duration::from_millis(8),
            ..Volley::of(&[length], &over)
        };
        let slowly = Volley {
            pause: Duration::from_millis(5),
            ..Volley::of(&[4, 5, 63, 64, 700, 1443, 1444, 1445, 2900, 8192], &over)
        };
        [slowly, bundles(1000, 9), bundles(133, 40)].map(|volley| Datagrams::start(pair, volley))
    });
    let datagrams: Vec<Datagrams> = datagrams.collect();
    let streams: Vec<Stream> = both
        .iter()
        .flat_map(|pair| {
            let short = |segment, bytes| Load {
                segment: Some(segment),
                ..Load::bytes(bytes)
            };
            let loads = [
                Load::bytes(1_000_003),
                Load::bytes(300_001),
                short(536, 200_001),
                short(88, 20_001),
            ];
            loads.map(|load| Stream::start(pair, load))
        })
        .collect();
    for length in [0, 1, 56, 1444, 1445, 4000] {
        let ping = format!("ping -n -q -c 4 -i 0.05 -s {length} 100.96.2.2");
        cluster.lab.must("c1", &ping);
    }
    let closed = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = within(&cluster.container(1), move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // "port unreachable" comes back, which quotes this
        socket
            .send_to(&[7; 100], ("100.96.2.2", closed.port()))
            .unwrap();
    });
    refused.join().unwrap();
    for stream in streams {
        stream.finish();
    }
    over.store(true, Ordering::Relaxed);
    for datagrams in datagrams {
        assert!(datagrams.finish().received > 0);
    }
}

/// Captures between the nodes and before container 2.
fn capture(cluster: &Cluster, name: &str) -> [Capture; 2] {
    let folder = cluster.lab.folder();
    let (net, container) = (cluster.lab.namespace("net"), cluster.container(2));
    let delivered = format!("{name}-delivered");
    [
        Capture::start(&net, folder, name, ["node2", BETWEEN]),
        Capture::start(
            &container,
            folder,
            &delivered,
            ["eth0", "ip src 100.96.1.2"],
        ),
    ]
}

fn is_sound(frames: &[Frame]) {
    let broken = frames.iter().filter(|frame| !frame.complaints.is_empty());
    let broken: Vec<&Frame> = broken.collect();
    assert!(
        broken.is_empty(),
        "{} of {} datagrams, first of them: {:#?}, {:02x?}",
        broken.len(),
        frames.len(),
        broken[0].complaints,
        broken[0].bytes
    );
    // else this has looked at nothing
    let kinds = ["tcp", "udp", "icmp", "fragment", "ecn", "timestamps"];
    for kind in kinds {
        let count = frames
            .iter()
            .filter(|frame| frame.traits.contains(&kind))
            .count();
        assert!(count >= 8, "{count} datagrams with {kind}");
    }
}

/// Each flow of the container arrives in the order and with the bytes that it has on the wire,
/// apart from losses; only what two hops change differs.
fn is_what_was_sent(wire: &Path, delivered: &Path) {
    let sent = packets(wire).into_iter().filter_map(|outer| {
        let inner = outer.get(28..)?.to_vec();
        let port = u16::from_be_bytes([outer[20], outer[21]]);
        (inner.len() >= 20 && inner[12..16] == [100, 96, 1, 2]).then_some((port, inner))
    });
    let mut flows: BTreeMap<Vec<u8>, Sent> = BTreeMap::new();
    for (port, packet) in sent {
        let sent = flows.entry(flow(&packet)).or_default();
        sent.ports.insert(port);
        sent.packets.push(comparable(packet));
    }
    for (flow, sent) in &flows {
        assert_eq!(
            sent.ports.len(),
            1,
            "{flow:02x?} left from {:?}",
            sent.ports
        );
    }
    let delivered = packets(delivered);
    for mut packet in delivered.clone() {
        // the other node's data plane, and the node itself
        packet[8] += 2;
        let flow = flows.get_mut(&flow(&packet)).expect("a flow that was sent");
        let packet = comparable(packet);
        assert!(
            flow.find(&packet),
            "never sent, or before what has arrived: {packet:02x?}\n{:02x?}",
            flow.next()
        );
    }
    assert!(delivered.len() > 500, "{} packets", delivered.len());
}

/// What a flow has on the wire.
#[derive(Default)]
struct Sent {
    ports: BTreeSet<u16>,
    packets: Vec<Vec<u8>>,
    /// Before this all have arrived or are lost.
    next: usize,
}

impl Sent {
    fn find(&mut self, packet: &[u8]) -> bool {
        let mut ahead = self.packets[self.next..].iter();
        let skipped = ahead.position(|sent| sent == packet);
        self.next += skipped.map_or(0, |skipped| skipped + 1);
        skipped.is_some()
    }

    fn next(&self) -> &[u8] {
        self.packets.get(self.next).map_or(&[], Vec::as_slice)
    }
}

/// Addresses, protocol and ports; for fragments the identification.
fn flow(packet: &[u8]) -> Vec<u8> {
    let fragment = packet[6] & 0x3f != 0 || packet[7] != 0;
    let last = if fragment {
        &packet[4..6]
    } else {
        &packet[20..24]
    };
    [&packet[9..10], &packet[12..20], last].concat()
}

/// Without what may differ: the header's checksum, which the time to live changes, and the
/// identification of what cannot be a fragment (RFC 6864 §4.1).
fn comparable(mut packet: Vec<u8>) -> Vec<u8> {
    packet[10..12].fill(0);
    if packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
    }
    packet
}

#[test]
fn every_datagram_holds_one_sound_packet_and_a_planted_error_is_found() {
    let Some(mut cluster) = cabled([Way::Offloads; 3]) else {
        return;
    };
    let captures = capture(&cluster, "mixed");
    mixed_traffic(&cluster);
    let [wire, delivered] = captures.map(Capture::finish);
    let frames = decode(&wire);
    is_sound(&frames);
    is_what_was_sent(&wire, &delivered);

    plant(&cluster, &wire);
    assert!(cluster.nodes[1].is_running());

    let ports: BTreeSet<u16> = frames.iter().map(|frame| frame.source.1).collect();
    assert!(ports.len() >= 4 && !ports.contains(&8285), "{ports:?}");
}

#[test]
fn every_datagram_comes_from_the_one_port() {
    let Some(cluster) = cabled([Way::OnePort, Way::Plain, Way::Plain]) else {
        return;
    };
    let captures = capture(&cluster, "mixed");
    mixed_traffic(&cluster);
    let [wire, delivered] = captures.map(Capture::finish);
    let frames = decode(&wire);
    is_sound(&frames);
    is_what_was_sent(&wire, &delivered);
    let ours: BTreeSet<u16> = (frames.iter())
        .filter(|frame| frame.source.0 == "192.168.1.47")
        .map(|frame| frame.source.1)
        .collect();
    assert_eq!(ours, BTreeSet::from([8285]));
}

/// Sends from node 1 to node 2 what must not be, and expects the decoder to find just that. What
/// container 1 sends with a wrong checksum must have it on the wire, too.
fn plant(cluster: &Cluster, wire: &Path) {
    let good = packets(wire).into_iter().find_map(|outer| {
        let inner = outer.get(28..)?.to_vec();
        // two of them are to fit into a datagram
        let fits = (100..700).contains(&inner.len()) && inner[6] & 0x3f == 0;
        (fits && inner[9] == 17 && inner[12..16] == [100, 96, 1, 2]).then_some(inner)
    });
    let good = good.expect("a datagram of container 1");
    let flipped = |index: usize| {
        let mut packet = good.clone();
        packet[index] ^= 1;
        packet
    };
    let plants = [
        ("no packet inside", vec![0; 40]),
        ("not one packet inside", [&good[..], &good[..]].concat()),
        ("malformed", good[..90].to_vec()),
        ("the inner header's checksum", flipped(10)),
        ("udp's checksum", flipped(99)),
    ];
    let [capture, _] = capture(cluster, "planted");
    let contents: Vec<Vec<u8>> = plants.iter().map(|(_, bytes)| bytes.clone()).collect();
    let sender = within(&cluster.lab.namespace("node1"), move || {
        let socket = UdpSocket::bind("192.168.1.47:0").unwrap();
        for bytes in contents.iter().chain([&good]) {
            socket.send_to(bytes, "192.168.1.48:8285").unwrap();
        }
        raw_datagram([192, 168, 1, 48], 8285, &good);
    });
    sender.join().unwrap();
    let container = cluster.container(1);
    let container = within(&container, || {
        raw_datagram([100, 96, 2, 2], 9000, b"abcdef");
    });
    container.join().unwrap();
    let mut frames = decode(&capture.finish());
    // container 2 answers what arrives that nobody there asked for
    frames.retain(|frame| frame.source.0 == "192.168.1.47");
    assert_eq!(frames.len(), plants.len() + 3, "{frames:#?}");
    for ((what, _), frame) in plants.iter().zip(&frames) {
        assert!(frame.complains_of(what), "no {what}: {frame:#?}");
    }
    assert!(frames[plants.len()].complaints.is_empty(), "{frames:#?}");
    let raw = &frames[plants.len() + 1..];
    for (what, frame) in [
        ("the datagram's checksum", ""),
        ("udp's checksum", " 17 40000 9000"),
    ] {
        let found = (raw.iter()).find(|raw| raw.complains_of(what) && raw.flow.ends_with(frame));
        assert_eq!(
            found.map(|frame| frame.complaints.len()),
            Some(1),
            "{raw:#?}"
        );
    }
}

/// A UDP datagram whose checksum is wrong.
fn raw_datagram(to: [u8; 4], port: u16, contents: &[u8]) {
    let udp = SockProtocol::Udp;
    let socket =
        socket::socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), udp).unwrap();
    let length = u16::try_from(contents.len() + 8).unwrap();
    let header = [40_000, port, length, 0xdead]
        .map(u16::to_be_bytes)
        .concat();
    let bytes = [&header, contents].concat();
    let [a, b, c, d] = to;
    let to = SockaddrIn::new(a, b, c, d, 0);
    let socket = std::os::fd::AsRawFd::as_raw_fd(&socket);
    socket::sendto(socket, &bytes, &to, MsgFlags::empty()).unwrap();
}
