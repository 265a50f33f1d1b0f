//! Real packets through the real kernel, in namespaces of their own.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::Ipv4Net;
use lab::{
    PATIENCE, PORT, answers, arrival, counted, eventually, in_both_modes, pair, peer_socket,
    raw_socket, udp_packet,
};
use nix::sys::socket::{self, MsgFlags, SockProtocol, SockaddrIn, setsockopt, sockopt};

use super::*;

mod bulk;
mod device;
mod flows;
mod lab;
mod origins;
mod path;
mod queues;
mod segmentation;
mod sockets;

in_both_modes! {
    packets_cross_both_ways_and_age_by_two,
    a_flood_loses_next_to_nothing,
    a_packet_too_old_to_cross_is_dropped_in_silence,
    the_wire_carries_the_inner_packet_alone,
    a_peer_with_a_larger_mtu_is_received_whole,
    hostile_datagrams_are_counted_and_survived,
    an_unknown_destination_is_reported_as_unreachable,
    the_table_is_swapped_under_traffic,
    packets_wait_for_the_first_table,
    a_peer_out_of_reach_holds_up_no_other,
    packets_longer_than_the_agreed_mtu_are_dropped,
    a_worker_that_dies_or_ends_is_told,
    a_worker_that_hangs_is_told_and_holds_nobody_up,
}

fn packets_cross_both_ways_and_age_by_two(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, there) = (left.connect(&right), right.connect(&left));
    let (reached, text) = left.ping("-c 3 -i 0.2 -W 5 100.96.2.0");
    assert!(reached && text.contains("ttl=62"), "{text}");
    let (reached, text) = right.ping("-c 1 -W 5 -s 1444 -M do 100.96.1.0");
    assert!(reached, "as large as the MTU allows: {text}");
    for proxy in [&here, &there] {
        counted(proxy, "the pings", |counters| {
            counters.sent_packets >= 4 && counters.received_packets >= 4
        });
    }
    let counters = here.counters();
    assert!(counters.sent_bytes >= 4 * 84, "{counters:?}");
    let refused = (counters.malformed, counters.expired);
    assert_eq!(refused, (0, 0), "{counters:?}");
    assert_eq!(here.failure(), None);
}

fn a_flood_loses_next_to_nothing(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, _there) = (left.connect(&right), right.connect(&left));
    let (_, text) = left.ping("-f -q -c 1000 -W 5 100.96.2.0");
    assert!(answers(&text) >= 990, "{text}");
    // what is sent is counted afterwards
    counted(&here, "the flood", |counters| counters.sent_packets >= 990);
}

fn a_packet_too_old_to_cross_is_dropped_in_silence(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, there) = (left.connect(&right), right.connect(&left));
    for ttl in [1, 2] {
        let (reached, text) = left.ping(&format!("-c 1 -W 1 -t {ttl} 100.96.2.0"));
        assert!(!reached && !text.contains("From"), "{text}");
    }
    for (proxy, which) in [(&here, "the one with 1"), (&there, "the one with 2")] {
        counted(proxy, which, |counters| counters.expired == 1);
    }
    let (reached, text) = left.ping("-c 1 -W 5 -t 3 100.96.2.0");
    assert!(reached, "{text}");
}

fn the_wire_carries_the_inner_packet_alone(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let proxy = left.connect(&right);
    let peer = peer_socket(&right);
    let packet = udp_packet(left.base, right.base, 64, b"every byte counts");
    let sent = packet.clone();
    left.namespace.run(move || {
        let socket = raw_socket(SockProtocol::Raw);
        let destination = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::new(100, 96, 2, 0), 0));
        socket::sendto(socket.as_raw_fd(), &sent, &destination, MsgFlags::empty()).unwrap();
    });
    let mut buffer = [0; 2048];
    let expected = udp_packet(left.base, right.base, 63, b"every byte counts");
    let from = loop {
        let (length, from) = peer.recv_from(&mut buffer).unwrap();
        if buffer[..length] == expected {
            break from;
        }
    };
    assert_eq!(from.ip(), left.public);
    assert_eq!(from.port() == PORT, !tuning.port_per_flow, "{from}");

    let receiver = left.namespace.run(|| raw_socket(SockProtocol::Udp));
    let mut datagram = udp_packet(right.base, left.base, 17, b"and back");
    datagram.extend_from_slice(b"a trailer");
    peer.send_to(&datagram, (left.public, PORT)).unwrap();
    assert_eq!(
        arrival(&receiver, right.base),
        udp_packet(right.base, left.base, 16, b"and back")
    );
    counted(&proxy, "it", |counters| counters.received_packets == 1);
}

