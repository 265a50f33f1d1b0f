use std::sync::atomic::AtomicBool;
use std::thread;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;

fn table(routes: &[(&str, &str)]) -> Table {
    let parsed = routes
        .iter()
        .map(|(destination, peer)| (destination.parse().unwrap(), peer.parse().unwrap()));
    Table::new(parsed)
}

fn directory(routes: impl IntoIterator<Item = (Ipv4Net, Ipv4Addr)>) -> Directory {
    Directory::new(&Table::new(routes), &Directory::default(), 2)
}

fn peer(directory: &Directory, destination: &str) -> Option<String> {
    let found = directory.peer(destination.parse().unwrap());
    found.map(|peer| peer.address.to_string())
}

/// So many networks of one length, each `stride` addresses after the one before, of a peer each.
fn networks(count: u32, length: u8, stride: u32) -> Vec<(Ipv4Net, Ipv4Addr)> {
    (0..count)
        .map(|number| {
            let base = Ipv4Addr::from_bits(0x0a00_0000 + number * stride);
            let peer = Ipv4Addr::from_bits(0xc0a8_0000 + number);
            (Ipv4Net::new_assert(base, length), peer)
        })
        .collect()
}

#[test]
fn a_directory_of_nobody_knows_nobody() {
    let made = Directory::new(&Table::default(), &Directory::default(), 2);
    for nobody in [Directory::default(), made] {
        assert_eq!(peer(&nobody, "0.0.0.0"), None);
        assert_eq!(peer(&nobody, "100.96.2.1"), None);
        assert_eq!(peer(&nobody, "255.255.255.255"), None);
        assert!(nobody.peers().is_empty());
    }
}

#[test]
fn nested_networks_go_to_the_narrowest() {
    let table = table(&[
        ("10.1.2.3/32", "4.4.4.4"),
        ("10.0.0.0/8", "1.1.1.1"),
        ("10.1.2.0/30", "3.3.3.3"),
        ("10.1.0.0/16", "2.2.2.2"),
        ("12.0.0.0/6", "1.1.1.1"),
        ("255.255.255.254/31", "9.9.9.9"),
    ]);
    let directory = Directory::new(&table, &Directory::default(), 2);
    for (destination, expected) in [
        ("10.1.2.3", Some("4.4.4.4")),
        ("10.1.2.2", Some("3.3.3.3")),
        ("10.1.2.4", Some("2.2.2.2")),
        ("10.2.0.0", Some("1.1.1.1")),
        ("15.255.255.255", Some("1.1.1.1")),
        ("11.255.255.255", None),
        ("16.0.0.0", None),
        ("255.255.255.253", None),
        ("255.255.255.254", Some("9.9.9.9")),
        ("255.255.255.255", Some("9.9.9.9")),
        ("0.0.0.0", None),
    ] {
        let found = peer(&directory, destination);
        assert_eq!(found.as_deref(), expected, "{destination}");
    }
    let addresses: Vec<_> = directory.peers().iter().map(|peer| peer.address).collect();
    assert!(addresses.is_sorted(), "{addresses:?}");
    assert_eq!(addresses.len(), 5, "one with two networks is one peer");
}

#[test]
fn five_thousand_peers_are_all_found_in_bounded_memory() {
    for (length, stride, pages) in [
        (24, 1 << 8, 22),                  // side by side in a /11
        (24, 3 << 8, 1 + 1 + 59),          // with gaps
        (24, 13 << 8, 1 + 1 + 254),        // strewn over a /8
        (30, 4, 1 + 1 + 1 + 79),           // side by side in a /16
        (30, 13 << 8, 1 + 1 + 254 + 5000), // each in a /24 of its own
    ] {
        let networks = networks(5000, length, stride);
        let directory = directory(networks.iter().rev().copied());
        assert_eq!(directory.peers().len(), 5000);
        for (network, peer) in networks {
            for destination in [network.network(), network.broadcast()] {
                let found = directory.peer(destination).map(|peer| peer.address);
                assert_eq!(found, Some(peer), "{destination}");
            }
        }
        assert_eq!(directory.pages.len(), pages, "/{length}, {stride}");
    }
    let large = directory([("10.0.0.0/8".parse().unwrap(), Ipv4Addr::LOCALHOST)]);
    assert_eq!(large.pages.len(), 1);
}

