//! The 25-hour outage, compressed: etcd is away for several times as long as leases live.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::VXLAN;
use crate::lease::short_lived;
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// The lease of a day lives for eight seconds here.
const OUTAGE: Duration = Duration::from_secs(16);

fn nothing_is_lost(begin: impl FnOnce(&mut Lab), end: impl FnOnce(&mut Lab), what: &str) {
    let Some(mut lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = short_lived(&lab, [1, 2, 3]);
    lab.wait_until_connected();
    let rows = nodes.each_ref().map(Node::rows);
    let leases = lab.leases().into_iter();
    let leases: Vec<_> = leases
        .map(|key| (lab.lease(&key).unwrap().value, key))
        .collect();
    let pings = [lab.ping(1, 2), lab.ping(2, 3), lab.ping(3, 1)];
    let said = nodes.each_ref().map(|node| node.log().lines().count());
    begin(&mut lab);
    let began = Instant::now();
    for node in &nodes {
        let alarm = "fault=lease-expired";
        until("the alarm", || node.log().contains(alarm));
    }
    eprintln!("{what}: the alarm was raised after {:.1?}", began.elapsed());
    thread::sleep(OUTAGE.saturating_sub(began.elapsed()));
    assert_eq!(nodes.each_ref().map(Node::rows), rows, "meanwhile");
    end(&mut lab);
    let began = Instant::now();
    until("all leases are back", || lab.leases().len() == 3);
    for node in &nodes {
        node.wait_for_status("2 of 2 peers, lease 0h00m, datastore ok");
    }
    eprintln!("{what}: all was right again after {:.1?}", began.elapsed());
    // beyond the time in which nobody is dropped
    thread::sleep(Duration::from_secs(18).saturating_sub(began.elapsed()));
    assert_eq!(nodes.each_ref().map(Node::rows), rows, "afterwards");
    for (value, key) in leases {
        assert_eq!(
            lab.lease(&key).map(|entry| entry.value),
            Some(value),
            "{key}"
        );
    }
    for (node, said) in nodes.iter().zip(said) {
        let log = node.log();
        let notable = log
            .lines()
            .skip(said)
            .filter(|line| !line.contains("lease renewed"));
        assert!(notable.count() < 20, "{log}");
    }
    for pings in pings {
        let tally = pings.finish();
        assert_eq!(tally.lost, [0; 0], "{what}: of {}", tally.sent);
    }
}

#[test]
fn an_etcd_frozen_for_longer_than_leases_live() {
    nothing_is_lost(
        |lab| lab.signal_etcd(Signal::SIGSTOP),
        |lab| lab.signal_etcd(Signal::SIGCONT),
        "frozen",
    );
}

#[test]
fn an_etcd_dead_for_longer_than_leases_live() {
    nothing_is_lost(Lab::kill_etcd, Lab::start_etcd, "dead");
}

/// Every lease runs out there, as nobody can renew.
#[test]
fn an_etcd_cut_off_for_longer_than_leases_live() {
    let router = |lab: &mut Lab, verb: &str| {
        lab.must("net", &format!("ip address {verb} 192.168.1.1/24 dev br1"));
    };
    nothing_is_lost(
        |lab| router(lab, "delete"),
        |lab| router(lab, "add"),
        "cut off",
    );
}