fn a_peer_with_a_larger_mtu_is_received_whole(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let _proxy = left.connect(&right);
    let peer = peer_socket(&right);
    let receiver = left.namespace.run(|| raw_socket(SockProtocol::Udp));
    for length in [8_900, 65_000] {
        let payload = vec![0xa5; length];
        let packet = udp_packet(right.base, left.base, 64, &payload);
        peer.send_to(&packet, (left.public, PORT)).unwrap();
        let expected = udp_packet(right.base, left.base, 63, &payload);
        assert!(arrival(&receiver, right.base) == expected, "{length} bytes");
    }
}

fn hostile_datagrams_are_counted_and_survived(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let proxy = left.connect(&right);
    let peer = peer_socket(&right);
    let good = udp_packet(right.base, left.base, 64, b"good");
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let noise: Vec<u8> = (0..65_000_u32)
        .map(|at| at.to_le_bytes()[1] ^ 0x44)
        .collect();
    let malformed = [
        vec![],
        vec![0x45],
        good[..19].to_vec(),
        good[..good.len() - 1].to_vec(),
        with(|bytes| bytes[0] = 0x44),
        with(|bytes| bytes[0] = 0x4f),
        with(|bytes| bytes[2..4].fill(0)),
        with(|bytes| bytes[2..4].fill(0xff)),
        noise.clone(),
    ];
    let other_version = [
        with(|bytes| bytes[0] = 0x65),
        with(|bytes| bytes[0] = 0),
        vec![0xff; 65_000],
    ];
    let expired = [with(|bytes| bytes[8] = 0), with(|bytes| bytes[8] = 1)];
    for datagram in malformed.iter().chain(&other_version).chain(&expired) {
        peer.send_to(datagram, (left.public, PORT)).unwrap();
    }
    peer.send_to(&good, (left.public, PORT)).unwrap();
    // Each may overtake another where the sender changes processors.
    counted(&proxy, "the good one and the others", |counters| {
        counters.received_packets == 1
            && counters.malformed == malformed.len() as u64
            && counters.expired == expired.len() as u64
            && counters.other_version >= other_version.len() as u64
    });
    assert_eq!(proxy.failure(), None);
}

fn an_unknown_destination_is_reported_as_unreachable(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let proxy = left.connect(&right);
    let (reached, text) = left.ping("-c 1 -W 5 100.96.9.9");
    assert!(!reached, "{text}");
    assert!(
        text.contains("From 100.96.9.9 ") && text.contains("Destination Net Unreachable"),
        "{text}"
    );
    // what is sent is counted afterwards
    counted(&proxy, "the answer", |counters| {
        counters.no_route >= 1 && counters.unreachable_sent >= 1
    });

    let error = left.namespace.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Without this a socket hears of what it did for certain only, which this is not.
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();
        socket.connect("100.96.9.9:9").unwrap();
        socket.send(b"anybody?").unwrap();
        socket.recv(&mut [0; 16]).unwrap_err()
    });
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{error}");
}

fn the_table_is_swapped_under_traffic(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, _there) = (left.connect(&right), right.connect(&left));
    let others = || {
        (0..5000_u32).map(|number| {
            let base = Ipv4Addr::from_bits(0x0a00_0000 + (number << 8));
            (Ipv4Net::new_assert(base, 24), left.public)
        })
    };
    let route = ("100.96.2.0/24".parse().unwrap(), right.public);
    let over = AtomicBool::new(false);
    let text = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                here.set_table(&Table::new(others().chain([route])));
                here.set_table(&right.table());
                thread::sleep(Duration::from_millis(1));
            }
        });
        let (_, text) = left.ping("-f -q -c 1000 -W 5 100.96.2.0");
        over.store(true, Ordering::Relaxed);
        text
    });
    let counters = here.counters();
    assert!(answers(&text) >= 990, "{text}, {counters:?}");
    assert_eq!(counters.no_route, 0, "{counters:?}");

    here.set_table(&Table::default());
    let (reached, text) = left.ping("-c 1 -W 1 100.96.2.0");
    assert!(!reached, "{text}");
    counted(&here, "a packet without a way", |counters| {
        counters.no_route > 0
    });
    here.set_table(&right.table());
    let (reached, text) = left.ping("-c 1 -W 5 100.96.2.0");
    assert!(reached, "{text}");
}

