//! What the device gives as one super-packet, cut into the packets that it stands for; unfinished
//! checksums finished.
//!
//! The result is what the kernel itself would have made of it for a device without offloads
//! (net/ipv4/tcp_offload.c, net/ipv4/udp_offload.c and net/ipv4/af_inet.c, `*_gso_segment`).

use std::ops::Range;

use super::checksum::Sum;
use super::packet::{Packet, Refusal, header_length};
use super::virtio::{Header, Kind, Partial, Segments};

/// One packet: its head, and behind it its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where its headers lie in `heads`; empty if the body is the whole packet.
    pub head: Range<usize>,
    /// Where the rest of it lies in the packet that was cut.
    pub body: Range<usize>,
}

impl Piece {
    /// The length of the packet in bytes.
    pub(super) fn length(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// Cuts the IPv4 packet at the start of `packet` as `header` demands; what follows its total
/// length is cut off. Appends to `heads` and `pieces`, in order, and to neither if it fails.
///
/// Allocates nothing as long as both have room: a super-packet makes one piece for each
/// `segments.size` bytes of its payload, and for each a head of 28 to 120 bytes; any other packet
/// makes one piece and no head. Super-packets of more than [`MOST_PIECES`] are refused.
///
/// A total length of 0 in a super-packet means all of `packet`: the kernel writes it where 16 bits
/// do not do (`iph_set_totlen`).
///
/// # Errors
/// [`Refusal::Malformed`] or [`Refusal::OtherVersion`], never for what a TUN device gives.
pub fn split(
    header: Header,
    packet: &mut [u8],
    heads: &mut Vec<u8>,
    pieces: &mut Vec<Piece>,
) -> Result<(), Refusal> {
    let length = match (header.segments, packet.get(TOTAL..TOTAL + 2)) {
        (Some(_), Some([0, 0])) => packet.len(),
        _ => Packet::parse(packet)?.bytes().len(),
    };
    let packet = &mut packet[..length];
    if let Some(segments) = header.segments {
        return cut(segments, header.checksum, packet, (heads, pieces));
    }
    if let Some(partial) = header.checksum {
        finish(partial, packet)?;
    }
    pieces.push(Piece {
        head: heads.len()..heads.len(),
        body: 0..length,
    });
    Ok(())
}

/// How many pieces a super-packet may have: as many as the shortest segments of a TCP connection
/// (`TCP_MIN_GSO_SIZE`, 8 bytes) need for 64 KiB. UDP has shorter ones, but only some 128 of them
/// (`UDP_MAX_SEGMENTS`).
pub const MOST_PIECES: usize = 8192;

/// Finishes a checksum of a sound packet (`skb_checksum_help`). Zero is written in its other form
/// whatever the protocol is: only UDP tells the two apart.
fn finish(partial: Partial, packet: &mut [u8]) -> Result<(), Refusal> {
    let start = usize::from(partial.start);
    if start < header_length(packet[0]) {
        return Err(Refusal::Malformed);
    }
    let summed = packet.get_mut(start..).ok_or(Refusal::Malformed)?;
    let mut sum = Sum::default();
    sum.add(summed);
    let offset = usize::from(partial.offset);
    let field = summed
        .get_mut(offset..offset + 2)
        .ok_or(Refusal::Malformed)?;
    field.copy_from_slice(&visible(sum.finish()).to_be_bytes());
    Ok(())
}

fn cut(
    segments: Segments,
    partial: Option<Partial>,
    packet: &[u8],
    (heads, pieces): (&mut Vec<u8>, &mut Vec<Piece>),
) -> Result<(), Refusal> {
    let headers = Headers::parse(segments.kind, packet)?;
    let size = usize::from(segments.size);
    let payload = packet.len() - headers.length;
    if partial.is_some_and(|partial| partial != headers.partial())
        || size == 0
        || payload.div_ceil(size) > MOST_PIECES
        || headers.length + payload.min(size) > usize::from(u16::MAX)
    {
        return Err(Refusal::Malformed);
    }
    let mut start = headers.length;
    let mut id = headers.id;
    loop {
        let end = packet.len().min(start + size);
        let head = heads.len()..heads.len() + headers.length;
        heads.extend_from_slice(&headers.bytes[..headers.length]);
        let body = start..end;
        headers.complete(&mut heads[head.clone()], id, packet, &body);
        pieces.push(Piece { head, body });
        if end == packet.len() {
            return Ok(());
        }
        start = end;
        id = id.wrapping_add(1);
    }
}

/// The headers of a super-packet.
struct Headers {
    kind: Kind,
    /// Both of them; what each piece has in its own way is zero.
    bytes: [u8; LONGEST],
    /// Of both, in bytes.
    length: usize,
    /// Where the transport header begins.
    transport: usize,
    id: u16,
    /// Of the first byte in a TCP stream.
    sequence: u32,
    /// The 16 bits of a TCP header that flags are part of.
    flags: u16,
    /// Of the IPv4 header as it is in `bytes`.
    network_sum: Sum,
    /// Of the transport header as it is in `bytes`, and of the pseudo header without the length.
    transport_sum: Sum,
}

impl Headers {
    /// Reads those of `packet`. What its checksums and lengths are does not matter: every piece
    /// gets its own.
    fn parse(kind: Kind, packet: &[u8]) -> Result<Self, Refusal> {
        let first = *packet.first().ok_or(Refusal::Malformed)?;
        if first >> 4 != 4 {
            return Err(Refusal::OtherVersion);
        }
        let transport = header_length(first);
        let shortest = transport + kind.shortest_header();
        if transport < SHORTEST_IPV4
            || packet.len() < shortest
            || packet[PROTOCOL] != kind.protocol()
        {
            return Err(Refusal::Malformed);
        }
        let length = match kind {
            Kind::Tcp => transport + usize::from(packet[transport + TCP_FLAGS] >> 4) * 4,
            Kind::Udp => shortest,
        };
        let is_fragment = word(packet, FRAGMENT) & FRAGMENTED != 0;
        if is_fragment || length < shortest || packet.len() < length {
            return Err(Refusal::Malformed);
        }
        Ok(Self::new(kind, &packet[..length], transport))
    }

    fn new(kind: Kind, headers: &[u8], transport: usize) -> Self {
        let length = headers.len();
        let mut bytes = [0; LONGEST];
        bytes[..length].copy_from_slice(headers);
        let (network, rest) = bytes.split_at_mut(transport);
        for field in [TOTAL, ID, IPV4_CHECKSUM] {
            network[field..field + 2].fill(0);
        }
        let (mut sequence, mut flags) = (0, 0);
        match kind {
            Kind::Tcp => {
                sequence = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]);
                flags = word(rest, TCP_FLAGS);
                rest[SEQUENCE..SEQUENCE + 4].fill(0);
                rest[TCP_FLAGS..TCP_FLAGS + 2].fill(0);
            }
            Kind::Udp => rest[UDP_LENGTH..UDP_LENGTH + 2].fill(0),
        }
        let field = kind.checksum_field();
        rest[field..field + 2].fill(0);
        let mut network_sum = Sum::default();
        network_sum.add(network);
        let addresses = *network[ADDRESSES..].first_chunk().unwrap_or(&[0; 8]);
        let mut transport_sum = Sum::pseudo_header(addresses, kind.protocol(), 0);
        transport_sum.add(&rest[..length - transport]);
        Self {
            kind,
            bytes,
            length,
            transport,
            id: word(headers, ID),
            sequence,
            flags,
            network_sum,
            transport_sum,
        }
    }

