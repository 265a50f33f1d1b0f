//! A drawing of the figures as SVG: a panel for each measure, in it a bar for each contestant.
//! It has no background and lies well on a light page as on a dark one.

use std::fmt::Write as _;

use crate::contestant::Entry;
use crate::measure::{Figures, Measure, number};

/// The panels, row by row.
const ROWS: [[Measure; 4]; 3] = [
    [
        Measure::TcpOne,
        Measure::TcpFour,
        Measure::TcpBoth,
        Measure::Processor,
    ],
    [
        Measure::Small,
        Measure::SmallFour,
        Measure::Middle,
        Measure::Large,
    ],
    [
        Measure::IdleMedian,
        Measure::IdleTail,
        Measure::LoadedMedian,
        Measure::LoadedTail,
    ],
];

/// Lengths in pixels.
const MARGIN: f64 = 16.0;
/// The title and what the run was like.
const HEAD: f64 = 64.0;
/// For the names of the contestants, left of the panels.
const NAMES: f64 = 118.0;
const PANEL: f64 = 222.0;
/// Of the longest bar: right of it stands its figure.
const LONGEST: f64 = 158.0;
const PANEL_HEAD: f64 = 44.0;
const PANEL_FOOT: f64 = 22.0;
const BAR: f64 = 14.0;
const PITCH: f64 = 20.0;
/// Between ours and flanneld's.
const GAP: f64 = 10.0;

const STYLE: &str = "\
text { font: 12px 'DejaVu Sans', Verdana, 'Helvetica Neue', Arial, sans-serif; fill: #4d5661 }
.title { font-size: 16px; font-weight: bold }
.head { font-weight: bold }
.note { font-size: 11px; fill: #6e7781 }
.axis { stroke: #8b949e; stroke-width: 1 }
.host-gw { fill: #8b949e } .vxlan { fill: #2f9e8f } .udp { fill: #e0701c }
.plain, .flanneld { opacity: .5 }
@media (prefers-color-scheme: dark) {
  text { fill: #c3cad2 } .note { fill: #9aa4ae }
}
";

/// Draws who took part.
pub(crate) fn draw(figures: &Figures, conditions: &str) -> String {
    let entries = figures.entries();
    let bars = offsets(&entries);
    let panel_height = PANEL_HEAD + bars.last().map_or(0.0, |last| last + PITCH) + PANEL_FOOT;
    let width = 2.0 * MARGIN + NAMES + 4.0 * PANEL;
    let height = HEAD + 3.0 * panel_height;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>The data planes side by side</title>\n<style>\n{STYLE}</style>\n"
    );
    text(&mut svg, (MARGIN, 28.0), "title", TITLE);
    text(&mut svg, (MARGIN, 48.0), "note", conditions);
    let mut top = HEAD;
    for row in ROWS {
        let places = || entries.iter().zip(&bars);
        for (entry, offset) in places() {
            let at = (MARGIN + NAMES - 8.0, top + PANEL_HEAD + offset + BAR - 3.0);
            text(&mut svg, at, "name", &name(*entry));
        }
        for (column, measure) in row.into_iter().enumerate() {
            let left = MARGIN + NAMES + PANEL * column as f64;
            let values = places().map(|(entry, offset)| {
                let figure = figures.figure(*entry, measure);
                (*entry, top + PANEL_HEAD + offset, figure)
            });
            panel(&mut svg, (left, top), measure, &values.collect::<Vec<_>>());
        }
        top += panel_height;
    }
    svg + "</svg>\n"
}

const TITLE: &str = "Between containers of two nodes: this service's backends and flanneld's";

fn panel(
    svg: &mut String,
    (left, top): (f64, f64),
    measure: Measure,
    bars: &[(Entry, f64, Option<f64>)],
) {
    let better = if measure.is_better_high() {
        "more is better"
    } else {
        "less is better"
    };
    let unit = measure.unit().replace("1000/s", "1,000 packets/s");
    text(svg, (left, top + 16.0), "head", measure.title());
    let note = format!("{unit}, {better}");
    text(svg, (left, top + 32.0), "note", &note);
    let figures = bars.iter().filter_map(|(_, _, figure)| *figure);
    let most = figures.fold(f64::MIN_POSITIVE, f64::max);
    for (entry, y, figure) in bars {
        let line = y + BAR - 3.0;
        let Some(figure) = figure else {
            text(svg, (left + 5.0, line), "note", "not measured");
            continue;
        };
        // what is there is to be seen
        let length = (figure / most * LONGEST).max(1.0);
        let (class, beside) = (class(*entry), left + length + 5.0);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" \
             height=\"{BAR}\" rx=\"1.5\"/>"
        );
        text(svg, (beside, line), "", &number(*figure));
    }
    let first = bars.first().map_or(top, |(_, y, _)| y - 3.0);
    let last = bars.last().map_or(top, |(_, y, _)| y + BAR + 3.0);
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{left:.1}\" y1=\"{first:.1}\" x2=\"{left:.1}\" y2=\"{last:.1}\"/>"
    );
}

/// How far below the first each bar is.
fn offsets(entries: &[Entry]) -> Vec<f64> {
    let offset = |(index, entry): (usize, &Entry)| {
        let ours_above = entry.is_flanneld() && !entries[0].is_flanneld();
        index as f64 * PITCH + if ours_above { GAP } else { 0.0 }
    };
    entries.iter().enumerate().map(offset).collect()
}

fn name(entry: Entry) -> String {
    let program = if entry.is_flanneld() { "flanneld " } else { "" };
    format!("{program}{}", entry.label())
}

fn class(entry: Entry) -> &'static str {
    match entry {
        Entry::HostGw => "host-gw",
        Entry::Vxlan => "vxlan",
        Entry::Udp => "udp",
        Entry::PlainUdp => "udp plain",
        Entry::FlanneldHostGw => "host-gw flanneld",
        Entry::FlanneldVxlan => "vxlan flanneld",
        Entry::FlanneldUdp => "udp flanneld",
    }
}

/// Names end where they stand, all else begins there. No text here needs escapes.
fn text(svg: &mut String, (x, y): (f64, f64), class: &str, text: &str) {
    let anchor = if class == "name" { "end" } else { "start" };
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}
