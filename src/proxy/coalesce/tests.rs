use super::*;
use crate::proxy::virtio::{Kind, Partial, Segments};

mod cutting;
mod flows;
mod mixes;
mod samples;

use cutting::cut;
pub(super) use samples::seal;
use samples::{ack, edited, fragment_of, icmp, patched, tcp, udp, with_options};

pub(super) const BOTH: Joins = Joins {
    tcp: true,
    udp: true,
};
const MSS: usize = 1428;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;
/// Where a TCP header without IPv4 options has its flags.
const FLAGS: usize = 20 + 13;

/// Packets one behind the other in one buffer, with a few bytes between them.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) places: Vec<Range<usize>>,
}

impl Batch {
    pub(super) fn new(packets: &[Vec<u8>]) -> Self {
        let mut batch = Self {
            bytes: vec![0xee; 3],
            places: Vec::new(),
        };
        for packet in packets {
            let start = batch.bytes.len();
            batch.bytes.extend_from_slice(packet);
            batch.places.push(start..batch.bytes.len());
            batch.bytes.push(0xee);
        }
        batch
    }

    fn joined(&self, joins: Joins) -> Coalescer {
        let mut coalescer = Coalescer::new(self.places.len());
        for place in &self.places {
            coalescer.push(&self.bytes, place.clone(), joins);
        }
        coalescer
    }
}

/// How many packets are in each train that these become. Whatever they become, cutting gives them
/// back.
fn joined(packets: &[Vec<u8>]) -> Vec<usize> {
    let batch = Batch::new(packets);
    let coalescer = batch.joined(BOTH);
    cutting::assert_gives_back(packets, &batch.bytes, &coalescer);
    coalescer.trains().map(|train| train.packets).collect()
}

/// Segments of a TCP stream of these lengths.
fn stream(lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut sequence = u32::MAX - 2000;
    let segments = lengths.iter().zip(0..).map(|(&length, id)| {
        let segment = tcp(sequence, id, length);
        sequence = sequence.wrapping_add(u32::try_from(length).unwrap());
        segment
    });
    segments.collect()
}

pub(super) fn datagrams(lengths: &[usize]) -> Vec<Vec<u8>> {
    lengths
        .iter()
        .zip(0..)
        .map(|(&length, id)| udp(id, length))
        .collect()
}

#[test]
fn a_stream_becomes_one_train() {
    let packets = stream(&[MSS, MSS, 500]);
    let batch = Batch::new(&packets);
    let coalescer = batch.joined(BOTH);
    let [train] = coalescer.trains().collect::<Vec<_>>().try_into().unwrap();
    let segments = Segments {
        kind: Kind::Tcp,
        size: 1428,
        header: 52,
        ecn: false,
    };
    let checksum = Partial {
        start: 20,
        offset: 16,
    };
    assert_eq!(train.header.checksum, Some(checksum));
    assert_eq!(train.header.segments, Some(segments));
    let payloads = batch.places.iter().map(|place| place.start + 52..place.end);
    assert_eq!(train.bodies, payloads.collect::<Vec<_>>());
    assert_eq!((train.head.len(), train.packets), (52, 3));
    assert_eq!(cut(&train, &batch.bytes), packets);
}

#[test]
fn datagrams_become_one_train() {
    let packets = datagrams(&[64, 64, 64, 1]);
    let batch = Batch::new(&packets);
    let coalescer = batch.joined(BOTH);
    let [train] = coalescer.trains().collect::<Vec<_>>().try_into().unwrap();
    let segments = Segments {
        kind: Kind::Udp,
        size: 64,
        header: 28,
        ecn: false,
    };
    let checksum = Partial {
        start: 20,
        offset: 6,
    };
    assert_eq!(train.header.checksum, Some(checksum));
    assert_eq!(train.header.segments, Some(segments));
    assert_eq!(cut(&train, &batch.bytes), packets);
}

#[test]
fn a_packet_by_itself_stays_as_it_is() {
    for packet in [tcp(1, 1, MSS), udp(1, 64), ack(1), icmp()] {
        let batch = Batch::new(std::slice::from_ref(&packet));
        let coalescer = batch.joined(BOTH);
        let [train] = coalescer.trains().collect::<Vec<_>>().try_into().unwrap();
        let alone = Train {
            header: Header::default(),
            head: &[],
            bodies: &batch.places,
            packets: 1,
        };
        assert_eq!(train, alone);
    }
}

