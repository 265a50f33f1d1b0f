//! From leases to desired state: pure functions of (node, peers), one for each backend.
//!
//! The only place where a lease becomes a route. Nothing here reads the kernel, a clock or a
//! file, so first set-up, a new peer, drift repair and a switch of the backend are the same call.

mod docker;
mod firewall;
mod footprint;
mod host_gw;
mod passage;
mod subnet_env;
mod udp;
mod vxlan;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::cluster::lease::{Attrs, BackendAttrs, Lease, Vtep};
use crate::cluster::network::{Backend, Network};
use crate::cluster::subnet::Subnet;
use crate::kernel::firewall::Wishes;
use crate::kernel::state::KernelState;
use crate::kernel::uplink::Uplink;
use crate::mac::Mac;
use crate::proxy::{Settings, Tuning, table::Table};

pub use footprint::{Footprint, Tunnel};
pub use subnet_env::{is_about, previous_network, previous_subnet};
pub use vxlan::vtep_mac;

/// This node: all that a plan depends on besides the peers.
#[derive(Debug, Clone)]
pub struct Node {
    /// What the cluster agreed on.
    pub network: Network,
    /// The own lease.
    pub lease: Lease,
    /// The interface to the other nodes.
    pub uplink: Uplink,
    /// The bridge to set up for containers, if that is our business.
    pub bridge: Option<String>,
    /// Where `subnet.env` goes.
    pub subnet_env: PathBuf,
    /// Where `docker.env` goes.
    pub docker_env: PathBuf,
    /// Where dockerd's options go in the form of its `daemon.json`, if anywhere.
    pub daemon_json: Option<PathBuf>,
    /// What is wanted of the packet filter.
    pub firewall: Wishes,
    /// Whether what keeps packets from passing on this host is put right, or only told.
    pub repair: bool,
    /// How the udp backend moves packets.
    pub tuning: Tuning,
}

/// What this host should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Links, addresses, neighbours, forwarding entries, routes.
    pub kernel: KernelState,
    /// The data plane in this process, for backends that need one.
    pub proxy: Option<ProxyPlan>,
    /// Files for others, by path.
    pub files: BTreeMap<PathBuf, String>,
    /// Files that must go, each if it still is about this subnet: only then they are ours.
    pub obsolete: BTreeMap<PathBuf, Subnet>,
    /// What other programs of this host must leave alone, or let through.
    pub footprint: Footprint,
    /// How each peer is reached.
    pub paths: BTreeMap<Subnet, Path>,
    /// Why this node cannot do what its config asks of it, if so.
    pub objection: Option<String>,
}

impl Plan {
    /// Whether nothing is wanted on this host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kernel == KernelState::default() && self.proxy.is_none() && self.files.is_empty()
    }
}

/// The udp data plane as it should run.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyPlan {
    /// Device and socket.
    pub settings: Settings,
    /// Which peer has which subnet.
    pub table: Table,
}

/// How a peer is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// Through the tunnel device.
    Tunnel,
    /// By a plain route over the link that both share.
    Direct,
    /// Not at all, and why.
    None(Obstacle),
}

/// Why a peer gets no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// Its subnet is no part of the network.
    OutsideNetwork,
    /// Its subnet is partly ours, or another peer's who is more likely to have it.
    Overlap(Subnet),
    /// It advertises no usable address.
    NoAddress(Ipv4Addr),
    /// It advertises our own address.
    OwnAddress,
    /// It runs another backend.
    OtherBackend(String),
    /// Its tunnel device is not there yet.
    NoVtep,
    /// Its tunnel device has the Ethernet address of another node.
    SameMac(Mac),
    /// Its tunnel device has a group address, or none: frames for it would flood.
    NoUnicast(Mac),
    /// It is behind a router, and the backend needs a shared link.
    NotOnLink {
        /// Its address.
        address: Ipv4Addr,
        /// Our interface.
        uplink: String,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideNetwork => write!(f, "its subnet is outside of the network"),
            Self::Overlap(other) => write!(f, "its subnet overlaps the lease of {other}"),
            Self::NoAddress(address) => write!(f, "its public IP {address} is no usable address"),
            Self::OwnAddress => write!(f, "it advertises this node's own public IP"),
            Self::OtherBackend(name) => write!(f, "it runs the backend {name}"),
            Self::NoVtep => write!(f, "its tunnel device is not ready yet"),
            Self::SameMac(mac) => write!(
                f,
                "its tunnel device has the Ethernet address {mac} of another node \
                 (was a machine cloned with its machine-id?)"
            ),
            Self::NoUnicast(mac) => write!(
                f,
                "the Ethernet address {mac} of its tunnel device is not one of a single device"
            ),
            Self::NotOnLink { address, uplink } => write!(
                f,
                "{address} is behind a router as seen from {uplink}, and host-gw needs all nodes \
                 on one link; use vxlan or udp"
            ),
        }
    }
}

