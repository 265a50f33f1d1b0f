//! The figures, as a table for people and as JSON for scripts.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// One figure, for this service and for flanneld.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pair {
    ours: f64,
    flanneld: Option<f64>,
}

impl Pair {
    pub(crate) fn set(&mut self, ours: bool, value: f64) {
        if ours {
            self.ours = value;
        } else {
            self.flanneld = Some(value);
        }
    }
}

/// All figures for one number of leases.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    count: usize,
    /// The rows of all peers by hand, with plain routes and with nexthop objects.
    pub(crate) floor: Duration,
    pub(crate) nexthop_floor: Duration,
    /// Times in milliseconds.
    pub(crate) ready: Pair,
    pub(crate) programmed: Pair,
    pub(crate) warm: Pair,
    pub(crate) requests: Pair,
    /// Memory in MiB.
    pub(crate) peak: Pair,
    pub(crate) settled: Pair,
    pub(crate) churned_peak: Pair,
    pub(crate) join: Pair,
    pub(crate) moving: Pair,
    pub(crate) leave: Pair,
    /// How many changes the churn had, and what an hour of it takes in seconds of processor time.
    pub(crate) changes: u32,
    pub(crate) churn: Pair,
    pub(crate) lag: Pair,
    /// Rows in the kernel after the churn, compared to what etcd says.
    pub(crate) missing: Pair,
    pub(crate) stale: Pair,
    /// In percent of one processor.
    pub(crate) idle: Pair,
}

/// A line of the table: its name in JSON, its text, its unit, its goal and its figures.
struct Line(&'static str, &'static str, &'static str, &'static str, Pair);

impl Figures {
    pub(crate) fn of(count: usize) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        self.of_the_start().into_iter().chain(self.of_changes())
    }

    fn of_the_start(&self) -> [Line; 7] {
        [
            Line(
                "ready_fresh",
                "start to READY=1, nothing there",
                "ms",
                "",
                self.ready,
            ),
            Line(
                "programmed_fresh",
                "start to all peers programmed",
                "ms",
                "a fifth at 5,000",
                self.programmed,
            ),
            Line(
                "ready_warm",
                "start to READY=1, all rows there",
                "ms",
                "",
                self.warm,
            ),
            Line(
                "requests",
                "requests to etcd until then",
                "",
                "at most 12",
                self.requests,
            ),
            Line(
                "memory_peak_start",
                "peak memory until at rest",
                "MiB",
                "a third",
                self.peak,
            ),
            Line(
                "memory_settled",
                "memory at rest",
                "MiB",
                "a third",
                self.settled,
            ),
            Line("idle", "processor at rest", "%", "under 0.1", self.idle),
        ]
    }

    fn of_changes(&self) -> [Line; 8] {
        [
            Line(
                "change_join",
                "a new lease until its route",
                "ms",
                "under 50",
                self.join,
            ),
            Line(
                "change_move",
                "a new public IP until its FDB entry",
                "ms",
                "under 50",
                self.moving,
            ),
            Line(
                "change_leave",
                "a deleted lease until its route is gone",
                "ms",
                "under 50",
                self.leave,
            ),
            Line(
                "churn_cpu_hour",
                "processor for an hour of churn",
                "s",
                "",
                self.churn,
            ),
            Line(
                "churn_lag",
                "the last change of the churn until its route",
                "ms",
                "",
                self.lag,
            ),
            Line(
                "memory_peak_churn",
                "peak memory after the churn",
                "MiB",
                "a third",
                self.churned_peak,
            ),
            Line(
                "churn_missing",
                "rows that are missing then",
                "",
                "0",
                self.missing,
            ),
            Line(
                "churn_stale",
                "rows that should not be there then",
                "",
                "0",
                self.stale,
            ),
        ]
    }

    fn json(&self) -> Value {
        let figure = |line: Line| {
            let Line(name, _, unit, _, pair) = line;
            let value = json!({"unit": unit, "ours": pair.ours, "flanneld": pair.flanneld});
            (name.to_owned(), value)
        };
        let mut figures: Map<String, Value> = self.lines().map(figure).collect();
        let floor = json!({"unit": "ms", "plain": milliseconds(self.floor),
            "nexthops": milliseconds(self.nexthop_floor)});
        figures.insert("floor".to_owned(), floor);
        json!({"leases": self.count, "churn_changes": self.changes, "figures": figures})
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count;
        writeln!(
            f,
            "{count} leases in etcd, vxlan; {} changes of churn",
            self.changes
        )?;
        writeln!(
            f,
            "{:<52}{:>10}{:>10}{:>8}  goal",
            "", "ours", "flanneld", "ratio"
        )?;
        for Line(_, what, unit, goal, pair) in self.lines() {
            let what = if unit.is_empty() {
                what.to_owned()
            } else {
                format!("{what}, {unit}")
            };
            write!(f, "{what:<52}{:>10}", number(pair.ours))?;
            match pair.flanneld {
                Some(theirs) if pair.ours > 0.0 && theirs.is_finite() => {
                    write!(f, "{:>10}{:>8.1}", number(theirs), theirs / pair.ours)?;
                }
                Some(theirs) => write!(f, "{:>10}{:>8}", number(theirs), "")?,
                None => write!(f, "{:>18}", "")?,
            }
            writeln!(f, "  {goal}")?;
        }
        for (what, floor) in [
            ("", self.floor),
            (" with nexthop objects", self.nexthop_floor),
        ] {
            let what = format!("ip -batch and bridge -batch, the same rows{what}, ms");
            let ratio = self.programmed.ours / milliseconds(floor);
            let floor = number(milliseconds(floor));
            writeln!(
                f,
                "{what:<66}{floor:>8}  (ours takes {ratio:.2} times that)"
            )?;
        }
        Ok(())
    }
}

fn number(value: f64) -> String {
    let decimals = match value {
        f64::INFINITY => return "never".to_owned(),
        _ if value.fract() == 0.0 => 0,
        0.0..0.1 => 4,
        0.1..10.0 => 2,
        _ => 1,
    };
    format!("{value:.decimals$}")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The figures of a whole run.
#[derive(Default)]
pub(crate) struct Report(pub(crate) Vec<Figures>);

impl Report {
    /// Writes it where build results are, and answers where that is.
    pub(crate) fn write(&self) -> PathBuf {
        // target/tmp
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.parent().unwrap().join("bench");
        fs::create_dir_all(&folder).unwrap();
        let all: Vec<Value> = self.0.iter().map(Figures::json).collect();
        let text = serde_json::to_string_pretty(&all).unwrap();
        let path = folder.join("scale.json");
        fs::write(&path, text + "\n").unwrap();
        path
    }
}
