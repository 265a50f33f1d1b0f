//! Everything at once for `SOAK_SECONDS`, a short while by default: streams, datagrams, pings and
//! short connections, while peers join and leave and a node's service stops and starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::cluster::{Cluster, Pair, Way};
use crate::datagrams::{Datagrams, Heard, Volley};
use crate::stream::{Load, Moved, Stream};
use crate::support::lab::Shape;
use crate::support::node::Node;
use crate::support::process::{inside, pid};

/// The longest pause that a transfer between nodes that stay may have.
const STALL: Duration = Duration::from_secs(5);
/// The same with the node whose service stops and starts: while there is none, senders double
/// their timers.
const OUTAGE: Duration = Duration::from_secs(15);
/// How much more memory a service may use in the last quarter than in the second.
const GROWTH: u64 = 4 << 20;
/// How often samples are taken.
const BEAT: Duration = Duration::from_secs(1);

fn length() -> Duration {
    let seconds = std::env::var("SOAK_SECONDS").map(|text| text.parse().expect("SOAK_SECONDS"));
    Duration::from_secs(seconds.unwrap_or(20))
}

/// What moves all the time.
struct Traffic {
    over: Arc<AtomicBool>,
    bulk: Vec<Stream>,
    with_outages: Vec<Stream>,
    datagrams: Vec<Datagrams>,
    short: Vec<JoinHandle<Vec<Moved>>>,
    ping: Child,
}

/// What became of it.
#[derive(Debug, Default)]
struct Outcome {
    bytes: u64,
    transfers: usize,
    longest_pause: Duration,
    longest_outage: Duration,
    sent: u32,
    received: u32,
}

impl Traffic {
    fn start(cluster: &Cluster) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let pair = |(from, to): (u32, u32)| cluster.pair(from, to);
        let paced = Load {
            pause: Duration::from_millis(10),
            ..Load::until(&over)
        };
        let bulk = |pairs: [(u32, u32); 2]| {
            let streams = pairs.map(|numbers| Stream::start(&pair(numbers), paced.clone()));
            streams.into()
        };
        let datagrams = [(1, 2), (2, 1)]
            .map(pair)
            .map(|pair| Datagrams::start(&pair, Volley::of(&[64, 100, 200, 512], &over)));
        let short = [((1, 2), 4096), ((2, 1), 1), ((1, 2), 300_000)]
            .map(|(numbers, bytes)| one_after_the_other(pair(numbers), bytes, &over));
        let mut ping = inside(&cluster.container(1), "ping");
        let output = fs::File::create(cluster.lab.folder().join("pings")).unwrap();
        ping.args(["-n", "-q", "-i", "0.1", "100.96.2.2"])
            .stdout(output);
        Self {
            over,
            bulk: bulk([(1, 2), (2, 1)]),
            with_outages: bulk([(1, 3), (3, 2)]),
            datagrams: datagrams.into(),
            short: short.into(),
            ping: ping.spawn().unwrap(),
        }
    }

    fn finish(mut self) -> Outcome {
        self.over.store(true, Ordering::Relaxed);
        let mut outcome = Outcome::default();
        let short = (self.short.into_iter()).flat_map(|running| running.join().unwrap());
        for moved in short.chain(self.bulk.into_iter().map(Stream::finish)) {
            outcome.bytes += moved.bytes;
            outcome.transfers += 1;
            outcome.longest_pause = outcome.longest_pause.max(moved.longest_pause);
        }
        for moved in self.with_outages.into_iter().map(Stream::finish) {
            outcome.bytes += moved.bytes;
            outcome.longest_outage = outcome.longest_outage.max(moved.longest_pause);
        }
        for Heard { sent, received, .. } in self.datagrams.into_iter().map(Datagrams::finish) {
            outcome.sent += sent;
            outcome.received += received;
        }
        kill(pid(&self.ping), Signal::SIGINT).unwrap();
        self.ping.wait().unwrap();
        outcome
    }
}

/// Connections that carry so many bytes each.
fn one_after_the_other(pair: Pair, bytes: u64, over: &Arc<AtomicBool>) -> JoinHandle<Vec<Moved>> {
    let over = Arc::clone(over);
    thread::spawn(move || {
        let mut moved = Vec::new();
        while !over.load(Ordering::Relaxed) {
            moved.push(Stream::start(&pair, Load::bytes(bytes)).finish());
            thread::sleep(Duration::from_millis(100));
        }
        moved
    })
}

/// What a service has at a moment.
#[derive(Debug, Clone)]
struct Sample {
    memory: u64,
    files: usize,
    /// The names of the threads that move packets, each with how often there is one.
    threads: BTreeMap<String, usize>,
}

impl Sample {
    fn of(node: &Node) -> Self {
        let process = format!("/proc/{}", node.process());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.unwrap().trim().trim_end_matches(" kB");
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("{process}/task")).unwrap() {
            // a thread of the runtime may be gone by now
            let name = fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default();
            if name.starts_with("proxy-") {
                *threads.entry(name.trim_end().to_owned()).or_default() += 1;
            }
        }
        Self {
            memory: memory.parse::<u64>().unwrap() << 10,
            files: fs::read_dir(format!("{process}/fd")).unwrap().count(),
            threads,
        }
    }
}