impl Node {
    /// The MTU for containers, in bytes: the uplink's, less what the backend adds to a packet
    /// (flannel facts §4.1). At least 68, the least that IPv4 allows.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        let (outer, overhead) = match &self.network.backend {
            Backend::HostGw => (self.uplink.mtu, 0),
            Backend::Vxlan(vxlan) => (vxlan.mtu.unwrap_or(self.uplink.mtu), vxlan::OVERHEAD),
            Backend::Udp { .. } => (self.uplink.mtu, udp::OVERHEAD),
        };
        outer.saturating_sub(overhead).max(68)
    }
}

/// What the own lease should say.
#[must_use]
pub fn attrs(network: &Network, uplink: &Uplink, mac: Mac) -> Attrs {
    Attrs {
        public_ip: uplink.public_ip,
        public_ipv6: None,
        backend: match &network.backend {
            Backend::HostGw => BackendAttrs::HostGw,
            Backend::Udp { .. } => BackendAttrs::Udp,
            Backend::Vxlan(vxlan) => BackendAttrs::Vxlan(Vtep {
                vni: Some(vxlan.vni),
                mac: Some(mac),
            }),
        },
    }
}

/// What this host should be, given who else there is.
pub fn plan<'a>(node: &Node, peers: impl IntoIterator<Item = &'a Lease>) -> Plan {
    let mut plan = Plan::default();
    let peers: Vec<&Lease> = peers.into_iter().collect();
    let regular = regular(node, &peers);
    let peers: Vec<&Lease> = peers
        .into_iter()
        .filter(|peer| match obstacle(node, peer, &regular) {
            None => true,
            Some(obstacle) => {
                plan.paths.insert(peer.subnet, Path::None(obstacle));
                false
            }
        })
        .collect();
    match &node.network.backend {
        Backend::HostGw => host_gw::plan(node, &peers, &mut plan),
        Backend::Vxlan(options) => vxlan::plan(node, options, &peers, &mut plan),
        Backend::Udp { port } => udp::plan(node, *port, &peers, &mut plan),
    }
    docker::plan(node, &mut plan);
    firewall::plan(node, &peers, &mut plan);
    footprint::plan(node, &mut plan);
    passage::plan(node, &peers, &mut plan);
    let text = subnet_env::text(node);
    plan.files.insert(node.subnet_env.clone(), text);
    plan
}

/// What no backend could live with. The lease comes from outside: without these checks a single
/// bad one could draw the default route into the tunnel.
fn obstacle(node: &Node, peer: &Lease, regular: &BTreeMap<Ipv4Addr, Subnet>) -> Option<Obstacle> {
    let address = peer.attrs.public_ip;
    if !node.network.net.contains(&peer.subnet.v4()) {
        return Some(Obstacle::OutsideNetwork);
    }
    if peer.subnet.overlaps(node.lease.subnet) {
        return Some(Obstacle::Overlap(node.lease.subnet));
    }
    if let Some(other) = covered(node, peer, regular) {
        return Some(Obstacle::Overlap(other));
    }
    let unusable = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast();
    // the kernel takes neither as a gateway, and a tunnel to all hosts of a link would flood it
    let of_all = |net: &Ipv4Net| {
        net.prefix_len() < 31 && (address == net.broadcast() || address == net.network())
    };
    let unusable = unusable || node.uplink.networks.iter().any(of_all);
    if unusable || node.network.net.contains(&address) {
        return Some(Obstacle::NoAddress(address));
    }
    if address == node.uplink.public_ip || address == node.uplink.address {
        return Some(Obstacle::OwnAddress);
    }
    let theirs = peer.attrs.backend.name();
    (theirs != node.network.backend.name()).then(|| Obstacle::OtherBackend(theirs.to_owned()))
}

/// The leases of the size that the network config asks for, by address.
fn regular(node: &Node, peers: &[&Lease]) -> BTreeMap<Ipv4Addr, Subnet> {
    let subnets = peers.iter().map(|peer| peer.subnet);
    subnets
        .filter(|subnet| subnet.v4().prefix_len() == node.network.subnet_len)
        .map(|subnet| (subnet.base(), subnet))
        .collect()
}

/// The regular lease that an irregular one overlaps. No allocator makes such a one, and a route
/// for it could take the packets of the other.
fn covered(node: &Node, peer: &Lease, regular: &BTreeMap<Ipv4Addr, Subnet>) -> Option<Subnet> {
    let net = peer.subnet.v4();
    let len = node.network.subnet_len;
    if net.prefix_len() == len {
        return None;
    }
    let first = Ipv4Net::new(net.network(), len).ok()?.network();
    let mut overlapped = regular.range(first..=net.broadcast());
    overlapped.next().map(|(_, subnet)| *subnet)
}

#[cfg(test)]
mod tests;
