//! What the monitor tells, and how it finds it out from two statuses.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::super::change;
use super::super::output::{Colour, Palette, printable};
use crate::service::status::{Fault, PeerPath, PeerStatus, PlannedChange, State, Status};

/// Something that has changed. The shape is that of `monitor --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event {
    /// The service can be heard.
    Connected {
        version: String,
        node_name: String,
        state: State,
        subnet: Option<String>,
        peer_count: usize,
    },
    /// The service cannot be heard any more.
    Gone { reason: String },
    /// How far the service has come.
    State { from: State, to: State },
    /// Something is wrong now.
    Fault { code: String, text: String },
    /// It is no more.
    Cleared { code: String },
    /// A field of the status, by its name there.
    Changed {
        what: &'static str,
        from: Option<String>,
        to: Option<String>,
    },
    /// The lease was renewed, or is none or a reservation now.
    Lease { expires_usec: Option<u64> },
    /// A node has taken a lease.
    PeerAdded { peer: PeerStatus },
    /// A lease has gone.
    PeerRemoved { peer: PeerStatus },
    /// Something about a node is different.
    PeerChanged { from: PeerStatus, to: PeerStatus },
    /// The service put right what somebody else had changed.
    #[serde(rename = "drift-repaired")]
    Repaired { changes: Vec<PlannedChange> },
    /// Somebody else holds this node's subnet.
    #[serde(rename = "subnet-conflict")]
    Conflict { subnet: String, holder: String },
}

/// The change of the state.
pub(super) fn state(before: &Status, after: &Status) -> Option<Event> {
    (before.state != after.state).then_some(Event::State {
        from: before.state,
        to: after.state,
    })
}

/// All other changes.
pub(super) fn changes(before: &Status, after: &Status) -> Vec<Event> {
    let mut events = faults(&before.faults, &after.faults);
    events.extend(fields(before, after));
    if before.lease_expires_usec != after.lease_expires_usec {
        let expires_usec = after.lease_expires_usec;
        events.push(Event::Lease { expires_usec });
    }
    events.extend(peers(&before.peers, &after.peers));
    events
}

/// Those that have come and gone. A text may count on without being news.
pub(super) fn faults(before: &[Fault], after: &[Fault]) -> Vec<Event> {
    let is_in = |faults: &[Fault], code: &str| faults.iter().any(|fault| fault.code == code);
    let come = after.iter().filter(|fault| !is_in(before, &fault.code));
    let come = come.map(|fault| Event::Fault {
        code: fault.code.clone(),
        text: fault.text.clone(),
    });
    let gone = before.iter().filter(|fault| !is_in(after, &fault.code));
    let gone = gone.map(|fault| Event::Cleared {
        code: fault.code.clone(),
    });
    come.chain(gone).collect()
}

fn fields(before: &Status, after: &Status) -> Vec<Event> {
    let fields = |status: &Status| {
        [
            ("network", status.network.clone()),
            ("subnet", status.subnet.clone()),
            ("backend", status.backend.clone()),
            ("interface", status.interface.clone()),
            ("public_ip", status.public_ip.map(|ip| ip.to_string())),
            ("mtu", (status.mtu > 0).then(|| status.mtu.to_string())),
            ("log_level", Some(status.log_level.clone())),
        ]
    };
    let pairs = fields(before).into_iter().zip(fields(after));
    let changed = pairs.filter(|(before, after)| before != after);
    changed
        .map(|((what, from), (_, to))| Event::Changed { what, from, to })
        .collect()
}

fn peers(before: &[PeerStatus], after: &[PeerStatus]) -> Vec<Event> {
    fn by_subnet(peers: &[PeerStatus]) -> BTreeMap<&str, &PeerStatus> {
        let entries = peers.iter().map(|peer| (peer.subnet.as_str(), peer));
        entries.collect()
    }
    let (before, after) = (by_subnet(before), by_subnet(after));
    let gone = before
        .iter()
        .filter(|(subnet, _)| !after.contains_key(*subnet));
    let gone = gone.map(|(_, peer)| Event::PeerRemoved {
        peer: (*peer).clone(),
    });
    let here = after
        .iter()
        .filter_map(|(subnet, peer)| match before.get(subnet) {
            None => Some(Event::PeerAdded {
                peer: (*peer).clone(),
            }),
            Some(known) if known == peer => None,
            Some(known) => Some(Event::PeerChanged {
                from: (*known).clone(),
                to: (*peer).clone(),
            }),
        });
    gone.chain(here).collect()
}

