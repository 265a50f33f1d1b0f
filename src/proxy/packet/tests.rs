use proptest::prelude::*;

use super::*;

/// A UDP packet with a right header checksum.
fn packet(header_words: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let header = usize::from(header_words) * 4;
    let mut bytes = vec![0; header];
    bytes.extend_from_slice(payload);
    let total = u16::try_from(bytes.len()).unwrap();
    bytes[0] = 0x40 | header_words;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes[TTL] = ttl;
    bytes[PROTOCOL] = 17;
    bytes[SOURCE..SOURCE + 4].copy_from_slice(&[100, 96, 1, 7]);
    bytes[DESTINATION..DESTINATION + 4].copy_from_slice(&[100, 96, 2, 9]);
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    let header = header_length(bytes[0]);
    bytes[CHECKSUM..CHECKSUM + 2].fill(0);
    let sum = checksum(&bytes[..header]);
    bytes[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}

fn refusal(mut bytes: Vec<u8>) -> Option<Refusal> {
    Packet::parse(&mut bytes).err()
}

#[test]
fn a_sound_packet_is_read_and_its_trailer_cut() {
    let mut bytes = packet(5, 64, b"twelve bytes");
    bytes.extend_from_slice(b"padding");
    let sound = Packet::parse(&mut bytes).unwrap();
    assert_eq!(sound.bytes().len(), 32);
    assert_eq!(sound.destination(), Ipv4Addr::new(100, 96, 2, 9));
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    assert_eq!(refusal(vec![]), Some(Refusal::Malformed));
    assert_eq!(refusal(vec![0x45]), Some(Refusal::Malformed));
    assert_eq!(
        refusal(packet(5, 64, b"")[..19].to_vec()),
        Some(Refusal::Malformed)
    );
    let mut short_header = packet(5, 64, b"abcd");
    short_header[0] = 0x44;
    assert_eq!(refusal(short_header), Some(Refusal::Malformed));
    let mut header_beyond_the_end = packet(5, 64, b"abcd");
    header_beyond_the_end[0] = 0x4f;
    assert_eq!(refusal(header_beyond_the_end), Some(Refusal::Malformed));
    let truncated = packet(5, 64, b"abcd")[..23].to_vec();
    assert_eq!(refusal(truncated), Some(Refusal::Malformed));
    let mut total_within_the_header = packet(6, 64, b"abcd");
    total_within_the_header[3] = 23;
    assert_eq!(refusal(total_within_the_header), Some(Refusal::Malformed));
}

#[test]
fn other_versions_are_refused() {
    let mut bytes = packet(5, 64, b"abcd");
    bytes[0] = 0x65;
    assert_eq!(refusal(bytes), Some(Refusal::OtherVersion));
}

#[test]
fn a_time_to_live_of_one_or_zero_ends_here() {
    for ttl in [0, 1] {
        let mut bytes = packet(5, ttl, b"");
        assert_eq!(
            Packet::parse(&mut bytes).unwrap().age(),
            Err(Refusal::Expired)
        );
        assert_eq!(bytes[TTL], ttl);
    }
    let mut bytes = packet(5, 2, b"");
    assert_eq!(Packet::parse(&mut bytes).unwrap().age(), Ok(()));
    assert_eq!(bytes[TTL], 1);
}

#[test]
fn an_answer_is_laid_out_as_flanneld_lays_it_out_but_for_its_source() {
    let mut offender = packet(5, 64, b"sixteen bytes...");
    let quote = offender[..28].to_vec();
    let answer = Packet::parse(&mut offender).unwrap().unreachable().unwrap();
    let bytes = answer.bytes();
    assert_eq!(bytes.len(), 20 + 8 + 28);
    assert_eq!(
        bytes[..10],
        [0x45, 0, 0, 56, 0, 0, 0, 0, 8, 1],
        "service, id and flags 0, time to live 8"
    );
    assert_eq!(bytes[12..20], [100, 96, 2, 9, 100, 96, 1, 7]);
    assert_eq!(bytes[20..22], [3, 0], "type and code");
    assert_eq!(bytes[24..28], [0; 4]);
    assert_eq!(bytes[28..], quote);
}

#[test]
fn fragmentation_needed_tells_the_length_that_passes() {
    for (longest, told) in [(1372, [5, 0x5c]), (0, [0, 68]), (70_000, [0xff, 0xff])] {
        let mut offender = packet(5, 64, b"sixteen bytes...");
        let answer = Packet::parse(&mut offender)
            .unwrap()
            .too_big(longest)
            .unwrap();
        let bytes = answer.bytes();
        assert_eq!(bytes[12..20], [100, 96, 2, 9, 100, 96, 1, 7]);
        assert_eq!(bytes[20..22], [3, 4], "type and code");
        assert_eq!(bytes[24..26], [0, 0]);
        assert_eq!(bytes[26..28], told, "RFC 1191 §4");
        assert_eq!(checksum(&bytes[20..]), 0);
        assert_eq!(bytes[28..], offender[..28]);
    }
}

#[test]
fn a_packet_with_the_df_bit_is_indivisible() {
    let mut bytes = packet(5, 64, b"abcd");
    assert!(!Packet::parse(&mut bytes).unwrap().is_indivisible());
    bytes[6] = 0xbf;
    assert!(!Packet::parse(&mut bytes).unwrap().is_indivisible());
    bytes[6] = 0x40;
    assert!(Packet::parse(&mut bytes).unwrap().is_indivisible());
}

#[test]
fn a_flow_is_of_addresses_and_ports_unless_it_is_in_fragments() {
    let flow = |change: fn(&mut Vec<u8>)| {
        let mut bytes = packet(5, 64, b"\x12\x34\x56\x78payload");
        change(&mut bytes);
        Packet::parse(&mut bytes).unwrap().flow()
    };
    let whole = flow(|_| {});
    assert_eq!(whole, flow(|bytes| bytes[TTL] = 9));
    assert_eq!(whole, flow(|bytes| bytes[24] ^= 1), "the payload");
    for at in [SOURCE, DESTINATION + 3] {
        let mut bytes = packet(5, 64, b"\x12\x34\x56\x78payload");
        bytes[at] ^= 1;
        assert_ne!(whole, Packet::parse(&mut bytes).unwrap().flow());
    }
    assert_ne!(whole, flow(|bytes| bytes[20] ^= 1), "the source port");
    assert_ne!(whole, flow(|bytes| bytes[23] ^= 1), "the destination port");
    let fragment = flow(|bytes| bytes[6] = 0x20);
    assert_eq!(
        fragment,
        flow(|bytes| (bytes[7], bytes[20]) = (9, 77)),
        "a later one holds no ports"
    );
    let mut ports_cut_off = packet(5, 64, b"abc");
    Packet::parse(&mut ports_cut_off).unwrap().flow();
}

#[test]
fn flows_spread() {
    let mut counts = [0; 8];
    for port in 0..800_u16 {
        let mut bytes = packet(5, 64, b"\x12\x34\x56\x78");
        bytes[20..22].copy_from_slice(&(32_768 + port * 2).to_be_bytes());
        let flow = Packet::parse(&mut bytes).unwrap().flow();
        counts[flow as usize % 8] += 1;
    }
    assert!(
        counts.iter().all(|count| (60..=140).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn the_answer_quotes_no_byte_beyond_a_short_packet() {
    let mut offender = packet(5, 64, b"abc");
    offender.extend_from_slice(b"secret");
    let answer = Packet::parse(&mut offender).unwrap().unreachable().unwrap();
    assert_eq!(answer.bytes().len(), 20 + 8 + 23);
    assert_eq!(&answer.bytes()[48..], b"abc");
}

#[test]
fn some_packets_get_no_answer() {
    let answers = |change: fn(&mut Vec<u8>)| {
        let mut bytes = packet(5, 64, b"\x08\0\0\0abcd");
        change(&mut bytes);
        Packet::parse(&mut bytes).unwrap().unreachable().is_some()
    };
    assert!(answers(|_| {}));
    assert!(
        answers(|bytes| bytes[6] = 0x20),
        "the first fragment of several"
    );
    assert!(!answers(|bytes| bytes[7] = 1), "a later fragment");
    assert!(!answers(|bytes| bytes[6] = 0x10), "a much later fragment");
    assert!(answers(|bytes| bytes[PROTOCOL] = ICMP), "an echo request");
    for kind in [0, 3, 5, 11, 12] {
        let mut bytes = packet(5, 64, &[kind, 0, 0, 0]);
        bytes[PROTOCOL] = ICMP;
        let sound = Packet::parse(&mut bytes).unwrap();
        assert_eq!(sound.unreachable(), None, "ICMP type {kind}");
    }
    let cut_before_its_type = |bytes: &mut Vec<u8>| (bytes[PROTOCOL], bytes[3]) = (ICMP, 20);
    assert!(!answers(cut_before_its_type));
    assert!(!answers(|bytes| bytes[DESTINATION] = 224), "to a group");
    assert!(
        !answers(|bytes| bytes[SOURCE..SOURCE + 4].fill(0)),
        "from nobody"
    );
    let mut longest = packet(15, 64, b"abcdefgh");
    assert_eq!(
        Packet::parse(&mut longest).unwrap().unreachable(),
        None,
        "the longest header"
    );
}

proptest! {
    #[test]
    fn the_patched_checksum_is_the_recomputed_one(
        words in 5_u8..=15,
        ttl in 2_u8..,
        noise in proptest::collection::vec(any::<u8>(), 60),
    ) {
        let mut bytes = packet(words, ttl, b"payload");
        let header = header_length(bytes[0]);
        bytes[4..8].copy_from_slice(&noise[4..8]);
        bytes[12..header].copy_from_slice(&noise[12..header]);
        seal(&mut bytes);
        let mut expected = bytes.clone();
        expected[TTL] -= 1;
        seal(&mut expected);
        Packet::parse(&mut bytes).unwrap().age().unwrap();
        prop_assert_eq!(bytes, expected);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(ttl in 2_u8.., wrong in any::<[u8; 2]>()) {
        let mut bytes = packet(5, ttl, b"payload");
        let right = [bytes[CHECKSUM], bytes[CHECKSUM + 1]];
        bytes[CHECKSUM..CHECKSUM + 2].copy_from_slice(&wrong);
        let valid = checksum(&bytes[..20]) == 0;
        prop_assert!(valid || wrong != right);
        Packet::parse(&mut bytes).unwrap().age().unwrap();
        prop_assert_eq!(checksum(&bytes[..20]) == 0, valid);
    }

    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise(&mut bytes);
    }

    #[test]
    fn no_bytes_that_look_like_a_packet_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 20..200),
        words in 0_u8..16,
        total in 0_u8..220,
    ) {
        bytes[0] = 0x40 | words;
        bytes[2] = 0;
        bytes[3] = total;
        exercise(&mut bytes);
    }

    #[test]
    fn every_answer_has_right_checksums(
        words in 5_u8..14,
        payload in proptest::collection::vec(any::<u8>(), 0..64),
        longest in 0_usize..70_000,
    ) {
        let mut bytes = packet(words, 64, &payload);
        let packet = Packet::parse(&mut bytes).unwrap();
        for answer in [packet.unreachable().unwrap(), packet.too_big(longest).unwrap()] {
            prop_assert_eq!(checksum(&answer.bytes()[..20]), 0);
            prop_assert_eq!(checksum(&answer.bytes()[20..]), 0);
            prop_assert_eq!(usize::from(answer.bytes()[3]), answer.bytes().len());
        }
    }
}

fn exercise(bytes: &mut [u8]) {
    if let Ok(mut packet) = Packet::parse(bytes) {
        packet.destination();
        packet.flow();
        if let Some(answer) = packet.unreachable() {
            assert!(answer.bytes().len() <= 20 + 8 + 56 + 8);
        }
        let _ = packet.age();
    }
}
