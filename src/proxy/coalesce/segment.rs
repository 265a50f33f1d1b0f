//! What joining has to know of one packet.

use super::Joins;
use crate::proxy::checksum::{Sum, checksum};
use crate::proxy::virtio::Kind;

/// What a packet is to the trains that are open.
#[derive(Debug)]
pub(super) enum Part {
    /// It could be part of a train.
    Segment(Segment),
    /// It is never part of a train, but must not overtake its flow.
    Loner(Identity),
    /// It belongs to one of the flows between these hosts, and does not say to which: only the
    /// first fragment of a datagram has ports.
    Portless(Hosts),
    /// It belongs to no flow.
    Stranger,
}

/// The ends of a flow, without ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hosts {
    /// Source and destination, as the header has them.
    pub(super) addresses: [u8; 8],
    pub(super) protocol: u8,
}

/// A flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) hosts: Hosts,
    /// Source and destination, as the header has them.
    pub(super) ports: [u8; 4],
}

/// A packet that could be part of a train: TCP with payload and no flags but those that cutting
/// copies, or a UDP datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) identity: Identity,
    pub(super) kind: Kind,
    /// The length of the IPv4 header, in bytes.
    pub(super) internet: usize,
    /// The length of the TCP or UDP header, in bytes.
    pub(super) transport: usize,
    /// The length of what follows them, in bytes; at least 1.
    pub(super) payload: usize,
    /// What cutting copies from the head to each packet, but for options.
    pub(super) copied: [u64; 2],
    /// Its identification, if that means anything.
    pub(super) id: Option<u16>,
    /// Its sequence number and that of the next; 0 for UDP.
    pub(super) sequence: [u32; 2],
    /// It has to be the last in a train (PSH).
    pub(super) last: bool,
}

/// What only the transport header tells.
struct Transport {
    length: usize,
    copied: u64,
    sequence: [u32; 2],
    last: bool,
}

/// `packet` must have the length that it states; otherwise it is a stranger.
pub(super) fn parse(packet: &[u8], joins: Joins) -> Part {
    let Some(header) = packet.first_chunk::<20>() else {
        return Part::Stranger;
    };
    let kind = match header[9] {
        TCP => Kind::Tcp,
        UDP => Kind::Udp,
        _ => return Part::Stranger,
    };
    let internet = usize::from(header[0] & 0x0f) * 4;
    let stated = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || internet < 20 || stated != packet.len() {
        return Part::Stranger;
    }
    let [.., a, b, c, d, e, f, g, h] = *header;
    let hosts = Hosts {
        addresses: [a, b, c, d, e, f, g, h],
        protocol: header[9],
    };
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    let content = packet.get(internet..).unwrap_or_default();
    let Some(&ports) = content.first_chunk().filter(|_| fragment & FRAGMENTED == 0) else {
        return Part::Portless(hosts);
    };
    let identity = Identity { hosts, ports };
    let transport = match kind {
        Kind::Tcp if joins.tcp => tcp(content),
        Kind::Udp if joins.udp => udp(content),
        Kind::Tcp | Kind::Udp => None,
    };
    let Some(transport) = transport else {
        return Part::Loner(identity);
    };
    let [version, service, _, _, i, j, k, l, ttl, ..] = *header;
    Part::Segment(Segment {
        identity,
        kind,
        internet,
        transport: transport.length,
        payload: content.len() - transport.length,
        copied: [
            u64::from_be_bytes([0, 0, 0, version, service, k, l, ttl]),
            transport.copied,
        ],
        id: (fragment & WHOLE == 0).then_some(u16::from_be_bytes([i, j])),
        sequence: transport.sequence,
        last: transport.last,
    })
}

fn tcp(segment: &[u8]) -> Option<Transport> {
    let &[
        _,
        _,
        _,
        _,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        offset,
        flags,
        i,
        j,
        _,
        _,
        urgent,
        pointer,
    ] = segment.first_chunk::<20>()?;
    let length = usize::from(offset >> 4) * 4;
    let payload = segment.len().checked_sub(length)?;
    if length < 20 || payload == 0 || flags & !(PUSH | ECHO) != ACK || [urgent, pointer] != [0; 2] {
        return None;
    }
    let sequence = u32::from_be_bytes([a, b, c, d]);
    Some(Transport {
        length,
        copied: u64::from_be_bytes([e, f, g, h, offset, flags & !PUSH, i, j]),
        // A payload is shorter than 2^16.
        sequence: [
            sequence,
            sequence.wrapping_add(u32::try_from(payload).ok()?),
        ],
        last: flags & PUSH != 0,
    })
}

fn udp(datagram: &[u8]) -> Option<Transport> {
    let &[_, _, _, _, high, low, sum @ ..] = datagram.first_chunk::<8>()?;
    let stated = usize::from(u16::from_be_bytes([high, low]));
    let is_segment = stated == datagram.len() && stated > 8 && sum != [0; 2];
    is_segment.then_some(Transport {
        length: 8,
        copied: 0,
        sequence: [0; 2],
        last: false,
    })
}

impl Segment {
    /// The length of both headers, in bytes.
    pub(super) const fn headers(&self) -> usize {
        self.internet + self.transport
    }

    /// Where the checksum lies in the transport header.
    pub(super) const fn checksum(&self) -> usize {
        match self.kind {
            Kind::Tcp => 16,
            Kind::Udp => 6,
        }
    }

    /// The sum over the pseudo header of a packet of this flow.
    pub(super) fn pseudo_header(&self, length: u16) -> Sum {
        let hosts = self.identity.hosts;
        Sum::pseudo_header(hosts.addresses, hosts.protocol, length)
    }

    /// Whether all options are the same in two packets whose headers have the same lengths.
    pub(super) fn has_options(&self, one: &[u8], other: &[u8]) -> bool {
        let alike = |from: usize, to: usize| from == to || one.get(from..to) == other.get(from..to);
        alike(20, self.internet) && alike(self.internet + 20.min(self.transport), self.headers())
    }

    /// Whether both checksums of `packet`, which is this segment, are right and written as cutting
    /// writes them.
    ///
    /// A sum of zero has two forms (RFC 1624 §3). No IPv4 header sums up to it; the kernel writes
    /// now one, now the other in TCP (`csum_fold` and `CSUM_MANGLED_0`); and in UDP 0 says that
    /// there is no checksum.
    pub(super) fn is_intact(&self, packet: &[u8]) -> bool {
        let (internet, transport) = packet.split_at(self.internet.min(packet.len()));
        let at = self.checksum();
        let ambiguous = match (self.kind, transport.get(at..at + 2)) {
            (Kind::Tcp, Some([0, 0] | [0xff, 0xff])) => true,
            (Kind::Tcp | Kind::Udp, _) => internet.get(10..12) == Some(&[0xff; 2]),
        };
        let Ok(length) = u16::try_from(transport.len()) else {
            return false;
        };
        let mut sum = self.pseudo_header(length);
        sum.add(transport);
        !ambiguous && sum.finish() == 0 && checksum(internet) == 0
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
/// More fragments, or an offset.
const FRAGMENTED: u16 = 0x3fff;
/// May not be fragmented (DF).
const WHOLE: u16 = 0x4000;
const ACK: u8 = 0x10;
pub(super) const PUSH: u8 = 0x08;
/// The receiver has seen congestion (ECE): said in every segment until the sender has reduced its
/// window.
const ECHO: u8 = 0x40;
