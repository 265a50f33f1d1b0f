//! The trains of a batch, as they grow.

use std::ops::Range;

use super::Train;
use super::segment::{PUSH, Segment};
use crate::proxy::checksum::Sum;
use crate::proxy::virtio::{Header, Kind, Partial, Segments};

/// The trains of a batch, in the order of their first packets.
#[derive(Debug)]
pub(super) struct Trains {
    records: Vec<Record>,
    heads: Vec<u8>,
    /// In blocks, one for each train. One that has to grow moves to the end.
    bodies: Vec<Range<usize>>,
}

#[derive(Debug)]
struct Record {
    header: Header,
    /// In `heads`.
    head: Range<usize>,
    /// In `bodies`; the rest of its block follows.
    bodies: Range<usize>,
    /// The size of its block.
    room: usize,
}

impl Trains {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            records: Vec::with_capacity(capacity),
            // A train with a head has at least two packets.
            heads: Vec::with_capacity(capacity / 2 * LONGEST_HEAD),
            // Blocks double: those that n packets ever had add up to less than 4 n.
            bodies: Vec::with_capacity(capacity * 4),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Train<'_>> {
        self.records.iter().map(|record| Train {
            header: record.header,
            head: &self.heads[record.head.clone()],
            bodies: &self.bodies[record.bodies.clone()],
            packets: record.bodies.len(),
        })
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.heads.clear();
        self.bodies.clear();
    }

    /// Adds a train of the single packet at `at` and tells its place.
    pub(super) fn start(&mut self, at: Range<usize>) -> usize {
        let start = self.bodies.len();
        self.bodies.push(at);
        self.records.push(Record {
            header: Header::default(),
            head: 0..0,
            bodies: start..start + 1,
            room: 1,
        });
        self.records.len() - 1
    }

    /// Gives the train of the single packet `first`, which is `segment`, a head, so that others
    /// can follow.
    pub(super) fn couple(&mut self, train: usize, first: &[u8], segment: &Segment) {
        let record = &mut self.records[train];
        let start = self.heads.len();
        self.heads.extend_from_slice(&first[..segment.headers()]);
        record.head = start..self.heads.len();
        record.header = header(segment);
        self.bodies[record.bodies.start].start += segment.headers();
        let length = short(segment.transport + segment.payload);
        let sum = segment.pseudo_header(length).folded();
        let at = start + segment.internet + segment.checksum();
        self.heads[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Adds the payload at `body` of a packet, which is `segment`, to a train that has a head.
    pub(super) fn append(&mut self, train: usize, body: Range<usize>, segment: &Segment) {
        let record = &mut self.records[train];
        lengthen(&mut self.heads[record.head.clone()], segment);
        if record.bodies.len() == record.room {
            if record.bodies.end < self.bodies.len() {
                let start = self.bodies.len();
                self.bodies.extend_from_within(record.bodies.clone());
                record.bodies = start..self.bodies.len();
            }
            record.room *= 2;
            self.bodies.resize(record.bodies.start + record.room, 0..0);
        }
        self.bodies[record.bodies.end] = body;
        record.bodies.end += 1;
    }
}

fn header(segment: &Segment) -> Header {
    Header {
        checksum: Some(Partial {
            start: short(segment.internet),
            offset: short(segment.checksum()),
        }),
        segments: Some(Segments {
            kind: segment.kind,
            size: short(segment.payload),
            header: short(segment.headers()),
            ecn: false,
        }),
    }
}

/// Makes the head of a train right for the payload of `segment` as well, which joins it. Sums
/// change by as much as the length in them (RFC 1624).
fn lengthen(head: &mut [u8], segment: &Segment) {
    let more = short(segment.payload);
    let (internet, transport) = head.split_at_mut(segment.internet);
    change(&mut internet[2..4], |length| length.wrapping_add(more));
    change(&mut internet[10..12], |sum| !plus(!sum, more));
    let at = segment.checksum();
    change(&mut transport[at..at + 2], |sum| plus(sum, more));
    match segment.kind {
        Kind::Udp => change(&mut transport[4..6], |length| length.wrapping_add(more)),
        Kind::Tcp if segment.last => transport[13] |= PUSH,
        Kind::Tcp => {}
    }
}

fn change(field: &mut [u8], by: impl Fn(u16) -> u16) {
    if let &mut [high, low] = field {
        field.copy_from_slice(&by(u16::from_be_bytes([high, low])).to_be_bytes());
    }
}

/// The ones' complement sum.
fn plus(one: u16, other: u16) -> u16 {
    let mut sum = Sum::default();
    sum.add_word(one);
    sum.add_word(other);
    sum.folded()
}

/// A length within a packet, which has at most 65,535 bytes.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// Two headers with all the options that fit in, in bytes.
const LONGEST_HEAD: usize = 60 + 60;

#[cfg(test)]
mod tests;