#[test]
fn a_peer_stays_what_it_is_until_it_goes() {
    let current = CurrentDirectory::new(2);
    let mut reader = DirectoryReader::new(&current);
    current.replace(&table(&[("10.0.1.0/24", "1.1.1.1")]));
    let first = reader.latest().peers()[0].clone();
    assert_eq!(first.longest(), usize::MAX, "unknown");
    first.add(1, PeerCount::ReceivedBytes, 77);
    first.set_longest(1400);

    current.replace(&table(&[
        ("10.0.0.0/23", "1.1.1.1"),
        ("10.9.0.0/24", "2.2.2.2"),
    ]));
    let next = reader.latest().peer("10.0.0.9".parse().unwrap()).unwrap();
    assert_eq!(next.counters().received_bytes, 77);
    assert_eq!(next.longest(), 1400);
    // by a worker that has not seen the new directory yet
    first.add(1, PeerCount::ReceivedBytes, 3);
    assert_eq!(next.counters().received_bytes, 80);

    current.replace(&table(&[("10.9.0.0/24", "2.2.2.2")]));
    current.replace(&table(&[("10.0.1.0/24", "1.1.1.1")]));
    let back = reader.latest().peer("10.0.1.9".parse().unwrap()).unwrap();
    assert_eq!(back.counters(), PeerCounters::default());
    assert_eq!(back.longest(), usize::MAX);
}

#[test]
fn a_reader_sees_each_replacement() {
    let current = CurrentDirectory::new(1);
    let mut reader = DirectoryReader::new(&current);
    assert_eq!(peer(reader.latest(), "10.0.1.1"), None);
    current.replace(&table(&[("10.0.1.0/24", "1.1.1.1")]));
    assert_eq!(peer(reader.latest(), "10.0.1.1").unwrap(), "1.1.1.1");
    current.replace(&Table::default());
    assert_eq!(peer(reader.latest(), "10.0.1.1"), None);
}

#[test]
fn readers_see_whole_directories_while_they_are_replaced() {
    const ROUNDS: u64 = 300;
    let stays = "10.0.1.0/24";
    let tables = [
        table(&[(stays, "1.1.1.1"), ("10.0.2.0/24", "2.2.2.2")]),
        table(&[(stays, "1.1.1.1"), ("10.0.2.0/30", "3.3.3.3")]),
    ];
    let current = CurrentDirectory::new(2);
    current.replace(&tables[0]);
    let over = AtomicBool::new(false);
    let read = |worker| {
        let mut reader = DirectoryReader::new(&current);
        let mut counted = 0;
        while !over.load(Ordering::Relaxed) {
            let directory = reader.latest();
            let other = peer(directory, "10.0.2.1").unwrap();
            let whole = [None, Some("2.2.2.2".to_owned())];
            let edge = peer(directory, "10.0.2.4");
            assert_eq!(edge, whole[usize::from(other == "2.2.2.2")]);
            let stays = directory.peer("10.0.1.1".parse().unwrap()).unwrap();
            stays.add(worker, PeerCount::SentPackets, 1);
            counted += 1;
        }
        counted
    };
    let counted: u64 = thread::scope(|scope| {
        let readers = [0, 1].map(|worker| scope.spawn(move || read(worker)));
        // two who replace, so that neither may lose what the other has carried over
        let others = [0, 1].map(|_| {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    current.replace(&tables[usize::from(round % 2 == 0)]);
                    thread::yield_now();
                }
            })
        });
        let died = others.into_iter().any(|other| other.join().is_err());
        over.store(true, Ordering::Relaxed);
        assert!(!died);
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum()
    });
    let directory = current.load();
    let stays = directory.with_address(Ipv4Addr::new(1, 1, 1, 1)).unwrap();
    assert_eq!(stays.counters().sent_packets, counted);
}

/// Networks and addresses crowd into few bits, so that they nest, touch and repeat.
fn crowded() -> impl Strategy<Value = Ipv4Addr> {
    (any::<u32>(), 0_u32..29).prop_map(|(bits, spread)| {
        let high = if spread % 2 == 0 { 0 } else { u32::MAX };
        Ipv4Addr::from_bits((bits & 0x8000_00ff) ^ (high << spread))
    })
}

/// The obvious way: try all, keep the longest, among equals the last.
fn slow(routes: &[(Ipv4Net, Ipv4Addr)], destination: Ipv4Addr) -> Option<Ipv4Addr> {
    routes
        .iter()
        .filter(|(network, _)| network.contains(&destination))
        .max_by_key(|(network, _)| network.prefix_len())
        .map(|&(_, peer)| peer)
}

proptest! {
    #[test]
    fn answers_as_the_slow_way_does(
        routes in proptest::collection::vec((crowded(), 0_u8..=32, 1_u32..5), 0..40),
        probes in proptest::collection::vec(crowded(), 50),
    ) {
        let routes: Vec<_> = routes
            .into_iter()
            .map(|(base, length, peer)| {
                (Ipv4Net::new_assert(base, length), Ipv4Addr::from_bits(peer))
            })
            .collect();
        let directory = directory(routes.iter().copied());
        prop_assert!(directory.pages.len() <= 1 + 3 * routes.len());
        let edges = routes.iter().flat_map(|(network, _)| {
            let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
        });
        for probe in probes.into_iter().chain(edges.map(Ipv4Addr::from_bits)) {
            let found = directory.peer(probe).map(|peer| peer.address);
            prop_assert_eq!(found, slow(&routes, probe), "{}", probe);
        }
    }
}
