//! What the udp data plane has moved and dropped, as outsiders see it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Status;
use crate::proxy::counters::{Counters, Meter, PeerCounters};

/// What this node has moved and dropped since its udp data plane began; a restart of the service
/// and a change of its settings begin anew. Bytes are those of the packets of containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Packets sent to peers.
    pub sent_packets: u64,
    /// Bytes sent to peers.
    pub sent_bytes: u64,
    /// Packets from peers given to this host.
    pub received_packets: u64,
    /// Bytes from peers given to this host.
    pub received_bytes: u64,
    /// Dropped: no peer has the destination.
    pub dropped_no_route: u64,
    /// Dropped: no sound IPv4 packet.
    pub dropped_malformed: u64,
    /// Dropped: of another IP version. IPv6 hosts send some to each device of their own accord.
    pub dropped_other_version: u64,
    /// Dropped: the time to live was over.
    pub dropped_expired: u64,
    /// Dropped: from another host than the one whose subnet the source is of.
    pub dropped_spoofed: u64,
    /// Dropped: longer than the MTU of the device or than a datagram can be.
    pub dropped_too_big: u64,
    /// Dropped: longer than the path to the peer carries, and not to be fragmented.
    pub dropped_too_big_for_path: u64,
    /// Dropped: the socket's send buffer stayed full.
    pub dropped_buffer_full: u64,
    /// Dropped: the kernel refused to send it to the peer.
    pub dropped_send_error: u64,
    /// Dropped: the device did not take it, for instance because it is down.
    pub dropped_device_error: u64,
    /// "Net unreachable" answers to packets without a route.
    pub answered_no_route: u64,
    /// "Fragmentation needed" answers to packets too big for the path.
    pub answered_too_big_for_path: u64,
    /// Errors that the socket reported instead of a packet.
    pub receive_errors: u64,
}

/// What this node has moved and dropped for a peer since it has been one, all its subnets
/// together; a peer that went away and came back begins anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerTraffic {
    /// Packets sent to it.
    pub sent_packets: u64,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// Packets from its containers given to this host.
    pub received_packets: u64,
    /// Bytes from its containers given to this host.
    pub received_bytes: u64,
    /// Dropped: the kernel refused to send it to the peer, or took it not in time.
    pub dropped_send_error: u64,
    /// Dropped: longer than a datagram can be or than the path to the peer carries.
    pub dropped_too_big: u64,
}

impl Traffic {
    /// Each number by its name on D-Bus. Those of packets that were dropped start with `dropped-`.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 17] {
        [
            ("sent-packets", self.sent_packets),
            ("sent-bytes", self.sent_bytes),
            ("received-packets", self.received_packets),
            ("received-bytes", self.received_bytes),
            ("dropped-no-route", self.dropped_no_route),
            ("dropped-malformed", self.dropped_malformed),
            ("dropped-other-version", self.dropped_other_version),
            ("dropped-expired", self.dropped_expired),
            ("dropped-spoofed", self.dropped_spoofed),
            ("dropped-too-big", self.dropped_too_big),
            ("dropped-too-big-for-path", self.dropped_too_big_for_path),
            ("dropped-buffer-full", self.dropped_buffer_full),
            ("dropped-send-error", self.dropped_send_error),
            ("dropped-device-error", self.dropped_device_error),
            ("answered-no-route", self.answered_no_route),
            ("answered-too-big-for-path", self.answered_too_big_for_path),
            ("receive-errors", self.receive_errors),
        ]
    }
}

impl PeerTraffic {
    /// As [`Traffic::named`].
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("sent-packets", self.sent_packets),
            ("sent-bytes", self.sent_bytes),
            ("received-packets", self.received_packets),
            ("received-bytes", self.received_bytes),
            ("dropped-send-error", self.dropped_send_error),
            ("dropped-too-big", self.dropped_too_big),
        ]
    }
}

impl From<Counters> for Traffic {
    fn from(counters: Counters) -> Self {
        Self {
            sent_packets: counters.sent_packets,
            sent_bytes: counters.sent_bytes,
            received_packets: counters.received_packets,
            received_bytes: counters.received_bytes,
            dropped_no_route: counters.no_route,
            dropped_malformed: counters.malformed,
            dropped_other_version: counters.other_version,
            dropped_expired: counters.expired,
            dropped_spoofed: counters.spoofed,
            dropped_too_big: counters.too_big,
            dropped_too_big_for_path: counters.too_big_for_path,
            dropped_buffer_full: counters.buffer_full,
            dropped_send_error: counters.send_errors,
            dropped_device_error: counters.device_errors,
            answered_no_route: counters.unreachable_sent,
            answered_too_big_for_path: counters.too_big_answered,
            receive_errors: counters.receive_errors,
        }
    }
}

impl From<PeerCounters> for PeerTraffic {
    fn from(counters: PeerCounters) -> Self {
        Self {
            sent_packets: counters.sent_packets,
            sent_bytes: counters.sent_bytes,
            received_packets: counters.received_packets,
            received_bytes: counters.received_bytes,
            dropped_send_error: counters.send_errors,
            dropped_too_big: counters.too_big,
        }
    }
}

impl Status {
    /// The same with the traffic of this moment. What is published has none, so that no packet
    /// makes a change of status.
    #[must_use]
    pub(in crate::service) fn with_traffic(mut self, meter: &Meter) -> Self {
        self.traffic = Some(meter.totals().into());
        let counted = meter.peers();
        let peers = Arc::make_mut(&mut self.peers);
        for peer in peers {
            let counters = counted.get(&peer.public_ip);
            peer.traffic = counters.map(|counters| (*counters).into());
        }
        self
    }

    /// The same without any traffic, which is no news.
    #[must_use]
    pub(crate) fn without_traffic(mut self) -> Self {
        self.traffic = None;
        if self.peers.iter().any(|peer| peer.traffic.is_some()) {
            for peer in Arc::make_mut(&mut self.peers) {
                peer.traffic = None;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests;