fn packets_wait_for_the_first_table(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let _there = right.connect(&left);
    let here = left.attach();
    left.configure();
    let (reached, text) = thread::scope(|scope| {
        let ping = scope.spawn(|| left.ping("-c 1 -W 5 100.96.2.0"));
        thread::sleep(Duration::from_millis(300));
        assert_eq!(here.counters().no_route, 0);
        here.set_table(&right.table());
        ping.join().unwrap()
    });
    assert!(reached, "{text}");
}

fn a_peer_out_of_reach_holds_up_no_other(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, _there) = (left.connect(&right), right.connect(&left));
    let nowhere = (
        "100.96.3.0/24".parse().unwrap(),
        Ipv4Addr::new(203, 0, 113, 1),
    );
    let route = ("100.96.2.0/24".parse().unwrap(), right.public);
    here.set_table(&Table::new([route, nowhere]));
    let astray = left.namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let over = AtomicBool::new(false);
    let text = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                (0..8).for_each(|_| {
                    astray.send_to(b"astray", "100.96.3.3:9").unwrap();
                });
                thread::sleep(Duration::from_millis(1));
            }
        });
        let (_, text) = left.ping("-f -q -c 500 -W 5 100.96.2.0");
        over.store(true, Ordering::Relaxed);
        text
    });
    assert!(answers(&text) >= 490, "{text}, {:?}", here.counters());
    counted(&here, "what went astray", |counters| {
        counters.send_errors >= 8
    });
    assert_eq!(here.failure(), None);
}

fn packets_longer_than_the_agreed_mtu_are_dropped(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, _there) = (left.connect(&right), right.connect(&left));
    left.namespace.command("ip link set flannel0 mtu 9000");
    let (reached, text) = left.ping("-c 1 -W 1 -s 3000 100.96.2.0");
    assert!(!reached, "{text}");
    counted(&here, "the long one", |counters| counters.too_big == 1);
    let (reached, text) = left.ping("-c 1 -W 5 -s 1400 100.96.2.0");
    assert!(reached, "{text}");
}

/// A proxy with one worker, which does something else.
fn with_work(node: &lab::Node, work: fn(&Plane) -> Result<(), Breakdown>) -> Proxy {
    let settings = node.settings();
    node.namespace.run(move || {
        let plane = Arc::new(Plane::open(settings).unwrap());
        let threads = Vec::new();
        let mut proxy = Proxy { plane, threads };
        proxy.start(Worker::Outbound(0), work).unwrap();
        proxy
    })
}

fn a_worker_that_dies_or_ends_is_told(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    for (node, work) in [
        (&left, (|_| panic!("of a test")) as fn(&Plane) -> _),
        (&right, |_| Ok(())),
    ] {
        let proxy = with_work(node, work);
        eventually("the failure is known", || proxy.failure().is_some());
        let text = proxy.failure().unwrap();
        assert_eq!(text, "the thread proxy-outbound ended unexpectedly");
    }
}

fn a_worker_that_hangs_is_told_and_holds_nobody_up(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let hanging = with_work(&left, |_| {
        thread::sleep(Duration::from_secs(60));
        Ok(())
    });
    let idle = right.attach();
    let start = Instant::now();
    let ask = |proxy: &Proxy, seconds| proxy.failure_at(start + Duration::from_secs(seconds));
    // By the first time it is asked it has been silent for 3 s at most, however long it took.
    for seconds in 1..=12 {
        assert_eq!(ask(&hanging, seconds), None, "after {seconds} s");
    }
    let text = ask(&hanging, 16).expect("it hangs");
    let hangs = "the thread proxy-outbound hangs, for 1";
    assert!(text.starts_with(hangs), "{text}");
    drop(hanging);
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(50), "{elapsed:?}");

    let workers = idle.plane.workers();
    let beats = || -> Vec<u64> {
        let workers = workers.iter();
        workers.map(|worker| idle.plane.beats(*worker)).collect()
    };
    let before = beats();
    eventually("workers with nothing to do beat", || {
        before
            .iter()
            .zip(beats())
            .all(|(before, now)| now > *before)
    });
    assert_eq!(idle.failure(), None);
}
