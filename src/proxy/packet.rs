//! IPv4 packets as bytes: what may pass, what passing changes, and the answers to what may not.

use std::net::Ipv4Addr;

use super::checksum::checksum;

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

    /// Where it says that it comes from.
    pub fn source(&self) -> Ipv4Addr {
        address(self.bytes, SOURCE)
    }

    /// Where it goes.
    pub fn destination(&self) -> Ipv4Addr {
        address(self.bytes, DESTINATION)
    }

    /// A number that all packets of a flow share: of its addresses and ports, or of its addresses
    /// alone where ports are not in every packet, as with fragments.
    pub fn flow(&self) -> u32 {
        let word = |at: usize| {
            let bytes = self.bytes[at..].first_chunk();
            bytes.map_or(0, |bytes| u64::from(u32::from_ne_bytes(*bytes)))
        };
        let header = header_length(self.bytes[0]);
        let fragment = u16::from_be_bytes([self.bytes[FRAGMENT], self.bytes[FRAGMENT + 1]]);
        let whole = fragment & (FRAGMENT_OFFSET | MORE_FRAGMENTS) == 0;
        let ports = match self.bytes[PROTOCOL] {
            TCP | UDP | SCTP if whole => word(header),
            _ => 0,
        };
        let addresses = word(SOURCE) << 32 | word(DESTINATION);
        // The multiplier of Knuth's multiplicative hashing for 64 bits: 2^64 by the golden ratio.
        let mixed = (addresses.wrapping_mul(GOLDEN) ^ ports).wrapping_mul(GOLDEN);
        u32::try_from((mixed ^ mixed >> 29).wrapping_mul(GOLDEN) >> 32).unwrap_or_default()
    }

    /// All of it, header first.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// All of it, to be changed.
    pub fn into_bytes(self) -> &'a mut [u8] {
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

    /// Whether it may not be cut into fragments on its way (the DF bit).
    pub fn is_indivisible(&self) -> bool {
        self.bytes[FRAGMENT] & 0x40 != 0
    }

    /// The ICMP "net unreachable" that tells the sender that there is no route (flannel facts
    /// §5.3), or `None` where none may be sent.
    ///
    /// Differs from flanneld in two points, both RFC 1122 §3.2.2: an echo request is answered, so
    /// that `ping` reports the missing route; packets to or from a group or no single host are not.
    pub fn unreachable(&self) -> Option<Answer> {
        self.answer(NET_UNREACHABLE, 0)
    }

    /// The ICMP "fragmentation needed" that tells the sender the length in bytes of the longest
    /// packet that passes (RFC 1191), at least the 68 that every network carries (RFC 791); `None`
    /// where none may be sent.
    pub fn too_big(&self, longest: usize) -> Option<Answer> {
        let longest = u16::try_from(longest).unwrap_or(u16::MAX).max(68);
        self.answer(FRAGMENTATION_NEEDED, longest)
    }

    /// Comes from the offender's destination, as from the kernel's own tunnels
    /// (net/ipv4/ip_tunnel_core.c, `iptunnel_pmtud_build_icmp`). From an address of this host, as
    /// flanneld's does, the kernel drops it for a forgery unless `accept_local` is set.
    fn answer(&self, code: u8, longest: u16) -> Option<Answer> {
        let header = header_length(self.bytes[0]);
        let fragment = u16::from_be_bytes([self.bytes[FRAGMENT], self.bytes[FRAGMENT + 1]]);
        let sender = address(self.bytes, SOURCE);
        if header >= LONGEST_HEADER
            || fragment & FRAGMENT_OFFSET != 0
            || !self.invites_an_answer(header)
            || !is_host(sender)
            || !is_host(self.destination())
        {
            return None;
        }
        let quoted = self.bytes.len().min(header + 8);
        let mut answer = Answer::new(self.destination(), sender, &self.bytes[..quoted]);
        answer.seal(code, longest);
        Some(answer)
    }

    fn invites_an_answer(&self, header: usize) -> bool {
        self.bytes[PROTOCOL] != ICMP || self.bytes.get(header) == Some(&ECHO_REQUEST)
    }
}

/// An ICMP "destination unreachable" packet, ready to be sent.
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
        bytes[QUOTE..length].copy_from_slice(quote);
        Self { bytes, length }
    }

    /// Fills in the ICMP header, with the next hop's MTU where the code has one, and the checksums.
    fn seal(&mut self, code: u8, mtu: u16) {
        let (header, message) = self.bytes[..self.length].split_at_mut(SHORTEST_HEADER);
        let sum = checksum(header);
        header[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        message[..2].copy_from_slice(&[DESTINATION_UNREACHABLE, code]);
        message[6..8].copy_from_slice(&mtu.to_be_bytes());
        let sum = checksum(message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }

    /// All of it, IPv4 header first.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Of an IPv4 header, in bytes, by the packet's first byte.
pub(super) fn header_length(first: u8) -> usize {
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
const FRAGMENT: usize = 6;
/// The bits of the fragment field that say where in its datagram a fragment belongs.
const FRAGMENT_OFFSET: u16 = 0x1fff;
const TTL: usize = 8;
const PROTOCOL: usize = 9;
const CHECKSUM: usize = 10;
const SOURCE: usize = 12;
const DESTINATION: usize = 16;
const MORE_FRAGMENTS: u16 = 0x2000;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const ECHO_REQUEST: u8 = 8;
const DESTINATION_UNREACHABLE: u8 = 3;
const NET_UNREACHABLE: u8 = 0;
const FRAGMENTATION_NEEDED: u8 = 4;
/// Where an answer quotes the packet it answers: after its IPv4 and ICMP headers.
const QUOTE: usize = SHORTEST_HEADER + 8;
const ANSWER_CAPACITY: usize = QUOTE + LONGEST_HEADER + 8;

#[cfg(test)]
mod tests;
