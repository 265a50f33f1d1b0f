//! Devices and their queues in the real kernel.

use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::super::coalesce::Joins;
use super::super::tun::{self, Device, Queue};
use super::super::virtio::{Header, Kind};
use super::super::{ProxyError, Tuning};
use super::lab::{Node, PATIENCE, arrival, insist, pair, raw_socket, udp_packet};

fn open_as(node: &Node, name: &'static str, queues: usize) -> Result<Device, ProxyError> {
    node.unobserved(move || Device::open(name, queues > 0, queues))
}

/// With no queues given it is one without offloads.
fn open(node: &Node, queues: usize) -> Device {
    insist(|| open_as(node, "flannel0", queues))
}

fn details(node: &Node) -> String {
    node.namespace.command("ip -d -o link show flannel0")
}

fn index(node: &Node) -> String {
    details(node).split(':').next().unwrap().to_owned()
}

#[test]
fn a_device_has_the_queues_asked_for_and_stays_the_same() {
    let Some((left, _right)) = pair(Tuning::default()) else {
        return;
    };
    let mut former = None;
    for queues in [1, 2, 4, 2] {
        let device = open(&left, queues);
        assert_eq!(device.queues.len(), queues);
        assert!(device.joins.tcp, "{:?}", device.joins);
        let text = details(&left);
        for word in [
            &format!("numqueues {queues} "),
            "vnet_hdr on",
            "persist on",
            "pi off",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let index = index(&left);
        assert_eq!(*former.get_or_insert(index.clone()), index);
    }
}

#[test]
fn a_free_device_of_the_other_kind_is_remade() {
    let Some((left, _right)) = pair(Tuning::default()) else {
        return;
    };
    left.namespace.command("ip tuntap add flannel0 mode tun");
    let mut former = index(&left);
    for (queues, words) in [
        (2, "vnet_hdr on multi_queue"),
        (0, "vnet_hdr off"),
        (1, "vnet_hdr on multi_queue"),
    ] {
        let device = open(&left, queues);
        assert_eq!(device.queues.len(), queues.max(1));
        let text = details(&left);
        assert!(
            text.contains(words) && text.contains("persist on"),
            "{text}"
        );
        assert_eq!(text.contains("multi_queue"), queues > 0, "{text}");
        assert_ne!(index(&left), former);
        former = index(&left);
    }
    open(&left, 0);
    let remade = index(&left);
    let device = open(&left, 0);
    assert_eq!(device.joins, Joins::default());
    assert_eq!(index(&left), remade, "one of the same kind is kept");
}

#[test]
fn a_device_that_somebody_holds_is_left_alone() {
    let Some((left, _right)) = pair(Tuning::default()) else {
        return;
    };
    for holder in [0, 1, 2] {
        let device = open(&left, holder);
        let before = details(&left);
        for queues in [0, 1, 4] {
            let error = open_as(&left, "flannel0", queues).unwrap_err();
            assert!(matches!(error, ProxyError::DeviceBusy { .. }), "{error:?}");
            assert_eq!(details(&left), before);
        }
        drop(device);
    }
}

#[test]
fn what_is_no_tun_device_is_left_alone() {
    let Some((left, _right)) = pair(Tuning::default()) else {
        return;
    };
    left.namespace.command("ip tuntap add tap0 mode tap");
    left.namespace
        .command("ip tuntap add tap1 mode tap multi_queue");
    for name in ["eth0", "lo", "tap0", "tap1"] {
        for queues in [0, 1] {
            let error = open_as(&left, name, queues).unwrap_err();
            assert!(
                matches!(error, ProxyError::NotATun { .. }),
                "{name}: {error:?}"
            );
        }
        left.namespace.command(&format!("ip link show {name}"));
    }
}

#[test]
fn a_deleted_device_is_gone() {
    let Some((left, _right)) = pair(Tuning::default()) else {
        return;
    };
    for queues in [0, 2] {
        let device = open(&left, queues);
        left.namespace.command("ip link delete flannel0");
        let packet = udp_packet(left.base, left.base, 64, b"into the void");
        for queue in &device.queues {
            let taken = queue.take(&mut [0; 2048]).unwrap_err();
            assert!(tun::is_gone(taken), "{taken}");
            let given = queue.give(Header::default(), &[IoSlice::new(&packet)]);
            assert!(given.is_err_and(tun::is_gone), "{given:?}");
        }
    }
}

/// The next packet of a device that has something to say, and the number of its queue.
fn next(device: &Device) -> (usize, Header, Vec<u8>) {
    let mut buffer = vec![0; 1 << 16];
    let start = Instant::now();
    loop {
        for (number, queue) in device.queues.iter().enumerate() {
            match queue.take(&mut buffer) {
                // Beside ours there is what IPv6 sends of its own accord.
                Ok((header, length)) if buffer[0] == 0x45 => {
                    return (number, header, buffer[..length].to_vec());
                }
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(errno) => panic!("{errno}"),
            }
        }
        assert!(start.elapsed() < PATIENCE, "no packet");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn packets_come_and_go_with_and_without_offloads() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    for queues in [0, 1] {
        let device = open(&left, queues);
        left.configure();
        let base = left.base;
        let socket = left
            .namespace
            .run(move || UdpSocket::bind((base, 4711)).unwrap());
        socket.send_to(b"out", (right.base, 9)).unwrap();
        let (_, header, packet) = next(&device);
        assert_eq!(packet.len(), 31);
        assert_eq!(&packet[28..], b"out");
        let unfinished = header
            .checksum
            .map(|checksum| (checksum.start, checksum.offset));
        assert_eq!(unfinished, (queues > 0).then_some((20, 6)));
        assert_eq!(header.segments, None);

        let receiver = left
            .namespace
            .run(|| raw_socket(nix::sys::socket::SockProtocol::Udp));
        let packet = udp_packet(right.base, left.base, 64, b"and back");
        let parts: Vec<_> = packet.chunks(9).map(IoSlice::new).collect();
        device.queues[0].give(Header::default(), &parts).unwrap();
        assert_eq!(arrival(&receiver, right.base), packet);
        let many = vec![IoSlice::new(&[0]); 1024];
        let given = device.queues[0].give(Header::default(), &many);
        assert_eq!(given, Err(Errno::EINVAL));
    }
}

#[test]
fn flows_spread_over_the_queues() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let device = open(&left, 2);
    left.configure();
    let mut queues = Vec::new();
    for _ in 0..32 {
        let socket = left.namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        let of_flow = [(); 3].map(|()| {
            socket.send_to(b"which?", (right.base, 9)).unwrap();
            next(&device).0
        });
        assert_eq!(of_flow, [of_flow[0]; 3]);
        queues.push(of_flow[0]);
    }
    assert!(queues.contains(&0) && queues.contains(&1), "{queues:?}");
}

/// Carries packets between two devices, each cut into parts of a length, until told to stop.
struct Carrier<'a> {
    from: &'a Queue,
    to: &'a Queue,
    part: usize,
    /// The longest packet of each kind.
    tcp: &'a AtomicUsize,
    udp: &'a AtomicUsize,
}

