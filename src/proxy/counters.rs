//! What the workers have moved and dropped.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Dropped: longer than [`Settings::mtu`](super::Settings::mtu) allows or a datagram can be.
    pub too_big: u64,
    /// Dropped: the kernel refused to send it to the peer.
    pub send_errors: u64,
    /// Errors the socket reported instead of a packet.
    pub receive_errors: u64,
    /// Dropped: the device did not take it, for instance because it is down.
    pub device_errors: u64,
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
    TooBig,
    SendErrors,
    ReceiveErrors,
    DeviceErrors,
}

/// One worker's counts. Only that worker writes; two cache lines long at least, because
/// processors fetch lines in pairs, so that workers do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Tally {
    cells: [AtomicU64; Count::DeviceErrors as usize + 1],
}

impl Tally {
    pub(super) fn add(&self, count: Count, amount: u64) {
        let cell = &self.cells[count as usize];
        // With a single writer this loses nothing and is cheaper than a locked addition.
        let sum = cell.load(Ordering::Relaxed).wrapping_add(amount);
        cell.store(sum, Ordering::Relaxed);
    }

    fn value(&self, count: Count) -> u64 {
        self.cells[count as usize].load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(super) fn sum(tallies: &[&Tally]) -> Self {
        let total = |count| tallies.iter().map(|tally| tally.value(count)).sum();
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
            too_big: total(Count::TooBig),
            send_errors: total(Count::SendErrors),
            receive_errors: total(Count::ReceiveErrors),
            device_errors: total(Count::DeviceErrors),
        }
    }
}
