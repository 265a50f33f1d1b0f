//! Rows of kernel state, keyed as the kernel itself tells them apart. Links go by name, never by
//! index: an index means nothing once a device was made anew.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::change::Change;
use super::firewall::Firewall;
use super::passage::Passage;
use crate::mac::Mac;

/// The alias that marks a link as ours (`ip link show` prints it).
pub const ALIAS: &str = "flannel-rs";

/// The route protocol that marks a route as ours; unassigned in iproute2's `rt_protos`.
pub const PROTOCOL: u8 = 96;

/// The name of a link in the rows on it. There are three or four rows for each peer: they share it.
pub type LinkName = Arc<str>;

/// A part of the kernel's network state, as desired or as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelState {
    /// Links by name.
    pub links: BTreeMap<String, Link>,
    /// IPv4 addresses.
    pub addresses: BTreeSet<Address>,
    /// Permanent neighbours, IPv4.
    pub neighbours: BTreeMap<Neighbour, Mac>,
    /// Where a vxlan device sends frames for an Ethernet address.
    pub fdb: BTreeMap<FdbEntry, Ipv4Addr>,
    /// Nexthop objects by id: those of [`PROTOCOL`] that are one IPv4 gateway on a link. A plan
    /// has none: [`super::nexthop`] says when routes lead through them.
    pub nexthops: BTreeMap<u32, Nexthop>,
    /// The ids of all other nexthop objects, which are somebody else's; `None` where the kernel
    /// has no such objects. Observed, never desired.
    pub foreign_nexthops: Option<BTreeSet<u32>>,
    /// Unicast routes of the main table, IPv4.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Further routes with the key of one of these: the kernel takes several, and uses the one
    /// that came first. Observed, never desired.
    pub rivals: BTreeSet<(RouteKey, Route)>,
    /// What hangs on these bridges, and which of these tunnels hang on whatever bridge, by name.
    /// Observed, never desired.
    pub ports: BTreeMap<String, Port>,
    /// The packet filter.
    pub firewall: Firewall,
    /// How packets fare that come in by these links; observed also by all links together
    /// ([`super::passage::ALL`]).
    pub passages: BTreeMap<String, Passage>,
    /// Whether passages that are closed are opened, or only told. Desired, never observed.
    pub opens_passages: bool,
}

impl KernelState {
    /// Makes a change of a single row, and what the kernel does of itself along with it. For links
    /// and addresses nothing is done and the answer is `false`: what those take along depends on
    /// more than is known here.
    pub fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::DelRoute(key, route) => self.drop_route(key, route),
            Change::DelNeighbour(row) => drop(self.neighbours.remove(row)),
            Change::DelFdb(row) => drop(self.fdb.remove(row)),
            Change::PutFdb(row, to) => drop(self.fdb.insert(row.clone(), *to)),
            Change::PutNeighbour(row, mac) => drop(self.neighbours.insert(row.clone(), *mac)),
            Change::PutNexthop(id, hop) => self.put_nexthop(*id, hop),
            Change::PutRoute(key, route) => drop(self.routes.insert(*key, route.clone())),
            Change::DelNexthop(id, _) => {
                self.nexthops.remove(id);
                self.routes.retain(|_, route| route.nexthop != Some(*id));
                self.rivals.retain(|(_, route)| route.nexthop != Some(*id));
            }
            Change::Firewall(step) => self.firewall.apply(step),
            Change::DelAddress(_)
            | Change::DelLink(_)
            | Change::AddLink(..)
            | Change::SetLink(..)
            | Change::AddAddress(_) => return false,
        }
        true
    }

    fn drop_route(&mut self, key: &RouteKey, route: &Route) {
        if self.routes.get(key) == Some(route) {
            self.routes.remove(key);
        } else {
            self.rivals.remove(&(*key, route.clone()));
        }
    }

    /// Routes that lead through the object follow it.
    fn put_nexthop(&mut self, id: u32, hop: &Nexthop) {
        if self.nexthops.insert(id, hop.clone()).is_none() {
            return;
        }
        let through = |route: &&mut Route| route.nexthop == Some(id);
        for route in self.routes.values_mut().filter(through) {
            route.link = hop.link.clone();
            route.gateway = Some(hop.gateway);
            route.onlink = hop.onlink;
        }
    }

    /// Adds an observed route. Of several with one key ours counts, and the others are rivals.
    pub(super) fn observe_route(&mut self, key: RouteKey, route: Route) {
        match self.routes.entry(key) {
            Entry::Vacant(entry) => drop(entry.insert(route)),
            Entry::Occupied(entry) if *entry.get() == route => {}
            Entry::Occupied(mut entry) => {
                let counts = route.protocol == PROTOCOL && entry.get().protocol != PROTOCOL;
                let rival = if counts { entry.insert(route) } else { route };
                self.rivals.insert((key, rival));
            }
        }
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// What it is, with what cannot be altered in place.
    pub kind: LinkKind,
    /// Its Ethernet address; `None` where it has none or it does not matter. A bridge is given
    /// its address when it is made and keeps whatever it has later.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it carries [`ALIAS`].
    pub marked: bool,
}

