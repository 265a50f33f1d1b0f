//! From the kernel's messages to rows. Only what we set is kept: the kernel adds scopes,
//! broadcast addresses and the like, and a row must read back as it was written.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages and attributes have no end"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};

use super::message::NexthopWay;
use super::state::{
    ALIAS, Address, FdbEntry, Link, LinkKind, LinkName, Neighbour, Nexthop, Route, RouteKey,
};
use crate::mac::Mac;

/// The names of all links, by the index that the kernel's messages speak of.
pub type Names = BTreeMap<u32, LinkName>;

/// Nexthop objects by id, anybody's, but only those that are one IPv4 gateway on a link.
pub type Nexthops = BTreeMap<u32, Nexthop>;

/// The name in a link's message.
#[must_use]
pub fn name(message: &LinkMessage) -> Option<&str> {
    message.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The index of the bridge that a link is a port of.
#[must_use]
pub fn controller(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|a| match a {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

/// A link, of whatever kind.
#[must_use]
pub fn link(message: &LinkMessage, names: &Names) -> Link {
    let mut link = Link {
        kind: LinkKind::Other("device".to_owned()),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        marked: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => link.marked = alias == ALIAS,
            LinkAttribute::Address(bytes) => link.mac = mac(bytes),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = kind(infos, message.header.link_layer_type, names);
            }
            _ => {}
        }
    }
    link
}

fn kind(infos: &[LinkInfo], layer: LinkLayerType, names: &Names) -> LinkKind {
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    let vxlan = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data.as_slice()),
        _ => None,
    });
    match kind {
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        // A TAP device is of the same kind, but carries Ethernet frames.
        Some(InfoKind::Tun) if layer != LinkLayerType::Ether => LinkKind::Tun,
        Some(InfoKind::Vxlan) => self::vxlan(vxlan.unwrap_or_default(), names)
            .unwrap_or_else(|| LinkKind::Other("vxlan with group or external".to_owned())),
        Some(other) => LinkKind::Other(other.to_string()),
        None => LinkKind::Other("device".to_owned()),
    }
}

fn vxlan(data: &[InfoVxlan], names: &Names) -> Option<LinkKind> {
    let (mut vni, mut port) = (0, 0);
    let mut local = Ipv4Addr::UNSPECIFIED;
    let mut underlay = String::new();
    let (mut learning, mut gbp) = (true, false);
    for attribute in data {
        match attribute {
            InfoVxlan::Id(number) => vni = *number,
            InfoVxlan::Port(number) => port = *number,
            InfoVxlan::Local(address) => local = *address,
            InfoVxlan::Link(index) => underlay = named(*index, names),
            InfoVxlan::Learning(is_on) => learning = *is_on,
            InfoVxlan::Gbp => gbp = true,
            InfoVxlan::Group(_)
            | InfoVxlan::Group6(_)
            | InfoVxlan::Local6(_)
            | InfoVxlan::CollectMetadata(true)
            | InfoVxlan::Gpe => return None,
            _ => {}
        }
    }
    Some(LinkKind::Vxlan {
        vni,
        port,
        local,
        underlay,
        learning,
        gbp,
    })
}

fn named(index: u32, names: &Names) -> String {
    names
        .get(&index)
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// An IPv4 address on a link that has a name.
#[must_use]
pub fn address(message: &AddressMessage, names: &Names) -> Option<Address> {
    let mut local = None;
    let mut peer = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => local = Some(*address),
            AddressAttribute::Address(IpAddr::V4(address)) => peer = Some(*address),
            _ => {}
        }
    }
    Some(Address {
        link: names.get(&message.header.index)?.clone(),
        address: Ipv4Net::new(local.or(peer)?, message.header.prefix_len).ok()?,
    })
}

/// A permanent IPv4 neighbour.
#[must_use]
pub fn neighbour(message: &NeighbourMessage, names: &Names) -> Option<(Neighbour, Mac)> {
    if message.header.family != AddressFamily::Inet
        || message.header.state != NeighbourState::Permanent
        || message.header.flags.contains(NeighbourFlags::Proxy)
    {
        return None;
    }
    Some((neighbour_key(message, names)?, link_layer(message)?))
}

