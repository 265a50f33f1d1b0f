//! Who has which port.

use super::*;

#[test]
fn flows_have_ports_of_their_own_and_spread_over_queues() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let tuning = Tuning::default();
    let (here, there) = (
        insist(|| bind(&left, 2, tuning)),
        insist(|| bind(&right, 2, tuning)),
    );
    let senders: Vec<_> = here.iter().map(Socket::senders).collect();
    assert_eq!(senders, [16; 2]);
    let mut cargo = Cargo::new(&[600; 256], 20);
    // The receiver learns the sender and the flow, the order in it being that of the datagram.
    for (number, datagram) in cargo.datagrams.iter().enumerate() {
        let at = datagram.body.start;
        cargo.arena[at] = u8::try_from(number % 16).unwrap();
        cargo.arena[at + 1] = u8::try_from(number / 16).unwrap();
    }
    for (queue, socket) in here.iter().enumerate() {
        let mut batch = Batch::new(socket);
        for (number, datagram) in cargo.datagrams.iter().enumerate().skip(queue).step_by(2) {
            batch
                .append(right.public, number % 16, datagram.clone())
                .unwrap();
        }
        send(&mut batch, &cargo, Remedy::Drop);
    }
    let mut seen = Vec::new();
    let mut incoming: Vec<_> = there.iter().map(Incoming::new).collect();
    let start = Instant::now();
    while seen.len() < 256 {
        for (queue, incoming) in incoming.iter_mut().enumerate() {
            match incoming.receive() {
                Ok(()) | Err(Errno::EAGAIN) => {}
                Err(errno) => panic!("{errno}"),
            }
            let (slab, arrivals) = incoming.open();
            for arrival in arrivals {
                for range in arrival.datagrams() {
                    let [flow, turn] = [slab[range.start + 20], slab[range.start + 21]];
                    seen.push((flow, turn, queue));
                }
            }
        }
        assert!(start.elapsed() < PATIENCE, "{} of 256", seen.len());
    }
    for flow in 0..16 {
        let of_flow: Vec<_> = seen.iter().filter(|entry| entry.0 == flow).collect();
        let turns: Vec<_> = of_flow.iter().map(|entry| entry.1).collect();
        assert!(
            turns == (0..16).collect::<Vec<_>>(),
            "flow {flow}: {turns:?}"
        );
        assert!(
            of_flow.iter().all(|entry| entry.2 == of_flow[0].2),
            "flow {flow} is split"
        );
    }
    // 16 ports all hash to one queue once in 32,768 times.
    let of_first = seen.iter().filter(|entry| entry.2 == 0).count();
    assert!((1..256).contains(&of_first), "{of_first} of 256");
}

#[test]
fn a_held_port_is_told_whoever_holds_it() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let taken = |queues| {
        let error = bind(&left, queues, Tuning::default()).unwrap_err();
        assert!(matches!(error, ProxyError::PortInUse { .. }), "{error:?}");
    };
    let flanneld = peer_socket(&left);
    taken(1);
    taken(2);
    drop(flanneld);
    for queues in [1, 2, 4] {
        let ours = insist(|| bind(&left, queues, Tuning::default()));
        assert_eq!(ours.len(), queues);
        taken(1);
        taken(2);
    }
    let address = SocketAddrV4::new(right.public, PORT);
    let error = left
        .namespace
        .run(move || socket::bind(address, 2, PLAIN))
        .unwrap_err();
    assert!(
        matches!(error, ProxyError::AddressUnavailable { .. }),
        "{error:?}"
    );
}
