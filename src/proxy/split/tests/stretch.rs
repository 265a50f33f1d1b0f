//! Super-packets and what they stand for, written field by field, one packet at a time, and summed
//! up byte by byte: slow, and easy to see to be right.

use proptest::prelude::*;

use crate::proxy::checksum::tests::plain_sum;
use crate::proxy::virtio::{Header, Kind, Partial, Segments};

/// A stretch of a stream, or datagrams of one call.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct Stretch {
    pub(in crate::proxy) kind: Kind,
    /// The second byte of the IPv4 header.
    pub(in crate::proxy) service: u8,
    pub(in crate::proxy) id: u16,
    /// The seventh byte of the IPv4 header: the highest two bits alone may be set.
    pub(in crate::proxy) flags: u8,
    /// Of the IPv4 header, in words of four bytes.
    pub(in crate::proxy) options: Vec<[u8; 4]>,
    pub(in crate::proxy) sequence: u32,
    /// The flags of TCP, the reserved ones first.
    pub(in crate::proxy) control: [bool; 12],
    pub(in crate::proxy) transport_options: Vec<[u8; 4]>,
    pub(in crate::proxy) payload: Vec<u8>,
}

/// What a packet has in its own way.
pub(in crate::proxy) struct Place {
    pub(in crate::proxy) index: u16,
    pub(in crate::proxy) start: usize,
    pub(in crate::proxy) end: usize,
}

impl Stretch {
    pub(in crate::proxy) fn new(kind: Kind, payload: usize) -> Self {
        Self {
            kind,
            service: 0,
            id: 0xfffe,
            flags: 0x40,
            options: vec![],
            sequence: 0xffff_fc00,
            control: [false; 12],
            transport_options: vec![],
            payload: (0..=250).cycle().take(payload).collect(),
        }
    }

    /// All of it in one, as the device gives it.
    pub(in crate::proxy) fn whole(&self) -> Vec<u8> {
        let place = Place {
            index: 0,
            start: 0,
            end: self.payload.len(),
        };
        let mut packet = self.packet(&place);
        let start = 20 + self.options.len() * 4;
        let field = start + self.field();
        let length = packet.len() - start;
        let sum = plain_sum(&self.pseudo_header(length));
        packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// Asks for segments with that many bytes of payload each.
    pub(in crate::proxy) fn header(&self, size: u16) -> Header {
        let start = u16::try_from(20 + self.options.len() * 4).unwrap();
        let offset = u16::try_from(self.field()).unwrap();
        let segments = Segments {
            kind: self.kind,
            size,
            header: 0,
            ecn: self.kind == Kind::Tcp && self.control[4],
        };
        Header {
            checksum: Some(Partial { start, offset }),
            segments: Some(segments),
        }
    }

    /// Asks for the checksum alone.
    pub(in crate::proxy) fn unfinished(&self) -> Header {
        Header {
            segments: None,
            ..self.header(1)
        }
    }

    /// What it stands for.
    pub(in crate::proxy) fn packets(&self, size: u16) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut place = Place {
            index: 0,
            start: 0,
            end: 0,
        };
        while place.start < self.payload.len() || packets.is_empty() {
            place.end = self.payload.len().min(place.start + usize::from(size));
            packets.push(self.packet(&place));
            place.index = place.index.wrapping_add(1);
            place.start = place.end;
        }
        packets
    }

    pub(in crate::proxy) fn packet(&self, place: &Place) -> Vec<u8> {
        let segment = self.segment(place);
        let header = 20 + self.options.len() * 4;
        let mut packet = vec![0x40 + u8::try_from(header / 4).unwrap(), self.service];
        packet.extend(u16::try_from(header + segment.len()).unwrap().to_be_bytes());
        packet.extend(self.id.wrapping_add(place.index).to_be_bytes());
        packet.extend([self.flags, 0, 63, self.protocol(), 0, 0]);
        packet.extend(ADDRESSES);
        packet.extend(self.options.concat());
        let sum = !plain_sum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        [packet, segment].concat()
    }

    /// The transport header and its payload.
    fn segment(&self, place: &Place) -> Vec<u8> {
        let payload = &self.payload[place.start..place.end];
        let mut segment = vec![0x9c, 0x40, 0x14, 0x51];
        match self.kind {
            Kind::Tcp => {
                let start = u32::try_from(place.start).unwrap();
                let words = u8::try_from(5 + self.transport_options.len()).unwrap();
                segment.extend(self.sequence.wrapping_add(start).to_be_bytes());
                segment.extend([1, 2, 3, 4, words << 4, 0, 0xfa, 0xf0, 0, 0, 0, 7]);
                let last = place.end == self.payload.len();
                for (bit, &is_set) in self.control.iter().enumerate() {
                    let here = match bit {
                        4 => place.start == 0,
                        8 | 11 => last,
                        _ => true,
                    };
                    if is_set && here {
                        segment[12 + (bit + 4) / 8] |= 0x80 >> ((bit + 4) % 8);
                    }
                }
                segment.extend(self.transport_options.concat());
            }
            Kind::Udp => {
                let length = u16::try_from(8 + payload.len()).unwrap();
                segment.extend(length.to_be_bytes());
                segment.extend([0, 0]);
            }
        }
        segment.extend(payload);
        let pseudo_header = self.pseudo_header(segment.len());
        let mut sum = !plain_sum(&[&pseudo_header, &segment[..]].concat());
        if self.kind == Kind::Udp && sum == 0 {
            sum = 0xffff;
        }
        let field = self.field();
        segment[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let mut bytes = ADDRESSES.to_vec();
        bytes.extend([0, self.protocol()]);
        bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        bytes
    }

    const fn protocol(&self) -> u8 {
        match self.kind {
            Kind::Tcp => 6,
            Kind::Udp => 17,
        }
    }

    pub(in crate::proxy) const fn field(&self) -> usize {
        match self.kind {
            Kind::Tcp => 16,
            Kind::Udp => 6,
        }
    }
}

pub(in crate::proxy) const ADDRESSES: [u8; 8] = [100, 96, 1, 7, 100, 96, 2, 9];

/// All kinds, some of them as long as they can be.
pub(in crate::proxy) fn stretches() -> impl Strategy<Value = Stretch> {
    let kind = prop_oneof![Just(Kind::Tcp), Just(Kind::Udp)];
    let options = || proptest::collection::vec(any::<[u8; 4]>(), 0..=10);
    let payload = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..6000),
        1 => (60_000..65_416_usize).prop_map(|length| (0..=252).cycle().take(length).collect()),
    ];
    let network = (any::<u8>(), any::<u16>(), any::<u8>(), options());
    let transport = (any::<u32>(), any::<[bool; 12]>(), options());
    (kind, network, transport, payload).prop_map(|(kind, network, transport, payload)| {
        let (service, id, flags, options) = network;
        let (sequence, control, transport_options) = transport;
        Stretch {
            kind,
            service,
            id,
            flags: flags & 0xc0,
            options,
            sequence,
            control,
            transport_options,
            payload,
        }
    })
}
