//! How fast the data plane is: each backend between two containers of a three-node lab, beside
//! the others and beside flanneld's.
//!
//! In the lab's namespaces on a real etcd. All contestants stand ready in labs of their own and
//! take turns: of each measurement one short run each, then all again. Machines differ, and a
//! shared one differs from minute to minute, so the figures that count are ratios within one run.
//! Nothing here fails for being slow; data that arrive other than they were sent do.
//!
//! `FLANNELD=PATH` names a flanneld that takes part with its backends.
//! `FLANNEL_RS_BENCH_SECONDS` is the length of one run, `FLANNEL_RS_BENCH_ROUNDS` how many there
//! are of each, `FLANNEL_RS_BENCH_ONLY=udp,vxlan` who takes part. `FLANNEL_RS_BENCH_WIRE=cut` has
//! packets cross between the nodes as on a cable.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking and prints its table"
)]

#[path = "dataplane/chart.rs"]
mod chart;
#[path = "dataplane/contestant.rs"]
mod contestant;
#[path = "dataplane/echo.rs"]
mod echo;
#[path = "dataplane/flood.rs"]
mod flood;
#[path = "dataplane/goals.rs"]
mod goals;
#[path = "dataplane/machine.rs"]
mod machine;
#[path = "dataplane/measure.rs"]
mod measure;
#[path = "dataplane/pattern.rs"]
mod pattern;
#[path = "dataplane/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "dataplane/tcp.rs"]
mod tcp;
#[path = "dataplane/window.rs"]
mod window;

use std::ffi::OsStr;
use std::thread;
use std::time::{Duration, Instant};

use contestant::{Container, Contestant, Entry, Wire};
use echo::RoundTrips;
use flood::Flood;
use measure::{Figures, Measure, number};
use pattern::Check;
use report::Report;
use tcp::{Stream, carry};
use window::Window;

/// A machine that is busy with other things for more than this share of one processor does not
/// tell what the traffic costs.
const UNREST: f64 = 0.25;
/// Between two runs, for what is still on its way.
const PAUSE: Duration = Duration::from_millis(50);

fn main() {
    // `cargo test` runs benchmarks too, and passes no such argument
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let begun = Instant::now();
    let length = Duration::from_secs_f64(variable("FLANNEL_RS_BENCH_SECONDS", 0.8));
    let rounds = variable("FLANNEL_RS_BENCH_ROUNDS", 3);
    let wire = wire();
    let Some(contestants) = start_all(wire) else {
        return;
    };
    let mut bench = Bench {
        contestants,
        length,
        figures: Figures::default(),
        rest: Vec::new(),
    };
    bench.check();
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        bench.round();
    }
    bench.check();
    let report = Report {
        wire,
        length,
        rounds,
        figures: bench.figures,
        rest: bench.rest,
    };
    println!("\n{report}");
    let [json, drawing] = report.write();
    println!(
        "\nin {} s, written to {} and {}",
        begun.elapsed().as_secs(),
        json.display(),
        drawing.display()
    );
}

fn wire() -> Wire {
    match std::env::var("FLANNEL_RS_BENCH_WIRE").as_deref() {
        Err(_) | Ok("whole") => Wire::Whole,
        Ok("cut") => Wire::Cut,
        Ok(other) => panic!("FLANNEL_RS_BENCH_WIRE={other}: expected whole or cut"),
    }
}

/// All who take part, connected; `None`, with a message, where there can be no lab.
fn start_all(wire: Wire) -> Option<Vec<Contestant>> {
    let flanneld = std::env::var_os("FLANNELD").filter(|path| !path.is_empty());
    let entries = entries(flanneld.as_deref());
    support::lab::make_room(u32::try_from(entries.len()).unwrap());
    let start = |entry: Entry| {
        let contestant = Contestant::start(entry, wire, flanneld.as_deref())?;
        println!("{} is there, MTU {}", entry.key(), contestant.mtu());
        Some(contestant)
    };
    entries.into_iter().map(start).collect()
}

fn entries(flanneld: Option<&OsStr>) -> Vec<Entry> {
    let only = std::env::var("FLANNEL_RS_BENCH_ONLY").ok();
    let chosen = |entry: &Entry| {
        let named = |only: &String| only.split(',').any(|key| key.trim() == entry.key());
        (flanneld.is_some() || !entry.is_flanneld()) && only.as_ref().is_none_or(named)
    };
    let entries: Vec<Entry> = Entry::ALL.into_iter().filter(chosen).collect();
    let keys = contestant::keys();
    assert!(!entries.is_empty(), "nobody takes part; there are {keys}");
    entries
}

