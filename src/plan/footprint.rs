//! What the programs that manage the network of this host have to know of it.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::{Node, Plan};
use crate::cluster::network::Backend;

/// What other programs of this host must leave alone, or let through. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint {
    /// The links that this service sets up, by name.
    pub links: BTreeSet<String>,
    /// The network whose packets are let through, if that is our business.
    pub network: Option<Ipv4Net>,
    /// Where tunnel packets come in.
    pub tunnel: Option<Tunnel>,
}

/// Where tunnel packets come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The name of the interface to the other nodes.
    pub uplink: String,
    /// The UDP port.
    pub port: u16,
}

pub(super) fn plan(node: &Node, plan: &mut Plan) {
    let port = match &node.network.backend {
        Backend::HostGw => None,
        Backend::Vxlan(vxlan) => Some(vxlan.port),
        Backend::Udp { port } => Some(*port),
    };
    plan.footprint = Footprint {
        links: plan.kernel.links.keys().cloned().collect(),
        network: node.firewall.forward.then_some(node.network.net),
        tunnel: port.map(|port| Tunnel {
            uplink: node.uplink.name.clone(),
            port,
        }),
    };
}
