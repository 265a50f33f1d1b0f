use std::sync::atomic::AtomicBool;
use std::thread;

use super::super::table::Table;
use super::*;

const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 48);

fn meter(workers: usize) -> Meter {
    let tallies = (0..workers).map(|_| Tally::default()).collect();
    Meter::new(tallies, Arc::new(CurrentDirectory::new(workers)))
}

fn table(peers: &[Ipv4Addr]) -> Table {
    let networks = (0_u32..).map(|number| Ipv4Addr::from_bits(0x6460_0000 + (number << 8)));
    Table::new(
        networks
            .map(|base| ipnet::Ipv4Net::new_assert(base, 24))
            .zip(peers.iter().copied()),
    )
}

#[test]
fn all_workers_add_up() {
    let meter = meter(3);
    for (worker, tally) in meter.tallies.iter().enumerate() {
        tally.add(Count::SentPackets, 1);
        tally.add(Count::BufferFull, worker as u64);
        tally.add(Count::DeviceErrors, 5);
    }
    let totals = meter.totals();
    assert_eq!(totals.sent_packets, 3);
    assert_eq!(totals.buffer_full, 3);
    assert_eq!(totals.device_errors, 15);
    let counted = Counters {
        sent_packets: 3,
        buffer_full: 3,
        device_errors: 15,
        ..Counters::default()
    };
    assert_eq!(totals, counted, "and nothing else");
}

#[test]
fn each_peer_is_told_by_its_address() {
    let meter = meter(2);
    assert_eq!(meter.peers(), BTreeMap::new());
    let other = Ipv4Addr::new(192, 168, 1, 47);
    meter.directory.replace(&table(&[PEER, other]));
    let directory = meter.directory.load();
    let peer = directory.with_address(PEER).unwrap();
    peer.add(0, PeerCount::SentPackets, 2);
    peer.add(0, PeerCount::SentBytes, 3000);
    peer.add(1, PeerCount::ReceivedPackets, 1);
    peer.add(1, PeerCount::TooBig, 4);
    peer.add(2, PeerCount::TooBig, 1);
    let counted = PeerCounters {
        sent_packets: 2,
        sent_bytes: 3000,
        received_packets: 1,
        too_big: 4,
        ..PeerCounters::default()
    };
    assert_eq!(meter.peer(PEER), Some(counted), "there is no third worker");
    let idle = PeerCounters::default();
    assert_eq!(
        meter.peers(),
        BTreeMap::from([(other, idle), (PEER, counted)])
    );
    assert_eq!(meter.peer(Ipv4Addr::LOCALHOST), None);
    meter.directory.replace(&table(&[other]));
    assert_eq!(meter.peer(PEER), None);
}

#[test]
fn reading_does_not_disturb_a_writer() {
    const PACKETS: u64 = 200_000;
    let meter = meter(2);
    meter.directory.replace(&table(&[PEER]));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = [0, 1]
            .map(|worker| {
                let meter = meter.clone();
                scope.spawn(move || {
                    let directory = meter.directory.load();
                    for _ in 0..PACKETS {
                        meter.tallies[worker].add(Count::SentPackets, 1);
                        directory.peers()[0].add(worker, PeerCount::SentPackets, 1);
                    }
                })
            })
            .into();
        scope.spawn(|| {
            let (mut before, mut of_peer) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                let now = meter.totals().sent_packets;
                assert!(before <= now && now <= 2 * PACKETS);
                before = now;
                let now = meter.peer(PEER).unwrap().sent_packets;
                assert!(of_peer <= now && now <= 2 * PACKETS);
                of_peer = now;
            }
        });
        let died = writers.into_iter().any(|writer| writer.join().is_err());
        over.store(true, Ordering::Relaxed);
        assert!(!died);
    });
    assert_eq!(meter.totals().sent_packets, 2 * PACKETS);
    assert_eq!(meter.peers()[&PEER].sent_packets, 2 * PACKETS);
}