struct Bench {
    contestants: Vec<Contestant>,
    /// Of one run.
    length: Duration,
    figures: Figures,
    rest: Vec<f64>,
}

impl Bench {
    /// Every byte of some streams both ways is compared.
    fn check(&self) {
        for contestant in &self.contestants {
            let ends = [Container::First, Container::Second];
            let streams = ends.map(|from| Stream::open(contestant, from)).into();
            let carried = carry(streams, Window::soon(self.length), Check::Whole);
            assert!(carried.bytes > 0, "{} is stuck", contestant.entry.key());
        }
    }

    /// Measures everything once. Whoever was first is last in the next round.
    fn round(&mut self) {
        self.processor();
        for (measure, streams) in [
            (Measure::TcpFour, [Container::First; 4].as_slice()),
            (Measure::TcpBoth, &[Container::First, Container::Second]),
        ] {
            self.each(|contestant, length| {
                let gigabits = transfer(contestant, streams, length).gigabits();
                vec![(measure, gigabits)]
            });
        }
        self.floods();
        self.round_trips();
        self.contestants.rotate_left(1);
    }

    /// One stream, and what the whole machine used for it beyond what it uses anyway.
    fn processor(&mut self) {
        let mut rest = 0.0_f64;
        self.each(|contestant, length| {
            let idle = Window::now(length);
            let baseline = idle.busy();
            rest = rest.max(baseline / idle.seconds());
            let carried = transfer(contestant, &[Container::First], length);
            let mut figures = vec![(Measure::TcpOne, carried.gigabits())];
            if baseline / idle.seconds() <= UNREST {
                let used = (carried.busy - baseline).max(0.0);
                figures.push((Measure::Processor, used / carried.gigabytes()));
            }
            figures
        });
        self.rest.push(rest);
    }

    fn floods(&mut self) {
        for (size, flows, delivered, offered) in [
            (64, 1, Measure::Small, Measure::SmallOffered),
            (64, 4, Measure::SmallFour, Measure::SmallFourOffered),
            (512, 1, Measure::Middle, Measure::MiddleOffered),
            (1400, 1, Measure::Large, Measure::LargeOffered),
        ] {
            self.each(|contestant, length| {
                let pace = Flood { size, flows }.run(contestant, length);
                vec![
                    (delivered, pace.delivered / 1000.0),
                    (offered, pace.offered / 1000.0),
                ]
            });
        }
    }

    fn round_trips(&mut self) {
        self.each(|contestant, length| {
            let trips = RoundTrips::run(contestant, Window::soon(length));
            vec![
                (Measure::IdleMedian, trips.quantile(0.5)),
                (Measure::IdleTail, trips.quantile(0.99)),
            ]
        });
        self.each(|contestant, length| {
            let stream = Stream::open(contestant, Container::First);
            let window = Window::soon(length);
            let trips = thread::scope(|scope| {
                scope.spawn(|| carry(vec![stream], window, Check::Ends));
                RoundTrips::run(contestant, window)
            });
            vec![
                (Measure::LoadedMedian, trips.quantile(0.5)),
                (Measure::LoadedTail, trips.quantile(0.99)),
            ]
        });
    }

    /// Has each contestant measured in turn.
    fn each(&mut self, mut run: impl FnMut(&Contestant, Duration) -> Vec<(Measure, f64)>) {
        for contestant in &self.contestants {
            for (measure, value) in run(contestant, self.length) {
                let (entry, title) = (contestant.entry, measure.title());
                let (key, value_text) = (entry.key(), number(value));
                println!("  {title:<28}{key:<18}{value_text:>8} {}", measure.unit());
                self.figures.add(entry, measure, value);
            }
            thread::sleep(PAUSE);
        }
    }
}

fn transfer(contestant: &Contestant, from: &[Container], length: Duration) -> tcp::Carried {
    let open = |from: &Container| Stream::open(contestant, *from);
    let streams = from.iter().map(open).collect();
    carry(streams, Window::soon(length), Check::Ends)
}

/// A number that an environment variable sets.
fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    let number = text.parse().ok();
    number.unwrap_or_else(|| panic!("{name}={text}: expected a number"))
}
