//! What the data plane makes of a super-packet, and of a packet with an unfinished checksum.
//!
//! The input is what a TUN device gives: a header of ten bytes, then the packet.

use std::ops::Range;

use flannel_rs::proxy::packet::Packet;
use flannel_rs::proxy::split::{self, MOST_PIECES, Piece};
use flannel_rs::proxy::virtio::{self, Header, Kind, Partial, Segments};

use super::{header, number, sum};

/// Reads a header and a packet, and cuts and finishes the packet.
pub fn split(data: &[u8]) {
    let Some((header, packet)) = data.split_first_chunk::<{ virtio::LENGTH }>() else {
        return;
    };
    let Ok(header) = Header::parse(header) else {
        return;
    };
    assert_eq!(Header::parse(&header.bytes()), Ok(header));
    let mut bytes = packet.to_vec();
    let (mut heads, mut pieces) = (EARLIER.to_vec(), Vec::new());
    if split::split(header, &mut bytes, &mut heads, &mut pieces).is_err() {
        assert!(heads == EARLIER && pieces.is_empty() && bytes == packet);
        return;
    }
    assert!(heads.starts_with(EARLIER));
    match header.segments {
        Some(segments) => {
            assert_eq!(bytes, packet, "bodies are the super-packet's own");
            assert_cut(segments, &bytes, &heads, &pieces);
        }
        None => {
            let body = 0..number(packet, 2);
            assert_finished(header.checksum, &packet[body.clone()], &bytes[body.clone()]);
            assert_eq!(bytes[body.end..], packet[body.end..]);
            let head = EARLIER.len()..EARLIER.len();
            assert!(pieces == [Piece { head, body }] && heads == EARLIER);
        }
    }
}

/// The heads of the packets before.
const EARLIER: &[u8] = b"heads";

/// One checksum behind the IPv4 header is finished, if it was asked for, and never zero.
fn assert_finished(partial: Option<Partial>, before: &[u8], after: &[u8]) {
    let mut expected = before.to_vec();
    if let Some(Partial { start, offset }) = partial {
        let start = usize::from(start);
        let field = start + usize::from(offset);
        assert!(start >= header(before));
        expected[field..field + 2].copy_from_slice(&after[field..field + 2]);
        let checksum = number(after, field);
        assert_ne!(checksum, 0);
        assert_eq!((sum(&before[start..]) + checksum as u64) % 0xffff, 0);
    }
    assert_eq!(after, expected);
}

fn assert_cut(segments: Segments, packet: &[u8], heads: &[u8], pieces: &[Piece]) {
    assert!((1..=MOST_PIECES).contains(&pieces.len()));
    let whole = match number(packet, 2) {
        0 => packet,
        total => &packet[..total],
    };
    let (mut head, mut body) = (EARLIER.len(), pieces[0].body.start);
    for (index, piece) in pieces.iter().enumerate() {
        assert_eq!((piece.head.start, piece.body.start), (head, body));
        (head, body) = (piece.head.end, piece.body.end);
        let last = index + 1 == pieces.len();
        assert!(last || piece.body.len() == usize::from(segments.size));
        assert!(piece.body.len() <= usize::from(segments.size));
        assert!(pieces.len() == 1 || !piece.body.is_empty());
        let bytes = [&heads[piece.head.clone()], &whole[piece.body.clone()]].concat();
        assert_sound(segments.kind, &bytes);
        assert_placed(segments.kind, whole, &bytes, &piece.body, index);
        assert_eq!(piece.head.len(), pieces[0].body.start);
    }
    assert_eq!((head, body), (heads.len(), whole.len()));
}

/// It has the lengths that it states, and right checksums.
fn assert_sound(kind: Kind, piece: &[u8]) {
    let mut again = piece.to_vec();
    let packet = Packet::parse(&mut again).map(|packet| packet.bytes().len());
    assert_eq!(packet, Ok(piece.len()));
    let (network, transport) = piece.split_at(header(piece));
    assert_eq!(sum(network), 0xffff);
    let length = transport.len() as u64;
    let sums = sum(&network[12..20]) + u64::from(network[9]) + length + sum(transport);
    assert_eq!(sums % 0xffff, 0);
    if kind == Kind::Udp {
        assert_eq!(number(transport, 4), transport.len());
        assert_ne!(number(transport, 6), 0, "no checksum (RFC 768)");
    }
}

/// Its headers are those of the super-packet, but for what tells its place.
fn assert_placed(kind: Kind, whole: &[u8], piece: &[u8], body: &Range<usize>, index: usize) {
    let transport = header(whole);
    let length = piece.len() - body.len();
    assert_eq!(number(piece, 4), (number(whole, 4) + index) % 0x1_0000);
    let mut fields = vec![2..6, 10..12];
    match kind {
        Kind::Tcp => {
            let sequence =
                |bytes: &[u8]| number(bytes, transport + 4) << 16 | number(bytes, transport + 6);
            let offset = body.start - length;
            assert_eq!(sequence(piece), (sequence(whole) + offset) % 0x1_0000_0000);
            let mut flags = number(whole, transport + 12);
            if index > 0 {
                flags &= !0x80;
            }
            if body.end < whole.len() {
                flags &= !0x09;
            }
            assert_eq!(number(piece, transport + 12), flags);
            assert_eq!(
                length,
                transport + usize::from(whole[transport + 12] >> 4) * 4
            );
            fields.extend([transport + 4..transport + 8, transport + 12..transport + 14]);
            fields.push(transport + 16..transport + 18);
        }
        Kind::Udp => {
            assert_eq!(length, transport + 8);
            fields.push(transport + 4..transport + 8);
        }
    }
    let mut head = piece[..length].to_vec();
    for field in fields {
        head[field.clone()].copy_from_slice(&whole[field]);
    }
    assert_eq!(head, whole[..length]);
}
