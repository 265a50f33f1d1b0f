//! More happens than the service can take in, or it takes in nothing at all for a while.

use std::fmt::Write;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{BOUND, outage, process, start_with_bus, whole, within};
use crate::VXLAN;
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

const ROWS: u32 = 4000;

/// Foreign rows, added and removed again.
fn flood(lab: &Lab, node: &Node, row: fn(u32) -> String) -> String {
    let mut batch = String::new();
    for verb in ["replace", "delete"] {
        for number in 0..ROWS {
            writeln!(batch, "{}", row(number).replace("VERB", verb)).unwrap();
        }
    }
    let file = lab.folder().join(format!("batch{}", node.number));
    fs::write(&file, batch).unwrap();
    format!("ip -force -batch {}", file.display())
}

fn neighbour(number: u32) -> String {
    let (high, low) = (number / 250, number % 250 + 1);
    format!("neighbour VERB 10.9.{high}.{low} lladdr 02:00:00:00:00:09 dev foreign0 nud permanent")
}

fn route(number: u32) -> String {
    let (high, low) = (number / 250, number % 250 + 1);
    format!("route VERB 10.{high}.{low}.0/24 dev foreign0 proto static")
}

const FOREIGN: &str = "ip link add foreign0 type veth peer name foreign1
    ip link set foreign1 up; ip link set foreign0 up";

#[test]
fn a_flood_of_foreign_changes_hides_nothing_and_costs_little() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = start_with_bus(&lab);
    let node = &nodes[0];
    node.must(FOREIGN);
    let before = whole(node);
    let lines = node.log().lines().count();
    let scripts = [flood(&lab, node, neighbour), flood(&lab, node, route)];
    for script in scripts {
        let pid = process(&lab, node);
        let (cpu, began) = (cpu_time(pid), Instant::now());
        let took = thread::scope(|scope| {
            let flooding = scope.spawn(|| node.must(&script));
            thread::sleep(Duration::from_millis(50));
            node.must("ip route delete 100.96.2.0/24");
            let took = node.wait_for("ip route show 100.96.2.0/24", "via 100.96.2.0 ");
            assert_eq!(node.status()["state"], "running", "it answers");
            flooding.join().unwrap();
            took
        });
        within(BOUND, took, "during a flood: a route put back");
        let (used, passed) = (cpu_time(pid) - cpu, began.elapsed());
        eprintln!("a flood of {passed:.0?} took the service {used:.0?} of processor time");
        assert!(
            used < passed / 2 + Duration::from_millis(300),
            "{used:?} in {passed:?}"
        );
        until("all is as before", || whole(node) == before);
    }
    let lines = node.log().lines().count() - lines;
    assert!(lines < 10, "{lines} lines:\n{}", node.log());
    node.wait_for_status("datastore ok");
}

/// The buffer of notifications runs over while the service cannot read: what got lost is found.
#[test]
fn notifications_that_were_dropped_are_made_up_for() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    node.must(FOREIGN);
    let before = whole(node);
    let script = flood(&lab, node, neighbour);
    // the kernel's count of drops by sockets of rtnetlink (protocol 0) of this namespace
    let drops = || {
        let table = node.must("cat /proc/net/netlink");
        let words = table.lines().skip(1).map(|line| line.split_whitespace());
        let of_route = words.filter_map(|words| {
            let words: Vec<&str> = words.collect();
            (words[1] == "0").then(|| words[8].parse::<u64>().unwrap())
        });
        of_route.sum::<u64>()
    };
    let dropped = drops();
    node.signal(Signal::SIGSTOP);
    node.must(&script);
    node.must("ip link delete flannel.1; ip address flush dev docker0");
    node.signal(Signal::SIGCONT);
    let took = until("all is as before", || whole(node) == before);
    assert!(drops() > dropped, "nothing was dropped");
    within(BOUND, took, "after lost notifications");
    lab.wait_until_connected();
    node.wait_for_status("datastore ok");
}

#[test]
fn a_service_that_was_stopped_makes_up_for_it() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    let pings = lab.ping(2, 3);
    let began = Instant::now();
    node.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(10));
    node.must(
        "ip route flush proto 96; ip neighbour flush dev flannel.1 nud permanent
         ip address flush dev docker0; ip link delete flannel.1",
    );
    thread::sleep(Duration::from_secs(10));
    node.signal(Signal::SIGCONT);
    let took = until("all is as before", || whole(node) == before);
    within(BOUND, took, "after a stop of 20 s");
    let tally = pings.finish();
    eprintln!("others meanwhile: {}", outage(&tally, began.elapsed()));
    lab.wait_until_connected();
    let line = node.wait_for_status("datastore ok");
    assert!(line.contains("2 of 2 peers"), "{line}");
}

/// The processor time of a process; the kernel counts in hundredths of a second.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let words: Vec<u64> = rest
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    // of the fields that are numbers, utime and stime are 11th and 12th after the state
    Duration::from_millis(10 * (words[10] + words[11]))
}
