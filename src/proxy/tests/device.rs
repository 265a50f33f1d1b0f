//! The device and the port: refused, outlived, taken down, deleted.

use std::net::{SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::super::{ProxyError, Settings, Tuning};
use super::lab;
use super::lab::{
    PORT, answers, counted, eventually, in_both_modes, pair, peer_socket, udp_packet,
};

in_both_modes! {
    a_taken_port_is_named_and_leaves_no_device,
    a_device_that_cannot_serve_is_refused,
    a_device_of_the_other_kind_is_remade,
    the_device_outlives_the_proxy,
    a_restart_under_traffic_loses_little,
    a_device_that_is_down_is_no_failure,
    a_deleted_device_is_a_failure,
}

fn a_taken_port_is_named_and_leaves_no_device(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let _flanneld = peer_socket(&left);
    let error = left.attach_as(left.settings()).unwrap_err();
    assert!(matches!(error, ProxyError::PortInUse { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("192.168.1.47:8285") && text.contains("flanneld"),
        "{text}"
    );
    let (exists, text) = left.namespace.attempt("ip link show flannel0");
    assert!(!exists, "{text}");

    let elsewhere = SocketAddrV4::new(right.public, PORT);
    let error = left
        .attach_as(Settings {
            bind: elsewhere,
            ..left.settings()
        })
        .unwrap_err();
    assert!(
        matches!(error, ProxyError::AddressUnavailable { address } if address == elsewhere),
        "{error:?}"
    );
}

fn a_device_that_cannot_serve_is_refused(tuning: Tuning) {
    let Some((left, _right)) = pair(tuning) else {
        return;
    };
    let other_port = |device: &str| Settings {
        device: device.to_owned(),
        bind: SocketAddrV4::new(left.public, PORT + 1),
        ..left.settings()
    };
    let proxy = left.attach();
    let error = left.attach_as(other_port("flannel0")).unwrap_err();
    assert!(matches!(error, ProxyError::DeviceBusy { .. }), "{error:?}");
    left.namespace.command("ip tuntap add tap0 mode tap");
    for device in ["eth0", "tap0"] {
        let error = left.attach_as(other_port(device)).unwrap_err();
        assert!(
            matches!(error, ProxyError::NotATun { .. }),
            "{device}: {error:?}"
        );
    }
    assert_eq!(proxy.failure(), None);
}

fn a_device_of_the_other_kind_is_remade(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let _there = right.connect(&left);
    let kind = match tuning.offload {
        true => "",
        false => "multi_queue",
    };
    left.namespace
        .command(&format!("ip tuntap add flannel0 mode tun {kind}"));
    let here = left.connect(&right);
    let (reached, text) = left.ping("-c 1 -W 5 100.96.2.0");
    assert!(reached, "{text}");
    assert_eq!(here.failure(), None);
}

fn the_device_outlives_the_proxy(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let _there = right.connect(&left);
    let state = || {
        let links = left.namespace.command("ip -o link show flannel0");
        let index = links.split(':').next().unwrap().to_owned();
        let addresses = left.namespace.command("ip -o -4 address show flannel0");
        let routes = left.namespace.command("ip route show dev flannel0");
        // Its carrier comes and goes with us.
        (index, addresses, routes.replace(" linkdown", ""))
    };
    let here = left.connect(&right);
    let before = state();
    assert!(before.2.contains("100.96.0.0/16"), "{before:?}");
    let start = Instant::now();
    drop(here);
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    assert_eq!(state(), before);
    let here = left.attach();
    here.set_table(&right.table());
    assert_eq!(state(), before);
    let (reached, text) = left.ping("-c 1 -W 5 100.96.2.0");
    assert!(reached, "{text}");
}

fn a_restart_under_traffic_loses_little(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let _there = right.connect(&left);
    let mut here = Some(left.connect(&right));
    let mut without = Duration::ZERO;
    let text = thread::scope(|scope| {
        let ping = scope.spawn(|| right.ping("-q -i 0.01 -c 200 -W 1 100.96.1.0"));
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(200));
            let start = Instant::now();
            drop(here.take());
            let elapsed = start.elapsed();
            assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
            let next = here.insert(left.attach());
            next.set_table(&right.table());
            without += start.elapsed();
        }
        ping.join().unwrap().1
    });
    // Nobody receives for as long as that takes, which on a busy machine is what it takes to get
    // the processor again.
    let missed = without.as_millis() / 10;
    let answered = u128::from(answers(&text));
    assert!(answered > 0, "{text}");
    assert!(answered + missed >= 150, "{without:?}, {text}");
}

fn a_device_that_is_down_is_no_failure(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    let (here, _there) = (left.connect(&right), right.connect(&left));
    left.namespace.command("ip link set flannel0 down");
    let packet = udp_packet(right.base, left.base, 64, b"too early");
    let from = SocketAddrV4::new(right.public, PORT + 1);
    let stranger = right.namespace.run(move || UdpSocket::bind(from).unwrap());
    stranger.send_to(&packet, (left.public, PORT)).unwrap();
    counted(&here, "what the device refuses", |counters| {
        counters.device_errors == 1
    });
    left.namespace.command("ip link set flannel0 up");
    left.namespace
        .command("ip route add 100.96.0.0/16 dev flannel0 src 100.96.1.0");
    let (reached, text) = left.ping("-c 1 -W 5 100.96.2.0");
    assert!(reached, "{text}");
    assert_eq!(here.failure(), None);
}

fn a_deleted_device_is_a_failure(tuning: Tuning) {
    let Some((left, right)) = pair(tuning) else {
        return;
    };
    for table in [None, Some(right.table())] {
        let proxy = left.attach();
        left.configure();
        if let Some(table) = table {
            proxy.set_table(&table);
        }
        assert_eq!(proxy.failure(), None);
        left.namespace.command("ip link delete flannel0");
        eventually("the failure is known", || proxy.failure().is_some());
        let text = proxy.failure().unwrap();
        assert!(text.contains("flannel0 is gone"), "{text}");
        eventually("the threads have ended, so that none spins", || {
            proxy
                .threads
                .iter()
                .all(|thread| thread.handle.is_finished())
        });
    }
}
