//! From changes to the kernel's messages.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoData, InfoKind,
    InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::change::{Change, Setting};
use super::message::{Message, NexthopWay};
use super::state::{ALIAS, Address, FdbEntry, Link, LinkKind, Neighbour, Nexthop, Route, RouteKey};
use crate::mac::Mac;

/// The indexes of all links, by name.
pub type Indexes = BTreeMap<String, u32>;

/// One message, and the refusals that are as good as success.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to send; it asks for an acknowledgement.
    pub message: NetlinkMessage<Message>,
    /// Numbers of errors that say that all is well.
    pub accepted: &'static [i32],
}

/// A change speaks of a link that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no link {0:?}")]
pub struct NoLink(pub String);

/// The messages that make a change, in their order; none where there is nothing left to do.
///
/// # Errors
/// [`NoLink`] where the link that the change needs is not among the indexes.
pub fn requests(change: &Change, indexes: &Indexes) -> Result<Vec<Request>, NoLink> {
    let index = |name: &str| {
        let found = indexes.get(name).copied();
        found.ok_or_else(|| NoLink(name.to_owned()))
    };
    let on = index(change.link());
    Ok(match change {
        Change::DelRoute(key, way) => removal(on, |on| {
            let mut message = route(key, way, on);
            // Any scope, as `ip route del` says it.
            message.header.scope = RouteScope::NoWhere;
            RouteNetlinkMessage::DelRoute(message)
        }),
        Change::DelNeighbour(row) => removal(on, |on| {
            RouteNetlinkMessage::DelNeighbour(neighbour(row, None, on))
        }),
        Change::DelFdb(row) => removal(on, |on| {
            RouteNetlinkMessage::DelNeighbour(fdb(row, None, on))
        }),
        Change::DelAddress(row) => {
            removal(on, |on| RouteNetlinkMessage::DelAddress(address(row, on)))
        }
        Change::DelLink(_) => removal(on, |on| RouteNetlinkMessage::DelLink(numbered(on))),
        // the packet filter has a socket and messages of its own
        Change::Firewall(_) => Vec::new(),
        Change::AddLink(name, link) => {
            let underlay = match &link.kind {
                LinkKind::Vxlan { underlay, .. } => Some(index(underlay)?),
                LinkKind::Bridge | LinkKind::Tun | LinkKind::Other(_) => None,
            };
            add_link(name, link, underlay)
        }
        Change::SetLink(_, settings) => set_link(on?, settings),
        Change::AddAddress(row) => vec![Request {
            message: message(
                RouteNetlinkMessage::NewAddress(address(row, on?)),
                NLM_F_CREATE | NLM_F_EXCL,
            ),
            accepted: &[libc::EEXIST],
        }],
        Change::PutFdb(row, to) => vec![put(RouteNetlinkMessage::NewNeighbour(fdb(
            row,
            Some(*to),
            on?,
        )))],
        Change::PutNeighbour(row, mac) => vec![put(RouteNetlinkMessage::NewNeighbour(neighbour(
            row,
            Some(*mac),
            on?,
        )))],
        Change::PutNexthop(id, hop) => vec![put(nexthop(*id, hop, on?))],
        Change::DelNexthop(id, _) => removal(on, |_| Message::del_nexthop(*id)),
        Change::PutRoute(key, way) => {
            vec![put(RouteNetlinkMessage::NewRoute(route(key, way, on?)))]
        }
    })
}

/// What is to go from a link that has gone, has gone.
fn removal<M: Into<Message>>(
    on: Result<u32, NoLink>,
    payload: impl FnOnce(u32) -> M,
) -> Vec<Request> {
    let request = |on| Request {
        message: message(payload(on), 0),
        accepted: &[libc::ENOENT, libc::ESRCH, libc::ENODEV, libc::EADDRNOTAVAIL],
    };
    on.ok().map(request).into_iter().collect()
}

fn put(payload: impl Into<Message>) -> Request {
    Request {
        message: message(payload, NLM_F_CREATE | NLM_F_REPLACE),
        accepted: &[],
    }
}