/// One of the two nodes that run all the time.
#[derive(Default)]
struct Watch {
    samples: Vec<Sample>,
    counters: Vec<BTreeMap<String, u64>>,
}

impl Watch {
    fn look(&mut self, node: &Node, on_bus: bool) {
        self.samples.push(Sample::of(node));
        if on_bus && self.samples.len() % 5 == 1 {
            let status = node.status();
            let traffic = status["traffic"]
                .as_object()
                .expect("traffic in the status");
            let counters = traffic
                .iter()
                .map(|(name, value)| (name.clone(), value.as_u64().unwrap()));
            self.counters.push(counters.collect());
        }
    }

    /// The means of the memory in the second quarter and in the last.
    fn memory(&self) -> (u64, u64) {
        let quarter = self.samples.len() / 4;
        let mean = |samples: &[Sample]| {
            samples.iter().map(|sample| sample.memory).sum::<u64>() / samples.len() as u64
        };
        (
            mean(&self.samples[quarter..2 * quarter]),
            mean(&self.samples[3 * quarter..]),
        )
    }

    fn is_steady(&self, number: u32) {
        let (early, late) = self.memory();
        let last = self.samples.last().unwrap();
        eprintln!(
            "node{number}: {} kB, then {} kB; {} files; {:?}; {:?}",
            early >> 10,
            late >> 10,
            last.files,
            last.threads,
            self.counters.last()
        );
        assert!(late < early + GROWTH, "{:#?}", self.samples);
        let settled = &self.samples[self.samples.len() / 4..];
        let files: BTreeSet<usize> = settled.iter().map(|sample| sample.files).collect();
        // a connection to etcd or to the bus comes and goes
        let spread = files.last().unwrap() - files.first().unwrap();
        assert!(spread <= 4, "files: {files:?}");
        for sample in &self.samples {
            assert_eq!(sample.threads, last.threads);
        }
        for (before, after) in self.counters.iter().zip(self.counters.iter().skip(1)) {
            for (name, count) in before {
                assert!(after[name] >= *count, "{name}: {before:?}, then {after:?}");
            }
            for name in ["sent_packets", "received_packets"] {
                assert!(after[name] > before[name], "{name}: {before:?}, {after:?}");
            }
        }
    }
}

/// Peers join and leave, one of them a real node.
fn change(cluster: &mut Cluster, round: u32) {
    let foreign = |number: u32| format!("100.96.{}.0-24", 50 + number % 40);
    let address = format!("192.168.1.{}", 100 + round % 40);
    let value = format!(r#"{{"PublicIP":"{address}","PublicIPv6":null,"BackendType":"udp"}}"#);
    cluster.lab.write_lease(&foreign(round), &value, false);
    if round >= 3 {
        cluster.lab.delete_lease(&foreign(round - 3));
    }
    if round % 4 == 2 {
        match round % 8 {
            2 => assert_eq!(cluster.nodes[2].stop(), Some(0)),
            _ => cluster.nodes[2].kill(),
        }
        cluster.nodes[2].start();
        cluster.nodes[2].wait_until_ready();
    }
}

#[test]
fn soak() {
    let Some(mut cluster) = Cluster::start(Shape::Flat, [Way::Offloads, Way::Offloads, Way::Plain])
    else {
        return;
    };
    let mut on_bus = true;
    for node in &mut cluster.nodes[..2] {
        on_bus &= node.start_bus();
        assert_eq!(node.stop(), Some(0));
        node.start();
        node.wait_until_ready();
    }
    cluster.lab.wait_until_connected();
    let traffic = Traffic::start(&cluster);
    let (began, mut round) = (Instant::now(), 0);
    let mut watches = [Watch::default(), Watch::default()];
    while began.elapsed() < length() {
        for (watch, node) in watches.iter_mut().zip(&cluster.nodes) {
            watch.look(node, on_bus);
        }
        change(&mut cluster, round);
        round += 1;
        thread::sleep(BEAT);
    }
    let outcome = traffic.finish();
    eprintln!("{:?}, {round} rounds: {outcome:?}", began.elapsed());
    eprintln!(
        "{}",
        fs::read_to_string(cluster.lab.folder().join("pings")).unwrap()
    );
    for (watch, number) in watches.iter().zip(1..) {
        watch.is_steady(number);
    }
    assert!(outcome.longest_pause < STALL, "{outcome:?}");
    assert!(outcome.longest_outage < OUTAGE, "{outcome:?}");
    assert!(
        outcome.transfers > 20 && outcome.bytes > 8 << 20,
        "{outcome:?}"
    );
    assert!(outcome.received > outcome.sent / 2, "{outcome:?}");
    cluster.nodes[0].wait_for_status("datastore ok");
}
