//! Single steps from one kernel state to another, and what stands in their way.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::firewall::Step;
use super::passage::Blockage;
use super::state::{
    Address, FdbEntry, Link, LinkKind, Neighbour, Nexthop, PROTOCOL, Route, RouteKey,
};
use crate::mac::Mac;

/// One step. The order of the variants is the order in which the kernel accepts them: sorting a
/// list of changes schedules it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Remove a route.
    DelRoute(RouteKey, Route),
    /// Remove a neighbour.
    DelNeighbour(Neighbour),
    /// Remove a forwarding entry.
    DelFdb(FdbEntry),
    /// Remove an address.
    DelAddress(Address),
    /// Remove the link of this name, and with it all rows on it.
    DelLink(String),
    /// Something about the packet filter. It comes after the tunnels that go and before those that
    /// come, so that no tunnel's port is ever open.
    Firewall(Step),
    /// Make a link of this name.
    AddLink(String, Link),
    /// Alter the link of this name in place.
    SetLink(String, Vec<Setting>),
    /// Add an address.
    AddAddress(Address),
    /// Add or alter a forwarding entry.
    PutFdb(FdbEntry, Ipv4Addr),
    /// Add or alter a permanent neighbour.
    PutNeighbour(Neighbour, Mac),
    /// Add or alter the nexthop object of this id. Routes that lead through it follow.
    PutNexthop(u32, Nexthop),
    /// Add a route, or put it in the place of the one with the same key, whoever made that.
    PutRoute(RouteKey, Route),
    /// Remove a nexthop object, and with it the routes that lead through it. By now all that are
    /// wanted lead elsewhere.
    DelNexthop(u32, Nexthop),
}

/// What can be altered on a link in place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Make it ours: the alias.
    Mark,
    /// No IPv6 link-local address. Without one nothing is learned from router advertisements
    /// that containers send over a tunnel.
    NoLinkLocal,
    /// A port of no bridge. As one it hands what it receives to the bridge.
    Free,
    /// The Ethernet address. Its neighbours go.
    Mac(Mac),
    /// The MTU in bytes.
    Mtu(u32),
    /// The source address of a vxlan's packets.
    Local(Ipv4Addr),
    /// Whether a vxlan learns addresses from traffic.
    Learning(bool),
    /// Packets that come in are forwarded.
    Forwarding,
    /// No packet is dropped because the way back leads out by another link.
    LooseFilter,
    /// Administratively down. Its neighbours and routes go.
    Down,
    /// Administratively up.
    Up,
}

/// Why something wanted is not done. Nothing on these links is touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A bridge that somebody else has given addresses.
    Foreign {
        /// The bridge's name.
        link: String,
        /// Its addresses.
        found: Vec<Ipv4Net>,
        /// The addresses it should have.
        wanted: Vec<Ipv4Net>,
    },
    /// Something else has the name of a wanted link.
    InTheWay {
        /// The name.
        link: String,
        /// What is there.
        found: LinkKind,
        /// What should be there.
        wanted: LinkKind,
    },
    /// A TUN device that the data plane has not made.
    Missing {
        /// The name.
        link: String,
    },
    /// The kernel's packet filter is not to be had, or does not show itself.
    NoFirewall {
        /// Why.
        reason: String,
    },
    /// Packets do not pass, by what somebody else has set.
    Blocked(Blockage),
    /// A bridge of ours that is not wanted any more, but something hangs on it.
    InUse {
        /// The bridge's name.
        link: String,
        /// The names of its ports.
        ports: Vec<String>,
    },
}

impl Change {
    /// The name of the link that the change needs to exist; empty where it needs none.
    #[must_use]
    pub fn link(&self) -> &str {
        match self {
            Self::DelRoute(_, route) | Self::PutRoute(_, route) => &route.link,
            Self::DelNexthop(_, hop) | Self::PutNexthop(_, hop) => &hop.link,
            Self::DelNeighbour(row) | Self::PutNeighbour(row, _) => &row.link,
            Self::DelFdb(row) | Self::PutFdb(row, _) => &row.link,
            Self::DelAddress(row) | Self::AddAddress(row) => &row.link,
            Self::DelLink(name) | Self::AddLink(name, _) | Self::SetLink(name, _) => name,
            Self::Firewall(_) => "",
        }
    }

