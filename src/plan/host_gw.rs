//! host-gw: a route to each peer's subnet by way of the peer itself.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Node, Obstacle, Path, Plan};
use crate::cluster::lease::Lease;
use crate::kernel::state::{KernelState, PROTOCOL, Route, RouteKey};

pub(super) fn plan(node: &Node, peers: &[&Lease], plan: &mut Plan) {
    let uplink = &node.uplink;
    if uplink.public_ip != uplink.address {
        plan.objection = Some(format!(
            "host-gw cannot work behind NAT: peers would route to {}, but {} has {}; remove \
             node.public-ip or use vxlan or udp",
            uplink.public_ip, uplink.name, uplink.address
        ));
    }
    for peer in peers {
        let address = peer.attrs.public_ip;
        let path = if on_link(node, address) {
            route(&mut plan.kernel, node, peer);
            Path::Direct
        } else {
            let uplink = uplink.name.clone();
            Path::None(Obstacle::NotOnLink { address, uplink })
        };
        plan.paths.insert(peer.subnet, path);
    }
}

/// Whether packets to `address` leave by the uplink without a router.
pub(super) fn on_link(node: &Node, address: Ipv4Addr) -> bool {
    let contains = |net: &Ipv4Net| net.contains(&address);
    node.uplink.networks.iter().any(contains)
}

/// The route to a peer on the same link. Also what vxlan's direct routing installs.
pub(super) fn route(kernel: &mut KernelState, node: &Node, peer: &Lease) {
    let key = RouteKey {
        destination: peer.subnet.v4(),
        metric: 0,
    };
    let route = Route {
        nexthop: None,
        link: node.uplink.name.as_str().into(),
        gateway: Some(peer.attrs.public_ip),
        onlink: false,
        source: None,
        protocol: PROTOCOL,
    };
    kernel.routes.insert(key, route);
}
