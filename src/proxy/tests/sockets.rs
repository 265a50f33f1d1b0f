//! Batches of datagrams through the real kernel.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

use super::super::socket::{self, Batch, Bytes, Datagram, Full, Incoming, Remedy, Socket};
use super::super::{ProxyError, Tuning};
use super::lab::{Node, PATIENCE, PORT, eventually, insist, pair, peer_socket};

mod ports;
mod refusals;

const PLAIN: Tuning = Tuning {
    offload: false,
    port_per_flow: false,
};
const ONE_PORT: Tuning = Tuning {
    offload: true,
    port_per_flow: false,
};

fn bind(node: &Node, queues: usize, tuning: Tuning) -> Result<Vec<Socket>, ProxyError> {
    let address = SocketAddrV4::new(node.public, PORT);
    node.unobserved(move || socket::bind(address, queues, tuning))
}

fn bind_one(node: &Node, tuning: Tuning) -> Socket {
    insist(|| bind(node, 1, tuning)).pop().unwrap()
}

/// Datagrams of known content, and where they lie.
struct Cargo {
    arena: Vec<u8>,
    heads: Vec<u8>,
    datagrams: Vec<Datagram>,
}

impl Cargo {
    /// Of these lengths; each has a head of `head` bytes apart from the rest of it.
    fn new(lengths: &[usize], head: usize) -> Self {
        let mut cargo = Self {
            arena: Vec::new(),
            heads: Vec::new(),
            datagrams: Vec::new(),
        };
        for (number, length) in lengths.iter().enumerate() {
            let bytes = content(number, *length);
            let (first, rest) = bytes.split_at(head);
            let lay = |to: &mut Vec<u8>, part: &[u8]| {
                to.extend_from_slice(part);
                to.len() - part.len()..to.len()
            };
            cargo.datagrams.push(Datagram {
                head: lay(&mut cargo.heads, first),
                body: lay(&mut cargo.arena, rest),
            });
        }
        cargo
    }

    fn bytes(&self) -> Bytes<'_> {
        Bytes {
            arena: &self.arena,
            heads: &self.heads,
        }
    }

    fn append_all(&self, batch: &mut Batch<'_>, peer: Ipv4Addr) {
        for datagram in &self.datagrams {
            batch.append(peer, 0, datagram.clone()).unwrap();
        }
    }
}

fn content(number: usize, length: usize) -> Vec<u8> {
    let byte = |at: usize| u8::try_from((number * 31 + at * 7 + at / 251) % 256).unwrap();
    (0..length).map(byte).collect()
}

/// What the kernel said to each message: its datagrams, its bytes, and the error if any.
type Report = Vec<(usize, usize, Option<Errno>)>;

fn send(batch: &mut Batch<'_>, cargo: &Cargo, remedy: Remedy) -> Report {
    stay();
    let mut report = Report::new();
    let sent = batch.send(cargo.bytes(), |message, outcome| {
        report.push((message.datagrams(), message.bytes(), outcome.err()));
        remedy
    });
    assert!(sent.is_ok(), "{report:?}");
    let again = batch.send(cargo.bytes(), |_, _| panic!("there is nothing left"));
    assert!(again.is_ok(), "{report:?}");
    report
}

/// Binds this thread to the processor that it is on. Each has a queue of its own for what passes
/// through a pair of devices, and what is sent from two of them may arrive in any order.
fn stay() {
    let mut processors = CpuSet::new();
    processors.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &processors).unwrap();
}

fn expect(receiver: &UdpSocket, numbers: impl IntoIterator<Item = (usize, usize)>) {
    let mut buffer = vec![0; 1 << 16];
    for (number, length) in numbers {
        let (received, _) = receiver
            .recv_from(&mut buffer)
            .unwrap_or_else(|error| panic!("datagram {number}: {error}"));
        assert_eq!(received, length, "datagram {number}");
        assert!(
            buffer[..received] == content(number, length),
            "datagram {number}"
        );
    }
}

/// Receives until there are so many datagrams: of each arrival its source, stride and datagrams.
fn gather(incoming: &mut Incoming<'_>, count: usize) -> Vec<(Ipv4Addr, usize, Vec<Vec<u8>>)> {
    let mut gathered: Vec<(Ipv4Addr, usize, Vec<Vec<u8>>)> = Vec::new();
    let start = Instant::now();
    while gathered
        .iter()
        .map(|(.., datagrams)| datagrams.len())
        .sum::<usize>()
        < count
    {
        match incoming.receive() {
            Ok(()) => {}
            Err(Errno::EAGAIN) => thread::sleep(Duration::from_millis(1)),
            Err(errno) => panic!("{errno}"),
        }
        let (arrivals, elapsed) = (gathered.len(), start.elapsed());
        assert!(elapsed < PATIENCE, "{arrivals} arrivals, not {count}");
        let (slab, arrivals) = incoming.open();
        gathered.extend(arrivals.iter().map(|arrival| {
            assert!(!arrival.cut);
            let datagrams = arrival.datagrams().map(|range| slab[range].to_vec());
            (arrival.source, arrival.stride, datagrams.collect())
        }));
    }
    gathered
}

fn has_segments(socket: &Socket) -> bool {
    let has = socket.segments() && socket.gathers();
    if !has {
        eprintln!("skipped: the kernel has no UDP_SEGMENT or no UDP_GRO");
    }
    has
}

