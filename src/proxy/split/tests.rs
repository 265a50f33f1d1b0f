use proptest::prelude::*;

use super::*;
use crate::proxy::virtio;
use stretch::{ADDRESSES, Place, Stretch, stretches};

pub(in crate::proxy) mod stretch;

fn cut_apart(header: Header, packet: &mut [u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let (mut heads, mut pieces) = (Vec::new(), Vec::new());
    split(header, packet, &mut heads, &mut pieces)?;
    let joined = |piece: Piece| [&heads[piece.head], &packet[piece.body]].concat();
    Ok(pieces.into_iter().map(joined).collect())
}

#[track_caller]
fn assert_cut(stretch: &Stretch, size: u16) {
    let pieces = cut_apart(stretch.header(size), &mut stretch.whole()).unwrap();
    let expected = stretch.packets(size);
    assert_eq!(pieces.len(), expected.len());
    for (index, (piece, expected)) in pieces.iter().zip(&expected).enumerate() {
        assert_eq!(piece, expected, "piece {index} of {}", pieces.len());
    }
}

#[test]
fn a_stretch_of_a_stream_becomes_segments() {
    let mut stretch = Stretch::new(Kind::Tcp, 3000);
    stretch.control = [true; 12];
    let packets = stretch.packets(1448);
    // The test's own writer is held to a few literals: ids, lengths, sequence numbers, flags.
    let field = |at: usize, length: usize| -> Vec<Vec<u8>> {
        let of = |packet: &Vec<u8>| packet[at..at + length].to_vec();
        packets.iter().map(of).collect()
    };
    assert_eq!(field(2, 2), [[0x05, 0xd0], [0x05, 0xd0], [0x00, 0x90]]);
    assert_eq!(field(4, 2), [[0xff, 0xfe], [0xff, 0xff], [0, 0]]);
    assert_eq!(
        field(24, 4),
        [[0xff, 0xff, 0xfc, 0], [0, 0, 1, 0xa8], [0, 0, 7, 0x50]]
    );
    assert_eq!(field(32, 2), [[0x5f, 0xf6], [0x5f, 0x76], [0x5f, 0x7f]]);
    assert_cut(&stretch, 1448);
}

#[test]
fn datagrams_of_one_call_become_packets() {
    assert_cut(&Stretch::new(Kind::Udp, 5 * 1200), 1200);
    assert_cut(&Stretch::new(Kind::Udp, 5 * 1200 + 1), 1200);
    assert_cut(&Stretch::new(Kind::Udp, 100), 1);
    assert_cut(&Stretch::new(Kind::Udp, MOST_PIECES * 2), 2);
}

#[test]
fn the_longest_super_packets_are_cut() {
    for (kind, headers) in [(Kind::Tcp, 40), (Kind::Udp, 28)] {
        let stretch = Stretch::new(kind, 65_535 - headers);
        for size in [8, 536, 1460, 32_000, 65_535 - 40] {
            assert_cut(&stretch, size);
        }
    }
    let mut stretch = Stretch::new(Kind::Tcp, 65_535 - 120);
    stretch.options = vec![[1; 4]; 10];
    stretch.transport_options = vec![[1; 4]; 10];
    assert_cut(&stretch, 1428);
}

#[test]
fn one_that_needs_no_cut_is_finished() {
    for kind in [Kind::Tcp, Kind::Udp] {
        for (payload, size) in [(0, 1448), (1, 1448), (1448, 1448), (1448, u16::MAX)] {
            let mut stretch = Stretch::new(kind, payload);
            stretch.control = [true; 12];
            assert_eq!(stretch.packets(size).len(), 1);
            assert_cut(&stretch, size);
        }
    }
}

#[test]
fn a_packet_without_work_is_left_as_it_is() {
    let packet = Stretch::new(Kind::Udp, 100).whole();
    let mut bytes = [&packet[..], b"trailer"].concat();
    let (mut heads, mut pieces) = (vec![1, 2, 3], Vec::new());
    split(Header::default(), &mut bytes, &mut heads, &mut pieces).unwrap();
    assert_eq!(
        pieces,
        [Piece {
            head: 3..3,
            body: 0..128
        }]
    );
    assert_eq!((heads, bytes.len()), (vec![1, 2, 3], 135));
    assert_eq!(bytes[..128], packet);
}

#[test]
fn an_unfinished_checksum_is_finished_over_the_packet_alone() {
    for kind in [Kind::Tcp, Kind::Udp] {
        for payload in [0, 1, 2, 99, 1448] {
            let stretch = Stretch::new(kind, payload);
            let mut bytes = [&stretch.whole()[..], b"trailer"].concat();
            let header = stretch.unfinished();
            let pieces = cut_apart(header, &mut bytes).unwrap();
            assert_eq!(pieces, stretch.packets(u16::MAX), "{kind:?} {payload}");
        }
    }
}

#[test]
fn a_checksum_of_zero_is_not_taken_for_none() {
    let mut stretch = Stretch::new(Kind::Udp, 2);
    let place = Place {
        index: 0,
        start: 0,
        end: 2,
    };
    stretch.payload = vec![0, 0];
    let missing = stretch.packet(&place)[26..28].to_vec();
    stretch.payload = missing;
    assert_eq!(stretch.packet(&place)[26..28], [0xff, 0xff]);
    assert_cut(&stretch, 1000);
    let header = stretch.unfinished();
    let pieces = cut_apart(header, &mut stretch.whole()).unwrap();
    assert_eq!(pieces, [stretch.packet(&place)]);
}

#[test]
fn the_checksum_of_an_inner_packet_is_finished() {
    let inner = Stretch::new(Kind::Udp, 31);
    let mut outer = vec![0x45, 0, 0, 79, 0, 0, 0, 0, 9, 4, 0, 0];
    outer.extend(ADDRESSES);
    let mut bytes = [&outer[..], &inner.whole()].concat();
    let header = Header {
        checksum: Some(Partial {
            start: 40,
            offset: 6,
        }),
        segments: None,
    };
    let pieces = cut_apart(header, &mut bytes).unwrap();
    assert_eq!(pieces, [[outer, inner.packets(100).concat()].concat()]);
}

#[test]
fn lengths_and_checksums_in_the_headers_of_a_super_packet_do_not_matter() {
    for kind in [Kind::Tcp, Kind::Udp] {
        let stretch = Stretch::new(kind, 5000);
        let expected = stretch.packets(1000);
        let mut packet = stretch.whole();
        packet[10..12].fill(0xab);
        packet[20 + stretch.field()..][..2].fill(0xcd);
        if kind == Kind::Udp {
            packet[24..26].fill(0xef);
        }
        let header = stretch.header(1000);
        assert_eq!(cut_apart(header, &mut packet.clone()).unwrap(), expected);
        let header = Header {
            checksum: None,
            ..header
        };
        assert_eq!(cut_apart(header, &mut packet.clone()).unwrap(), expected);
        packet[2..4].fill(0);
        assert_eq!(cut_apart(header, &mut packet.clone()).unwrap(), expected);
        packet[2..4].copy_from_slice(&stretch.whole()[2..4]);
        packet.extend_from_slice(b"trailer");
        assert_eq!(cut_apart(header, &mut packet).unwrap(), expected);
    }
}

#[test]
fn super_packets_beyond_sixteen_bits_are_cut() {
    let stretch = Stretch::new(Kind::Tcp, 60_000);
    let mut packet = stretch.whole();
    packet[2..4].fill(0);
    packet.extend(vec![0; 140_000]);
    let pieces = cut_apart(stretch.header(40_000), &mut packet).unwrap();
    let lengths: Vec<usize> = pieces.iter().map(Vec::len).collect();
    assert_eq!(lengths, [40_040; 5]);
    assert_eq!(pieces[0], stretch.packets(40_000)[0]);
    assert_eq!(
        pieces[4][24..28],
        (0xffff_fc00_u32.wrapping_add(160_000)).to_be_bytes()
    );
    let refused = cut_apart(stretch.header(65_500), &mut packet);
    assert_eq!(refused, Err(Refusal::Malformed), "no packet is that long");
}

#[test]
fn headers_that_contradict_each_other_are_refused() {
    type Change = fn(&mut Header, &mut Vec<u8>);
    let changes: [(&str, Change); 17] = [
        ("segments of no size", |header, _| size(header, 0)),
        ("more pieces than are bearable", |header, packet| {
            size(header, 2);
            packet.resize(40 + MOST_PIECES * 2 + 1, 0);
            packet[2..4].fill(0);
        }),
        ("a sum of another part", |header, _| start(header, 24)),
        ("a field of another protocol", |header, _| offset(header, 6)),
        ("another protocol", |_, packet| packet[9] = 17),
        ("no protocol that can be cut", |_, packet| packet[9] = 1),
        ("another kind", |header, _| kind(header, Kind::Udp)),
        ("a first fragment", |_, packet| packet[6] = 0x20),
        ("a later fragment", |_, packet| packet[7] = 1),
        ("too short a header", |_, packet| packet[0] = 0x44),
        ("too short a header without length", |_, packet| {
            packet[0] = 0x44;
            packet[2..4].fill(0);
        }),
        ("too long a header", |_, packet| packet[0] = 0x4f),
        ("too short a TCP header", |_, packet| packet[32] = 0x40),
        ("too long a TCP header", |_, packet| packet[32] = 0xf0),
        ("cut short", |_, packet| packet.truncate(69)),
        ("cut within the TCP header", |_, packet| {
            packet.truncate(39);
            packet[2..4].fill(0);
        }),
        ("nothing", |_, packet| packet.clear()),
    ];
    let stretch = Stretch::new(Kind::Tcp, 30);
    assert!(cut_apart(stretch.header(10), &mut stretch.whole()).is_ok());
    for (what, change) in changes {
        let (mut header, mut packet) = (stretch.header(10), stretch.whole());
        change(&mut header, &mut packet);
        let (mut heads, mut pieces) = (Vec::new(), Vec::new());
        let outcome = split(header, &mut packet, &mut heads, &mut pieces);
        assert_eq!(outcome, Err(Refusal::Malformed), "{what}");
        assert!(heads.is_empty() && pieces.is_empty(), "{what}");
    }
    let mut packet = stretch.whole();
    packet[0] = 0x65;
    for total in [packet[3], 0] {
        packet[3] = total;
        let outcome = cut_apart(stretch.header(10), &mut packet);
        assert_eq!(outcome, Err(Refusal::OtherVersion));
    }
}

fn size(header: &mut Header, size: u16) {
    header.segments.as_mut().unwrap().size = size;
}

fn kind(header: &mut Header, kind: Kind) {
    header.segments.as_mut().unwrap().kind = kind;
}

fn start(header: &mut Header, start: u16) {
    header.checksum.as_mut().unwrap().start = start;
}

fn offset(header: &mut Header, offset: u16) {
    header.checksum.as_mut().unwrap().offset = offset;
}

#[test]
fn a_checksum_has_to_lie_behind_the_header_and_inside_the_packet() {
    let packet = Stretch::new(Kind::Udp, 11).whole();
    assert_eq!(packet.len(), 39);
    for (start, offset, fits) in [
        (20, 6, true),
        (20, 17, true),
        (20, 18, false),
        (37, 0, true),
        (38, 0, false),
        (39, 0, false),
        (40, 0, false),
        (19, 6, false),
        (0, 10, false),
        (u16::MAX, 0, false),
        (20, u16::MAX, false),
        (u16::MAX, u16::MAX, false),
    ] {
        let header = Header {
            checksum: Some(Partial { start, offset }),
            segments: None,
        };
        let mut bytes = [&packet[..], b"trailer"].concat();
        let outcome = cut_apart(header, &mut bytes);
        assert_eq!(outcome.is_ok(), fits, "{start} + {offset}");
        assert_eq!(bytes[..20], packet[..20]);
        assert_eq!(bytes[39..], *b"trailer");
    }
}

#[test]
fn with_room_for_everything_nothing_is_allocated() {
    let stretch = Stretch::new(Kind::Tcp, 65_000);
    let mut packet = stretch.whole();
    let mut heads = Vec::with_capacity(65_000 / 8 * 40);
    let mut pieces = Vec::with_capacity(65_000 / 8);
    let room = (
        heads.capacity(),
        heads.as_ptr(),
        pieces.capacity(),
        pieces.as_ptr(),
    );
    for size in [1448, 536, 8] {
        heads.clear();
        pieces.clear();
        split(stretch.header(size), &mut packet, &mut heads, &mut pieces).unwrap();
    }
    assert_eq!((pieces.len(), heads.len()), (65_000 / 8, 65_000 / 8 * 40));
    assert_eq!(
        room,
        (
            heads.capacity(),
            heads.as_ptr(),
            pieces.capacity(),
            pieces.as_ptr()
        )
    );
}

#[test]
fn packets_of_a_batch_come_one_after_the_other() {
    let (mut heads, mut pieces) = (Vec::new(), Vec::new());
    for kind in [Kind::Tcp, Kind::Udp] {
        let stretch = Stretch::new(kind, 250);
        let before = pieces.len();
        let mut packet = stretch.whole();
        split(stretch.header(100), &mut packet, &mut heads, &mut pieces).unwrap();
        let joined =
            |piece: &Piece| [&heads[piece.head.clone()], &packet[piece.body.clone()]].concat();
        let cut: Vec<_> = pieces[before..].iter().map(joined).collect();
        assert_eq!(cut, stretch.packets(100));
    }
    assert_eq!((pieces.len(), heads.len()), (6, 3 * 40 + 3 * 28));
}

proptest! {
    #[test]
    fn every_super_packet_becomes_what_it_stands_for(
        stretch in stretches(),
        size in prop_oneof![8_u16..64, 64_u16..2000, 8..u16::MAX],
    ) {
        let pieces = cut_apart(stretch.header(size), &mut stretch.whole());
        prop_assert_eq!(pieces, Ok(stretch.packets(size)));
    }

    #[test]
    fn every_unfinished_packet_is_finished(stretch in stretches()) {
        let header = stretch.unfinished();
        let pieces = cut_apart(header, &mut stretch.whole()).unwrap();
        let [mut piece, mut expected] = [pieces, stretch.packets(u16::MAX)].map(|all| all.concat());
        let field = 20 + stretch.options.len() * 4 + stretch.field();
        // Both forms of zero are right.
        for packet in [&mut piece, &mut expected] {
            if packet[field..field + 2] == [0, 0] {
                packet[field..field + 2].fill(0xff);
            }
        }
        prop_assert_eq!(piece, expected);
    }

    #[test]
    fn hostile_headers_do_no_harm(
        stretch in stretches(),
        noise in any::<[u8; virtio::LENGTH]>(),
        (flags, kind) in (0_u8..4, 0_u8..8),
        changes in proptest::collection::vec((0_usize..130, any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
    ) {
        let mut packet = stretch.whole();
        for (at, byte) in changes {
            if let Some(target) = packet.get_mut(at) {
                *target = byte;
            }
        }
        packet.truncate(length.index(packet.len() * 2 + 1));
        let mut likely = noise;
        likely[..2].copy_from_slice(&[flags, kind]);
        for bytes in [noise, likely] {
            if let Ok(header) = Header::parse(&bytes) {
                survive(header, &packet);
            }
        }
        survive(stretch.header(9), &packet);
    }
}

/// Refused or not: what comes out is sound, and covers all that was to be cut.
fn survive(header: Header, packet: &[u8]) {
    let mut packet = packet.to_vec();
    let (mut heads, mut pieces) = (Vec::new(), Vec::new());
    let outcome = split(header, &mut packet, &mut heads, &mut pieces);
    assert_eq!(outcome.is_err(), pieces.is_empty());
    assert!(pieces.len() <= MOST_PIECES);
    let mut end = 0;
    for piece in pieces {
        assert_eq!(piece.head.start, end, "heads lie side by side");
        end = piece.head.end;
        let mut bytes = [&heads[piece.head], &packet[piece.body]].concat();
        let length = bytes.len();
        assert_eq!(Packet::parse(&mut bytes).unwrap().bytes().len(), length);
    }
    assert_eq!(end, heads.len());
}