impl Event {
    pub(super) fn connected(status: &Status) -> Self {
        Self::Connected {
            version: status.version.clone(),
            node_name: status.node_name.clone(),
            state: status.state,
            subnet: status.subnet.clone(),
            peer_count: status.peers.len(),
        }
    }

    /// For people: a line, or one for each row that was repaired.
    pub(super) fn lines(&self, time: SystemTime, palette: Palette) -> String {
        let time = humantime::format_rfc3339_seconds(time);
        let (kind, colour) = self.kind();
        let kind = format!("{kind:<9}");
        let kind = match colour {
            Some(colour) => palette.paint(colour, &kind),
            None => kind,
        };
        let line = |text: String| format!("{time}  {kind}  {}\n", printable(&text));
        if let Self::Repaired { changes } = self {
            changes.iter().map(change::line).map(line).collect()
        } else {
            line(self.text())
        }
    }

    const fn kind(&self) -> (&'static str, Option<Colour>) {
        match self {
            Self::Connected { .. } => ("connected", None),
            Self::Gone { .. } => ("gone", Some(Colour::Red)),
            Self::State { to, .. } => match to {
                State::Running => ("state", Some(Colour::Green)),
                State::Degraded => ("state", Some(Colour::Red)),
                State::Waiting | State::Withdrawn | State::Stopping => {
                    ("state", Some(Colour::Yellow))
                }
            },
            Self::Fault { .. } => ("fault", Some(Colour::Red)),
            Self::Cleared { .. } => ("cleared", Some(Colour::Green)),
            Self::Changed { .. } => ("changed", None),
            Self::Lease { .. } => ("lease", None),
            Self::PeerAdded { .. } | Self::PeerRemoved { .. } | Self::PeerChanged { .. } => {
                ("peer", None)
            }
            Self::Repaired { .. } => ("repaired", Some(Colour::Yellow)),
            Self::Conflict { .. } => ("conflict", Some(Colour::Red)),
        }
    }

    fn text(&self) -> String {
        let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        match self {
            Self::Connected {
                version,
                node_name,
                state,
                subnet,
                peer_count,
            } => {
                let subnet = subnet.as_deref().unwrap_or("no subnet");
                format!("{node_name} is {state}, {subnet}, peers: {peer_count}, version {version}")
            }
            Self::Gone { reason } => reason.clone(),
            Self::State { from, to } => format!("{from} -> {to}"),
            Self::Fault { code, text } => format!("{code}: {text}"),
            Self::Cleared { code } => code.clone(),
            Self::Changed { what, from, to } => {
                format!("{what} {} -> {}", or_none(from), or_none(to))
            }
            Self::Lease { expires_usec } => match expires_usec {
                Some(at) => format!("expires {}", point_in_time(*at)),
                None => "never expires, or is none".to_owned(),
            },
            Self::PeerAdded { peer } => format!("+ {} {}", peer.subnet, whereabouts(peer)),
            Self::PeerRemoved { peer } => format!("- {} {}", peer.subnet, whereabouts(peer)),
            Self::PeerChanged { from, to } => {
                let (before, after) = (whereabouts(from), whereabouts(to));
                format!("{} {before} -> {after}", to.subnet)
            }
            Self::Repaired { changes } => {
                let changes: Vec<_> = changes.iter().map(change::line).collect();
                changes.join("; ")
            }
            Self::Conflict { subnet, holder } if holder.is_empty() => {
                format!("{subnet} is held by another node")
            }
            Self::Conflict { subnet, holder } => format!("{subnet} is held by {holder}"),
        }
    }
}

fn whereabouts(peer: &PeerStatus) -> String {
    let mut text = format!("{} {}", peer.public_ip, peer.backend);
    if let Some(mac) = &peer.mac {
        text.push_str(&format!(" {mac}"));
    }
    match (peer.path, &peer.obstacle) {
        (PeerPath::None, Some(obstacle)) => text.push_str(&format!(" not reached: {obstacle}")),
        (PeerPath::None, None) => text.push_str(" not reached"),
        (path, _) => text.push_str(&format!(" {path}")),
    }
    text
}

/// A time of the service, which may be any number.
fn point_in_time(microseconds: u64) -> String {
    /// The end of the year 9999, beyond which there is no text for it.
    const END: u64 = 253_402_300_800_000_000;
    if microseconds >= END {
        return "after the year 9999".to_owned();
    }
    let time = UNIX_EPOCH + Duration::from_micros(microseconds);
    humantime::format_rfc3339_seconds(time).to_string()
}
