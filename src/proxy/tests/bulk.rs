//! Many packets at once: whole streams, and what happens meanwhile.

use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, ControlMessage, MsgFlags, SockaddrIn};
use sha2::{Digest, Sha256};

use super::super::{Tuning, table::Table};
use super::lab::{
    self, Node, PATIENCE, PLAIN, answers, counted, eventually, in_both_modes, pair, peer_socket,
};

in_both_modes! {
    streams_arrive_whole_both_ways,
    many_streams_at_once_arrive_whole,
    streams_survive_swaps_of_the_table,
    a_device_deleted_under_load_is_noticed,
    a_stop_under_load_is_quick,
    a_peer_whose_packets_pile_up_holds_up_no_other,
}

/// A stream that repeats only after 4 GiB.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let word = (self.0 ^ (self.0 >> 33)).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// A connection between the nodes' own addresses in the network: the end of `from`, that of `to`.
pub(super) fn connection(from: &Node, to: &Node) -> (TcpStream, TcpStream) {
    let address = SocketAddrV4::new(to.base, 0);
    let listener = to
        .namespace
        .run(move || TcpListener::bind(address).unwrap());
    let address = listener.local_addr().unwrap();
    let there = from
        .namespace
        .run(move || TcpStream::connect_timeout(&address, PATIENCE).unwrap());
    let (here, _) = listener.accept().unwrap();
    for stream in [&there, &here] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    (there, here)
}

/// Sends `length` bytes from one node to the other and compares what arrives.
pub(super) fn transfer(from: &Node, to: &Node, length: usize) {
    let (mut there, mut here) = connection(from, to);
    let sender = thread::spawn(move || {
        let mut digest = Sha256::new();
        let mut noise = Noise(length as u64);
        let mut left = length;
        // A length that fits no segment.
        let mut bytes = vec![0; 65_521];
        while left > 0 {
            let chunk = left.min(bytes.len());
            noise.fill(&mut bytes[..chunk]);
            digest.update(&bytes[..chunk]);
            there
                .write_all(&bytes[..chunk])
                .unwrap_or_else(|error| panic!("{left} of {length} bytes left: {error}"));
            left -= chunk;
        }
        there.shutdown(Shutdown::Write).unwrap();
        digest.finalize()
    });
    let mut digest = Sha256::new();
    let mut bytes = vec![0; 1 << 16];
    let mut arrived = 0;
    loop {
        let count = here.read(&mut bytes).unwrap_or_else(|error| {
            let (from, to) = (from.account(), to.account());
            panic!("{arrived} of {length} bytes arrived: {error}\nfrom:\n{from}\nto:\n{to}")
        });
        if count == 0 {
            break;
        }
        digest.update(&bytes[..count]);
        arrived += count;
    }
    assert_eq!(arrived, length);
    assert_eq!(digest.finalize(), sender.join().unwrap());
}

fn streams_arrive_whole_both_ways(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, there) = (left.connect(&right), right.connect(&left));
    transfer(&left, &right, STREAM);
    transfer(&right, &left, STREAM);
    for proxy in [&here, &there] {
        counted(proxy, "both streams", |counters| {
            counters.sent_bytes.min(counters.received_bytes) > STREAM as u64
        });
        let counters = proxy.counters();
        let refused = (counters.malformed, counters.send_errors);
        assert_eq!(refused, (0, 0), "{counters:?}");
        assert_eq!(proxy.failure(), None);
    }
}

#[test]
fn both_modes_understand_each_other() {
    for (one, other) in [(PLAIN, Tuning::default()), (Tuning::default(), PLAIN)] {
        let Some((left, mut right)) = pair(one) else {
            return;
        };
        right.tuning = other;
        let (_here, _there) = (left.connect(&right), right.connect(&left));
        transfer(&left, &right, STREAM);
    }
}

fn many_streams_at_once_arrive_whole(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (_here, _there) = (left.connect(&right), right.connect(&left));
    thread::scope(|scope| {
        for number in 0..8 {
            let (from, to) = [(&left, &right), (&right, &left)][number % 2];
            scope.spawn(move || transfer(from, to, STREAM / 8 + number));
        }
    });
}

fn streams_survive_swaps_of_the_table(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, _there) = (left.connect(&right), right.connect(&left));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let more = ("10.0.0.0/8".parse().unwrap(), left.public);
                let route = ("100.96.2.0/24".parse().unwrap(), right.public);
                here.set_table(&Table::new([route, more]));
                here.set_table(&right.table());
                thread::sleep(Duration::from_millis(1));
            }
        });
        transfer(&left, &right, STREAM);
        over.store(true, Ordering::Relaxed);
    });
    let counters = here.counters();
    assert_eq!(counters.no_route, 0, "{counters:?}");
}

