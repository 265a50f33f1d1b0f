//! One real node among thousands of leases: how soon it is ready, what it asks of etcd, what it
//! takes of memory and processor, and how soon a change is in the kernel.
//!
//! In the lab's namespaces on a real etcd, with a simulated cluster. Machines differ, and a shared
//! one differs from minute to minute, so the figures that count are ratios within one run: to
//! `ip -batch` and `bridge -batch` with the same rows, which is the kernel's floor, and to
//! flanneld where `FLANNELD=PATH` names one. The same probe looks at both programs. Nothing here
//! fails for being slow; a kernel that does not hold what etcd says is a failure.
//!
//! `FLANNEL_RS_BENCH_PEERS` sets other numbers of leases than `1000,5000`;
//! `FLANNEL_RS_BENCH_CHURN` and `FLANNEL_RS_BENCH_IDLE` set how many seconds of churn and of rest
//! are measured.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark fails by panicking and prints its table"
)]

#[path = "scale/cluster.rs"]
mod cluster;
#[path = "scale/kernel.rs"]
mod kernel;
#[path = "scale/member.rs"]
mod member;
#[path = "scale/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Churn, Peer};
use kernel::{Rows, is_routed, set_up_by_hand, wait, wait_for};
use member::{Member, Program};
use report::{Figures, Report};
use support::lab::{Lab, Shape};

/// How often a start is measured.
const STARTS: usize = 3;
/// How often a change is measured.
const CHANGES: usize = 15;
/// Between two changes of the churn: 50 in a second.
const PACE: Duration = Duration::from_millis(20);
/// How long a program gets to come to rest.
const REST: Duration = Duration::from_secs(5);

fn main() {
    // `cargo test` runs benchmarks too, and passes no such argument
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let flanneld = std::env::var_os("FLANNELD").map(PathBuf::from);
    let peers = std::env::var("FLANNEL_RS_BENCH_PEERS");
    let peers = peers.unwrap_or_else(|_| "1000,5000".to_owned());
    let mut report = Report::default();
    for count in peers.split(',') {
        let count = count.trim().parse().expect("a number of leases");
        let Some(figures) = measure(count, flanneld.as_ref()) else {
            return;
        };
        println!("\n{figures}");
        report.0.push(figures);
    }
    println!("written to {}", report.write().display());
}

