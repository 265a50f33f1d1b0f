//! The running kernel, over rtnetlink. Reading needs no privilege, changing needs CAP_NET_ADMIN.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages and attributes have no end"
)]

use std::collections::{BTreeMap, BTreeSet};

use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::watch;

use super::change::Change;
use super::decode::{self, Names};
use super::encode::{self, Indexes};
use super::state::{KernelState, Link, LinkKind, PROTOCOL};
use super::{Failure, Kernel, KernelError, Scope};
use socket::{Refusal, Socket};

pub use hints::Hints;

mod advice;
mod hints;
mod interfaces;
mod socket;

/// The network namespace that this process lives in.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    /// As of the last observation, or of the last links made.
    names: Names,
    indexes: Indexes,
    /// The indexes of the links that are our business, for [`Hints`].
    concerned: watch::Sender<BTreeSet<u32>>,
}

impl Netlink {
    /// Opens a socket. Needs a tokio runtime, in which a task then reads it.
    ///
    /// # Errors
    /// [`KernelError::Socket`], for instance where the kernel is older than Linux 4.20 and
    /// cannot filter what it is asked for.
    pub fn connect() -> Result<Self, KernelError> {
        Ok(Self {
            socket: Socket::open()?,
            names: Names::new(),
            indexes: Indexes::new(),
            concerned: watch::channel(BTreeSet::new()).0,
        })
    }

    /// Opens a second socket, that tells when something may have changed.
    ///
    /// # Errors
    /// [`KernelError::Socket`].
    pub fn hints(&self) -> Result<Hints, KernelError> {
        Hints::open(self.concerned.subscribe())
    }

    async fn links(&mut self) -> Result<Vec<LinkMessage>, KernelError> {
        let mut request = LinkMessage::default();
        let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
        request.attributes.push(mask);
        let request = RouteNetlinkMessage::GetLink(request);
        let links = (self.socket)
            .dump("listing links", &request, |message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .await?;
        self.names.clear();
        for link in &links {
            if let Some(name) = decode::name(link) {
                self.names.insert(link.header.index, name.to_owned());
            }
        }
        let by_name = self
            .names
            .iter()
            .map(|(index, name)| (name.clone(), *index));
        self.indexes = by_name.collect();
        Ok(links)
    }

    async fn addresses(&mut self, on: u32, state: &mut KernelState) -> Result<(), KernelError> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        request.header.index = on;
        let request = RouteNetlinkMessage::GetAddress(request);
        let rows = (self.socket)
            .dump("listing addresses", &request, |message| match message {
                RouteNetlinkMessage::NewAddress(row) if row.header.index == on => {
                    decode::address(&row, &self.names)
                }
                _ => None,
            })
            .await?;
        state.addresses.extend(rows);
        Ok(())
    }

    async fn neighbours(&mut self, on: u32, state: &mut KernelState) -> Result<(), KernelError> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Inet;
        request.attributes = vec![NeighbourAttribute::IfIndex(on)];
        let request = RouteNetlinkMessage::GetNeighbour(request);
        let rows = (self.socket)
            .dump("listing neighbours", &request, |message| match message {
                RouteNetlinkMessage::NewNeighbour(row) if row.header.ifindex == on => {
                    decode::neighbour(&row, &self.names)
                }
                _ => None,
            })
            .await?;
        state.neighbours.extend(rows);
        Ok(())
    }

    async fn fdb(&mut self, on: u32, state: &mut KernelState) -> Result<(), KernelError> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        request.header.ifindex = on;
        let request = RouteNetlinkMessage::GetNeighbour(request);
        let rows = (self.socket)
            .dump("listing the fdb", &request, |message| match message {
                RouteNetlinkMessage::NewNeighbour(row) if row.header.ifindex == on => {
                    decode::fdb(&row, &self.names)
                }
                _ => None,
            })
            .await?;
        state.fdb.extend(rows);
        Ok(())
    }

    /// Routes that are our business among those that the filter lets through. The kernel filters,
    /// so that the table of a host that speaks BGP stays where it is.
    async fn routes(
        &mut self,
        filter: Filter,
        scope: &Scope,
        state: &mut KernelState,
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
        let rows = (self.socket)
            .dump("listing routes", &request, |message| match message {
                RouteNetlinkMessage::NewRoute(row) => decode::route(&row, &self.names),
                _ => None,
            })
            .await?;
        for (key, route) in rows {
            let link = state.links.get(&route.link);
            if scope.concerns_route(&key, &route, link) {
                state.observe_route(key, route);
            }
        }
        Ok(())
    }

    async fn make(&mut self, changes: &[&Change]) -> Result<Vec<Failure>, KernelError> {
        let mut reasons: BTreeMap<usize, String> = BTreeMap::new();
        let mut owners = Vec::new();
        let mut messages = Vec::new();
        for (at, change) in changes.iter().enumerate() {
            match encode::requests(change, &self.indexes) {
                Ok(requests) => {
                    for request in requests {
                        owners.push((at, request.accepted));
                        messages.push(request.message);
                    }
                }
                Err(no_link) => {
                    reasons.insert(at, no_link.to_string());
                }
            }
        }
        let answers = self.socket.batch("changing state", messages).await?;
        for ((at, accepted), answer) in owners.into_iter().zip(answers) {
            if let Err(Refusal { errno, text }) = answer
                && !accepted.contains(&errno)
            {
                // What follows the first refusal of a change follows from it.
                let change = changes[at];
                let reason = || advice::reason(change, errno, &text);
                reasons.entry(at).or_insert_with(reason);
            }
        }
        let failure = |(at, reason): (usize, String)| Failure {
            change: changes[at].clone(),
            reason,
        };
        Ok(reasons.into_iter().map(failure).collect())
    }
}

