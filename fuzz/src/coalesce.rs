//! What the data plane joins of the packets from its socket.
//!
//! The input is what the device takes (a byte: 1 for TCP, 2 for UDP), then packets, each behind a
//! byte that says how it is given: see `packets`.

use std::ops::Range;

use flannel_rs::proxy::coalesce::{Coalescer, Joins, LONGEST_TRAIN, Train};
use flannel_rs::proxy::split;

use super::{header, number, sum};

/// Reads packets, joins them, cuts the trains again and compares.
pub fn coalesce(data: &[u8]) {
    let Some((&takes, rest)) = data.split_first() else {
        return;
    };
    let joins = Joins {
        tcp: takes & 1 != 0,
        udp: takes & 2 != 0,
    };
    let before = packets(rest);
    let bytes = before.concat();
    let mut coalescer = Coalescer::new(before.len());
    // The second time over what the first has left.
    for _ in 0..2 {
        coalescer.clear();
        let mut start = 0;
        for packet in &before {
            coalescer.push(&bytes, start..start + packet.len(), joins);
            start += packet.len();
        }
        let trains: Vec<_> = coalescer.trains().collect();
        assert!(trains.is_sorted_by_key(|train| train.bodies[0].start));
        assert!(joins != Joins::default() || trains.len() == before.len());
        let after: Vec<_> = trains.iter().flat_map(|train| cut(train, &bytes)).collect();
        assert_same(&before, &after);
        assert_eq!(sorted(&before), sorted(&after), "each packet once");
    }
}

/// The packets of an input: the lowest two bits of the byte before each say how it is given, the
/// other six are a number.
///
/// 0: a length and so many bytes. 1: likewise, with sixteen times the number of zeros behind, and
/// lengths and checksums made right. 2: the last one again, as it would go on, so many times and
/// once more. 3: the one so many before the last, again as it is.
fn packets(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    while let Some((&how, after)) = rest.split_first()
        && packets.len() < MOST
    {
        rest = after;
        let count = usize::from(how >> 2);
        if how & 3 < 2 {
            let Some((&length, after)) = rest.split_first() else {
                break;
            };
            let (packet, after) = after.split_at(after.len().min(length.into()));
            rest = after;
            let mut packet = packet.to_vec();
            if how & 3 == 1 {
                packet.resize(packet.len() + count * 16, 0);
                seal(&mut packet);
            }
            packets.push(packet);
        } else if how & 3 == 2 {
            for _ in 0..=count {
                packets.extend(packets.last().map(|last| successor(last)));
            }
        } else {
            let again = packets.iter().rev().nth(count).cloned();
            packets.extend(again);
        }
    }
    packets
}

/// The packet that an honest sender would send after `packet`, with as much payload.
fn successor(packet: &[u8]) -> Vec<u8> {
    let mut next = packet.to_vec();
    let Some(header) = transport(packet) else {
        return next;
    };
    let id = number(packet, 4) + 1;
    next[4..6].copy_from_slice(&id.to_be_bytes()[6..]);
    if packet[9] == TCP && packet.len() >= header + 20 {
        let data = header + usize::from(packet[header + 12] >> 4) * 4;
        let sequence = (number(packet, header + 4) << 16) + number(packet, header + 6);
        let sequence = sequence + packet.len().saturating_sub(data);
        next[header + 4..header + 8].copy_from_slice(&sequence.to_be_bytes()[4..]);
    }
    seal(&mut next);
    next
}

/// Makes lengths and checksums right where there are any.
fn seal(packet: &mut [u8]) {
    if packet.len() < 20 || !(20..=packet.len()).contains(&header(packet)) {
        return;
    }
    let header = header(packet);
    let total = packet.len();
    packet[2..4].copy_from_slice(&total.to_be_bytes()[6..]);
    packet[10..12].fill(0);
    write_sum(packet, 0..header, 10, 0);
    let length = total - header;
    let field = match packet[9] {
        TCP if length >= 20 => header + 16,
        UDP if length >= 8 => header + 6,
        _ => return,
    };
    if packet[9] == UDP {
        packet[header + 4..header + 6].copy_from_slice(&length.to_be_bytes()[6..]);
    }
    packet[field..field + 2].fill(0);
    let pseudo = sum(&packet[12..20]) + u64::from(packet[9]) + length as u64;
    write_sum(packet, header..total, field, pseudo);
    if packet[9] == UDP && packet[field..field + 2] == [0; 2] {
        packet[field..field + 2].fill(0xff);
    }
}