    /// The address that the change removes.
    pub(super) fn lost_address(&self) -> Option<Ipv4Addr> {
        if let Self::DelAddress(row) = self {
            Some(row.address.addr())
        } else {
            None
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DelRoute(key, route) => write!(f, "delete route {}", RouteText(key, route)),
            Self::DelNeighbour(row) => {
                write!(f, "delete neighbour {} dev {}", row.address, row.link)
            }
            Self::DelFdb(row) => write!(f, "delete fdb {} dev {}", row.mac, row.link),
            Self::DelAddress(row) => write!(f, "delete address {} dev {}", row.address, row.link),
            Self::DelLink(name) => write!(f, "delete link {name}"),
            Self::AddLink(name, link) => write!(f, "add link {name} {link}"),
            Self::SetLink(name, settings) => {
                write!(f, "set link {name}")?;
                settings.iter().try_for_each(|s| write!(f, " {s}"))
            }
            Self::AddAddress(row) => write!(f, "add address {} dev {}", row.address, row.link),
            Self::PutFdb(row, to) => write!(f, "replace fdb {} dev {} dst {to}", row.mac, row.link),
            Self::PutNeighbour(row, mac) => write!(
                f,
                "replace neighbour {} lladdr {mac} dev {} permanent",
                row.address, row.link
            ),
            Self::PutNexthop(id, hop) => write!(f, "replace nexthop id {id} {hop}"),
            Self::PutRoute(key, route) => write!(f, "replace route {}", RouteText(key, route)),
            Self::DelNexthop(id, hop) => write!(f, "delete nexthop id {id} {hop}"),
            Self::Firewall(step) => step.fmt(f),
        }
    }
}

struct RouteText<'a>(&'a RouteKey, &'a Route);

impl fmt::Display for RouteText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, route) = self;
        write!(f, "{}", key.destination)?;
        if let Some(id) = route.nexthop {
            write!(f, " nhid {id}")?;
        }
        if let Some(gateway) = route.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {}", route.link)?;
        if route.protocol != PROTOCOL {
            write!(f, " proto {}", route.protocol)?;
        }
        if let Some(source) = route.source {
            write!(f, " src {source}")?;
        }
        if key.metric != 0 {
            write!(f, " metric {}", key.metric)?;
        }
        f.write_str(if route.onlink { " onlink" } else { "" })
    }
}

impl fmt::Display for Nexthop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let onlink = if self.onlink { " onlink" } else { "" };
        write!(f, "via {} dev {}{onlink}", self.gateway, self.link)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark => write!(f, "alias {}", super::state::ALIAS),
            Self::NoLinkLocal => f.write_str("addrgenmode none"),
            Self::Free => f.write_str("nomaster"),
            Self::Mac(mac) => write!(f, "address {mac}"),
            Self::Mtu(mtu) => write!(f, "mtu {mtu}"),
            Self::Local(local) => write!(f, "local {local}"),
            Self::Learning(true) => f.write_str("learning"),
            Self::Learning(false) => f.write_str("nolearning"),
            Self::Forwarding => f.write_str("forwarding on"),
            Self::LooseFilter => f.write_str("rp_filter loose"),
            Self::Down => f.write_str("down"),
            Self::Up => f.write_str("up"),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(mac) = self.mac {
            write!(f, " address {mac}")?;
        }
        let state = if self.up { "up" } else { "down" };
        write!(f, " mtu {} {state}", self.mtu)
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vxlan {
                vni,
                port,
                local,
                underlay,
                learning,
                gbp,
            } => {
                let learning = if *learning { "learning" } else { "nolearning" };
                let gbp = if *gbp { " gbp" } else { "" };
                write!(
                    f,
                    "vxlan vni {vni} local {local} dev {underlay} port {port} {learning}{gbp}"
                )
            }
            Self::Bridge => f.write_str("bridge"),
            Self::Tun => f.write_str("tun"),
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign {
                link,
                found,
                wanted,
            } => {
                let (found, wanted) = (list(found), list(wanted));
                write!(f, "bridge {link} is somebody else's: it has {found}")?;
                if !wanted.is_empty() {
                    write!(f, ", not {wanted}")?;
                }
                Ok(())
            }
            Self::InTheWay {
                link,
                found,
                wanted,
            } => write!(
                f,
                "{link} should be \"{wanted}\" but is \"{found}\", not made by us: remove or rename it"
            ),
            Self::Missing { link } => write!(f, "TUN device {link} is not there yet"),
            Self::NoFirewall { reason } => write!(
                f,
                "the kernel's packet filter cannot be used: {reason}; to do without it set all \
                 switches of [firewall] to false"
            ),
            Self::Blocked(blockage) => blockage.fmt(f),
            Self::InUse { link, ports } => write!(
                f,
                "bridge {link} is not wanted any more but has ports: {}",
                list(ports)
            ),
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    let texts: Vec<_> = items.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
