//! Another process keeps undoing what the service does.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use super::{outage, whole, within};
use crate::VXLAN;
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::{end, inside, until};

/// How long after the end of a fight all is right and no fault is left.
const PEACE: Duration = Duration::from_secs(27);
/// How long a fight is watched.
const FIGHT: Duration = Duration::from_secs(10);

/// Takes away node2's route every 50 ms.
const ONE_ROW: &str = "while :; do ip route delete 100.96.2.0/24 2>/dev/null; sleep 0.05; done";
/// As fast as it can.
const NO_PAUSE: &str = "while :; do printf 'route delete 100.96.2.0/24\\n%.0s' $(seq 50) \
                        | ip -force -batch - 2>/dev/null; done";

#[test]
fn a_fight_over_one_row_is_told_and_slows_down() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    let pings = lab.ping(1, 3);
    let fight = Fight::start(&lab, &[ONE_ROW]);
    let began = Instant::now();
    let line = node.wait_for_status("contested: somebody else keeps undoing");
    within(
        Duration::from_secs(3),
        began.elapsed(),
        &format!("told: {line}"),
    );
    assert!(line.contains("route 100.96.2.0/24"), "{line}");
    let (repairs, lines) = fight.watched(node, "100.96.2.0/24");
    assert!(repairs <= 15, "{repairs} repairs");
    assert!(lines <= 8, "{lines} lines:\n{}", node.log());
    let tally = pings.finish();
    eprintln!("other peers: {}", outage(&tally, began.elapsed()));
    assert!(tally.lost.len() < tally.sent as usize / 100, "{tally:?}");
    // a fault elsewhere is put right meanwhile, if more slowly
    node.must("ip route delete 100.96.3.0/24");
    let took = node.wait_for("ip route", "100.96.3.0/24 ");
    within(Duration::from_secs(6), took, "another row during the fight");
    peace(&lab, node, fight, &before);
}

#[test]
fn a_fight_without_a_pause_is_told_and_slows_down() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    let pings = lab.ping(1, 3);
    let fight = Fight::start(&lab, &[NO_PAUSE]);
    let line = node.wait_for_status("contested: somebody else keeps undoing");
    assert!(line.contains("route 100.96.2.0/24"), "{line}");
    let (repairs, lines) = fight.watched(node, "100.96.2.0/24");
    assert!(repairs <= 30, "{repairs} repairs");
    assert!(lines <= 8, "{lines} lines:\n{}", node.log());
    let tally = pings.finish();
    assert!(tally.lost.len() < tally.sent as usize / 50, "{tally:?}");
    peace(&lab, node, fight, &before);
}

#[test]
fn fighters_that_take_turns_are_told_and_slow_it_down() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    let fighter = |row: &str, first: &str| {
        format!("sleep {first}; while :; do ip route delete {row} 2>/dev/null; sleep 0.8; done")
    };
    let (one, other) = (
        fighter("100.96.2.0/24", "0"),
        fighter("100.96.3.0/24", "0.4"),
    );
    let fight = Fight::start(&lab, &[&one, &other]);
    let line = node.wait_for_status("contested: somebody else keeps undoing");
    eprintln!("told: {line}");
    let (repairs, lines) = fight.watched(node, "100.96.");
    assert!(repairs <= 30, "{repairs} repairs");
    assert!(lines <= 8, "{lines} lines:\n{}", node.log());
    peace(&lab, node, fight, &before);
}

/// All is right again after the fighters are gone, and what is told as well.
fn peace(lab: &Lab, node: &Node, fight: Fight, before: &str) {
    drop(fight);
    let began = Instant::now();
    until("all is as before", || whole(node) == before);
    within(
        Duration::from_secs(6),
        began.elapsed(),
        "after the fight, all in place",
    );
    lab.wait_until_connected();
    node.wait_for_status("datastore ok");
    within(PEACE, began.elapsed(), "after the fight, no fault left");
}

/// Shell commands that run on node1 until this is dropped, and a record of its routes.
struct Fight {
    fighters: Vec<Child>,
    monitor: Option<Child>,
    record: PathBuf,
}

impl Fight {
    fn start(lab: &Lab, scripts: &[&str]) -> Self {
        let namespace = lab.namespace("node1");
        let record = lab.folder().join("routes");
        let mut monitor = inside(&namespace, "ip");
        monitor
            .args(["monitor", "route"])
            .stdout(File::create(&record).unwrap());
        let monitor = Some(monitor.spawn().unwrap());
        thread::sleep(Duration::from_millis(200));
        let fighter = |script: &&str| {
            inside(&namespace, "sh")
                .args(["-c", script])
                .spawn()
                .unwrap()
        };
        Self {
            fighters: scripts.iter().map(fighter).collect(),
            monitor,
            record,
        }
    }

    /// How often routes to there were put back in a while, and how many lines were logged.
    fn watched(&self, node: &Node, to: &str) -> (usize, usize) {
        let seen = || {
            let record = fs::read_to_string(&self.record).unwrap();
            let repairs = record.lines().filter(|line| line.starts_with(to)).count();
            (repairs, node.log().lines().count())
        };
        let (repairs, lines) = seen();
        thread::sleep(FIGHT);
        let (more_repairs, more_lines) = seen();
        let counts = (more_repairs - repairs, more_lines - lines);
        eprintln!(
            "in {FIGHT:?} of the fight: {} repairs, {} lines logged",
            counts.0, counts.1
        );
        assert!(counts.0 > 0, "nothing was repaired any more");
        counts
    }
}

impl Drop for Fight {
    fn drop(&mut self) {
        for fighter in self.fighters.drain(..) {
            end(Some(fighter));
        }
        end(self.monitor.take());
    }
}