impl Carrier<'_> {
    fn carry(&self, over: &AtomicBool) {
        let mut buffer = vec![0; 1 << 16];
        while !over.load(Ordering::Relaxed) {
            match self.from.take(&mut buffer) {
                Ok((header, length)) if buffer[0] == 0x45 => {
                    let longest = match header.segments.map(|segments| segments.kind) {
                        Some(Kind::Tcp) => Some(self.tcp),
                        Some(Kind::Udp) => Some(self.udp),
                        None => None,
                    };
                    if let Some(longest) = longest {
                        longest.fetch_max(length, Ordering::Relaxed);
                    }
                    let parts: Vec<_> = buffer[..length]
                        .chunks(self.part)
                        .map(IoSlice::new)
                        .collect();
                    self.to.give(header, &parts).unwrap();
                }
                Ok(_) => {}
                Err(Errno::EAGAIN) => thread::sleep(Duration::from_micros(100)),
                Err(errno) => panic!("{errno}"),
            }
        }
    }
}

/// Does the work while packets are carried between the devices; the longest super-packets of TCP
/// and of UDP.
fn connected(devices: [&Device; 2], part: usize, work: impl FnOnce()) -> (usize, usize) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    let (tcp, udp) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let [here, there] = devices.map(|device| &device.queues[0]);
    thread::scope(|scope| {
        for (from, to) in [(here, there), (there, here)] {
            let (tcp, udp, over) = (&tcp, &udp, &over);
            scope.spawn(move || {
                Carrier {
                    from,
                    to,
                    part,
                    tcp,
                    udp,
                }
                .carry(over);
            });
        }
        let _stop = Stop(&over);
        work();
    });
    (tcp.into_inner(), udp.into_inner())
}

