//! What the kernel does not take, or not yet.

use super::*;

#[test]
fn a_refused_message_holds_up_no_other() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let socket = bind_one(&left, ONE_PORT);
    let receiver = peer_socket(&right);
    for kind in [
        "unreachable 203.0.113.1",
        "prohibit 203.0.113.2",
        "blackhole 203.0.113.3",
    ] {
        left.namespace.command(&format!("ip route add {kind}"));
    }
    let cargo = Cargo::new(&[500; 40], 20);
    let mut batch = Batch::new(&socket);
    let peers = [
        right.public,
        Ipv4Addr::new(203, 0, 113, 1),
        Ipv4Addr::new(203, 0, 113, 2),
        Ipv4Addr::new(203, 0, 113, 3),
        Ipv4Addr::new(198, 51, 100, 1),
    ];
    for (datagram, peer) in cargo.datagrams.iter().zip(peers.iter().cycle()) {
        batch.append(*peer, 0, datagram.clone()).unwrap();
    }
    stay();
    let mut refused = Vec::new();
    let mut sent = 0;
    let outcome = batch.send(cargo.bytes(), |message, outcome| {
        match outcome {
            Ok(()) => sent += message.datagrams(),
            Err(errno) => refused.push((message.peer(), message.datagrams(), errno)),
        }
        Remedy::Drop
    });
    assert!(outcome.is_ok(), "{refused:?}");
    let datagrams = if socket.segments() { 8 } else { 1 };
    for (peer, errno) in peers[1..].iter().zip([
        Errno::EHOSTUNREACH,
        Errno::EACCES,
        Errno::EINVAL,
        Errno::ENETUNREACH,
    ]) {
        assert!(refused.contains(&(*peer, datagrams, errno)), "{refused:?}");
    }
    assert_eq!(sent, 8);
    expect(&receiver, (0..8).map(|turn| (turn * 5, 500)));
}

#[test]
fn a_refused_message_is_divided_on_demand() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let socket = bind_one(&left, ONE_PORT);
    if !has_segments(&socket) {
        return;
    }
    let receiver = peer_socket(&right);
    // Longer than the path carries: cut by nobody as a message, fragmented one by one.
    let lengths = [2_000, 2_000, 2_000, 1_999, 100, 100];
    let cargo = Cargo::new(&lengths, 20);
    let mut batch = Batch::new(&socket);
    cargo.append_all(&mut batch, right.public);
    let report = send(&mut batch, &cargo, Remedy::Divide);
    let outcomes: Vec<_> = report
        .iter()
        .map(|(d, _, errno)| (*d, errno.is_none()))
        .collect();
    assert_eq!(
        outcomes,
        [
            (4, false),
            (1, true),
            (1, true),
            (1, true),
            (1, true),
            (2, true)
        ]
    );
    assert!(
        matches!(report[0].2, Some(Errno::EINVAL | Errno::EMSGSIZE)),
        "{report:?}"
    );
    expect(&receiver, lengths.into_iter().enumerate());

    for datagram in &cargo.datagrams {
        batch
            .append_alone(right.public, 0, datagram.clone())
            .unwrap();
    }
    assert_eq!(send(&mut batch, &cargo, Remedy::Drop).len(), 6);
    expect(&receiver, lengths.into_iter().enumerate());
}

#[test]
fn what_is_given_up_is_given_up_everywhere() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let sockets = insist(|| bind(&left, 2, ONE_PORT));
    if !has_segments(&sockets[0]) {
        return;
    }
    assert!(sockets[0].give_up_segments() && !sockets[0].give_up_segments());
    assert!(!sockets[1].segments() && !sockets[1].give_up_segments());
    let receiver = peer_socket(&right);
    let cargo = Cargo::new(&[64; 3], 20);
    let mut batch = Batch::new(&sockets[1]);
    cargo.append_all(&mut batch, right.public);
    assert_eq!(send(&mut batch, &cargo, Remedy::Drop), [(1, 64, None); 3]);
    expect(&receiver, (0..3).map(|number| (number, 64)));
}

