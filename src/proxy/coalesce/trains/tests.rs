use crate::proxy::coalesce::Coalescer;
use crate::proxy::coalesce::tests::{BOTH, Batch, datagrams};

/// As many packets as a batch may have, of so many flows by turns.
fn full_batch(flows: usize) -> Batch {
    let mut packets = datagrams(&[8; CAPACITY]);
    for (packet, number) in packets.iter_mut().zip(0..) {
        packet[21] = u8::try_from(number % flows).unwrap();
        // With a wrong checksum they would not be joined.
        super::super::tests::seal(packet);
    }
    Batch::new(&packets)
}

fn room(coalescer: &Coalescer) -> [usize; 3] {
    let trains = &coalescer.trains;
    [
        trains.records.capacity(),
        trains.heads.capacity(),
        trains.bodies.capacity(),
    ]
}

#[test]
fn no_batch_makes_it_allocate() {
    let mut coalescer = Coalescer::new(CAPACITY);
    let before = room(&coalescer);
    for flows in 1..=130 {
        let batch = full_batch(flows);
        coalescer.clear();
        for place in &batch.places {
            coalescer.push(&batch.bytes, place.clone(), BOTH);
        }
        let packets: usize = coalescer.trains().map(|train| train.packets).sum();
        assert_eq!((packets, room(&coalescer)), (CAPACITY, before));
    }
}

#[test]
fn a_larger_batch_is_taken_too() {
    let batch = full_batch(3);
    let mut coalescer = Coalescer::new(1);
    for place in &batch.places {
        coalescer.push(&batch.bytes, place.clone(), BOTH);
    }
    let trains: Vec<_> = coalescer.trains().map(|train| train.packets).collect();
    assert_eq!(trains.iter().sum::<usize>(), CAPACITY);
    assert_eq!(trains[..3], [64, 64, 64]);
}

const CAPACITY: usize = 260;
