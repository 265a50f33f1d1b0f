//! Messages of the kernel, and the rows made of them. The input is one or more messages, one
//! behind the other as in a datagram.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages have no end"
)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use flannel_rs::kernel::change::Change;
use flannel_rs::kernel::decode::{self, Names, Nexthops};
use flannel_rs::kernel::encode::{self, Indexes};
use flannel_rs::kernel::state::{
    Address, FdbEntry, Link, LinkKind, Neighbour, Nexthop, PROTOCOL, Route, RouteKey,
};
use flannel_rs::mac::Mac;
use ipnet::Ipv4Net;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;

/// Reads messages. Every row in them is written as a request and read again, and is then the
/// same: what we set we also recognise. So is every row made of the bytes themselves, which may
/// have what no message was seen to have.
pub fn netlink(mut data: &[u8]) {
    if let Some((bytes, _)) = data.split_first_chunk() {
        made(bytes).into_iter().for_each(written);
    }
    while let Some((found, length)) = read(data, &Nexthops::new()) {
        found.into_iter().for_each(written);
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// The first request for a row carries all of it, but for the MTU of a bridge.
fn written(mut change: Change) {
    // a vxlan whose uplink has no name cannot be asked for
    let requests = encode::requests(&change, &indexes()).unwrap_or_default();
    let Some(request) = requests.into_iter().next() else {
        return;
    };
    // an object without a gateway is somebody else's, and no row of ours leads through it
    if matches!(&change, Change::PutRoute(_, route) if route.nexthop.is_some() && route.gateway.is_none())
    {
        return;
    }
    let mut message = request.message;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let again = read(&bytes, &nexthops(&change)).and_then(|(found, _)| found);
    if let Change::AddLink(_, link) = &mut change
        && link.kind == LinkKind::Bridge
    {
        // it counts as set only when a second request changes it
        link.mtu ^= 1;
    }
    assert_eq!(again, Some(change));
}

/// What a route leads to through a nexthop object is not in its request.
fn nexthops(change: &Change) -> Nexthops {
    let Change::PutRoute(_, route) = change else {
        return Nexthops::new();
    };
    let hop = route.gateway.map(|gateway| Nexthop {
        link: route.link.clone(),
        gateway,
        onlink: route.onlink,
    });
    route.nexthop.zip(hop).into_iter().collect()
}

/// One row of each kind.
fn made(bytes: &[u8; 24]) -> Vec<Change> {
    let [flags, length, protocol, a, b, c, d, e, g, h, i, ..] = *bytes;
    let link: Arc<str> = format!("eth{}", flags % 4 + 1).into();
    let address = Ipv4Addr::new(a, b, c, d);
    let to = Ipv4Addr::new(e, g, h, i);
    let device = device(bytes, &link, to);
    let mac = Mac::new([a, b, c, d, e, g]);
    let net = Ipv4Net::new(address, length % 33).unwrap();
    let key = RouteKey {
        destination: net.trunc(),
        metric: device.mtu,
    };
    let route = Route {
        link: link.clone(),
        gateway: (flags & 4 != 0).then_some(to),
        onlink: flags & 8 != 0,
        source: (flags & 16 != 0).then_some(address),
        // those of the kernel are left out
        protocol: if protocol == 2 { PROTOCOL } else { protocol },
        nexthop: None,
    };
    let on = || link.clone();
    let address_row = Address {
        link: on(),
        address: net,
    };
    vec![
        Change::AddLink("flannel.1".to_owned(), device),
        Change::AddAddress(address_row),
        Change::PutNeighbour(
            Neighbour {
                link: on(),
                address,
            },
            mac,
        ),
        Change::PutFdb(FdbEntry { link: on(), mac }, to),
        Change::PutRoute(key, route),
    ]
}

fn device(bytes: &[u8; 24], underlay: &str, local: Ipv4Addr) -> Link {
    let [flags, .., j, k, l, m, n, v, w, x, p, q] = *bytes;
    let vxlan = LinkKind::Vxlan {
        vni: u32::from_be_bytes([0, v, w, x]),
        port: u16::from_be_bytes([p, q]),
        local,
        underlay: underlay.to_owned(),
        learning: flags & 4 != 0,
        gbp: flags & 8 != 0,
    };
    let mac = Mac::new([j, k, l, m, n, v]);
    Link {
        kind: if flags & 16 != 0 {
            LinkKind::Bridge
        } else {
            vxlan
        },
        mac: (flags & 32 != 0).then_some(mac),
        mtu: u32::from_be_bytes([k, l, m, n]),
        up: false,
        marked: false,
    }
}

/// The row in the first message, as the change that makes it, and the message's length.
fn read(data: &[u8], nexthops: &Nexthops) -> Option<(Option<Change>, usize)> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(data).ok()?;
    // one shorter than its own header would be read again and again
    let length = usize::try_from(message.header.length).ok()?.max(16);
    let found = match message.payload {
        NetlinkPayload::InnerMessage(message) => row(&message, nexthops),
        _ => None,
    };
    Some((found, length))
}

fn row(message: &RouteNetlinkMessage, nexthops: &Nexthops) -> Option<Change> {
    match message {
        RouteNetlinkMessage::NewLink(found) => {
            let mut link = decode::link(found, &names());
            // that comes in requests of its own
            (link.up, link.marked) = (false, false);
            let ours = matches!(link.kind, LinkKind::Vxlan { .. } | LinkKind::Bridge);
            ours.then(|| Change::AddLink("flannel.1".to_owned(), link))
        }
        RouteNetlinkMessage::NewAddress(found) => {
            decode::address(found, &names()).map(Change::AddAddress)
        }
        RouteNetlinkMessage::NewNeighbour(found) => {
            let neighbour = decode::neighbour(found, &names());
            let neighbour = neighbour.map(|(row, mac)| Change::PutNeighbour(row, mac));
            let fdb = || decode::fdb(found, &names()).map(|(row, to)| Change::PutFdb(row, to));
            neighbour.or_else(fdb)
        }
        RouteNetlinkMessage::NewRoute(found) => {
            let (mut key, route) = decode::route(found, &names(), nexthops)?;
            // the kernel knows no destination with host bits
            key.destination = key.destination.trunc();
            Some(Change::PutRoute(key, route))
        }
        _ => None,
    }
}

fn names() -> Names {
    BTreeMap::from([1, 2, 3, 4].map(|index| (index, format!("eth{index}").into())))
}

fn indexes() -> Indexes {
    let names = names().into_iter();
    let mut indexes: Indexes = names
        .map(|(index, name)| (name.to_string(), index))
        .collect();
    indexes.insert("flannel.1".to_owned(), 5);
    indexes
}