    /// Where the kernel says that the transport checksum is to be finished.
    fn partial(&self) -> Partial {
        // An IPv4 header has at most 60 bytes.
        let start = u16::try_from(self.transport).unwrap_or(u16::MAX);
        let offset = u16::try_from(self.kind.checksum_field()).unwrap_or(u16::MAX);
        Partial { start, offset }
    }

    /// Turns `head`, a copy of the headers, into that of the piece with that IPv4 id and body.
    fn complete(&self, head: &mut [u8], id: u16, packet: &[u8], body: &Range<usize>) {
        // No longer than 16 bits can say: who calls has made sure.
        let total = u16::try_from(self.length + body.len()).unwrap_or(u16::MAX);
        let (network, transport) = head.split_at_mut(self.transport);
        let mut sum = self.network_sum;
        put(network, TOTAL, total, &mut sum);
        put(network, ID, id, &mut sum);
        write(network, IPV4_CHECKSUM, sum.finish());

        let length = total - u16::try_from(self.transport).unwrap_or(u16::MAX);
        let mut sum = self.transport_sum;
        sum.add_word(length);
        sum.add(&packet[body.clone()]);
        match self.kind {
            Kind::Tcp => {
                // Less than 2^32: who calls has bounded the number of pieces.
                let offset = u32::try_from(body.start - self.length).unwrap_or(u32::MAX);
                let sequence = self.sequence.wrapping_add(offset);
                transport[SEQUENCE..SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
                sum.add(&sequence.to_be_bytes());
                put(transport, TCP_FLAGS, self.flags(packet, body), &mut sum);
                write(transport, TCP_CHECKSUM, sum.finish());
            }
            Kind::Udp => {
                put(transport, UDP_LENGTH, length, &mut sum);
                write(transport, UDP_CHECKSUM, visible(sum.finish()));
            }
        }
    }

    /// What is said once about the whole: that the sender has reduced its window is for the first
    /// piece to say, and that the stream ends or should be read now for the last.
    fn flags(&self, packet: &[u8], body: &Range<usize>) -> u16 {
        let mut flags = self.flags;
        if body.start > self.length {
            flags &= !CWR;
        }
        if body.end < packet.len() {
            flags &= !(FIN | PSH);
        }
        flags
    }
}

impl Kind {
    const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    const fn shortest_header(self) -> usize {
        match self {
            Self::Tcp => 20,
            Self::Udp => 8,
        }
    }

    const fn checksum_field(self) -> usize {
        match self {
            Self::Tcp => TCP_CHECKSUM,
            Self::Udp => UDP_CHECKSUM,
        }
    }
}

/// The form of a checksum that UDP does not take for none (RFC 768).
fn visible(checksum: u16) -> u16 {
    match checksum {
        0 => u16::MAX,
        sum => sum,
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn write(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// Writes a word in the place of one that was zero when it was summed up.
fn put(bytes: &mut [u8], at: usize, word: u16, sum: &mut Sum) {
    write(bytes, at, word);
    sum.add_word(word);
}

// Offsets into an IPv4 header (RFC 791).
const TOTAL: usize = 2;
const ID: usize = 4;
const FRAGMENT: usize = 6;
const PROTOCOL: usize = 9;
const IPV4_CHECKSUM: usize = 10;
const ADDRESSES: usize = 12;
const SHORTEST_IPV4: usize = 20;
/// That more fragments follow, and where this one belongs.
const FRAGMENTED: u16 = 0x3fff;

// Into a TCP header (RFC 9293, RFC 3168).
const SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 12;
const TCP_CHECKSUM: usize = 16;
const FIN: u16 = 0x01;
const PSH: u16 = 0x08;
const CWR: u16 = 0x80;

// Into a UDP header (RFC 768).
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;

/// Both headers with all options.
const LONGEST: usize = 120;

#[cfg(test)]
pub(super) mod tests;
