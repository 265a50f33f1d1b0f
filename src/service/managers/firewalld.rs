//! firewalld drops forwarded packets, and tunnel packets, that no zone of its own lets in. What it
//! must let in is told it at run time: its files are the administrator's.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use zbus::OwnedObjectPath;

use super::call::{Manager, Silence, brief};
use crate::plan::{Footprint, Tunnel};

pub(super) const NAME: &str = "org.fedoraproject.FirewallD1";

const PATH: &str = "/org/fedoraproject/FirewallD1";
const ROOT: (&str, &str) = (PATH, NAME);
const ZONE: (&str, &str) = (PATH, "org.fedoraproject.FirewallD1.zone");
const CONFIG: (&str, &str) = (
    "/org/fedoraproject/FirewallD1/config",
    "org.fedoraproject.FirewallD1.config",
);
const CONFIG_ZONE: &str = "org.fedoraproject.FirewallD1.config.zone";

/// Its zone for sources that are let in and through. One by source goes before any by interface,
/// so it holds whether packets come out of the tunnel, from the uplink (host-gw) or a bridge.
const TRUSTED: &str = "trusted";

/// What firewalld lets in, or is to let in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Opening {
    /// Packets from this network, to wherever they go.
    Source(Ipv4Net),
    /// UDP packets to a port, in a zone; in the default zone if that is empty.
    Port { zone: String, port: u16 },
}

/// Why something is not as it should be.
enum Trouble {
    Silent(Silence),
    /// It says no, in its words.
    Refused(String),
    /// The network is in another zone.
    Elsewhere(Ipv4Net, String),
}

/// What was opened so far.
#[derive(Debug, Default)]
pub(super) struct Firewalld {
    opened: BTreeSet<Opening>,
}

impl Firewalld {
    /// As a service leaves it that has seen to this.
    pub(super) async fn left_by(manager: &Manager<'_>, footprint: &Footprint) -> Self {
        let (opened, _) = openings(manager, footprint).await;
        Self { opened }
    }

    /// Opens what is to be open, closes what is not to be any more; answers with all that is
    /// wrong.
    pub(super) async fn settle(
        &mut self,
        manager: &Manager<'_>,
        footprint: &Footprint,
    ) -> Vec<String> {
        let (wanted, trouble) = openings(manager, footprint).await;
        let mut troubles: Vec<_> = trouble.into_iter().collect();
        let mut undone = Vec::new();
        if troubles.is_empty() {
            for opening in self.opened.difference(&wanted).cloned().collect::<Vec<_>>() {
                match close(manager, &opening).await {
                    Ok(()) => {
                        self.opened.remove(&opening);
                    }
                    Err(trouble) => {
                        undone.push(opening.command("remove"));
                        troubles.push(trouble);
                    }
                }
            }
            for opening in wanted {
                match open(manager, &opening).await {
                    Ok(()) => {
                        self.opened.insert(opening);
                    }
                    Err(trouble) => {
                        undone.push(opening.command("add"));
                        troubles.push(trouble);
                    }
                }
            }
        } else {
            undone.extend(wanted.iter().map(|opening| opening.command("add")));
        }
        complaints(troubles, &undone)
    }
}

/// What stands for a footprint here. Without an answer the port is taken to be one of the default
/// zone.
async fn openings(
    manager: &Manager<'_>,
    footprint: &Footprint,
) -> (BTreeSet<Opening>, Option<Trouble>) {
    let mut openings: BTreeSet<_> = footprint.network.map(Opening::Source).into_iter().collect();
    let Some(tunnel) = &footprint.tunnel else {
        return (openings, None);
    };
    let port = tunnel.port;
    let (zone, trouble) = match zone(manager, tunnel).await {
        Ok(zone) => (zone, None),
        Err(trouble) => (String::new(), Some(trouble)),
    };
    openings.insert(Opening::Port { zone, port });
    (openings, trouble)
}

/// One text for all that is undone, as one cause is behind it most of the time.
fn complaints(troubles: Vec<Trouble>, undone: &[String]) -> Vec<String> {
    let commands = undone.join("; ");
    let mut complaints = BTreeSet::new();
    for trouble in troubles {
        complaints.extend(match trouble {
            Trouble::Silent(Silence::Gone) => None,
            Trouble::Silent(silence) => Some(format!(
                "firewalld was not told what to let in, {silence}; see `firewall-cmd --state`, or \
                 run: {commands}"
            )),
            Trouble::Refused(reason) => Some(format!(
                "firewalld does not let this service open or close anything ({reason}); install \
                 /usr/share/polkit-1/rules.d/flannel-rs.rules, or run, and once more with \
                 --permanent: {commands}"
            )),
            Trouble::Elsewhere(network, zone) => Some(format!(
                "firewalld has {network} in the zone {zone}, where it may drop what containers \
                 send; run: firewall-cmd --zone={TRUSTED} --change-source={network}"
            )),
        });
    }
    complaints.into_iter().collect()
}

/// The zone by which firewalld judges what comes in on the uplink.
async fn zone(manager: &Manager<'_>, tunnel: &Tunnel) -> Result<String, Trouble> {
    let uplink = &tunnel.uplink;
    let zone: String = ask(manager, ZONE, "getZoneOfInterface", uplink).await?;
    if zone.is_empty() {
        let zone: String = ask(manager, ROOT, "getDefaultZone", &()).await?;
        return checked(zone);
    }
    checked(zone)
}

