//! Packets from others than those whose subnet they claim.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{self, ControlMessage, MsgFlags, SockProtocol, SockaddrIn};

use super::super::{Proxy, Settings, Tuning, table::Table};
use super::lab::{
    self, Node, PORT, arrival, eventually, in_both_modes, insist, pair, peer_socket, raw_socket,
    udp_packet,
};

in_both_modes! {
    a_packet_of_anothers_subnet_is_dropped,
    one_forged_among_good_ones_is_dropped_alone,
    whether_sources_are_verified_changes_under_way,
    nothing_is_lost_before_the_first_table,
}

/// Of a third node, of this one, and of nobody.
const FORGED: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 96, 3, 7),
    Ipv4Addr::new(100, 96, 1, 7),
    Ipv4Addr::new(100, 96, 77, 7),
];

/// What receives in the left node, with a socket of the right one that sends there.
struct Scene {
    proxy: Proxy,
    receiver: OwnedFd,
    peer: UdpSocket,
    left: Node,
    right: Node,
}

impl Scene {
    fn new(tuning: Tuning) -> Option<Self> {
        let (left, right) = pair(tuning)?;
        let proxy = insist(|| {
            left.attach_as(Settings {
                verify: Some("100.96.0.0/16".parse().unwrap()),
                ..left.settings()
            })
        });
        left.configure();
        // it is not to judge by itself what arrives
        left.namespace.set("ipv4/conf/all/rp_filter", "0");
        left.namespace.set("ipv4/conf/flannel0/rp_filter", "0");
        left.namespace.set("ipv4/conf/flannel0/accept_local", "1");
        Some(Self {
            proxy,
            receiver: left.namespace.run(|| raw_socket(SockProtocol::Udp)),
            peer: peer_socket(&right),
            left,
            right,
        })
    }

    /// The right node's subnet is its own, and a third node's is that of somebody else.
    fn table(&self) -> Table {
        Table::new([
            ("100.96.2.0/24".parse().unwrap(), self.right.public),
            ("100.96.3.0/24".parse().unwrap(), [192, 168, 1, 49].into()),
        ])
    }

    fn packet(&self, source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        udp_packet(source, self.left.base, 64, payload)
    }

    fn send(&self, packet: &[u8]) {
        let to = (self.left.public, PORT);
        self.peer.send_to(packet, to).unwrap();
    }

    fn spoofed(&self) -> u64 {
        self.proxy.counters().spoofed
    }

    /// The payload of the next packet, whose source is this.
    #[track_caller]
    fn next(&self, source: Ipv4Addr) -> Vec<u8> {
        loop {
            let packet = arrival(&self.receiver, source);
            if is_inner(&packet) {
                return packet[28..].to_vec();
            }
        }
    }

    #[track_caller]
    fn nothing_waits(&self) {
        let mut buffer = [0; 2048];
        let flags = MsgFlags::MSG_DONTWAIT;
        while let Ok(length) = socket::recv(self.receiver.as_raw_fd(), &mut buffer, flags) {
            let packet = &buffer[..length];
            assert!(!is_inner(packet), "{packet:?}");
        }
    }
}

/// Whether a packet is none of those between the nodes: the socket has these as well.
fn is_inner(packet: &[u8]) -> bool {
    packet[22..24] == [0, 9]
}

fn a_packet_of_anothers_subnet_is_dropped(tuning: Tuning) {
    let Some(scene) = Scene::new(tuning) else {
        return;
    };
    scene.proxy.set_table(&scene.table());
    for source in FORGED {
        scene.send(&scene.packet(source, b"forged"));
    }
    eventually("they are counted", || scene.spoofed() == 3);
    // neither the own subnet of the sender nor what is not of the network is anybody else's
    for source in [scene.right.base, scene.right.public] {
        scene.send(&scene.packet(source, b"true"));
        assert_eq!(scene.next(source), b"true");
    }
    scene.nothing_waits();
    eventually("what came through is counted", || {
        scene.proxy.counters().received_packets == 2
    });
    let counters = scene.proxy.counters();
    assert_eq!((counters.spoofed, counters.malformed), (3, 0));
}

/// The kernel joins what comes of one flow, so that its packet filter sees the first one only.
fn one_forged_among_good_ones_is_dropped_alone(tuning: Tuning) {
    let Some(scene) = Scene::new(tuning) else {
        return;
    };
    scene.proxy.set_table(&scene.table());
    let mut sent = Vec::new();
    for number in 0..16 {
        let source = match number {
            3 | 4 | 9 => FORGED[number % 3],
            _ => scene.right.base,
        };
        let payload = [u8::try_from(number).unwrap(); 1000];
        sent.extend(scene.packet(source, &payload));
    }
    let size = [ControlMessage::UdpGsoSegments(&1028)];
    let to = SockaddrIn::from(SocketAddrV4::new(scene.left.public, PORT));
    let (descriptor, parts) = (scene.peer.as_raw_fd(), [IoSlice::new(&sent)]);
    let flags = MsgFlags::empty();
    socket::sendmsg(descriptor, &parts, &size, flags, Some(&to)).unwrap();
    for number in (0..16).filter(|number| ![3, 4, 9].contains(number)) {
        let payload = scene.next(scene.right.base);
        assert!(payload == [number; 1000], "{number}: {:?}", &payload[..8]);
    }
    eventually("they are counted", || {
        let counters = scene.proxy.counters();
        (counters.spoofed, counters.received_packets) == (3, 13)
    });
    scene.nothing_waits();
}

fn whether_sources_are_verified_changes_under_way(tuning: Tuning) {
    let Some(scene) = Scene::new(tuning) else {
        return;
    };
    scene.proxy.set_table(&scene.table());
    for round in 1..=2 {
        scene.send(&scene.packet(FORGED[0], b"forged"));
        eventually("it is counted", || scene.spoofed() == round);
        scene.proxy.set_verify(None);
        scene.send(&scene.packet(FORGED[0], b"who cares"));
        assert_eq!(scene.next(FORGED[0]), b"who cares");
        let network = "100.96.0.0/16".parse().unwrap();
        scene.proxy.set_verify(Some(network));
    }
    assert_eq!(scene.spoofed(), 2);
    // a new lease: the subnet changes hands
    let moved = ("100.96.3.0/24".parse().unwrap(), scene.right.public);
    scene.proxy.set_table(&Table::new([moved]));
    scene.send(&scene.packet(FORGED[0], b"mine now"));
    assert_eq!(scene.next(FORGED[0]), b"mine now");
    scene.send(&scene.packet(scene.right.base, b"no longer"));
    eventually("it is counted", || scene.spoofed() == 3);
    scene.nothing_waits();
}

fn nothing_is_lost_before_the_first_table(tuning: Tuning) {
    let Some(scene) = Scene::new(tuning) else {
        return;
    };
    scene.send(&scene.packet(scene.right.base, b"early"));
    assert_eq!(scene.next(scene.right.base), b"early");
    scene.proxy.set_table(&scene.table());
    scene.send(&scene.packet(FORGED[0], b"forged"));
    eventually("it is counted", || scene.spoofed() == 1);
    scene.send(&scene.packet(scene.right.base, b"late"));
    assert_eq!(scene.next(scene.right.base), b"late");
    scene.nothing_waits();
}