#[test]
fn the_device_decides_what_is_joined() {
    let packets = [stream(&[MSS; 3]), datagrams(&[64; 2])].concat();
    let batch = Batch::new(&packets);
    for (tcp, udp, expected) in [
        (true, true, vec![3, 2]),
        (true, false, vec![3, 1, 1]),
        (false, true, vec![1, 1, 1, 2]),
        (false, false, vec![1; 5]),
    ] {
        let coalescer = batch.joined(Joins { tcp, udp });
        cutting::assert_gives_back(&packets, &batch.bytes, &coalescer);
        let found: Vec<_> = coalescer.trains().map(|train| train.packets).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_shorter_and_the_pushed_are_the_last() {
    assert_eq!(joined(&stream(&[MSS, 10, MSS, MSS])), [2, 2]);
    assert_eq!(joined(&stream(&[10, MSS, MSS])), [1, 2]);
    assert_eq!(joined(&datagrams(&[64, 64, 10, 64])), [3, 1]);
    assert_eq!(joined(&datagrams(&[10, 64, 64])), [1, 2]);
    assert_eq!(joined(&datagrams(&[0, 0, 0])), [1, 1, 1], "nothing to cut");
    assert_eq!(joined(&datagrams(&[64, 0, 64])), [1, 1, 1]);
    let mut pushed = stream(&[MSS; 5]);
    pushed[1] = edited(&pushed[1], FLAGS, |flags| flags | PSH);
    assert_eq!(joined(&pushed), [2, 3]);
    pushed[0] = edited(&pushed[0], FLAGS, |flags| flags | PSH);
    assert_eq!(joined(&pushed), [1, 1, 3]);
}

#[test]
fn what_cutting_would_copy_must_be_the_same() {
    // Where it lies in a TCP packet with timestamps and no IPv4 options, and what changes there.
    let fields = [
        ("service", 1, 1),
        ("reserved flag", 6, 0x80),
        ("may not be fragmented", 6, 0x40),
        ("time to live", 8, 1),
        ("source", 15, 1),
        ("destination", 19, 1),
        ("source port", 21, 1),
        ("destination port", 23, 1),
        ("sequence", 27, 1),
        ("acknowledgement", 31, 1),
        ("reserved bits", 32, 1),
        ("echo of congestion", FLAGS, ECE),
        ("window", 35, 1),
        ("timestamp", 47, 1),
        ("last option", 51, 1),
    ];
    for (field, at, change) in fields {
        let mut packets = stream(&[MSS; 3]);
        assert_eq!(joined(&packets), [3]);
        packets[1] = edited(&packets[1], at, |byte| byte ^ change);
        assert_eq!(joined(&packets), [1, 1, 1], "{field}");
    }
    for (at, change) in [(1, 1), (6, 0x40), (8, 1), (19, 1), (21, 1), (23, 1)] {
        let mut packets = datagrams(&[64; 3]);
        packets[1] = edited(&packets[1], at, |byte| byte ^ change);
        assert!(matches!(joined(&packets)[..], [1, 1, 1] | [2, 1]));
    }
}

#[test]
fn what_is_the_same_in_all_is_copied() {
    for (at, value) in [
        (1, 0x2e),
        (6, 0xc0),
        (8, 1),
        (32, 0x81),
        (FLAGS, 0x50),
        (35, 7),
    ] {
        let packets = stream(&[MSS; 3])
            .iter()
            .map(|packet| edited(packet, at, |_| value))
            .collect::<Vec<_>>();
        assert_eq!(joined(&packets), [3]);
    }
    let options = [7, 7, 4, 10, 0, 0, 0, 1];
    for packets in [stream(&[MSS; 3]), datagrams(&[64; 3])] {
        let mut packets: Vec<_> = packets
            .iter()
            .map(|packet| with_options(packet, &options))
            .collect();
        assert_eq!(joined(&packets), [3]);
        packets[1] = edited(&packets[1], 23, |_| 11);
        assert_eq!(joined(&packets), [1, 1, 1]);
    }
}

#[test]
fn segments_with_other_flags_pass_alone() {
    for flag in [FIN, SYN, RST, URG, CWR] {
        let mut packets = stream(&[MSS; 4]);
        packets[1] = edited(&packets[1], FLAGS, |flags| flags | flag);
        assert_eq!(joined(&packets), [1, 1, 2], "{flag:#x}");
    }
    let mut packets = stream(&[MSS; 4]);
    packets[1] = edited(&packets[1], FLAGS, |_| 0);
    assert_eq!(joined(&packets), [1, 1, 2], "no acknowledgement");
    let mut packets = stream(&[MSS; 4]);
    packets[1] = edited(&packets[1], 39, |_| 1);
    assert_eq!(joined(&packets), [1, 1, 2], "urgent pointer");
}

#[test]
fn acknowledgements_are_never_joined() {
    assert_eq!(joined(&[ack(1), ack(1), ack(1)]), [1, 1, 1]);
    let mut packets = stream(&[MSS; 4]);
    packets.insert(2, ack(5));
    assert_eq!(joined(&packets), [2, 1, 2]);
}

#[test]
fn a_stream_that_does_not_continue_begins_anew() {
    let stream = stream(&[MSS; 6]);
    let pick = |order: &[usize]| {
        order
            .iter()
            .map(|&at| stream[at].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(joined(&pick(&[0, 1, 3, 4, 5])), [2, 3], "lost");
    assert_eq!(joined(&pick(&[0, 2, 1, 3, 4])), [1, 1, 1, 2], "reordered");
    assert_eq!(joined(&pick(&[0, 1, 1, 2, 3])), [2, 3], "twice");
}

#[test]
fn identifications_count_up_where_they_mean_something() {
    let fragile = |packets: Vec<Vec<u8>>, ids: [u16; 3]| {
        let pairs = packets.iter().zip(ids);
        pairs
            .map(|(packet, id)| {
                let [high, low] = id.to_be_bytes();
                let packet = edited(packet, 6, |_| 0);
                edited(&edited(&packet, 4, |_| high), 5, |_| low)
            })
            .collect::<Vec<_>>()
    };
    for packets in [stream(&[MSS; 3]), datagrams(&[64; 3])] {
        assert_eq!(joined(&fragile(packets.clone(), [0xfffe, 0xffff, 0])), [3]);
        assert_eq!(joined(&fragile(packets.clone(), [7, 7, 7])), [1, 1, 1]);
        assert_eq!(joined(&fragile(packets.clone(), [7, 8, 8])), [2, 1]);
        assert_eq!(joined(&fragile(packets.clone(), [7, 6, 5])), [1, 1, 1]);
        let atomic = [9, 9, 0].map(|id| edited(&packets[0], 5, |_| id));
        let atomic: Vec<_> = packets
            .iter()
            .zip(atomic)
            .map(|(packet, other)| edited(packet, 5, |_| other[5]))
            .collect();
        assert_eq!(joined(&atomic), [3]);
    }
}

#[test]
fn wrong_checksums_are_passed_on() {
    for (at, pattern) in [(10, [1, 1, 2]), (37, [1, 1, 2]), (600, [1, 1, 2])] {
        let mut packets = stream(&[MSS; 4]);
        packets[1] = patched(&packets[1], at);
        assert_eq!(joined(&packets), pattern, "byte {at} of the second");
        let mut packets = stream(&[MSS; 4]);
        packets[0] = patched(&packets[0], at);
        assert_eq!(joined(&packets), [1, 3], "byte {at} of the first");
    }
    for at in [10, 27, 50] {
        let mut packets = datagrams(&[64; 4]);
        packets[1] = patched(&packets[1], at);
        assert_eq!(joined(&packets), [1, 1, 2], "byte {at} of the second");
    }
    let mut packets = datagrams(&[64; 4]);
    for packet in &mut packets {
        packet[26..28].fill(0);
    }
    assert_eq!(joined(&packets), [1; 4], "no checksum");
}

#[test]
fn a_sum_of_zero_is_right_in_both_forms_and_joined_in_neither() {
    for form in [[0, 0], [0xff, 0xff]] {
        let mut packets = stream(&[MSS; 3]);
        let sum = [packets[1][36], packets[1][37]];
        // The two bytes of a payload that is zero otherwise take the checksum's part.
        packets[1][52..54].copy_from_slice(&sum);
        packets[1][36..38].copy_from_slice(&form);
        assert_eq!(joined(&packets), [1, 1, 1]);
    }
    let mut packets = datagrams(&[64; 3]);
    let sum = [packets[1][26], packets[1][27]];
    packets[1][28..30].copy_from_slice(&sum);
    seal(&mut packets[1]);
    assert_eq!(packets[1][26..28], [0xff, 0xff]);
    assert_eq!(joined(&packets), [3], "datagrams have one form only");
}

#[test]
fn what_the_device_takes_may_change_within_a_batch() {
    let packets = stream(&[MSS; 6]);
    let batch = Batch::new(&packets);
    let mut coalescer = Coalescer::new(6);
    for (at, place) in batch.places.iter().enumerate() {
        let joins = if at == 2 { Joins::default() } else { BOTH };
        coalescer.push(&batch.bytes, place.clone(), joins);
    }
    cutting::assert_gives_back(&packets, &batch.bytes, &coalescer);
    let found: Vec<_> = coalescer.trains().map(|train| train.packets).collect();
    assert_eq!(found, [2, 1, 3]);
}

#[test]
fn nothing_is_left_of_an_earlier_batch() {
    let packets = stream(&[MSS; 4]);
    let mut coalescer = Coalescer::new(4);
    for packets in packets.chunks(2) {
        let batch = Batch::new(packets);
        coalescer.clear();
        assert_eq!(coalescer.trains().count(), 0);
        for place in &batch.places {
            coalescer.push(&batch.bytes, place.clone(), BOTH);
        }
        cutting::assert_gives_back(packets, &batch.bytes, &coalescer);
        assert_eq!(coalescer.trains().count(), 1);
    }
}

#[test]
fn places_outside_the_buffer_are_not_taken() {
    let batch = Batch::new(&stream(&[MSS; 2]));
    let mut coalescer = Coalescer::new(2);
    let end = batch.bytes.len();
    for place in [
        end..end + 1,
        end + 1..end + 2,
        0..usize::MAX,
        Range { start: 9, end: 3 },
    ] {
        coalescer.push(&batch.bytes, place, BOTH);
    }
    assert_eq!(coalescer.trains().count(), 0);
    coalescer.push(&batch.bytes, batch.places[0].clone(), BOTH);
    coalescer.push(&[], batch.places[1].clone(), BOTH);
    coalescer.push(&batch.bytes[1..], 0..0, BOTH);
    assert_eq!(coalescer.trains().count(), 2);
}