fn message(payload: impl Into<Message>, flags: u16) -> NetlinkMessage<Message> {
    let mut message = NetlinkMessage::from(payload.into());
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message
}

/// Made down, so that it is never up without its mark and its settings. The kernel ignores an
/// alias in the request that makes a link (`rtnl_create_link`).
///
/// A bridge follows the smallest MTU of its ports until somebody has changed its own
/// (`BROPT_MTU_SET_BY_USER` in `br_change_mtu`). The one that it is made with does not count, nor
/// does one that it has already, so it is made with its neighbour.
fn add_link(name: &str, link: &Link, underlay: Option<u32>) -> Vec<Request> {
    let mut made = named(name);
    let kind = match link.kind {
        LinkKind::Vxlan { .. } => InfoKind::Vxlan,
        LinkKind::Bridge => InfoKind::Bridge,
        // The kernel refuses to make these, in its own words.
        LinkKind::Tun | LinkKind::Other(_) => InfoKind::Tun,
    };
    let mut info = vec![LinkInfo::Kind(kind)];
    if let LinkKind::Vxlan {
        vni,
        port,
        local,
        learning,
        gbp,
        ..
    } = &link.kind
    {
        let mut data = vec![
            InfoVxlan::Id(*vni),
            InfoVxlan::Local(*local),
            InfoVxlan::Learning(*learning),
            InfoVxlan::Port(*port),
        ];
        data.extend(underlay.map(InfoVxlan::Link));
        data.extend(gbp.then_some(InfoVxlan::Gbp));
        info.push(LinkInfo::Data(InfoData::Vxlan(data)));
    }
    made.attributes.push(LinkAttribute::LinkInfo(info));
    let is_bridge = link.kind == LinkKind::Bridge;
    let mtu = if is_bridge { link.mtu ^ 1 } else { link.mtu };
    made.attributes.push(LinkAttribute::Mtu(mtu));
    if let Some(mac) = link.mac {
        // An address given here is left alone by udev's MACAddressPolicy.
        let bytes = mac.bytes().to_vec();
        made.attributes.push(LinkAttribute::Address(bytes));
    }
    let mut requests = vec![Request {
        message: message(
            RouteNetlinkMessage::NewLink(made),
            NLM_F_CREATE | NLM_F_EXCL,
        ),
        accepted: &[],
    }];
    if is_bridge {
        let mut wanted = named(name);
        wanted.attributes.push(LinkAttribute::Mtu(link.mtu));
        requests.push(set(wanted));
    }
    if link.marked {
        requests.push(mark(named(name)));
    }
    if link.kind.is_tunnel() {
        requests.push(no_link_local(named(name)));
    }
    if link.up {
        requests.push(set(flagged(named(name), LinkFlags::Up)));
    }
    requests
}

fn set_link(on: u32, settings: &[Setting]) -> Vec<Request> {
    let one = |setting: &Setting| {
        let mut link = numbered(on);
        match setting {
            Setting::Mark => return mark(link),
            Setting::NoLinkLocal => return no_link_local(link),
            Setting::Free => link.attributes.push(LinkAttribute::Controller(0)),
            Setting::Mac(mac) => {
                let bytes = mac.bytes().to_vec();
                link.attributes.push(LinkAttribute::Address(bytes));
            }
            Setting::Mtu(mtu) => link.attributes.push(LinkAttribute::Mtu(*mtu)),
            Setting::Local(local) => link.attributes.push(vxlan(InfoVxlan::Local(*local))),
            Setting::Learning(is_on) => link.attributes.push(vxlan(InfoVxlan::Learning(*is_on))),
            Setting::Forwarding => link.attributes.push(devconf(|conf| conf.forwarding = 1)),
            Setting::LooseFilter => link.attributes.push(devconf(|conf| conf.rp_filter = 2)),
            Setting::Down => link = flagged(link, LinkFlags::empty()),
            Setting::Up => link = flagged(link, LinkFlags::Up),
        }
        set(link)
    };
    settings.iter().map(one).collect()
}