#[test]
fn a_full_batch_takes_more_once_it_is_sent() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let socket = bind_one(&left, Tuning::default());
    let receiver = peer_socket(&right);
    setsockopt(&receiver, sockopt::RcvBufForce, &(8 << 20)).unwrap();
    let cargo = Cargo::new(&[33; 1], 20);
    let mut batch = Batch::new(&socket);
    let mut count = 0;
    while batch
        .append(right.public, count, cargo.datagrams[0].clone())
        .is_ok()
    {
        count += 1;
        assert!(count < 100_000);
    }
    let again = batch.append_alone(right.public, 0, cargo.datagrams[0].clone());
    assert_eq!(again, Err(Full));
    send(&mut batch, &cargo, Remedy::Drop);
    assert!(
        batch
            .append(right.public, 0, cargo.datagrams[0].clone())
            .is_ok()
    );
    send(&mut batch, &cargo, Remedy::Drop);
    expect(&receiver, (0..=count).map(|_| (0, 33)));
}

#[test]
fn a_socket_without_room_goes_on_later() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let socket = bind_one(&left, PLAIN);
    setsockopt(&socket, sockopt::SndBuf, &100_000).unwrap();
    let receiver = peer_socket(&right);
    setsockopt(&receiver, sockopt::RcvBufForce, &(16 << 20)).unwrap();
    let slow = "tc qdisc add dev eth0 root tbf rate 100mbit burst 20k limit 10m";
    let (slowed, text) = left.namespace.attempt(slow);
    if !slowed {
        eprintln!("skipped: the kernel cannot delay packets: {text}");
        return;
    }
    let lengths = [1_400; 800];
    let cargo = Cargo::new(&lengths, 0);
    let mut batch = Batch::new(&socket);
    cargo.append_all(&mut batch, right.public);
    stay();
    let (mut told, mut blocked) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| expect(&receiver, lengths.iter().copied().enumerate()));
        loop {
            let outcome = batch.send(cargo.bytes(), |_, outcome| {
                assert_eq!(outcome, Ok(()));
                told += 1;
                Remedy::Drop
            });
            match outcome {
                Ok(()) => break,
                Err(_) => blocked += 1,
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(blocked > 0, "{told} messages");
    assert_eq!(told, lengths.len());
}

#[test]
fn a_socket_that_was_waited_for_in_vain_is_not_waited_for_again() {
    let Some((left, right)) = pair(PLAIN) else {
        return;
    };
    let socket = bind_one(&left, PLAIN);
    setsockopt(&socket, sockopt::SndBuf, &50_000).unwrap();
    let slow = "tc qdisc add dev eth0 root tbf rate 1mbit burst 20k limit 10m";
    let (slowed, text) = left.namespace.attempt(slow);
    if !slowed {
        eprintln!("skipped: the kernel cannot delay packets: {text}");
        return;
    }
    let cargo = Cargo::new(&[1_400; 200], 0);
    let mut batch = Batch::new(&socket);
    cargo.append_all(&mut batch, right.public);
    let waits = batch.send(cargo.bytes(), |_, outcome| {
        assert_eq!(outcome, Ok(()));
        Remedy::Drop
    });
    assert!(waits.is_err(), "200 packets find no room");
    let mut dropped = 0;
    batch.skip(|message| dropped += message.datagrams());
    assert!(dropped > 100, "{dropped}");

    cargo.append_all(&mut batch, right.public);
    let mut refused = 0;
    let waits = batch.send(cargo.bytes(), |_, outcome| {
        refused += usize::from(outcome == Err(Errno::EAGAIN));
        Remedy::Drop
    });
    assert!(waits.is_ok() && refused > 100, "{refused} refused");

    left.namespace.command("tc qdisc del dev eth0 root");
    eventually("the buffer empties", || {
        cargo.append_all(&mut batch, right.public);
        let mut all = true;
        let _ = batch.send(cargo.bytes(), |_, outcome| {
            all &= outcome.is_ok();
            Remedy::Drop
        });
        all
    });
}
