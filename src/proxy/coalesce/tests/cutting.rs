//! Trains cut again, slowly, by what the headers say.

use std::collections::{BTreeMap, BTreeSet};

use super::samples::{checksum, seal};
use super::*;

/// All trains, cut again, are the packets they were made of: each once, each flow in its order,
/// each byte but for the identifications that mean nothing.
pub(super) fn assert_gives_back(packets: &[Vec<u8>], bytes: &[u8], coalescer: &Coalescer) {
    let mut cuts = Vec::new();
    let mut firsts = Vec::new();
    for train in coalescer.trains() {
        assert_eq!(train.packets, train.bodies.len());
        assert!((1..=LONGEST_TRAIN).contains(&train.packets));
        firsts.push(train.bodies[0].start);
        cuts.extend(cut(&train, bytes));
    }
    assert!(
        firsts.is_sorted(),
        "in the order of the first packet of each"
    );
    let before: Vec<_> = packets.iter().map(|packet| meaning(packet)).collect();
    let after: Vec<_> = cuts.iter().map(|packet| meaning(packet)).collect();
    let numbers: BTreeMap<_, _> = before.iter().zip(0_usize..).collect();
    let number = |packet: &Vec<u8>| *numbers.get(packet).expect("nothing that was not there");
    let counted = |packets: &[Vec<u8>]| {
        let mut counted: Vec<_> = packets.iter().map(number).collect();
        counted.sort_unstable();
        counted
    };
    assert_eq!(counted(&before), counted(&after), "each packet once");
    let flows: BTreeSet<_> = before.iter().map(|packet| flow(packet)).collect();
    for flow in flows {
        let ordered = |packets: &[Vec<u8>]| {
            let all = packets
                .iter()
                .filter(|packet| may_belong(packet, flow.as_ref()));
            all.map(number).collect::<Vec<_>>()
        };
        assert_eq!(ordered(&before), ordered(&after), "each flow in its order");
    }
}

/// The packets that a device without offloads would have been given instead.
pub(super) fn cut(train: &Train<'_>, bytes: &[u8]) -> Vec<Vec<u8>> {
    let bodies: Vec<_> = train
        .bodies
        .iter()
        .map(|body| &bytes[body.clone()])
        .collect();
    let whole = [&[train.head], &bodies[..]].concat().concat();
    let Some(segments) = train.header.segments else {
        assert_eq!((train.header.checksum, train.packets), (None, 1));
        assert!(train.head.is_empty());
        return vec![whole];
    };
    let internet = usize::from(whole[0] & 0x0f) * 4;
    assert_head(train, &whole, internet);
    let head = train.head.to_vec();
    let id = u16::from_be_bytes([head[4], head[5]]);
    let sequence = u32::from_be_bytes(head[internet + 4..internet + 8].try_into().unwrap());
    let count = train.packets;
    let payloads = whole[head.len()..].chunks(usize::from(segments.size));
    let cuts = payloads.zip(0_u16..).map(|(payload, at)| {
        let mut packet = [&head, payload].concat();
        packet[4..6].copy_from_slice(&id.wrapping_add(at).to_be_bytes());
        if segments.kind == Kind::Tcp {
            let sequence = sequence.wrapping_add(u32::from(at) * u32::from(segments.size));
            packet[internet + 4..internet + 8].copy_from_slice(&sequence.to_be_bytes());
            if usize::from(at) + 1 < count {
                packet[internet + 13] &= !PSH;
            }
        }
        seal(&mut packet);
        packet
    });
    let cuts: Vec<_> = cuts.collect();
    assert_eq!(cuts.len(), count);
    cuts
}

/// What the kernel demands of a super-packet, and takes for granted.
fn assert_head(train: &Train<'_>, whole: &[u8], internet: usize) {
    let segments = train.header.segments.unwrap();
    let (transport, offset) = match segments.kind {
        Kind::Tcp => (usize::from(whole[internet + 12] >> 4) * 4, 16),
        Kind::Udp => (8, 6),
    };
    let partial = Partial {
        start: u16::try_from(internet).unwrap(),
        offset,
    };
    assert_eq!(train.header.checksum, Some(partial));
    assert_eq!(train.head.len(), internet + transport);
    assert_eq!(usize::from(segments.header), internet + transport);
    assert!(!segments.ecn && train.packets > 1);
    assert_eq!(
        usize::from(u16::from_be_bytes([whole[2], whole[3]])),
        whole.len()
    );
    assert_eq!(checksum(&whole[..internet], &[]), 0);
    assert_ne!(whole[10..12], [0xff; 2]);
    let length = u16::try_from(whole.len() - internet).unwrap().to_be_bytes();
    if segments.kind == Kind::Udp {
        assert_eq!(whole[internet + 4..internet + 6], length);
    }
    let pseudo = [&whole[12..20], &[0, whole[9]], &length].concat();
    let field = internet + usize::from(offset);
    assert_eq!(
        whole[field..field + 2],
        (!checksum(&pseudo, &[])).to_be_bytes()
    );
}

/// The packet with an identification of 0 if it has one that means nothing (RFC 6864 §4.1).
fn meaning(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    let header = bytes
        .first()
        .map_or(0, |first| usize::from(first & 0x0f) * 4);
    let is_sound = header >= 20 && header <= bytes.len() && checksum(&bytes[..header], &[]) == 0;
    if is_sound && bytes[6] & 0x7f == 0x40 && bytes[7] == 0 {
        bytes[4..6].fill(0);
        bytes[10..12].fill(0);
        let sum = checksum(&bytes[..header], &[]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// Protocol and addresses, and the ports.
type Flow = (Vec<u8>, Option<Vec<u8>>);

/// Whether a packet may belong to a flow: one without ports may belong to any between its hosts.
fn may_belong(packet: &[u8], to: Option<&Flow>) -> bool {
    match (flow(packet), to) {
        (Some((hosts, ports)), Some((other_hosts, other_ports))) => {
            hosts == *other_hosts && (ports.is_none() || ports == *other_ports)
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// What is not a whole packet of TCP or UDP has none, and what does not tell its ports has those
/// of none.
fn flow(packet: &[u8]) -> Option<Flow> {
    let protocol = *packet.get(9)?;
    let header = usize::from(packet[0] & 0x0f) * 4;
    let stated = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let is_sound = packet[0] >> 4 == 4 && header >= 20 && stated == packet.len();
    if packet.len() < 20 || !is_sound || ![6, 17].contains(&protocol) {
        return None;
    }
    let whole = packet[6] & 0x3f == 0 && packet[7] == 0;
    let ports = packet.get(header..header + 4).filter(|_| whole);
    let hosts = [&packet[12..20], &[protocol]].concat();
    Some((hosts, ports.map(<[u8]>::to_vec)))
}