fn write_sum(packet: &mut [u8], over: Range<usize>, field: usize, more: u64) {
    let sum = (0xffff - (sum(&packet[over]) + more) % 0xffff) % 0xffff;
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes()[6..]);
}

/// The packets that the device makes of a train.
fn cut(train: &Train<'_>, bytes: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!(train.packets, train.bodies.len());
    assert!((1..=LONGEST_TRAIN).contains(&train.packets));
    let bodies = train.bodies.iter().map(|body| &bytes[body.clone()]);
    let mut whole = train.head.to_vec();
    whole.extend(bodies.flatten());
    let Some(segments) = train.header.segments else {
        assert!(train.header.checksum.is_none() && train.head.is_empty());
        assert_eq!(train.packets, 1);
        return vec![whole];
    };
    assert!(train.header.checksum.is_some() && train.packets > 1);
    assert_eq!(usize::from(segments.header), train.head.len());
    assert_eq!(sum(&whole[..header(&whole)]), 0xffff);
    let (mut heads, mut pieces) = (Vec::new(), Vec::new());
    let cut = split::split(train.header, &mut whole, &mut heads, &mut pieces);
    assert_eq!((cut, pieces.len()), (Ok(()), train.packets));
    let packets = pieces.iter().map(|piece| {
        let (head, body) = (&heads[piece.head.clone()], &whole[piece.body.clone()]);
        [head, body].concat()
    });
    packets.collect()
}

/// Each flow is in its order, byte for byte; a packet that does not tell its ports keeps its place
/// in every flow between its hosts.
fn assert_same(before: &[Vec<u8>], after: &[Vec<u8>]) {
    assert_eq!(before.len(), after.len());
    let mut seen = Vec::new();
    for flow in before.iter().map(|packet| flow(packet)) {
        if !seen.contains(&flow) {
            let of_flow = |packet: &&Vec<u8>| belongs(packet, flow.as_ref());
            let one = before.iter().filter(of_flow).map(|packet| meaning(packet));
            let other = after.iter().filter(of_flow).map(|packet| meaning(packet));
            assert!(one.eq(other), "{flow:?}");
            seen.push(flow);
        }
    }
}

fn sorted(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut packets: Vec<_> = packets.iter().map(|packet| meaning(packet)).collect();
    packets.sort();
    packets
}

/// A packet with an identification of 0 if it has one that means nothing (RFC 6864 §4.1).
fn meaning(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if let Some(header) = transport(&packet)
        && sum(&packet[..header]) == 0xffff
        && number(&packet, 6) & 0x7fff == 0x4000
    {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
        write_sum(&mut packet, 0..header, 10, 0);
    }
    packet
}

/// Protocol and addresses, and the ports if it tells them.
type Flow = (Vec<u8>, Option<Vec<u8>>);

fn belongs(packet: &[u8], to: Option<&Flow>) -> bool {
    match (flow(packet), to) {
        (Some((hosts, ports)), Some((other_hosts, other_ports))) => {
            hosts == *other_hosts && (ports.is_none() || ports == *other_ports)
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn flow(packet: &[u8]) -> Option<Flow> {
    let header = transport(packet)?;
    let whole = number(packet, 6) & 0x3fff == 0;
    let ports = packet.get(header..header + 4).filter(|_| whole);
    let hosts = [&packet[9..10], &packet[12..20]].concat();
    Some((hosts, ports.map(<[u8]>::to_vec)))
}

/// Where the TCP or UDP of a sound packet begins.
fn transport(packet: &[u8]) -> Option<usize> {
    let protocol = *packet.get(9)?;
    let is_sound = packet.len() >= 20
        && packet[0] >> 4 == 4
        && header(packet) >= 20
        && header(packet) <= packet.len()
        && number(packet, 2) == packet.len();
    (is_sound && [TCP, UDP].contains(&protocol)).then(|| header(packet))
}

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Packets that an input is read for.
const MOST: usize = 200;
