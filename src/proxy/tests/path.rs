//! Paths that carry less than the device's packets need.

use std::io::{Read, Write};

use super::super::Tuning;
use super::bulk;
use super::lab::{self, Node, counted, eventually, in_both_modes, pair};

in_both_modes! {
    a_sender_is_told_what_its_route_carries,
    a_sender_is_told_what_a_router_on_the_way_carries,
    a_stream_goes_on_when_its_path_narrows,
}

fn told(from: &Node) -> bool {
    let (_, text) = from.ping("-c 1 -W 1 -s 1444 -M do 100.96.2.0");
    text.contains("mtu = 1372") || text.contains("mtu=1372")
}

fn a_sender_is_told_what_its_route_carries(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, _there) = (left.connect(&right), right.connect(&left));
    let route = format!("ip route add {} dev eth0 mtu 1400", right.public);
    left.namespace.command(&route);
    eventually("fragmentation needed, and how small", || told(&left));
    counted(&here, "the packet and the answer", |counters| {
        counters.too_big_for_path > 0 && counters.too_big_answered > 0
    });
    let (reached, text) = left.ping("-c 1 -W 5 -s 1344 -M do 100.96.2.0");
    assert!(reached, "as large as the path allows: {text}");
    let lost = here.counters().too_big_for_path;
    let (reached, text) = left.ping("-c 1 -W 5 -s 1444 -M dont 100.96.2.0");
    assert!(reached, "what may be cut is cut: {text}");
    let counters = here.counters();
    assert_eq!(counters.too_big_for_path, lost, "{counters:?}");

    left.namespace
        .command(&format!("ip route delete {}", right.public));
    // Asks the device anew; what it was told about the destination it keeps for minutes.
    eventually("a path that widens is noticed", || {
        left.namespace.command("ip route flush cache");
        left.ping("-c 1 -W 1 -s 1444 -M do 100.96.2.0").0
    });
}

fn a_sender_is_told_what_a_router_on_the_way_carries(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let Some(_router) = lab::put_between(&left, &right, 1400) else {
        return;
    };
    let (here, _there) = (left.connect(&right), right.connect(&left));
    eventually("fragmentation needed, and how small", || told(&left));
    // what is sent is counted afterwards
    counted(&here, "the answer", |counters| {
        counters.too_big_answered > 0
    });
    bulk::transfer(&left, &right, 4 << 20);
    bulk::transfer(&right, &left, 4 << 20);
}

fn a_stream_goes_on_when_its_path_narrows(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, _there) = (left.connect(&right), right.connect(&left));
    let (mut there, mut stream) = bulk::connection(&left, &right);
    let chunk = vec![0x5a; 4 << 20];
    let mut pass = || {
        let sent = chunk.clone();
        let mut writer = there.try_clone().unwrap();
        let sender = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut arrived = vec![0; chunk.len()];
        stream.read_exact(&mut arrived).unwrap_or_else(|error| {
            let (from, to) = (left.account(), right.account());
            panic!("{error}\nfrom:\n{from}\nto:\n{to}")
        });
        sender.join().unwrap();
        let wrong = arrived.iter().filter(|byte| **byte != 0x5a).count();
        assert_eq!(wrong, 0, "bytes of {}", chunk.len());
    };
    pass();
    let route = format!("ip route add {} dev eth0 mtu 1400", right.public);
    left.namespace.command(&route);
    eventually("the path is known to be narrow", || {
        pass();
        here.counters().too_big_answered > 0
    });
    pass();
    there.flush().unwrap();
}