/// What the device's kernel cuts for a socket that sends many datagrams with one call, the data
/// plane cuts as well: a peer of any kind gets each packet in a datagram of its own.
#[test]
fn a_peer_gets_one_packet_in_each_datagram() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let _proxy = left.connect(&right);
    let peer = peer_socket(&right);
    let payload: Vec<u8> = (0..40_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    let sent = payload.clone();
    left.namespace.run(move || {
        let socket = UdpSocket::bind("100.96.1.0:0").unwrap();
        let size = [ControlMessage::UdpGsoSegments(&1000)];
        let to = SockaddrIn::from(SocketAddrV4::new([100, 96, 2, 0].into(), 9));
        let parts = [IoSlice::new(&sent)];
        let flags = MsgFlags::empty();
        socket::sendmsg(socket.as_raw_fd(), &parts, &size, flags, Some(&to)).unwrap();
    });
    let mut buffer = [0; 1 << 16];
    let mut arrived = Vec::new();
    while arrived.len() < payload.len() / 1000 {
        let length = peer.recv(&mut buffer).unwrap();
        let packet = &buffer[..length];
        if packet[9] == 17 && packet[22..24] == [0, 9] {
            assert_eq!(length, 1028);
            assert_eq!(packet[2..4], [4, 4], "the total length");
            assert_eq!(sum(&packet[..20]), 0xffff);
            let pseudo = [&packet[12..20], &[0, 17], &packet[24..26], &packet[20..]].concat();
            assert_eq!(sum(&pseudo), 0xffff);
            arrived.push(packet[28..].to_vec());
        }
    }
    // Each may overtake another where the sender changes processors.
    arrived.sort();
    assert!(arrived.concat() == payload, "{arrived:?}");
}

/// The ones' complement sum; 0xffff over what holds its own right checksum.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes
        .chunks(2)
        .map(|two| u64::from(two[0]) << 8 | u64::from(two[1]));
    (words.sum::<u64>() - 1) % 0xffff + 1
}

fn a_device_deleted_under_load_is_noticed(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, there) = (left.connect(&right), right.connect(&left));
    under_load(&left, right.base, || {
        for (node, proxy) in [(&right, &there), (&left, &here)] {
            counted(&here, "the load", |counters| counters.sent_packets > 1000);
            node.namespace.command("ip link delete flannel0");
            eventually("the failure is known", || proxy.failure().is_some());
            let text = proxy.failure().unwrap();
            assert!(text.contains("flannel0 is gone"), "{text}");
        }
    });
}

fn a_stop_under_load_is_quick(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, there) = (left.connect(&right), right.connect(&left));
    under_load(&left, right.base, || {
        for proxy in [here, there] {
            counted(&proxy, "the load", |counters| {
                counters.sent_packets + counters.received_packets > 1000
            });
            let threads = proxy.threads.len();
            let plane = Arc::downgrade(&proxy.plane);
            let start = Instant::now();
            drop(proxy);
            let elapsed = start.elapsed();
            assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
            eventually(&format!("the end of all {threads} threads"), || {
                plane.strong_count() == 0
            });
        }
    });
}

/// Its neighbour entry stays unresolved, and what waits for it fills the send buffer. Peers whose
/// flows leave from the same socket lose packets then, others do not.
fn a_peer_whose_packets_pile_up_holds_up_no_other(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, _there) = (left.connect(&right), right.connect(&left));
    left.namespace
        .set("ipv4/neigh/eth0/unres_qlen_bytes", "268435456");
    let route = ("100.96.2.0/24".parse().unwrap(), right.public);
    let dead = ("100.96.3.0/24".parse().unwrap(), [192, 168, 1, 99].into());
    here.set_table(&Table::new([route, dead]));
    under_load(&left, [100, 96, 3, 3].into(), || {
        counted(&here, "a full send buffer", |counters| {
            counters.buffer_full > 0
        });
        let before = here.counters().buffer_full;
        counted(&here, "what the worker goes on to drop", |counters| {
            counters.buffer_full > before
        });
        if tuning.port_per_flow {
            // One of so many flows leaves from the same socket as the load, or two.
            let (_, text) = left.ping("-q -i 0.05 -c 20 -W 3 100.96.2.0");
            let reached = (1..=4).filter(|_| streams(&left, &right)).count();
            assert!(
                reached >= 2 || answers(&text) >= 10,
                "{reached} of 4, {text}, {:?}",
                here.counters()
            );
        }
    });
    eventually("the live peer is reached", || {
        left.ping("-c 1 -W 1 100.96.2.0").0
    });
    assert_eq!(here.failure(), None);
}

/// Whether a connection comes about within a moment.
fn streams(from: &Node, to: &Node) -> bool {
    let address = SocketAddrV4::new(to.base, 0);
    let listener = to
        .namespace
        .run(move || TcpListener::bind(address).unwrap());
    let address = listener.local_addr().unwrap();
    let moment = Duration::from_secs(3);
    from.namespace
        .run(move || TcpStream::connect_timeout(&address, moment).is_ok())
}

/// Does something while datagrams flow from a node to a host, not so many that they overwhelm the
/// kernel, whose queues the other tests share.
fn under_load(from: &Node, host: Ipv4Addr, work: impl FnOnce()) {
    let socket = from.namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for _ in 0..32 {
                    // fails once the device is gone
                    let _ = socket.send_to(&[7; 1400], (host, 9));
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        // A panic must end the load as well, or the scope waits for ever.
        let outcome = panic::catch_unwind(AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        if let Err(payload) = outcome {
            panic::resume_unwind(payload);
        }
    });
}

const STREAM: usize = 24 << 20;
