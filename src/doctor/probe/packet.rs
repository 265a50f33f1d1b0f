//! The packets that are sent, and how they are known again: by a cookie that travels with them.

use std::net::Ipv4Addr;

/// What the packets of one examination have in common, so that no other's are taken for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cookie(pub(super) [u8; 8]);

/// What a packet turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// An echo request of ours, with its number.
    Request(u16),
    /// The answer to one.
    Reply(u16),
    /// Our datagram to the outside.
    Outside,
    /// Somebody else's datagram, to this port.
    Datagram(u16),
    /// A TCP segment, with both its ports, that resets or accepts a connection.
    Segment(u16, u16),
    Other,
}

/// The shortest echo request there is: headers and cookie.
pub(super) const SHORTEST: u16 = 36;

/// Where the datagrams to the outside go: nobody has it (RFC 5737).
pub(super) const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The discard service (RFC 863).
const DISCARD: u16 = 9;

impl Cookie {
    /// An echo request of this length in bytes, with its IP header, that no router may cut.
    pub(super) fn request(self, from: Ipv4Addr, to: Ipv4Addr, number: u16, length: u16) -> Vec<u8> {
        let length = length.max(SHORTEST);
        let mut packet = header(ICMP, from, to, length);
        packet.extend([8, 0, 0, 0, self.0[0], self.0[1]]);
        packet.extend(number.to_be_bytes());
        packet.extend(self.0);
        packet.resize(usize::from(length), 0);
        let sum = checksum(&packet[20..], 0);
        packet[22..24].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// A datagram to nobody.
    pub(super) fn outside(self, from: Ipv4Addr) -> Vec<u8> {
        let mut packet = header(UDP, from, NOWHERE, SHORTEST);
        packet.extend(DISCARD.to_be_bytes());
        packet.extend(DISCARD.to_be_bytes());
        packet.extend(16u16.to_be_bytes());
        // no checksum (RFC 768)
        packet.extend([0, 0]);
        packet.extend(self.0);
        packet
    }

    /// What the first bytes of a packet say; `None` where it is no IPv4.
    pub(super) fn read(self, packet: &[u8]) -> Option<Seen> {
        let (fixed, _) = packet.split_first_chunk::<20>()?;
        let headers = usize::from(fixed[0] & 15) * 4;
        if fixed[0] >> 4 != 4 || headers < 20 {
            return None;
        }
        let body = packet.get(headers..)?;
        // only a first fragment has what follows
        let is_first = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff == 0;
        let word = |at: usize| {
            let bytes = body.get(at..at + 2)?.try_into().ok()?;
            Some(u16::from_be_bytes(bytes))
        };
        let is_ours = body.get(8..16) == Some(self.0.as_slice());
        let content = match (fixed[9], is_first) {
            (ICMP, true) if is_ours && body.first() == Some(&8) => Content::Request(word(6)?),
            (ICMP, true) if is_ours && body.first() == Some(&0) => Content::Reply(word(6)?),
            (UDP, true) if is_ours => Content::Outside,
            (UDP, true) => Content::Datagram(word(2)?),
            // RST, or SYN with ACK
            (TCP, true) if body.get(13).is_some_and(|f| f & 4 != 0 || f & 18 == 18) => {
                Content::Segment(word(0)?, word(2)?)
            }
            _ => Content::Other,
        };
        let address = |at: usize| {
            let bytes: [u8; 4] = fixed[at..at + 4].try_into().ok()?;
            Some(Ipv4Addr::from(bytes))
        };
        Some(Seen {
            source: address(12)?,
            destination: address(16)?,
            content,
        })
    }
}

/// The first packet of a TCP connection, without options and with a finished checksum.
pub(super) fn opening(from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    let mut packet = header(TCP, from, to, 40);
    packet.extend(ports.0.to_be_bytes());
    packet.extend(ports.1.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0x20, 0, 0, 0, 0, 0]);
    let ends: Vec<u8> = [from.octets(), to.octets()].concat();
    let pseudo = u32::from(TCP) + 20 + sum(&ends);
    let sum = checksum(&packet[20..], pseudo);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Asks who has an address, on behalf of nobody (RFC 5227, section 2.1.1).
pub(super) fn arp_probe(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend([0; 10]);
    frame.extend(address.octets());
    frame
}

/// The address that the sender of an ARP frame has, or wants to have.
pub(super) fn arp_claim(frame: &[u8]) -> Option<Ipv4Addr> {
    if frame.get(12..14)? != [8, 6] {
        return None;
    }
    let sender: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    let target: [u8; 4] = frame.get(38..42)?.try_into().ok()?;
    let is_probe = sender == [0; 4];
    Some(Ipv4Addr::from(if is_probe { target } else { sender }))
}

/// The kernel fills in what is left 0: identification and checksum (raw(7)).
fn header(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, length: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    // do not fragment; 64 hops
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    let words = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    words.sum()
}

/// RFC 1071.
fn checksum(bytes: &[u8], seed: u32) -> u16 {
    let mut total = sum(bytes) + seed;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).unwrap_or_default()
}

#[cfg(test)]
mod tests;
