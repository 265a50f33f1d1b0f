//! `flannel-rs status`.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::output::{self, Colour, Palette, printable};
use super::{Error, bus, exit_code};
use crate::service::status::{PeerPath, PeerStatus, State, Status};

/// Prints the status as text; answers the exit code.
pub(super) fn for_people() -> Result<u8, Error> {
    let status = parse(&bus::describe()?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX));
    output::print(&text(&status, now, Palette::of_stdout()))?;
    Ok(exit_code(status.state))
}

/// Prints the status as the service wrote it, with fields that this version may not know;
/// answers the exit code.
pub(super) fn as_json() -> Result<u8, Error> {
    let json = bus::describe()?;
    output::print(&format!("{json}\n"))?;
    Ok(exit_code(parse(&json)?.state))
}

fn parse(json: &str) -> Result<Status, Error> {
    serde_json::from_str(json).map_err(|error| Error::Answer(error.to_string()))
}

/// The whole page. `now` is in microseconds since 1970.
fn text(status: &Status, now: u64, palette: Palette) -> String {
    let state = palette.paint(colour(status.state), status.state.name());
    let mut page = format!("{} is {state}\n", printable(&status.node_name));
    for fault in &status.faults {
        let (code, text) = (printable(&fault.code), printable(&fault.text));
        let _ = writeln!(page, "{} {code}: {text}", palette.paint(Colour::Red, "!"));
    }
    let rows = [
        ("subnet", subnet(status)),
        ("backend", backend(status)),
        ("lease", lease(status, now)),
        ("datastore", datastore(status)),
        ("kernel", kernel(status, now)),
        ("peers", peers(&status.peers)),
    ];
    for (name, value) in rows {
        let _ = writeln!(page, "  {name:<9}  {}", printable(&value));
    }
    for entry in &status.garbage {
        let (key, reason) = (printable(&entry.key), printable(&entry.reason));
        let _ = writeln!(page, "  {:<9}  {key}: {reason}", "ignored");
    }
    if !status.peers.is_empty() {
        page.push('\n');
        page.push_str(&table(&status.peers));
    }
    page
}

const fn colour(state: State) -> Colour {
    match state {
        State::Running => Colour::Green,
        State::Waiting | State::Stopping => Colour::Yellow,
        State::Degraded => Colour::Red,
    }
}

fn subnet(status: &Status) -> String {
    let mut line = status.subnet.as_deref().unwrap_or("none yet").to_owned();
    if let Some(network) = &status.network {
        let _ = write!(line, " of {network}");
    }
    if status.mtu > 0 {
        let _ = write!(line, ", MTU {}", status.mtu);
    }
    line
}

fn backend(status: &Status) -> String {
    let mut line = status.backend.as_deref().unwrap_or("unknown").to_owned();
    if let Some(interface) = &status.interface {
        let _ = write!(line, " over {interface}");
    }
    if let Some(address) = status.public_ip {
        let _ = write!(line, ", public IP {address}");
    }
    line
}

fn lease(status: &Status, now: u64) -> String {
    match (&status.subnet, status.lease_expires_usec) {
        (None, _) => "none yet".to_owned(),
        (Some(_), None) => "reserved, never expires".to_owned(),
        (Some(_), Some(at)) if at >= now => format!("expires in {}", span(at - now)),
        (Some(_), Some(at)) => format!("expired {} ago", span(now - at)),
    }
}

fn datastore(status: &Status) -> String {
    let datastore = &status.datastore;
    let (name, revision) = (&datastore.name, datastore.revision);
    if datastore.connected {
        format!("{name}: connected, revision {revision}")
    } else {
        format!("{name}: unreachable, last seen revision {revision}")
    }
}

fn kernel(status: &Status, now: u64) -> String {
    let equal = match status.last_reconcile_usec {
        Some(at) => format!("equal to the plan {} ago", span(now.saturating_sub(at))),
        None => "not yet equal to the plan".to_owned(),
    };
    match status.repairs {
        1 => format!("{equal}, 1 repair"),
        repairs => format!("{equal}, {repairs} repairs"),
    }
}

fn peers(peers: &[PeerStatus]) -> String {
    let reachable = peers.iter().filter(|p| p.path != PeerPath::None).count();
    match peers.len() {
        0 => "none".to_owned(),
        all => format!("{reachable} of {all} reachable"),
    }
}

fn table(peers: &[PeerStatus]) -> String {
    let header = ["SUBNET", "PUBLIC IP", "BACKEND", "PATH", "MAC/WHY NOT"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(peers.iter().map(|peer| {
        let last = peer.obstacle.as_ref().or(peer.mac.as_ref());
        [
            printable(&peer.subnet),
            peer.public_ip.to_string(),
            printable(&peer.backend),
            peer.path.name().to_owned(),
            last.map(|text| printable(text)).unwrap_or_default(),
        ]
    }));
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut page = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page
}

/// A time span by its two largest units, such as `23h 59m`.
fn span(microseconds: u64) -> String {
    let seconds = microseconds / 1_000_000;
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = units.iter().skip(first).take(2);
    let parts = shown
        .enumerate()
        .filter(|(at, (count, _))| *at == 0 || *count > 0);
    let parts: Vec<_> = parts
        .map(|(_, (count, unit))| format!("{count}{unit}"))
        .collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests;
