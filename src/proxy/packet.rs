//! IPv4 packets as bytes: what may pass, what passing changes, and the answer to what may not.

use std::net::Ipv4Addr;

/// An IPv4 packet whose header is sound: version 4, a header of at least 20 bytes that lies
/// inside the packet, and exactly the total length that the header states.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    bytes: &'a mut [u8],
}

/// Why a packet does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too short, or its lengths contradict each other.
    Malformed,
    /// Of another IP version, such as the router solicitations of an IPv6 host.
    OtherVersion,
    /// Its time to live is over.
    Expired,
}

impl<'a> Packet<'a> {
    /// The packet at the start of `bytes`; what follows its total length is cut off.
    ///
    /// The header checksum is not verified: it is patched, so a wrong one stays wrong and the
    /// receiving host drops the packet.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] or [`Refusal::OtherVersion`].
    pub fn parse(bytes: &'a mut [u8]) -> Result<Self, Refusal> {
        let first = *bytes.first().ok_or(Refusal::Malformed)?;
        if first >> 4 != 4 {
            return Err(Refusal::OtherVersion);
        }
        let header = header_length(first);
        if header < SHORTEST_HEADER || bytes.len() < header {
            return Err(Refusal::Malformed);
        }
        let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        if total < header || bytes.len() < total {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            bytes: &mut bytes[..total],
        })
    }

    /// Where it goes.
    pub fn destination(&self) -> Ipv4Addr {
        address(self.bytes, DESTINATION)
    }

    /// All of it, header first.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Takes one from the time to live and patches the header checksum (RFC 1624).
    ///
    /// # Errors
    /// [`Refusal::Expired`] if nothing is left afterwards, or nothing was left before.
    pub fn age(&mut self) -> Result<(), Refusal> {
        if self.bytes[TTL] <= 1 {
            return Err(Refusal::Expired);
        }
        self.bytes[TTL] -= 1;
        let [high, low] = [self.bytes[CHECKSUM], self.bytes[CHECKSUM + 1]];
        // The time to live is the high byte of its 16-bit word: the sum shrinks by 0x0100, so its
        // complement grows by as much. No header sums up to zero, so 0xffff is never right.
        let (sum, carry) = u16::from_be_bytes([high, low]).overflowing_add(0x0100);
        let patched = if carry || sum == u16::MAX {
            sum.wrapping_add(1)
        } else {
            sum
        };
        self.bytes[CHECKSUM..CHECKSUM + 2].copy_from_slice(&patched.to_be_bytes());
        Ok(())
    }

    /// The ICMP "net unreachable" that tells the sender that there is no route (flannel facts
    /// §5.3), or `None` where none may be sent.
    ///
    /// Differs from flanneld in two points, both RFC 1122 §3.2.2: an echo request is answered, so
    /// that `ping` reports the missing route; packets to or from a group or no single host are not.
    pub fn unreachable(&self, source: Ipv4Addr) -> Option<Answer> {
        let header = header_length(self.bytes[0]);
        let fragment = u16::from_be_bytes([self.bytes[6], self.bytes[7]]) & 0x1fff;
        let sender = address(self.bytes, SOURCE);
        if header >= LONGEST_HEADER
            || fragment != 0
            || !self.invites_an_answer(header)
            || !is_host(sender)
            || !is_host(self.destination())
        {
            return None;
        }
        let quoted = self.bytes.len().min(header + 8);
        Some(Answer::new(source, sender, &self.bytes[..quoted]))
    }

    fn invites_an_answer(&self, header: usize) -> bool {
        self.bytes[PROTOCOL] != ICMP || self.bytes.get(header) == Some(&ECHO_REQUEST)
    }
}

/// An ICMP "net unreachable" packet, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    bytes: [u8; ANSWER_CAPACITY],
    length: usize,
}

impl Answer {
    /// `quote` is at most a header of 56 bytes and 8 bytes more.
    fn new(source: Ipv4Addr, destination: Ipv4Addr, quote: &[u8]) -> Self {
        let mut bytes = [0; ANSWER_CAPACITY];
        let length = QUOTE + quote.len();
        bytes[0] = 0x45;
        bytes[3] = u8::try_from(length).unwrap_or(u8::MAX);
        bytes[TTL] = 8;
        bytes[PROTOCOL] = ICMP;
        bytes[SOURCE..SOURCE + 4].copy_from_slice(&source.octets());
        bytes[DESTINATION..DESTINATION + 4].copy_from_slice(&destination.octets());
        let sum = checksum(&bytes[..SHORTEST_HEADER]);
        bytes[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        bytes[SHORTEST_HEADER] = DESTINATION_UNREACHABLE;
        bytes[QUOTE..length].copy_from_slice(quote);
        let sum = checksum(&bytes[SHORTEST_HEADER..length]);
        bytes[SHORTEST_HEADER + 2..SHORTEST_HEADER + 4].copy_from_slice(&sum.to_be_bytes());
        Self { bytes, length }
    }

    /// All of it, IPv4 header first.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The Internet checksum (RFC 1071) of `bytes`; 0 if they contain their own right checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

fn header_length(first: u8) -> usize {
    usize::from(first & 0x0f) * 4
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast())
}

const SHORTEST_HEADER: usize = 20;
const LONGEST_HEADER: usize = 60;
const TTL: usize = 8;
const PROTOCOL: usize = 9;
const CHECKSUM: usize = 10;
const SOURCE: usize = 12;
const DESTINATION: usize = 16;
const ICMP: u8 = 1;
const ECHO_REQUEST: u8 = 8;
const DESTINATION_UNREACHABLE: u8 = 3;
/// Where an answer quotes the packet it answers: after its IPv4 and ICMP headers.
const QUOTE: usize = SHORTEST_HEADER + 8;
const ANSWER_CAPACITY: usize = QUOTE + LONGEST_HEADER + 8;

#[cfg(test)]
mod tests;
