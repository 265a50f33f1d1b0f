use proptest::prelude::*;

use super::*;

fn raw(flags: u8, kind: u8, words: [u16; 4]) -> [u8; LENGTH] {
    let mut bytes = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
    let words: Vec<u8> = words.into_iter().flat_map(u16::to_ne_bytes).collect();
    bytes[2..].copy_from_slice(&words);
    bytes
}

#[test]
fn a_header_of_zeros_asks_for_nothing() {
    assert_eq!(Header::parse(&[0; LENGTH]), Ok(Header::default()));
    assert_eq!(Header::default().bytes(), [0; LENGTH]);
}

#[test]
fn fields_lie_where_the_kernel_has_them() {
    let partial = Partial {
        start: 20,
        offset: 16,
    };
    let segments = |kind, ecn| Segments {
        kind,
        size: 1448,
        header: 52,
        ecn,
    };
    let words = [52, 1448, 20, 16];
    for (flags, kind, header) in [
        (1, 0x00, (Some(partial), None)),
        (1, 0x01, (Some(partial), Some(segments(Kind::Tcp, false)))),
        (1, 0x81, (Some(partial), Some(segments(Kind::Tcp, true)))),
        (1, 0x05, (Some(partial), Some(segments(Kind::Udp, false)))),
        (0, 0x05, (None, Some(segments(Kind::Udp, false)))),
        (2, 0x00, (None, None)),
    ] {
        let (checksum, segments) = header;
        let header = Header { checksum, segments };
        assert_eq!(Header::parse(&raw(flags, kind, words)), Ok(header));
        let used = |asked: bool, word: u16| if asked { word } else { 0 };
        let written = [
            used(segments.is_some(), 52),
            used(segments.is_some(), 1448),
            used(checksum.is_some(), 20),
            used(checksum.is_some(), 16),
        ];
        assert_eq!(header.bytes(), raw(flags & 1, kind, written));
    }
}

#[test]
fn segments_that_nobody_asked_for_are_refused() {
    let refusal = |kind, size| Header::parse(&raw(1, kind, [40, size, 20, 16])).err();
    for kind in [0x04, 0x84] {
        assert_eq!(refusal(kind, 1448), Some(Refusal::OtherVersion));
    }
    for (kind, what) in [
        (0x02, "unassigned"),
        (0x03, "UDP fragments"),
        (0x06, "unassigned"),
        (0x21, "TCP in a UDP tunnel over IPv4"),
        (0x41, "TCP in a UDP tunnel over IPv6"),
        (0xff, "noise"),
    ] {
        assert_eq!(refusal(kind, 1448), Some(Refusal::Malformed), "{what}");
    }
    assert_eq!(refusal(0x01, 0), Some(Refusal::Malformed));
    assert_eq!(refusal(0x05, 0), Some(Refusal::Malformed));
}

proptest! {
    #[test]
    fn what_is_read_is_written_and_read_again(bytes in any::<[u8; LENGTH]>(), kind in 0_u8..8) {
        for bytes in [bytes, raw(bytes[0], kind, [40, 1448, 20, 16])] {
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert_eq!(Header::parse(&header.bytes()), Ok(header));
            }
        }
    }
}
