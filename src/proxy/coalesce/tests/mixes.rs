//! Whatever a peer sends, cutting the trains gives it back.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What comes next of a flow.
#[derive(Debug, Clone)]
enum Step {
    /// As much again as before.
    More,
    /// A payload of this length, pushed if it is TCP.
    Last(usize),
    /// The same again.
    Twice,
    /// It comes after its successor.
    Late,
    /// It is lost.
    Lost,
    /// With this flag.
    Flag(u8),
    /// From now on one of the bytes that cutting copies is another.
    Changed(usize, u8),
    /// With something wrong at this place.
    Wrong(usize),
    Fragment,
    Bare,
    Stranger,
}

/// A sender.
#[derive(Debug)]
struct Source {
    udp: bool,
    sequence: u32,
    id: u16,
    size: usize,
    /// What it has other than others: places and bits.
    marks: Vec<(usize, u8)>,
    options: Vec<u8>,
    held: Option<Vec<u8>>,
}

impl Source {
    fn new(number: u8, size: usize, options: usize) -> Self {
        Self {
            udp: number % 2 == 1,
            sequence: u32::MAX - 5000,
            id: u16::MAX - 10,
            size,
            marks: vec![(21, number)],
            options: vec![1; options * 4],
            held: None,
        }
    }

    fn packet(&mut self, payload: usize) -> Vec<u8> {
        let mut packet = if self.udp {
            udp(self.id, payload)
        } else {
            tcp(self.sequence, self.id, payload)
        };
        self.id = self.id.wrapping_add(1);
        let advance = u32::try_from(payload).unwrap();
        self.sequence = self.sequence.wrapping_add(advance);
        for &(at, bits) in &self.marks {
            packet[at] ^= bits;
        }
        with_options(&packet, &self.options)
    }

    fn take(&mut self, step: &Step, into: &mut Vec<Vec<u8>>) {
        let flags = FLAGS + self.options.len();
        match *step {
            Step::More => {
                let packet = self.packet(self.size);
                into.push(packet);
            }
            Step::Last(length) => {
                let mut packet = self.packet(length.min(self.size));
                if !self.udp {
                    packet[flags] |= PSH;
                }
                seal(&mut packet);
                into.push(packet);
            }
            Step::Twice => {
                let packet = self.packet(self.size);
                into.extend([packet.clone(), packet]);
            }
            Step::Late => self.held = Some(self.packet(self.size)),
            Step::Lost => drop(self.packet(self.size)),
            Step::Flag(flag) => {
                let mut packet = self.packet(self.size);
                if !self.udp {
                    packet[flags] ^= flag;
                }
                seal(&mut packet);
                into.push(packet);
            }
            Step::Changed(at, bits) => self.marks.push((at, bits)),
            Step::Wrong(at) => {
                let packet = self.packet(self.size);
                let at = at % packet.len();
                into.push(patched(&packet, if at == 0 || at == 2 { 10 } else { at }));
            }
            Step::Fragment => {
                let packet = self.packet(self.size);
                into.push(fragment_of(&packet));
            }
            Step::Bare => {
                let packet = self.packet(0);
                into.push(packet);
            }
            Step::Stranger => into.push(icmp()),
        }
        if !matches!(step, Step::Late) {
            into.extend(self.held.take());
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => Just(Step::More),
        3 => (0_usize..1500).prop_map(Step::Last),
        1 => Just(Step::Twice),
        1 => Just(Step::Late),
        1 => Just(Step::Lost),
        2 => (0..8_u8).prop_map(|bit| Step::Flag(1_u8 << bit)),
        1 => (
            prop::sample::select(vec![1_usize, 6, 8, 12, 19, 22, 25]),
            0..8_u8,
        ).prop_map(|(at, bit)| Step::Changed(at, 1_u8 << bit)),
        1 => any::<usize>().prop_map(Step::Wrong),
        1 => Just(Step::Fragment),
        1 => Just(Step::Bare),
        1 => Just(Step::Stranger),
    ]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0_usize),
        1..8_usize,
        Just(64),
        1..1500_usize,
        Just(MSS),
        Just(20_000)
    ]
}

fn sources() -> impl Strategy<Value = Vec<Source>> {
    let source = (size(), prop_oneof![4 => Just(0_usize), 1 => 1..=10_usize]);
    vec(source, 1..7).prop_map(|sources| {
        let numbered = sources.into_iter().zip(0..);
        numbered
            .map(|((size, options), number)| Source::new(number, size, options))
            .collect()
    })
}

fn joins() -> impl Strategy<Value = Joins> {
    let any = (any::<bool>(), any::<bool>()).prop_map(|(tcp, udp)| Joins { tcp, udp });
    prop_oneof![4 => Just(BOTH), 1 => any]
}

proptest! {
    #[test]
    fn cutting_gives_back_any_mix(
        mut sources in sources(),
        steps in vec((any::<prop::sample::Index>(), 1..5_usize, step()), 0..30),
        joins in joins(),
    ) {
        let mut packets = Vec::new();
        for (source, times, step) in &steps {
            let source = source.get_mut(&mut sources);
            let times = if matches!(step, Step::More) { *times } else { 1 };
            for _ in 0..times {
                source.take(step, &mut packets);
            }
        }
        let batch = Batch::new(&packets);
        let coalescer = batch.joined(joins);
        cutting::assert_gives_back(&packets, &batch.bytes, &coalescer);
        if joins == Joins::default() {
            prop_assert_eq!(coalescer.trains().count(), packets.len());
        }
    }

    #[test]
    fn any_bytes_pass(
        packets in vec((vec(any::<u8>(), 0..90), 0..4_usize), 0..30),
        cuts in vec(any::<usize>(), 0..30),
    ) {
        let mut packets: Vec<_> = packets.into_iter().map(|(mut bytes, like)| {
            let model = [tcp(1, 1, 20), udp(1, 20), with_options(&udp(1, 20), &[1; 40])];
            if let Some(model) = model.get(like) {
                let kept = bytes.len().min(4);
                bytes.splice(..kept, model.iter().copied());
            }
            bytes
        }).collect();
        for (packet, at) in packets.iter_mut().zip(cuts) {
            let kept = at % (packet.len() + 1);
            packet.truncate(kept);
            if kept >= 4 {
                packet[2..4].copy_from_slice(&u16::try_from(kept).unwrap().to_be_bytes());
            }
        }
        let batch = Batch::new(&packets);
        cutting::assert_gives_back(&packets, &batch.bytes, &batch.joined(BOTH));
    }
}
