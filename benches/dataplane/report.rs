//! The figures as a table for people, as JSON for scripts and as a drawing.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::chart;
use crate::contestant::{Entry, Wire};
use crate::goals::Goal;
use crate::machine;
use crate::measure::{Figures, Measure, number};

/// A whole run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) wire: Wire,
    /// How long each measurement took.
    pub(crate) length: Duration,
    pub(crate) rounds: usize,
    pub(crate) figures: Figures,
    /// Of the whole machine, as a share of one processor, while nothing was carried; by round.
    pub(crate) rest: Vec<f64>,
}

/// Whose figures are set against whose.
const RATIOS: [(Entry, Entry); 5] = [
    (Entry::Udp, Entry::Vxlan),
    (Entry::Udp, Entry::PlainUdp),
    (Entry::Udp, Entry::FlanneldUdp),
    (Entry::Vxlan, Entry::FlanneldVxlan),
    (Entry::HostGw, Entry::FlanneldHostGw),
];

impl Report {
    /// What the run was like, in a line.
    pub(crate) fn conditions(&self) -> String {
        let wire = match self.wire {
            Wire::Whole => "whole (super-packets cross uncut)",
            Wire::Cut => "cut (packets cross at the MTU's size)",
        };
        format!(
            "wire: {wire}; {} rounds of {} s, medians; {} processors, Linux {}",
            self.rounds,
            self.length.as_secs_f64(),
            machine::processors(),
            machine::kernel()
        )
    }

    /// How busy the machine was with other things, in percent of one processor.
    fn unrest(&self) -> f64 {
        let busiest = self.rest.iter().copied().fold(0.0, f64::max);
        busiest * 100.0
    }

    /// Writes JSON and the drawing where build results are, and answers where that is.
    pub(crate) fn write(&self) -> [PathBuf; 2] {
        // target/tmp
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.parent().unwrap().join("bench");
        fs::create_dir_all(&folder).unwrap();
        let [json, drawing] = ["dataplane.json", "dataplane.svg"].map(|name| folder.join(name));
        let text = serde_json::to_string_pretty(&self.json()).unwrap();
        fs::write(&json, text + "\n").unwrap();
        fs::write(&drawing, chart::draw(&self.figures, &self.conditions())).unwrap();
        [json, drawing]
    }

    fn json(&self) -> Value {
        let contestants = self.figures.entries().into_iter().map(|entry| {
            let figures = Measure::ALL.into_iter().map(|measure| {
                let figure = json!({
                    "unit": measure.unit(),
                    "median": self.figures.figure(entry, measure),
                    "rounds": self.figures.values(entry, measure),
                });
                (measure.key().to_owned(), figure)
            });
            let figures: Map<String, Value> = figures.collect();
            (entry.key().to_owned(), Value::Object(figures))
        });
        let contestants: Map<String, Value> = contestants.collect();
        let goals = Goal::ALL.iter().map(|goal| {
            let reached = goal.figure(&self.figures);
            let met = reached.map(|reached| goal.met(reached));
            json!({"goal": goal.to_string(), "reached": reached, "met": met})
        });
        json!({
            "wire": self.wire.key(),
            "seconds": self.length.as_secs_f64(),
            "rounds": self.rounds,
            "processors": machine::processors(),
            "kernel": machine::kernel(),
            "rest_percent": self.rest.iter().map(|share| share * 100.0).collect::<Vec<_>>(),
            "contestants": contestants,
            "goals": goals.collect::<Vec<_>>(),
        })
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.figures.entries();
        let heads = ["ours", "flanneld"].map(|program| {
            let is_flanneld = program == "flanneld";
            let of_program = entries.iter().filter(|e| e.is_flanneld() == is_flanneld);
            let width = of_program.count() * COLUMN;
            format!("{program:>COLUMN$}{:1$}", "", width.saturating_sub(COLUMN))
        });
        let some_theirs = entries.iter().any(|entry| entry.is_flanneld());
        let theirs = if some_theirs { heads[1].as_str() } else { "" };
        writeln!(f, "{:WIDTH$}{}{theirs}", "", heads[0])?;
        let labels = entries.iter().fold(String::new(), |mut line, entry| {
            let _ = write!(line, "{:>COLUMN$}", entry.label());
            line
        });
        writeln!(f, "{:WIDTH$}{labels}", "")?;
        for measure in Measure::ALL {
            write!(f, "{:<WIDTH$}", line_head(measure))?;
            for entry in &entries {
                let figure = self.figures.figure(*entry, measure);
                write!(f, "{:>COLUMN$}", figure.map(number).unwrap_or_default())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn ratios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.figures.entries();
        let both = |(one, other): &(Entry, Entry)| entries.contains(one) && entries.contains(other);
        let columns: Vec<_> = RATIOS.into_iter().filter(both).collect();
        if columns.is_empty() {
            return Ok(());
        }
        write!(f, "\n{:<WIDTH$}", "ratios")?;
        for (one, other) in &columns {
            let theirs = if other.is_flanneld() {
                "flanneld"
            } else {
                other.label().trim_start_matches("udp, ")
            };
            write!(f, "{:>RATIO$}", format!("{} ÷ {theirs}", one.label()))?;
        }
        writeln!(f)?;
        for measure in Measure::ALL.into_iter().filter(|m| !m.is_offered()) {
            write!(f, "{:<WIDTH$}", measure.title())?;
            for (one, other) in &columns {
                let ratio = self.figures.ratio(*one, *other, measure);
                write!(f, "{:>RATIO$}", ratio.map(number).unwrap_or_default())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn goals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<GOAL$}{:>COLUMN$}", "goals", "reached")?;
        for goal in Goal::ALL {
            let (reached, verdict) = match goal.figure(&self.figures) {
                Some(reached) if goal.met(reached) => (number(reached), "yes"),
                Some(reached) => (number(reached), "no"),
                None => (String::new(), "not measured"),
            };
            let goal = goal.to_string();
            writeln!(f, "{goal:<GOAL$}{reached:>COLUMN$}  {verdict}")?;
        }
        Ok(())
    }
}

/// In percent of one processor: more than this is not the contestants at rest.
const DISTURBED: f64 = 25.0;
/// Widths in characters.
const WIDTH: usize = 36;
const COLUMN: usize = 11;
const RATIO: usize = 20;
const GOAL: usize = 62;

fn line_head(measure: Measure) -> String {
    format!("{}, {}", measure.title(), measure.unit())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.conditions())?;
        writeln!(
            f,
            "without traffic the machine used up to {} % of one processor{}\n",
            number(self.unrest()),
            if self.unrest() > DISTURBED {
                ": something else runs, and the figures mean little"
            } else {
                ""
            }
        )?;
        self.table(f)?;
        self.ratios(f)?;
        self.goals(f)
    }
}