#[test]
fn a_message_arrives_as_its_datagrams() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let socket = bind_one(&left, ONE_PORT);
    if !has_segments(&socket) {
        return;
    }
    let receiver = peer_socket(&right);
    let mut lengths = vec![1_400; 44];
    lengths.push(7);
    for head in [0, 5] {
        let cargo = Cargo::new(&lengths, head);
        let mut batch = Batch::new(&socket);
        cargo.append_all(&mut batch, right.public);
        let report = send(&mut batch, &cargo, Remedy::Drop);
        assert_eq!(report, [(45, 44 * 1_400 + 7, None)]);
        expect(&receiver, lengths.iter().copied().enumerate());
    }
}

#[test]
fn a_message_arrives_joined_where_the_receiver_gathers() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let (socket, receiver) = (bind_one(&left, ONE_PORT), bind_one(&right, ONE_PORT));
    if !has_segments(&socket) {
        return;
    }
    let lengths = [[1_400; 3].as_slice(), &[99], &[50], &[60]].concat();
    let cargo = Cargo::new(&lengths, 40);
    let mut incoming = Incoming::new(&receiver);
    // A call without a joined message must not cost the next one the joined sizes.
    for _ in 0..3 {
        let mut batch = Batch::new(&socket);
        cargo.append_all(&mut batch, right.public);
        send(&mut batch, &cargo, Remedy::Drop);
        let gathered = gather(&mut incoming, lengths.len());
        let expected: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(n, l)| content(n, *l))
            .collect();
        let datagrams: Vec<_> = gathered.iter().flat_map(|(.., d)| d.clone()).collect();
        assert_eq!(datagrams, expected);
        let sources: Vec<_> = gathered.iter().map(|(source, ..)| *source).collect();
        assert!(
            sources.iter().all(|source| *source == left.public),
            "{sources:?}"
        );
        let shape: Vec<_> = gathered
            .iter()
            .map(|(_, stride, d)| (*stride, d.len()))
            .collect();
        assert_eq!(shape, [(1_400, 4), (0, 1), (0, 1)]);
    }
    assert_eq!(incoming.receive(), Err(Errno::EAGAIN));
    assert!(incoming.open().1.is_empty());
}

#[test]
fn without_offloads_each_datagram_is_a_message() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let (socket, receiver) = (bind_one(&left, PLAIN), bind_one(&right, PLAIN));
    assert!(!socket.segments(), "it has no offloads");
    assert!(!receiver.gathers(), "it has no offloads");
    let lengths = [200; 100];
    let cargo = Cargo::new(&lengths, 40);
    let mut batch = Batch::new(&socket);
    cargo.append_all(&mut batch, right.public);
    assert_eq!(
        send(&mut batch, &cargo, Remedy::Drop),
        [(1, 200, None); 100]
    );
    let gathered = gather(&mut Incoming::new(&receiver), 100);
    for (number, (_, stride, datagrams)) in gathered.iter().enumerate() {
        assert_eq!((*stride, datagrams), (0, &vec![content(number, 200)]));
    }
}

#[test]
fn messages_end_where_lengths_or_the_kernel_say() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let socket = bind_one(&left, ONE_PORT);
    if !has_segments(&socket) {
        return;
    }
    let receiver = peer_socket(&right);
    for (lengths, expected) in [
        (vec![100, 100, 101, 100, 99, 99], vec![2, 2, 2]),
        (vec![100; 130], vec![64, 64, 2]),
        (vec![1_460; 90], vec![44, 44, 2]),
        (vec![0, 0, 5, 0, 5, 5], vec![1, 1, 1, 1, 2]),
        (vec![1_472, 1, 1_472], vec![2, 1]),
    ] {
        let cargo = Cargo::new(&lengths, 0);
        let mut batch = Batch::new(&socket);
        cargo.append_all(&mut batch, right.public);
        let report = send(&mut batch, &cargo, Remedy::Drop);
        assert!(
            report.iter().all(|(.., errno)| errno.is_none()),
            "{report:?}"
        );
        let datagrams: Vec<_> = report.iter().map(|(datagrams, ..)| *datagrams).collect();
        assert_eq!(datagrams, expected, "{lengths:?}");
        expect(&receiver, lengths.into_iter().enumerate());
    }
}

#[test]
fn peers_in_turn_have_messages_of_their_own() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let socket = bind_one(&left, ONE_PORT);
    if !has_segments(&socket) {
        return;
    }
    // Their addresses contend for one place of those known.
    let other = Ipv4Addr::new(192, 168, 1, 48 + 32);
    right
        .namespace
        .command("ip address add 192.168.1.80/24 dev eth0");
    let first = peer_socket(&right);
    let second = right
        .namespace
        .run(move || UdpSocket::bind((other, PORT)).unwrap());
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    let third_address = Ipv4Addr::new(192, 168, 1, 81);
    right
        .namespace
        .command("ip address add 192.168.1.81/24 dev eth0");
    let third = right
        .namespace
        .run(move || UdpSocket::bind((third_address, PORT)).unwrap());
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    let cargo = Cargo::new(&[300; 12], 20);
    let mut batch = Batch::new(&socket);
    let turns = [
        right.public,
        right.public,
        third_address,
        right.public,
        other,
        third_address,
    ];
    for (datagram, peer) in cargo.datagrams.iter().zip(turns.iter().cycle()) {
        batch.append(*peer, 0, datagram.clone()).unwrap();
    }
    let report = send(&mut batch, &cargo, Remedy::Drop);
    assert_eq!(
        report
            .iter()
            .map(|(datagrams, ..)| datagrams)
            .sum::<usize>(),
        12
    );
    assert_eq!(report.len(), 5, "{report:?}");
    expect(&first, [0, 1, 3, 6, 7, 9].map(|number| (number, 300)));
    expect(&second, [4, 10].map(|number| (number, 300)));
    expect(&third, [2, 5, 8, 11].map(|number| (number, 300)));
}