fn mark(mut link: LinkMessage) -> Request {
    let alias = LinkAttribute::IfAlias(ALIAS.to_owned());
    link.attributes.push(alias);
    set(link)
}

/// Refused in the request that makes a link, and where the kernel has no IPv6; then it is not
/// needed either.
fn no_link_local(mut link: LinkMessage) -> Request {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let spec = AfSpecUnspec::Inet6(vec![mode]);
    let attribute = LinkAttribute::AfSpecUnspec(vec![spec]);
    link.attributes.push(attribute);
    Request {
        accepted: &[libc::EAFNOSUPPORT, libc::EOPNOTSUPP],
        ..set(link)
    }
}

/// Settings under `net.ipv4.conf`, without a way through /proc/sys, which is read-only for many a
/// service. A parameter of 0 is left out, and stays as it is.
fn devconf(set: impl FnOnce(&mut InetDevConf)) -> LinkAttribute {
    let mut conf = InetDevConf::default();
    set(&mut conf);
    let spec = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]);
    LinkAttribute::AfSpecUnspec(vec![spec])
}

/// `RTM_SETLINK` would ignore what is particular to a kind of link, and say that all is well.
fn set(link: LinkMessage) -> Request {
    Request {
        message: message(RouteNetlinkMessage::NewLink(link), 0),
        accepted: &[],
    }
}

fn vxlan(data: InfoVxlan) -> LinkAttribute {
    let data = LinkInfo::Data(InfoData::Vxlan(vec![data]));
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), data])
}

fn flagged(mut link: LinkMessage, flags: LinkFlags) -> LinkMessage {
    link.header.flags = flags;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn numbered(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

fn address(row: &Address, on: u32) -> AddressMessage {
    let address = IpAddr::V4(row.address.addr());
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = row.address.prefix_len();
    message.header.index = on;
    message.attributes = vec![
        AddressAttribute::Address(address),
        AddressAttribute::Local(address),
    ];
    message
}

fn neighbour(row: &Neighbour, mac: Option<Mac>, on: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = on;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![destination(row.address)];
    message.attributes.extend(mac.map(link_layer));
    message
}

fn fdb(row: &FdbEntry, to: Option<Ipv4Addr>, on: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = on;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![link_layer(row.mac)];
    message.attributes.extend(to.map(destination));
    message
}

fn destination(address: Ipv4Addr) -> NeighbourAttribute {
    NeighbourAttribute::Destination(NeighbourAddress::Inet(address))
}

fn link_layer(mac: Mac) -> NeighbourAttribute {
    NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec())
}

fn nexthop(id: u32, hop: &Nexthop, on: u32) -> Message {
    let way = NexthopWay {
        index: on,
        gateway: hop.gateway,
        onlink: hop.onlink,
    };
    Message::new_nexthop(id, way)
}

fn route(key: &RouteKey, route: &Route, on: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = key.destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = route.protocol.into();
    message.header.kind = RouteType::Unicast;
    message.header.scope = match route.gateway {
        Some(_) => RouteScope::Universe,
        None => RouteScope::Link,
    };
    if route.onlink && route.nexthop.is_none() {
        message.header.flags = RouteFlags::Onlink;
    }
    let inet = RouteAddress::Inet;
    let attributes = &mut message.attributes;
    if key.destination != Ipv4Net::default() {
        let network = inet(key.destination.network());
        attributes.push(RouteAttribute::Destination(network));
    }
    // The kernel wants to be told either the object or what is in it.
    if let Some(id) = route.nexthop {
        attributes.push(RouteAttribute::NhId(id));
    } else {
        attributes.push(RouteAttribute::Oif(on));
        attributes.extend(route.gateway.map(|a| RouteAttribute::Gateway(inet(a))));
    }
    attributes.extend(route.source.map(|a| RouteAttribute::PrefSource(inet(a))));
    if key.metric != 0 {
        attributes.push(RouteAttribute::Priority(key.metric));
    }
    message
}
