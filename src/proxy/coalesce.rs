//! Joins received packets into trains: one large packet instead of many alike, which the kernel
//! takes with one call and cuts again when it must.
//!
//! Packets are joined only if cutting the train gives them back byte for byte. The one exception
//! is the identification of datagrams that may not be fragmented: it means nothing (RFC 6864
//! §4.1), and cutting numbers upwards. Within a flow nothing is reordered.

use std::ops::Range;

use super::virtio::Header;
use flows::{Flow, Flows};
use segment::{Part, Segment};
use trains::Trains;

mod flows;
mod segment;
mod trains;

/// What the device takes as trains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Joins {
    /// Trains of TCP segments.
    pub tcp: bool,
    /// Trains of UDP datagrams.
    pub udp: bool,
}

/// Most packets in one train. The kernel cuts a train of datagrams into no more than this
/// (`UDP_MAX_SEGMENTS`, linux/udp.h; later kernels take 128), and one write has at most 1024
/// parts.
pub const LONGEST_TRAIN: usize = 64;

/// A packet as it came, or several as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Train<'a> {
    /// What the device has to be told of it.
    pub header: Header,
    /// The headers of all of it, which come before the bodies; empty if the body has its own.
    pub head: &'a [u8],
    /// Where the rest lies in the bytes that [`Coalescer::push`] was given, for each packet.
    pub bodies: &'a [Range<usize>],
    /// How many packets this is, 1 to [`LONGEST_TRAIN`].
    pub packets: usize,
}

/// The packets of one batch, joined as far as may be.
///
/// A packet costs the same however many flows are mixed: some dozens of trains are open at once,
/// and the oldest make room for others. Made once and used for every batch, it allocates nothing.
#[derive(Debug)]
pub struct Coalescer {
    trains: Trains,
    flows: Flows,
}

impl Coalescer {
    /// One for batches of `capacity` packets. It takes more too, but allocates then.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            trains: Trains::new(capacity),
            flows: Flows::new(),
        }
    }

    /// Takes the packet at `at` in `bytes`, which are the same ones until [`Coalescer::clear`].
    /// It is an IPv4 packet as long as it states; anything else passes as it is. What does not lie
    /// in `bytes` is not taken at all.
    pub fn push(&mut self, bytes: &[u8], at: Range<usize>, joins: Joins) {
        let Some(packet) = bytes.get(at.clone()) else {
            return;
        };
        match segment::parse(packet, joins) {
            Part::Segment(segment) => return self.segment(bytes, at, segment),
            Part::Loner(identity) => self.flows.close(identity),
            Part::Portless(hosts) => self.flows.close_all(hosts),
            Part::Stranger => {}
        }
        self.trains.start(at);
    }

    /// What the packets have become, in the order of the first packet of each.
    pub fn trains(&self) -> impl Iterator<Item = Train<'_>> {
        self.trains.iter()
    }

    /// Makes ready for the next batch.
    pub fn clear(&mut self) {
        self.trains.clear();
        self.flows.clear();
    }

    /// Checksums are verified late, because that takes longest: those of a packet when it could
    /// join, and those of the first in a train when another could join it.
    fn segment(&mut self, bytes: &[u8], at: Range<usize>, segment: Segment) {
        let packet = &bytes[at.clone()];
        let Some(flow) = self.flows.find(segment.identity) else {
            return self.open(at, segment);
        };
        let Some(first) = bytes.get(flow.at.clone()) else {
            return self.open(at, segment);
        };
        if !flow.continues_with(&segment, first, packet) {
            return self.open(at, segment);
        }
        if !segment.is_intact(packet) {
            self.flows.close(segment.identity);
            self.trains.start(at);
            return;
        }
        if flow.packets == 1 {
            if !flow.segment.is_intact(first) {
                return self.open(at, segment);
            }
            self.trains.couple(flow.train, first, &flow.segment);
        }
        let body = at.start + segment.headers()..at.end;
        self.trains.append(flow.train, body, &segment);
        flow.advance(&segment);
        if flow.is_complete() {
            self.flows.close(segment.identity);
        }
    }

    fn open(&mut self, at: Range<usize>, segment: Segment) {
        let train = self.trains.start(at.clone());
        if segment.last {
            self.flows.close(segment.identity);
        } else {
            self.flows.open(Flow::new(train, at, segment));
        }
    }
}

#[cfg(test)]
mod tests;
