use super::*;

const COOKIE: Cookie = Cookie(*b"12345678");
const FROM: Ipv4Addr = Ipv4Addr::new(100, 96, 1, 254);
const TO: Ipv4Addr = Ipv4Addr::new(100, 96, 2, 0);

/// Of all that a checksum covers, itself included.
fn folded(bytes: &[u8], seed: u32) -> u16 {
    checksum(bytes, seed)
}

#[test]
fn a_request_is_as_long_as_asked_for_and_known_again_with_its_answer() {
    let mut packet = COOKIE.request(FROM, TO, 7, 1450);
    assert_eq!((packet.len(), &packet[2..4]), (1450, [5, 0xaa].as_slice()));
    assert_eq!(packet[6] & 0x40, 0x40, "may be cut");
    assert_eq!(folded(&packet[20..], 0), 0, "wrong checksum");
    let seen = COOKIE.read(&packet[..128]).unwrap();
    assert_eq!((seen.source, seen.destination), (FROM, TO));
    assert_eq!(seen.content, Content::Request(7));
    packet[20] = 0;
    assert_eq!(COOKIE.read(&packet).unwrap().content, Content::Reply(7));
    let other = Cookie(*b"87654321");
    assert_eq!(other.read(&packet).unwrap().content, Content::Other);
    assert_eq!(COOKIE.request(FROM, TO, 7, 0).len(), usize::from(SHORTEST));
}

#[test]
fn a_datagram_to_the_outside_is_known_behind_a_masquerade() {
    let mut packet = COOKIE.outside(FROM);
    assert_eq!(packet.len(), usize::from(SHORTEST));
    assert_eq!(packet[24..26], [0, 16], "its length");
    packet[12..16].copy_from_slice(&[192, 168, 1, 47]);
    packet[20..22].copy_from_slice(&[200, 0]);
    let seen = COOKIE.read(&packet).unwrap();
    assert_eq!(seen.content, Content::Outside);
    assert_eq!(seen.source, Ipv4Addr::new(192, 168, 1, 47));
    packet[28] ^= 1;
    assert_eq!(COOKIE.read(&packet).unwrap().content, Content::Datagram(9));
}

#[test]
fn a_connection_is_opened_with_a_finished_checksum_and_no_options() {
    let mut packet = opening(FROM, TO, (5000, 1));
    let ends: Vec<u8> = [FROM.octets(), TO.octets()].concat();
    assert_eq!(folded(&packet[20..], 6 + 20 + sum(&ends)), 0);
    assert_eq!((packet.len(), packet[32]), (40, 5 << 4));
    assert_eq!(COOKIE.read(&packet).unwrap().content, Content::Other);
    // RST with ACK, and SYN with ACK
    for flags in [0x14, 0x12] {
        packet[33] = flags;
        let seen = COOKIE.read(&packet).unwrap();
        assert_eq!(seen.content, Content::Segment(5000, 1));
    }
}

#[test]
fn no_packet_is_too_short_or_too_strange_to_be_read() {
    let whole = COOKIE.request(FROM, TO, 7, 60);
    for length in 0..whole.len() {
        let seen = COOKIE.read(&whole[..length]);
        assert_eq!(seen.is_some(), length >= 20, "{length}");
    }
    for first in 0..=255 {
        let mut packet = whole.clone();
        packet[0] = first;
        let seen = COOKIE.read(&packet);
        let is_one = first >> 4 == 4 && first & 15 >= 5;
        assert_eq!(seen.is_some(), is_one, "{first:#x}");
    }
    let mut fragment = whole;
    fragment[7] = 1;
    assert_eq!(COOKIE.read(&fragment).unwrap().content, Content::Other);
}

#[test]
fn who_answers_a_probe_or_probes_too_claims_the_address() {
    let probe = arp_probe([2, 0, 0, 0, 0, 1], FROM);
    assert_eq!(probe.len(), 42);
    assert_eq!(probe[28..32], [0; 4], "a probe claims nothing (RFC 5227)");
    assert_eq!(arp_claim(&probe), Some(FROM));
    let mut answer = probe.clone();
    answer[28..32].copy_from_slice(&FROM.octets());
    answer[38..42].copy_from_slice(&[0; 4]);
    assert_eq!(arp_claim(&answer), Some(FROM));
    answer[13] = 0;
    assert_eq!(arp_claim(&answer), None);
    assert_eq!(arp_claim(&probe[..41]), None);
}
