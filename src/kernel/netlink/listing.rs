//! Lists of what is there, cut down to what is our business.

use std::collections::BTreeSet;

use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use super::socket::Refusal;
use crate::kernel::decode::{self, Nexthops};
use crate::kernel::message::Message;
use crate::kernel::state::{KernelState, PROTOCOL};
use crate::kernel::{KernelError, Scope};

/// An observation that is under way.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) state: KernelState,
    nexthops: Nexthops,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Filter {
    Link(u32),
    Protocol(RouteProtocol),
}

impl Netlink {
    pub(super) async fn links(&mut self) -> Result<Vec<LinkMessage>, KernelError> {
        let mut request = LinkMessage::default();
        let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
        request.attributes.push(mask);
        let request = RouteNetlinkMessage::GetLink(request);
        let links = (self.socket)
            .dump("listing links", request, |message| {
                match message.parsed()? {
                    RouteNetlinkMessage::NewLink(link) => Some(link),
                    _ => None,
                }
            })
            .await?;
        self.names.clear();
        for link in &links {
            if let Some(name) = decode::name(link) {
                self.names.insert(link.header.index, name.into());
            }
        }
        let by_name = self
            .names
            .iter()
            .map(|(index, name)| (name.to_string(), *index));
        self.indexes = by_name.collect();
        Ok(links)
    }

    pub(super) async fn addresses(
        &mut self,
        on: u32,
        state: &mut KernelState,
    ) -> Result<(), KernelError> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        request.header.index = on;
        let request = RouteNetlinkMessage::GetAddress(request);
        let rows = (self.socket)
            .dump("listing addresses", request, |message| {
                match message.parsed()? {
                    RouteNetlinkMessage::NewAddress(row) if row.header.index == on => {
                        decode::address(&row, &self.names)
                    }
                    _ => None,
                }
            })
            .await?;
        state.addresses.extend(rows);
        Ok(())
    }

    pub(super) async fn neighbours(
        &mut self,
        on: u32,
        state: &mut KernelState,
    ) -> Result<(), KernelError> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Inet;
        request.attributes = vec![NeighbourAttribute::IfIndex(on)];
        let request = RouteNetlinkMessage::GetNeighbour(request);
        let rows = (self.socket)
            .dump("listing neighbours", request, |message| {
                match message.parsed()? {
                    RouteNetlinkMessage::NewNeighbour(row) if row.header.ifindex == on => {
                        decode::neighbour(&row, &self.names)
                    }
                    _ => None,
                }
            })
            .await?;
        state.neighbours.extend(rows);
        Ok(())
    }

    pub(super) async fn fdb(
        &mut self,
        on: u32,
        state: &mut KernelState,
    ) -> Result<(), KernelError> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        request.header.ifindex = on;
        let request = RouteNetlinkMessage::GetNeighbour(request);
        let rows = (self.socket)
            .dump("listing the fdb", request, |message| {
                match message.parsed()? {
                    RouteNetlinkMessage::NewNeighbour(row) if row.header.ifindex == on => {
                        decode::fdb(&row, &self.names)
                    }
                    _ => None,
                }
            })
            .await?;
        state.fdb.extend(rows);
        Ok(())
    }

    /// Routes that are our business among those that the filter lets through. The kernel filters,
    /// so that the table of a host that speaks BGP stays where it is.
    pub(super) async fn routes(
        &mut self,
        filter: Filter,
        scope: &Scope,
        seen: &mut Seen,
    ) -> Result<(), KernelError> {
        // In a strict request every field that is set filters.
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        match filter {
            Filter::Link(index) => request.attributes.push(RouteAttribute::Oif(index)),
            Filter::Protocol(protocol) => request.header.protocol = protocol,
        }
        let request = RouteNetlinkMessage::GetRoute(request);
        let read = |message: Message| {
            // Those of a tunnel that are ours come in the list of our own.
            let again = matches!(filter, Filter::Link(_));
            if again && message.route_protocol() == Some(PROTOCOL) {
                return None;
            }
            match message.parsed()? {
                RouteNetlinkMessage::NewRoute(row) => {
                    decode::route(&row, &self.names, &seen.nexthops)
                }
                _ => None,
            }
        };
        let rows = self.socket.dump("listing routes", request, read).await?;
        let state = &mut seen.state;
        for (key, route) in rows {
            let link = state.links.get(&*route.link);
            if scope.concerns_route(&key, &route, link) {
                state.observe_route(key, route);
            }
        }
        Ok(())
    }

    /// Reads all nexthop objects: ours, the ids of the others, and where any of them lead, which
    /// the messages of routes may not tell.
    pub(super) async fn nexthops(&mut self, seen: &mut Seen) -> Result<(), KernelError> {
        if self.only_plain {
            return Ok(());
        }
        let request = Message::list_nexthops();
        let read = |message: Message| message.nexthop();
        let rows = match self.socket.list("listing nexthops", request, read).await? {
            Ok(rows) => rows,
            Err(refusal) if is_unknown(&refusal) => {
                self.has_no_nexthops(&refusal);
                return Ok(());
            }
            Err(Refusal { text: reason, .. }) => {
                let doing = "listing nexthops";
                return Err(KernelError::Refused { doing, reason });
            }
        };
        let mut foreign = BTreeSet::new();
        for row in rows {
            let hop = row.way.and_then(|way| decode::nexthop(&way, &self.names));
            match &hop {
                Some(hop) if row.protocol == PROTOCOL => {
                    seen.state.nexthops.insert(row.id, hop.clone());
                }
                _ => drop(foreign.insert(row.id)),
            }
            seen.nexthops.extend(hop.map(|hop| (row.id, hop)));
        }
        seen.state.foreign_nexthops = Some(foreign);
        Ok(())
    }

    /// Kernels before 5.3 know no such messages.
    pub(super) fn has_no_nexthops(&mut self, refusal: &Refusal) {
        self.only_plain = true;
        tracing::info!(
            "this kernel has no nexthop objects ({}): every route is written by itself, which \
             takes longer where there are thousands",
            refusal.text
        );
    }
}

/// Whether the kernel does not know what it is asked.
const fn is_unknown(refusal: &Refusal) -> bool {
    matches!(refusal.errno, libc::EOPNOTSUPP | libc::EINVAL)
}
