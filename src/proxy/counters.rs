//! What the workers have moved and dropped.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::directory::CurrentDirectory;

/// Reads what a proxy has counted, at any time and as often as one likes: no worker notices.
/// Outlives the proxy, whose last counts it then tells.
#[derive(Debug, Clone)]
pub struct Meter {
    tallies: Arc<[Tally]>,
    directory: Arc<CurrentDirectory>,
}

impl Meter {
    pub(super) const fn new(tallies: Arc<[Tally]>, directory: Arc<CurrentDirectory>) -> Self {
        Self { tallies, directory }
    }

    /// What has been moved and dropped since the proxy was attached.
    #[must_use]
    pub fn totals(&self) -> Counters {
        Counters::sum(&self.tallies)
    }

    /// What has been moved and dropped for each peer of the present table, by public address.
    /// Peers that have gone are missing, so this may add up to less than [`Meter::totals`].
    #[must_use]
    pub fn peers(&self) -> BTreeMap<Ipv4Addr, PeerCounters> {
        let directory = self.directory.load();
        let peers = directory.peers().iter();
        peers.map(|peer| (peer.address, peer.counters())).collect()
    }

    /// What has been moved and dropped for the peer with this public address, if it is in the
    /// present table.
    #[must_use]
    pub fn peer(&self, address: Ipv4Addr) -> Option<PeerCounters> {
        let directory = self.directory.load();
        directory.with_address(address).map(|peer| peer.counters())
    }
}

/// Totals since the proxy was attached. Bytes are those of inner packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets sent to peers.
    pub sent_packets: u64,
    /// Bytes sent to peers.
    pub sent_bytes: u64,
    /// Packets from peers delivered to the device.
    pub received_packets: u64,
    /// Bytes from peers delivered to the device.
    pub received_bytes: u64,
    /// Dropped: no peer has the destination.
    pub no_route: u64,
    /// "Net unreachable" answers to packets dropped for lack of a route.
    pub unreachable_sent: u64,
    /// Dropped: shorter than an IPv4 header, or of contradictory lengths.
    pub malformed: u64,
    /// Dropped: of another IP version. IPv6 hosts send some to each device of their own accord.
    pub other_version: u64,
    /// Dropped: the time to live was over.
    pub expired: u64,
    /// Dropped: from another host than the one whose subnet the source is of.
    pub spoofed: u64,
    /// Dropped: longer than [`Settings::mtu`](super::Settings::mtu) allows or a datagram can be.
    pub too_big: u64,
    /// Dropped: longer than the path to the peer carries, and not to be fragmented.
    pub too_big_for_path: u64,
    /// "Fragmentation needed" answers to packets too big for the path.
    pub too_big_answered: u64,
    /// Dropped: the socket's send buffer stayed full.
    pub buffer_full: u64,
    /// Dropped: the kernel refused to send it to the peer.
    pub send_errors: u64,
    /// Errors the socket reported instead of a packet.
    pub receive_errors: u64,
    /// Dropped: the device did not take it, for instance because it is down.
    pub device_errors: u64,
}

/// Totals of one peer since it is one: a peer that has left the table and come back begins at
/// zero. Bytes are those of inner packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Packets sent to it.
    pub sent_packets: u64,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// Packets from its containers delivered to the device.
    pub received_packets: u64,
    /// Bytes from its containers delivered to the device.
    pub received_bytes: u64,
    /// Dropped: the kernel refused to send it to the peer, or had no room for it for too long.
    pub send_errors: u64,
    /// Dropped: longer than a datagram can be or than the path to the peer carries.
    pub too_big: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    SentPackets,
    SentBytes,
    ReceivedPackets,
    ReceivedBytes,
    NoRoute,
    UnreachableSent,
    Malformed,
    OtherVersion,
    Expired,
    Spoofed,
    TooBig,
    TooBigForPath,
    TooBigAnswered,
    BufferFull,
    SendErrors,
    ReceiveErrors,
    DeviceErrors,
}

/// What is counted for each peer.
#[derive(Debug, Clone, Copy)]
pub(super) enum PeerCount {
    SentPackets,
    SentBytes,
    ReceivedPackets,
    ReceivedBytes,
    SendErrors,
    TooBig,
}

/// One worker's counts. Only that worker writes; two cache lines long at least, because
/// processors fetch lines in pairs, so that workers do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Tally {
    cells: [Cell; Count::DeviceErrors as usize + 1],
}

impl Tally {
    pub(super) fn add(&self, count: Count, amount: u64) {
        self.cells[count as usize].add(amount);
    }
}

/// One worker's counts for one peer. Only that worker writes; one cache line long, as peers are
/// many and a worker seldom turns to one when another worker does.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct PeerTally {
    cells: [Cell; PeerCount::TooBig as usize + 1],
}

impl PeerTally {
    pub(super) fn add(&self, count: PeerCount, amount: u64) {
        self.cells[count as usize].add(amount);
    }
}

/// A number with a single writer and any readers.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    fn add(&self, amount: u64) {
        // With a single writer this loses nothing and is cheaper than a locked addition.
        let sum = self.value().wrapping_add(amount);
        self.0.store(sum, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    fn sum(tallies: &[Tally]) -> Self {
        let total = |count: Count| {
            let values = tallies
                .iter()
                .map(|tally| tally.cells[count as usize].value());
            values.sum()
        };
        Self {
            sent_packets: total(Count::SentPackets),
            sent_bytes: total(Count::SentBytes),
            received_packets: total(Count::ReceivedPackets),
            received_bytes: total(Count::ReceivedBytes),
            no_route: total(Count::NoRoute),
            unreachable_sent: total(Count::UnreachableSent),
            malformed: total(Count::Malformed),
            other_version: total(Count::OtherVersion),
            expired: total(Count::Expired),
            spoofed: total(Count::Spoofed),
            too_big: total(Count::TooBig),
            too_big_for_path: total(Count::TooBigForPath),
            too_big_answered: total(Count::TooBigAnswered),
            buffer_full: total(Count::BufferFull),
            send_errors: total(Count::SendErrors),
            receive_errors: total(Count::ReceiveErrors),
            device_errors: total(Count::DeviceErrors),
        }
    }
}

impl PeerCounters {
    pub(super) fn sum(tallies: &[PeerTally]) -> Self {
        let total = |count: PeerCount| {
            let values = tallies
                .iter()
                .map(|tally| tally.cells[count as usize].value());
            values.sum()
        };
        Self {
            sent_packets: total(PeerCount::SentPackets),
            sent_bytes: total(PeerCount::SentBytes),
            received_packets: total(PeerCount::ReceivedPackets),
            received_bytes: total(PeerCount::ReceivedBytes),
            send_errors: total(PeerCount::SendErrors),
            too_big: total(PeerCount::TooBig),
        }
    }
}

#[cfg(test)]
mod tests;