#[test]
fn super_packets_are_taken_and_given() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let (here, there) = (open(&left, 1), open(&right, 1));
    left.configure();
    right.configure();
    let base = right.base;
    let listener = right
        .namespace
        .run(move || TcpListener::bind((base, 4711)).unwrap());
    // Few parts, some, and nearly as many as the kernel takes.
    for part in [20_000, 1_000, 100] {
        let (tcp, _) = connected([&here, &there], part, || {
            let sender = left
                .namespace
                .run(move || TcpStream::connect((base, 4711)).unwrap());
            let (mut receiver, _) = listener.accept().unwrap();
            receiver.set_read_timeout(Some(PATIENCE)).unwrap();
            let bytes: Vec<u8> = (0..2_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
            let mut received = vec![0; bytes.len()];
            thread::scope(|scope| {
                scope.spawn(|| (&sender).write_all(&bytes).unwrap());
                receiver.read_exact(&mut received).unwrap();
            });
            let differs = received
                .iter()
                .zip(&bytes)
                .position(|(one, other)| one != other);
            assert_eq!(differs, None, "in parts of {part}");
        });
        assert!(tcp > 1_500, "the longest had {tcp} bytes");
    }
}

#[test]
fn super_packets_of_datagrams_are_taken_and_given() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let (here, there) = (open(&left, 1), open(&right, 1));
    if !(here.joins.udp && there.joins.udp) {
        eprintln!("skipped: the kernel has no TUN_F_USO4");
        return;
    }
    left.configure();
    right.configure();
    let base = right.base;
    let receiver = right
        .namespace
        .run(move || UdpSocket::bind((base, 4711)).unwrap());
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let sender = left.namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    setsockopt(&sender, sockopt::UdpGsoSegment, &1_000).unwrap();
    let (_, udp) = connected([&here, &there], 700, || {
        let bytes: Vec<u8> = (0..20_300_u32).map(|at| at.to_le_bytes()[1]).collect();
        let to = SocketAddrV4::new(base, 4711);
        assert_eq!(sender.send_to(&bytes, to).unwrap(), bytes.len());
        let mut buffer = [0; 2048];
        for expected in bytes.chunks(1_000) {
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], *expected);
        }
    });
    assert_eq!(udp, 20_328);
}

#[test]
fn a_header_that_the_kernel_refuses_is_told() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let device = open(&left, 1);
    left.configure();
    let packet = udp_packet(right.base, Ipv4Addr::new(100, 96, 1, 0), 64, b"short");
    let mut header = [0; 10];
    // Datagrams to cut, of a checksum that lies beyond the packet.
    header[..2].copy_from_slice(&[1, 5]);
    header[4..6].copy_from_slice(&8_u16.to_ne_bytes());
    header[6..8].copy_from_slice(&60_000_u16.to_ne_bytes());
    let header = Header::parse(&header).unwrap();
    let refused = device.queues[0].give(header, &[IoSlice::new(&packet)]);
    assert_eq!(refused, Err(Errno::EINVAL));
    device.queues[0]
        .give(Header::default(), &[IoSlice::new(&packet)])
        .unwrap();
}
