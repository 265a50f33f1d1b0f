//! What the kernel says ahead of each packet of a TUN device about work that is left to be done
//! on it (`struct virtio_net_hdr`, linux/virtio_net.h), and what it takes from us likewise.

use super::packet::Refusal;

/// How long it is, in bytes.
pub const LENGTH: usize = 10;

/// What is left to be done on a packet; nothing, if it is like the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// The transport checksum, if it is unfinished.
    pub checksum: Option<Partial>,
    /// How to cut the packet, if it is a super-packet.
    pub segments: Option<Segments>,
}

/// An unfinished Internet checksum: its field holds the folded sum of the pseudo header, and the
/// bytes from `start` to the packet's end have yet to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// Where the sum begins, in bytes from the packet's first.
    pub start: u16,
    /// Where its field lies, in bytes from `start`.
    pub offset: u16,
}

/// How to cut a super-packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// The protocol that the packet carries over IPv4.
    pub kind: Kind,
    /// Payload bytes of each segment but the last, which may have fewer.
    pub size: u16,
    /// The length of all headers, in bytes. The kernel takes it for a hint only, and gives as much
    /// as happens to lie in the first part of its buffer.
    pub header: u16,
    /// The packet carries the sign that the sender has reduced its window (CWR, RFC 3168), which
    /// belongs to the first segment alone.
    pub ecn: bool,
}

/// What may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A stretch of a TCP stream.
    Tcp,
    /// Datagrams of one UDP flow (`UDP_SEGMENT`).
    Udp,
}

impl Header {
    /// Reads one. Fields are in the machine's byte order, as a TUN device has them by default.
    ///
    /// # Errors
    /// [`Refusal::OtherVersion`] for TCP over IPv6, and [`Refusal::Malformed`] for segments of no
    /// size and for kinds of segments that nobody has asked the kernel for.
    pub fn parse(bytes: &[u8; LENGTH]) -> Result<Self, Refusal> {
        let &[flags, kind, a, b, c, d, e, f, g, h] = bytes;
        let [header, size, start, offset] =
            [[a, b], [c, d], [e, f], [g, h]].map(u16::from_ne_bytes);
        let kind_of_segments = match kind & !ECN {
            NONE => None,
            TCP_IPV4 => Some(Kind::Tcp),
            UDP => Some(Kind::Udp),
            TCP_IPV6 => return Err(Refusal::OtherVersion),
            _ => return Err(Refusal::Malformed),
        };
        if kind_of_segments.is_some() && size == 0 {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            checksum: (flags & NEEDS_CHECKSUM != 0).then_some(Partial { start, offset }),
            segments: kind_of_segments.map(|segments| Segments {
                kind: segments,
                size,
                header,
                ecn: kind & ECN != 0,
            }),
        })
    }

    /// Writes it as [`Header::parse`] reads it.
    #[must_use]
    pub fn bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        if let Some(Partial { start, offset }) = self.checksum {
            bytes[0] = NEEDS_CHECKSUM;
            bytes[6..8].copy_from_slice(&start.to_ne_bytes());
            bytes[8..10].copy_from_slice(&offset.to_ne_bytes());
        }
        if let Some(segments) = self.segments {
            bytes[1] = match segments.kind {
                Kind::Tcp => TCP_IPV4,
                Kind::Udp => UDP,
            };
            if segments.ecn {
                bytes[1] |= ECN;
            }
            bytes[2..4].copy_from_slice(&segments.header.to_ne_bytes());
            bytes[4..6].copy_from_slice(&segments.size.to_ne_bytes());
        }
        bytes
    }
}

// linux/virtio_net.h: VIRTIO_NET_HDR_F_NEEDS_CSUM and the VIRTIO_NET_HDR_GSO_*.
const NEEDS_CHECKSUM: u8 = 1;
const NONE: u8 = 0;
const TCP_IPV4: u8 = 1;
const TCP_IPV6: u8 = 4;
/// Of either version of IP: the packet tells.
const UDP: u8 = 5;
const ECN: u8 = 0x80;

#[cfg(test)]
mod tests;