/// The key of an IPv4 neighbour, also of one that is not permanent.
pub(super) fn neighbour_key(message: &NeighbourMessage, names: &Names) -> Option<Neighbour> {
    Some(Neighbour {
        link: names.get(&message.header.ifindex)?.clone(),
        address: destination(message)?,
    })
}

/// A forwarding entry of a vxlan device that was put there and not learned from traffic.
#[must_use]
pub fn fdb(message: &NeighbourMessage, names: &Names) -> Option<(FdbEntry, Ipv4Addr)> {
    let was_put = match message.header.state {
        NeighbourState::Permanent | NeighbourState::Noarp => true,
        // The kernel sets several bits at once for `bridge fdb add … static`.
        NeighbourState::Other(bits) => bits & (NUD_PERMANENT | NUD_NOARP) != 0,
        _ => false,
    };
    if message.header.family != AddressFamily::Bridge
        || !message.header.flags.contains(NeighbourFlags::Own)
        || !was_put
    {
        return None;
    }
    Some((fdb_key(message, names)?, destination(message)?))
}

/// The key of a forwarding entry, also of one that was learned.
pub(super) fn fdb_key(message: &NeighbourMessage, names: &Names) -> Option<FdbEntry> {
    Some(FdbEntry {
        link: names.get(&message.header.ifindex)?.clone(),
        mac: link_layer(message)?,
    })
}

const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// In the bridge family the crate leaves the address as the bytes that it is.
fn destination(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            <[u8; 4]>::try_from(bytes.as_slice())
                .ok()
                .map(Ipv4Addr::from)
        }
        _ => None,
    })
}

fn link_layer(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
        _ => None,
    })
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac::new)
}

/// What a nexthop object of this kind leads to.
pub(super) fn nexthop(way: &NexthopWay, names: &Names) -> Option<Nexthop> {
    Some(Nexthop {
        link: names.get(&way.index)?.clone(),
        gateway: way.gateway,
        onlink: way.onlink,
    })
}

/// A unicast route of the main table with one next hop on a named link. Those that the kernel
/// makes for addresses are left out, as are those for a type of service. What a route leads to
/// by a nexthop object is not in its message where `net.ipv4.nexthop_compat_mode` is off.
#[must_use]
pub fn route(
    message: &RouteMessage,
    names: &Names,
    nexthops: &Nexthops,
) -> Option<(RouteKey, Route)> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut key_metric = 0;
    let mut oif = None;
    let mut route = Route {
        nexthop: None,
        link: LinkName::from(""),
        gateway: None,
        onlink: header.flags.contains(RouteFlags::Onlink),
        source: None,
        protocol: header.protocol.into(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(RouteAddress::Inet(a)) => destination = *a,
            RouteAttribute::Priority(metric) => key_metric = *metric,
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(a)) => route.gateway = Some(*a),
            RouteAttribute::PrefSource(RouteAddress::Inet(a)) => route.source = Some(*a),
            RouteAttribute::NhId(id) => route.nexthop = Some(*id),
            _ => {}
        }
    }
    let ordinary = header.address_family == AddressFamily::Inet
        && header.kind == RouteType::Unicast
        && header.tos == 0
        && header.protocol != RouteProtocol::Kernel
        && table == u32::from(RouteHeader::RT_TABLE_MAIN);
    if !ordinary {
        return None;
    }
    if let Some(hop) = route.nexthop.and_then(|id| nexthops.get(&id)) {
        route.link = hop.link.clone();
        route.gateway = Some(hop.gateway);
        route.onlink = hop.onlink;
    } else {
        route.link.clone_from(names.get(&oif?)?);
    }
    let key = RouteKey {
        destination: Ipv4Net::new(destination, header.destination_prefix_length).ok()?,
        metric: key_metric,
    };
    Some((key, route))
}
