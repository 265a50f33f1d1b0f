//! vxlan: one device, and for each peer a neighbour, a forwarding entry and a route.

use super::{Node, Obstacle, Path, Plan, host_gw};
use crate::cluster::lease::{BackendAttrs, Lease, Vtep};
use crate::cluster::network::Vxlan;
use crate::kernel::state::{
    Address, FdbEntry, Link, LinkKind, LinkName, Neighbour, PROTOCOL, Route, RouteKey,
};
use crate::mac::Mac;

/// 20 IPv4 + 8 UDP + 8 VXLAN + 14 inner Ethernet, in bytes.
pub(super) const OVERHEAD: u32 = 50;

/// The Ethernet address of a node's tunnel device: always the same for the same node and VNI,
/// so that peers' entries stay true over a reboot (flannel#1828), and set by us, so that udev
/// leaves it alone (flannel#1155).
#[must_use]
pub fn vtep_mac(node_id: &str, vni: u32) -> Mac {
    Mac::derived("flannel-rs vtep ", node_id, vni)
}

pub(super) fn plan(node: &Node, options: &Vxlan, peers: &[&Lease], plan: &mut Plan) {
    let device = format!("flannel.{}", options.vni);
    let own = mac(&node.lease);
    let name = LinkName::from(device.as_str());
    device_rows(node, options, &device, plan);
    for peer in peers {
        let path = match mac(peer) {
            _ if options.direct_routing && host_gw::on_link(node, peer.attrs.public_ip) => {
                host_gw::route(&mut plan.kernel, node, peer);
                Path::Direct
            }
            None => Path::None(Obstacle::NoVtep),
            Some(mac) if !mac.is_unicast() => Path::None(Obstacle::NoUnicast(mac)),
            Some(mac) if own == Some(mac) || is_elsewhere(plan, &name, peer, mac) => {
                Path::None(Obstacle::SameMac(mac))
            }
            Some(mac) => {
                peer_rows(peer, mac, &name, plan);
                Path::Tunnel
            }
        };
        plan.paths.insert(peer.subnet, path);
    }
}

fn device_rows(node: &Node, options: &Vxlan, device: &str, plan: &mut Plan) {
    let kind = LinkKind::Vxlan {
        vni: options.vni,
        port: options.port,
        local: node.uplink.address,
        underlay: node.uplink.name.clone(),
        learning: options.learning,
        gbp: options.gbp,
    };
    let link = Link {
        kind,
        mac: mac(&node.lease),
        mtu: node.mtu(),
        up: true,
        marked: true,
    };
    plan.kernel.links.insert(device.to_owned(), link);
    // a wider mask would make broadcast routes that break the first subnet (flannel trap T42)
    let address = node.lease.subnet.base().into();
    let link = device.into();
    plan.kernel.addresses.insert(Address { link, address });
}

fn peer_rows(peer: &Lease, mac: Mac, device: &LinkName, plan: &mut Plan) {
    let link = || LinkName::clone(device);
    let base = peer.subnet.base();
    let neighbour = Neighbour {
        link: link(),
        address: base,
    };
    plan.kernel.neighbours.insert(neighbour, mac);
    let entry = FdbEntry { link: link(), mac };
    plan.kernel.fdb.insert(entry, peer.attrs.public_ip);
    let key = RouteKey {
        destination: peer.subnet.v4(),
        metric: 0,
    };
    let route = Route {
        nexthop: None,
        link: link(),
        gateway: Some(base),
        onlink: true,
        source: None,
        protocol: PROTOCOL,
    };
    plan.kernel.routes.insert(key, route);
}

/// Whether another machine has the Ethernet address. One machine may have it twice: in a lease of
/// before, which has not run out yet.
fn is_elsewhere(plan: &Plan, device: &LinkName, peer: &Lease, mac: Mac) -> bool {
    let link = LinkName::clone(device);
    let known = plan.kernel.fdb.get(&FdbEntry { link, mac });
    known.is_some_and(|address| *address != peer.attrs.public_ip)
}

fn mac(lease: &Lease) -> Option<Mac> {
    match lease.attrs.backend {
        BackendAttrs::Vxlan(Vtep { mac, .. }) => mac,
        BackendAttrs::Udp | BackendAttrs::HostGw | BackendAttrs::Other(_) => None,
    }
}