/// The name of a zone may end up in a command that somebody runs as root.
fn checked(zone: String) -> Result<String, Trouble> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    if !zone.is_empty() && zone.len() <= 64 && !zone.starts_with('-') && zone.chars().all(fine) {
        return Ok(zone);
    }
    let text = format!("{:?} is no name of a zone", brief(&zone));
    Err(Trouble::Silent(Silence::Nonsense(text)))
}

async fn open(manager: &Manager<'_>, opening: &Opening) -> Result<(), Trouble> {
    if is_open(manager, opening).await? {
        return Ok(());
    }
    let added: Result<String, Trouble> = match opening {
        Opening::Source(network) => {
            let source = network.to_string();
            let zone: String = ask(manager, ZONE, "getZoneOfSource", &source).await?;
            if !zone.is_empty() {
                return Err(Trouble::Elsewhere(*network, checked(zone)?));
            }
            ask(manager, ZONE, "addSource", &(TRUSTED, source)).await
        }
        Opening::Port { zone, port } => {
            let forever = 0_i32;
            let port = (zone.as_str(), port.to_string(), "udp", forever);
            ask(manager, ZONE, "addPort", &port).await
        }
    };
    let opened = added.map(drop);
    if opened.is_ok() {
        tracing::info!("firewalld lets in {opening} now");
    }
    opened
}

/// What is in firewalld's files too is the administrator's: a reload would bring it back.
async fn close(manager: &Manager<'_>, opening: &Opening) -> Result<(), Trouble> {
    match is_open(manager, opening).await {
        // the zone has gone, with all that was open in it
        Err(Trouble::Silent(Silence::Error { text, .. })) if text.starts_with("INVALID_ZONE") => {
            return Ok(());
        }
        is_open => {
            if !is_open? || is_permanent(manager, opening).await? {
                return Ok(());
            }
        }
    }
    let removed: Result<String, Trouble> = match opening {
        Opening::Source(network) => {
            let source = (TRUSTED, network.to_string());
            ask(manager, ZONE, "removeSource", &source).await
        }
        Opening::Port { zone, port } => {
            let port = (zone.as_str(), port.to_string(), "udp");
            ask(manager, ZONE, "removePort", &port).await
        }
    };
    let closed = removed.map(drop);
    if closed.is_ok() {
        tracing::info!("firewalld does not let in {opening} any more");
    }
    closed
}

async fn is_open(manager: &Manager<'_>, opening: &Opening) -> Result<bool, Trouble> {
    match opening {
        Opening::Source(network) => {
            let source = (TRUSTED, network.to_string());
            ask(manager, ZONE, "querySource", &source).await
        }
        Opening::Port { zone, port } => {
            let port = (zone.as_str(), port.to_string(), "udp");
            ask(manager, ZONE, "queryPort", &port).await
        }
    }
}

async fn is_permanent(manager: &Manager<'_>, opening: &Opening) -> Result<bool, Trouble> {
    let name = match opening {
        Opening::Source(_) => TRUSTED,
        Opening::Port { zone, .. } => zone.as_str(),
    };
    let path: OwnedObjectPath = ask(manager, CONFIG, "getZoneByName", &name).await?;
    let zone = (path.as_str(), CONFIG_ZONE);
    match opening {
        Opening::Source(network) => ask(manager, zone, "querySource", &network.to_string()).await,
        Opening::Port { port, .. } => {
            let port = (port.to_string(), "udp");
            ask(manager, zone, "queryPort", &port).await
        }
    }
}

async fn ask<B, R>(
    manager: &Manager<'_>,
    place: (&str, &str),
    method: &str,
    body: &B,
) -> Result<R, Trouble>
where
    B: serde::Serialize + zbus::Type,
    R: serde::de::DeserializeOwned + zbus::Type,
{
    let answer = manager.call(place, method, body).await;
    answer.map_err(|silence| {
        if let Silence::Error { name, text } = &silence
            && is_refusal(name, text)
        {
            return Trouble::Refused(text.clone());
        }
        Trouble::Silent(silence)
    })
}

/// By polkit (firewalld's, or of a bus without the rule that everybody may call it), or by
/// firewalld's own lockdown.
fn is_refusal(name: &str, text: &str) -> bool {
    name == "org.fedoraproject.FirewallD1.NotAuthorizedException"
        || name == "org.freedesktop.DBus.Error.AccessDenied"
        || text.starts_with("ACCESS_DENIED")
}

impl Opening {
    /// What an administrator would run.
    fn command(&self, verb: &str) -> String {
        match self {
            Self::Source(network) => {
                format!("firewall-cmd --zone={TRUSTED} --{verb}-source={network}")
            }
            Self::Port { zone, port } if zone.is_empty() => {
                format!("firewall-cmd --{verb}-port={port}/udp")
            }
            Self::Port { zone, port } => {
                format!("firewall-cmd --zone={zone} --{verb}-port={port}/udp")
            }
        }
    }
}

impl std::fmt::Display for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source(network) => write!(f, "packets from {network}"),
            Self::Port { zone, port } => write!(f, "UDP port {port} in the zone {zone}"),
        }
    }
}
