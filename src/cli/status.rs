//! `flannel-rs status`.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

use super::bus::{self, Description};
use super::error::{Error, exit_code};
use super::feed::{Feed, Tidings};
use super::output::{self, Colour, Form, Palette, printable, printable_json};
use super::{peers, traffic};
use crate::service::status::{PeerPath, PeerStatus, State, Status};

/// Prints the status, for people or all that the service says; answers the exit code. With a
/// limit it first waits for the node to run, for so long.
pub(super) fn show(form: Form, limit: Option<Duration>) -> Result<u8, Error> {
    let description = match limit {
        None => bus::describe()?,
        Some(limit) => wait(limit)?,
    };
    let status = &description.status;
    match form {
        Form::Json => output::print(&format!("{}\n", printable_json(&description.json)))?,
        Form::Text => output::print(&text(status, now(), Palette::of_stdout()))?,
    };
    Ok(exit_code(status.state))
}

/// How the node is once it runs, or at the end of the limit.
fn wait(limit: Duration) -> Result<Description, Error> {
    let mut last = None;
    let waiting = async {
        let mut feed = Feed::default();
        loop {
            match feed.next().await {
                Tidings::Described(description) => {
                    let runs = description.status.state == State::Running;
                    last = Some(Ok(*description));
                    if runs {
                        break;
                    }
                }
                // one that is not there yet may come; the rest stays as it is
                Tidings::Gone(error @ (Error::Answer(_) | Error::NotPermitted(_))) => {
                    last = Some(Err(error));
                    break;
                }
                Tidings::Gone(error) => last = Some(Err(error)),
                Tidings::Repaired(_) | Tidings::Conflict { .. } => {}
            }
        }
    };
    let in_time = bus::block_on(async { timeout(limit, waiting).await.is_ok() })?;
    if !in_time {
        let limit = humantime::format_duration(limit);
        output::complain(&format!("the node was not running within {limit}"));
    }
    last.unwrap_or_else(bus::describe)
}

/// Microseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX))
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
        ("peers", reachable(&status.peers)),
    ];
    let traffic = status.traffic.map(|moved| traffic::line(&moved.named()));
    let traffic = traffic.map(|line| ("traffic", line));
    for (name, value) in rows.into_iter().chain(traffic) {
        let _ = writeln!(page, "  {name:<9}  {}", printable(&value));
    }
    for entry in &status.garbage {
        let (key, reason) = (printable(&entry.key), printable(&entry.reason));
        let _ = writeln!(page, "  {:<9}  {key}: {reason}", "ignored");
    }
    if !status.peers.is_empty() {
        page.push('\n');
        page.push_str(&peers::table(&status.peers));
    }
    page
}

const fn colour(state: State) -> Colour {
    match state {
        State::Running => Colour::Green,
        State::Waiting | State::Withdrawn | State::Stopping => Colour::Yellow,
        State::Degraded => Colour::Red,
    }
}

fn subnet(status: &Status) -> String {
    let none = none(status);
    let mut line = status.subnet.as_deref().unwrap_or(none).to_owned();
    if let Some(network) = &status.network {
        let _ = write!(line, " of {network}");
    }
    if status.mtu > 0 {
        let _ = write!(line, ", MTU {}", status.mtu);
    }
    line
}

/// What there is of something that comes with the lease, without one.
const fn none(status: &Status) -> &'static str {
    match status.state {
        State::Withdrawn => "none",
        State::Waiting | State::Running | State::Degraded | State::Stopping => "none yet",
    }
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
        (None, _) => none(status).to_owned(),
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

fn reachable(peers: &[PeerStatus]) -> String {
    let reachable = peers.iter().filter(|p| p.path != PeerPath::None).count();
    match peers.len() {
        0 => "none".to_owned(),
        all => format!("{reachable} of {all} reachable"),
    }
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
