//! What the data plane does with the bytes from its socket and its TUN device.
//!
//! The input is a table and a packet: the number of rows, then for each row a destination with
//! its prefix length and the peer (4, 1 and 4 bytes), then the packet.

use std::net::Ipv4Addr;

use flannel_rs::proxy::packet::{Packet, Refusal};
use flannel_rs::proxy::table::Table;
use ipnet::Ipv4Net;

use super::{header, number, sum};

type Rows = Vec<(Ipv4Net, Ipv4Addr)>;

/// Reads a table and a packet and moves the packet.
pub fn frames(data: &[u8]) {
    let (rows, bytes) = table(data);
    let table = Table::new(rows.iter().copied());
    let mut moved = bytes.to_vec();
    let destination = match Packet::parse(&mut moved) {
        Err(refusal) => {
            let other = bytes.first().is_some_and(|first| first >> 4 != 4);
            assert_eq!(refusal == Refusal::OtherVersion, other);
            assert_ne!(refusal, Refusal::Expired);
            return;
        }
        Ok(packet) => {
            assert_framed(bytes, packet.bytes());
            packet.flow();
            let answers = [
                (packet.unreachable(), [3, 0, 0, 0]),
                (packet.too_big(1372), [3, 4, 0x05, 0x5c]),
            ];
            for (answer, kind) in answers {
                if let Some(answer) = answer {
                    assert_answer(packet.bytes(), answer.bytes(), kind);
                }
            }
            packet.destination()
        }
    };
    assert_eq!(table.peer(destination), longest(&rows, destination));
    assert_eq!(moved, bytes, "looking alters nothing");
    age(bytes, &mut moved);
}

fn table(data: &[u8]) -> (Rows, &[u8]) {
    let Some((count, mut rest)) = data.split_first() else {
        return (Rows::new(), data);
    };
    let mut rows = Rows::new();
    for _ in 0..*count {
        let Some((&[a, b, c, d, length, e, f, g, h], after)) = rest.split_first_chunk() else {
            break;
        };
        if let Ok(net) = Ipv4Net::new(Ipv4Addr::new(a, b, c, d), length % 33) {
            rows.push((net, Ipv4Addr::new(e, f, g, h)));
        }
        rest = after;
    }
    (rows, rest)
}

/// The longest prefix wins, and of equal ones the last.
fn longest(rows: &Rows, destination: Ipv4Addr) -> Option<Ipv4Addr> {
    rows.iter()
        .filter(|(net, _)| net.contains(&destination))
        .max_by_key(|(net, _)| net.prefix_len())
        .map(|&(_, peer)| peer)
}

fn assert_framed(bytes: &[u8], packet: &[u8]) {
    assert!(bytes.starts_with(packet) && packet.len() >= 20);
    assert_eq!(packet[0] >> 4, 4);
    assert!((20..=packet.len()).contains(&header(packet)));
    assert_eq!(number(packet, 2), packet.len());
}

/// One less to live, a checksum that is as right or wrong as before, and no other byte.
fn age(before: &[u8], moved: &mut [u8]) {
    let aged = Packet::parse(moved).map(|mut packet| packet.age());
    match aged {
        Ok(Ok(())) => {
            assert!(before[8] >= 2 && moved[8] == before[8] - 1);
            let sound = |bytes: &[u8]| sum(&bytes[..header(bytes)]) == 0xffff;
            assert_eq!(sound(moved), sound(before));
            assert!(!sound(moved) || number(moved, 10) != 0xffff, "RFC 1624 §3");
            let same = |range: std::ops::Range<usize>| moved[range.clone()] == before[range];
            assert!(same(0..8) && same(9..10) && same(12..before.len()));
        }
        Ok(Err(refusal)) => {
            assert_eq!(refusal, Refusal::Expired);
            assert!(before[8] <= 1 && moved == before);
        }
        Err(refusal) => panic!("sound a moment ago: {refusal:?}"),
    }
}

/// An ICMP "destination unreachable" (RFC 792) from the packet's destination to its sender, of
/// that type, code and MTU, right in all its sums, which itself can never be answered.
fn assert_answer(packet: &[u8], answer: &[u8], kind: [u8; 4]) {
    assert!((28 + 20..=576).contains(&answer.len()));
    assert_eq!((answer[0], answer[9]), (0x45, 1));
    assert_eq!(number(answer, 2), answer.len());
    assert!(answer[8] > 1, "it has to cross at least this host");
    assert_eq!(answer[12..16], packet[16..20]);
    assert_eq!(answer[16..20], packet[12..16]);
    assert_eq!(answer[20..22], kind[..2]);
    assert_eq!(answer[24..28], [0, 0, kind[2], kind[3]]);
    assert_eq!(sum(&answer[..20]), 0xffff);
    assert_eq!(sum(&answer[20..]), 0xffff);
    assert!(packet.starts_with(&answer[28..]));
    let sender = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
    assert!(!sender.is_unspecified() && !sender.is_multicast() && !sender.is_broadcast());
    assert_eq!(number(packet, 6) & 0x1fff, 0, "only a first fragment");
    let mut answer = answer.to_vec();
    let again = Packet::parse(&mut answer).map(|packet| packet.unreachable());
    assert_eq!(again, Ok(None));
}
