//! The world as outsiders see it.

use std::sync::Arc;

use super::{Tenure, World};
use crate::cluster::lease::Lease;
use crate::cluster::network::Backend;
use crate::cluster::subnet::Subnet;
use crate::plan::{Node, Path, Plan};
use crate::service::faults::Code;
use crate::service::status::{
    DatastoreStatus, GarbageStatus, PeerPath, PeerStatus, Provision, State, Status,
};

impl World {
    /// All of it, for outsiders.
    /// `peers` are those of [`World::peers`].
    pub(in crate::service) fn status(&self, peers: Arc<Vec<PeerStatus>>) -> Status {
        let network = self.network.as_ref();
        let node = self.node();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: State::Waiting,
            faults: self.faults.list(),
            node_name: self.identity.name.clone(),
            node_id: self.identity.id.clone(),
            backend: network.map(|network| network.backend.name().to_owned()),
            network: network.map(|network| network.net.to_string()),
            subnet: self.subnet().map(|subnet| subnet.to_string()),
            interface: self.uplink.as_ref().map(|uplink| uplink.name.clone()),
            public_ip: self.uplink.as_ref().map(|uplink| uplink.public_ip),
            mtu: node.as_ref().map_or(0, Node::mtu),
            lease_expires_usec: self.tenure.as_ref().and_then(Tenure::expires_usec),
            datastore: DatastoreStatus {
                name: self.store_name.clone(),
                connected: self.view.is_complete() && !self.faults.has(Code::Datastore),
                revision: self.view.revision().0,
            },
            log_level: self.config.log.level.clone(),
            interfaces: Arc::default(),
            peers,
            garbage: self
                .view
                .garbage()
                .iter()
                .map(|(key, garbage)| GarbageStatus {
                    key: key.clone(),
                    reason: garbage.reason.clone(),
                })
                .collect(),
            last_reconcile_usec: None,
            repairs: 0,
            provision: node.as_ref().map(provision),
            traffic: None,
        }
    }

    /// Every other lease, and how the plan reaches it.
    pub(in crate::service) fn peers(&self, plan: &Plan) -> Vec<PeerStatus> {
        let own = self.subnet();
        let unplanned = match self.is_withdrawn() {
            true => "this node takes no part in the network",
            false => "not planned yet",
        };
        let peer = |lease: &Lease| {
            let (path, obstacle) = match plan.paths.get(&lease.subnet) {
                Some(Path::Tunnel) => (PeerPath::Tunnel, None),
                Some(Path::Direct) => (PeerPath::Direct, None),
                Some(Path::None(obstacle)) => (PeerPath::None, Some(obstacle.to_string())),
                None => (PeerPath::None, Some(unplanned.to_owned())),
            };
            PeerStatus {
                subnet: lease.subnet.to_string(),
                public_ip: lease.attrs.public_ip,
                backend: lease.attrs.backend.name().to_owned(),
                mac: lease.attrs.backend.mac().map(|mac| mac.to_string()),
                path,
                obstacle,
                traffic: None,
            }
        };
        let leases = self.view.records().map(|record| &record.lease);
        let others = leases.filter(|lease| own.is_none_or(|own| lease.subnet.v4() != own.v4()));
        others.map(peer).collect()
    }
}

fn provision(node: &Node) -> Provision {
    Provision {
        bridge: node.bridge.clone(),
        tunnel_port: match &node.network.backend {
            Backend::HostGw => None,
            Backend::Vxlan(vxlan) => Some(vxlan.port),
            Backend::Udp { port, .. } => Some(*port),
        },
        masquerade: node.firewall.masquerade,
        forward: node.firewall.forward,
        subnet_env: node.subnet_env.display().to_string(),
        docker_env: node.docker_env.display().to_string(),
    }
}

/// The first peer without a path, and how many more there are.
pub(super) fn unreachable(plan: &Plan) -> Option<(Subnet, String)> {
    let mut blocked = plan.paths.iter().filter_map(|(subnet, path)| match path {
        Path::None(obstacle) => Some((subnet, obstacle)),
        Path::Tunnel | Path::Direct => None,
    });
    let (subnet, obstacle) = blocked.next()?;
    let more = blocked.count();
    let others = if more == 0 {
        String::new()
    } else {
        format!(" (and {more} more)")
    };
    let text = format!("{subnet} cannot be reached: {obstacle}{others}");
    Some((*subnet, text))
}