/// All figures for one number of leases; `None` where there can be no lab.
fn measure(count: usize, flanneld: Option<&PathBuf>) -> Option<Figures> {
    let mut lab = Lab::new(Shape::Flat)?;
    lab.start_etcd();
    lab.configure(r#"{"Network":"10.64.0.0/10","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#);
    let mut figures = Figures::of(count);
    let floor = |nexthops| median(STARTS, || set_up_by_hand(&lab, count, nexthops));
    figures.floor = floor(false);
    figures.nexthop_floor = floor(true);
    let flanneld = flanneld.cloned().map(Program::Flanneld);
    for program in [Some(Program::Ours), flanneld].into_iter().flatten() {
        // each finds the cluster as the one before did
        cluster::reset(&lab, count);
        let mut member = Member::new(&lab, program);
        starts(&mut member, &mut figures);
        member.start();
        at_rest(&member, &mut figures);
        changes(&member, count, &mut figures);
        churn(&member, count, &mut figures);
    }
    Some(figures)
}

fn starts(member: &mut Member<'_>, figures: &mut Figures) {
    let (mut ready, mut programmed) = (Vec::new(), Vec::new());
    let mut requests = Vec::new();
    for _ in 0..STARTS {
        member.clear();
        let started = member.start();
        ready.push(started.ready);
        programmed.push(started.programmed);
        requests.push(started.requests);
        expect_all_rows(member);
        member.kill();
    }
    let ours = member.is_ours();
    figures.ready.set(ours, milliseconds(middle(ready)));
    figures
        .programmed
        .set(ours, milliseconds(middle(programmed)));
    figures.requests.set(ours, middle(requests) as f64);
    let warm = median(STARTS, || {
        let ready = member.start().ready;
        member.kill();
        ready
    });
    figures.warm.set(ours, milliseconds(warm));
    member.clear();
}

/// A program that has just started, once nothing happens any more.
fn at_rest(member: &Member<'_>, figures: &mut Figures) {
    thread::sleep(REST);
    let length = seconds("FLANNEL_RS_BENCH_IDLE", 20);
    let (begun, before) = (Instant::now(), member.cpu());
    thread::sleep(length);
    let used = member.cpu() - before;
    let ours = member.is_ours();
    let share = used.as_secs_f64() / begun.elapsed().as_secs_f64();
    figures.idle.set(ours, share * 100.0);
    figures.settled.set(ours, member.memory("VmRSS"));
    figures.peak.set(ours, member.memory("VmHWM"));
}

/// One change at a time, as it is in a quiet cluster, until the kernel has it.
fn changes(member: &Member<'_>, count: usize, figures: &mut Figures) {
    let (mut join, mut leave, mut moving) = (Vec::new(), Vec::new(), Vec::new());
    let quiet = || thread::sleep(Duration::from_millis(500));
    for round in 1..=CHANGES {
        let newcomer = Peer::new(count + round);
        quiet();
        join.push(member.inside(async |mut others| {
            assert!(!is_routed(newcomer.base()), "{newcomer:?} is there already");
            let begun = Instant::now();
            others.put(newcomer).await;
            wait("a new peer has a route", || is_routed(newcomer.base()));
            begun.elapsed()
        }));
        quiet();
        moving.push(member.inside(async |mut others| {
            let moved = newcomer.moved();
            let mut rows = Rows::open();
            rows.wait_until_sent_to(newcomer).await;
            let begun = Instant::now();
            others.put(moved).await;
            rows.wait_until_sent_to(moved).await;
            begun.elapsed()
        }));
        quiet();
        leave.push(member.inside(async |mut others| {
            let begun = Instant::now();
            others.delete(newcomer).await;
            wait("a peer that left has no route", || {
                !is_routed(newcomer.base())
            });
            begun.elapsed()
        }));
    }
    let ours = member.is_ours();
    figures.join.set(ours, milliseconds(middle(join)));
    figures.moving.set(ours, milliseconds(middle(moving)));
    figures.leave.set(ours, milliseconds(middle(leave)));
}

/// The cluster at 50 changes a second. What it costs is scaled to an hour at that pace.
fn churn(member: &Member<'_>, count: usize, figures: &mut Figures) {
    let length = seconds("FLANNEL_RS_BENCH_CHURN", 30);
    let before = member.cpu();
    let (churned, lag) = member.inside(async |mut others| {
        let churned = Churn::of(count).run(&mut others, PACE, length).await;
        let base = churned.last.base();
        (churned, wait_for(REST, || is_routed(base)))
    });
    let used = (member.cpu() - before).as_secs_f64();
    let ours = member.is_ours();
    figures.changes = churned.changes;
    let hour = 3600.0 / churned.took.as_secs_f64();
    figures.churn.set(ours, used * hour);
    // flanneld may have missed it: it throws away what comes with another change
    assert!(!ours || lag.is_some(), "the last change has not come");
    figures
        .lag
        .set(ours, lag.map_or(f64::INFINITY, milliseconds));
    figures.churned_peak.set(ours, member.memory("VmHWM"));
    if ours {
        expect_all_rows(member);
    } else {
        thread::sleep(REST);
    }
    let (missing, stale) = member.difference();
    figures.missing.set(ours, missing as f64);
    figures.stale.set(ours, stale as f64);
}

/// The kernel must come to hold just what etcd says, and does so without help.
fn expect_all_rows(member: &Member<'_>) {
    let mut left = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        left = member.difference();
        if left == (0, 0) {
            return;
        }
        thread::sleep(Duration::from_millis(200));
    }
    let (missing, stale) = left;
    panic!(
        "{} lacks {missing} rows and has {stale} too many",
        member.name
    );
}

fn seconds(variable: &str, default: u64) -> Duration {
    let text = std::env::var(variable).ok();
    Duration::from_secs(text.map_or(default, |text| text.parse().expect("seconds")))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median<T: Ord + Copy>(rounds: usize, mut measure: impl FnMut() -> T) -> T {
    middle((0..rounds).map(|_| measure()).collect())
}

fn middle<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}
