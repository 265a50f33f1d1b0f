//! What the service says this host should be.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::cluster::subnet::Subnet;
use crate::service::status::{InterfaceStatus, PeerPath, PeerStatus, Provision, Status};

/// What this host should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The whole network.
    pub network: Ipv4Net,
    /// The own subnet.
    pub subnet: Subnet,
    /// The longest packet of a container, in bytes.
    pub mtu: u32,
    /// The interface to the other nodes.
    pub uplink: String,
    /// The tunnel device; `None` with host-gw.
    pub tunnel: Option<String>,
    /// The bridge of the containers, if the service has one.
    pub bridge: Option<String>,
    /// What else the service is to provide.
    pub provision: Provision,
    /// The peers that should be reached.
    pub peers: Vec<Peer>,
}

/// A peer that should be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its subnet.
    pub subnet: Subnet,
    /// Where tunnel packets for it go.
    pub public_ip: Ipv4Addr,
    /// Whether packets for it go through the tunnel.
    pub tunnelled: bool,
}

impl Host {
    /// What a status says; `None` as long as the service has no lease.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let kind = |interface: &&InterfaceStatus| {
            let desired = interface.desired.as_ref();
            desired.is_some_and(|link| ["vxlan", "tun"].contains(&link.kind.as_str()))
        };
        let tunnel = status.interfaces.iter().find(kind);
        let provision = status.provision.clone()?;
        Some(Self {
            network: status.network.as_ref()?.parse().ok()?,
            subnet: Subnet::new(status.subnet.as_ref()?.parse().ok()?),
            mtu: status.mtu,
            uplink: status.interface.clone()?,
            tunnel: tunnel.map(|interface| interface.name.clone()),
            bridge: provision.bridge.clone(),
            provision,
            peers: status.peers.iter().filter_map(Peer::of).collect(),
        })
    }

    /// The link that packets for a peer should leave by.
    #[must_use]
    pub fn link_to(&self, peer: &Peer) -> &str {
        let tunnel = self.tunnel.as_ref().filter(|_| peer.tunnelled);
        tunnel.unwrap_or(&self.uplink)
    }

    /// The links that packets of containers take.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        let optional = [self.bridge.as_deref(), self.tunnel.as_deref()];
        let links = optional.into_iter().flatten();
        links.chain([self.uplink.as_str()])
    }
}

impl Peer {
    fn of(status: &PeerStatus) -> Option<Self> {
        let v4 = status.subnet.split(',').next()?;
        Some(Self {
            subnet: Subnet::new(v4.parse().ok()?),
            public_ip: status.public_ip,
            tunnelled: match status.path {
                PeerPath::Tunnel => true,
                PeerPath::Direct => false,
                PeerPath::None => return None,
            },
        })
    }
}
