//! udp: a TUN device with one route for the whole network; which peer has which subnet is the
//! data plane's business.

use std::net::SocketAddrV4;

use super::{Node, Path, Plan, ProxyPlan};
use crate::cluster::lease::Lease;
use crate::kernel::state::{Address, Link, LinkKind, PROTOCOL, Route, RouteKey};
use crate::proxy::{Settings, table::Table};

/// 20 IPv4 + 8 UDP, in bytes.
pub(super) const OVERHEAD: u32 = 28;

const DEVICE: &str = "flannel0";

pub(super) fn plan(node: &Node, port: u16, peers: &[&Lease], plan: &mut Plan) {
    let base = node.lease.subnet.base();
    let link = Link {
        kind: LinkKind::Tun,
        mac: None,
        mtu: node.mtu(),
        up: true,
        marked: true,
    };
    plan.kernel.links.insert(DEVICE.to_owned(), link);
    let address = Address {
        link: DEVICE.into(),
        address: base.into(),
    };
    plan.kernel.addresses.insert(address);
    let key = RouteKey {
        destination: node.network.net,
        metric: 0,
    };
    let route = Route {
        nexthop: None,
        link: DEVICE.into(),
        gateway: None,
        onlink: false,
        source: Some(base),
        protocol: PROTOCOL,
    };
    plan.kernel.routes.insert(key, route);
    let tunnel = peers.iter().map(|peer| (peer.subnet, Path::Tunnel));
    plan.paths.extend(tunnel);
    plan.proxy = Some(ProxyPlan {
        settings: Settings {
            device: DEVICE.to_owned(),
            mtu: node.mtu(),
            bind: SocketAddrV4::new(node.uplink.address, port),
            verify: node.firewall.verify_source.then_some(node.network.net),
            tuning: node.tuning,
        },
        table: Table::new(
            peers
                .iter()
                .map(|peer| (peer.subnet.v4(), peer.attrs.public_ip)),
        ),
    });
}