#[derive(Debug, Clone, Copy)]
enum Filter {
    Link(u32),
    Protocol(RouteProtocol),
}

impl Kernel for Netlink {
    async fn observe(&mut self, scope: &Scope) -> Result<KernelState, KernelError> {
        let mut state = KernelState::default();
        let mut ours: BTreeMap<u32, Link> = BTreeMap::new();
        let messages = self.links().await?;
        for message in &messages {
            let link = decode::link(message, &self.names);
            let Some(name) = decode::name(message) else {
                continue;
            };
            if scope.concerns_link(name, &link) {
                state.links.insert(name.to_owned(), link.clone());
                ours.insert(message.header.index, link);
            }
        }
        for message in &messages {
            if let Some(index) = decode::controller(message)
                && ours.get(&index).is_some_and(|l| l.kind == LinkKind::Bridge)
                && let (Some(port), Some(bridge)) = (decode::name(message), self.names.get(&index))
            {
                state.ports.insert(port.to_owned(), bridge.clone());
            }
        }
        for (index, link) in &ours {
            match link.kind {
                LinkKind::Bridge => self.addresses(*index, &mut state).await?,
                LinkKind::Vxlan { .. } => {
                    self.addresses(*index, &mut state).await?;
                    self.neighbours(*index, &mut state).await?;
                    self.fdb(*index, &mut state).await?;
                    self.routes(Filter::Link(*index), scope, &mut state).await?;
                }
                LinkKind::Tun => {
                    self.addresses(*index, &mut state).await?;
                    self.routes(Filter::Link(*index), scope, &mut state).await?;
                }
                LinkKind::Other(_) => {}
            }
        }
        let mut protocols = vec![RouteProtocol::Other(PROTOCOL)];
        if scope.own.is_some() || !scope.routes.is_empty() {
            // flanneld's routes are of protocol boot, those of administrators often static.
            protocols.extend([RouteProtocol::Boot, RouteProtocol::Static]);
        }
        for protocol in protocols {
            let filter = Filter::Protocol(protocol);
            self.routes(filter, scope, &mut state).await?;
        }
        self.concerned.send_replace(ours.into_keys().collect());
        Ok(state)
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<Vec<Failure>, KernelError> {
        let mut sorted: Vec<&Change> = changes.iter().collect();
        sorted.sort();
        let makes = |change: &&Change| matches!(change, Change::AddLink(..));
        let rows = sorted.iter().rposition(makes).map_or(0, |last| last + 1);
        let (links, rows) = sorted.split_at(rows);
        let mut failures = Vec::new();
        if !links.is_empty() {
            failures.extend(self.make(links).await?);
            self.links().await?;
        }
        failures.extend(self.make(rows).await?);
        Ok(failures)
    }
}

#[cfg(test)]
mod tests;