/// What hangs on a bridge: the host's end of a container's interface, for instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The bridge's name.
    pub bridge: String,
    /// Its MTU in bytes. Container runtimes give both ends of a container's interface the same.
    pub mtu: u32,
}

/// The kinds of links that we make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// A vxlan tunnel end point. All but `local` and `learning` is fixed at creation; one with
    /// a multicast group or with external metadata is [`LinkKind::Other`].
    Vxlan {
        /// The VXLAN network identifier.
        vni: u32,
        /// The UDP port, here and at the peers.
        port: u16,
        /// The source address of tunnel packets.
        local: Ipv4Addr,
        /// The name of the uplink.
        underlay: String,
        /// Whether it learns addresses from traffic.
        learning: bool,
        /// Group Based Policy.
        gbp: bool,
    },
    /// A bridge for containers. Ours only if it is marked: see [`super::diff`].
    Bridge,
    /// A TUN device. Rtnetlink cannot make one: the udp data plane does, before the first pass.
    Tun,
    /// Anything else that has taken a name we want; with the kernel's name for it.
    Other(String),
}

/// An IPv4 address on a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The link's name.
    pub link: LinkName,
    /// The address with its prefix length.
    pub address: Ipv4Net,
}

/// The key of a neighbour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The link's name.
    pub link: LinkName,
    /// The neighbour's address.
    pub address: Ipv4Addr,
}

/// The key of a forwarding entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbEntry {
    /// The vxlan link's name.
    pub link: LinkName,
    /// The Ethernet address to reach.
    pub mac: Mac,
}

/// A gateway, as an object of its own that routes lead to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nexthop {
    /// The name of the outgoing link. The object goes when that goes down or loses its carrier.
    pub link: LinkName,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// Whether to pretend that the gateway is on the link.
    pub onlink: bool,
}

/// The key of a route. The kernel looks a route up by destination, then metric, for one type of
/// service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// The destination.
    pub destination: Ipv4Net,
    /// The metric; flannel's routes have 0.
    pub metric: u32,
}

/// A route's next hop.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The id of the nexthop object that it leads through, where it does. The object's link and
    /// gateway are then those below.
    pub nexthop: Option<u32>,
    /// The name of the outgoing link.
    pub link: LinkName,
    /// The next hop's address; `None` is scope link.
    pub gateway: Option<Ipv4Addr>,
    /// Whether to pretend that the gateway is on the link.
    pub onlink: bool,
    /// The preferred source address of the host's own packets.
    pub source: Option<Ipv4Addr>,
    /// Who made it; [`PROTOCOL`] is us.
    pub protocol: u8,
}
