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
use super::decode::{self, Names, Nexthops};
use super::encode::{self, Indexes};
use super::message::Message;
use super::state::{KernelState, Link, LinkKind, PROTOCOL};
use super::{Failure, Kernel, KernelError, Scope};
use hints::Expected;
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
    /// What [`Hints`] need not tell.
    expected: watch::Sender<Expected>,
    /// Whether the kernel has turned out to have no nexthop objects.
    only_plain: bool,
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
            expected: watch::channel(Expected::default()).0,
            only_plain: false,
        })
    }

    /// Opens a second socket, that tells when something may have changed.
    ///
    /// # Errors
    /// [`KernelError::Socket`].
    pub fn hints(&self) -> Result<Hints, KernelError> {
        Hints::open(self.expected.subscribe())
    }

    async fn links(&mut self) -> Result<Vec<LinkMessage>, KernelError> {
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

    async fn addresses(&mut self, on: u32, state: &mut KernelState) -> Result<(), KernelError> {
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

    async fn neighbours(&mut self, on: u32, state: &mut KernelState) -> Result<(), KernelError> {
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

    async fn fdb(&mut self, on: u32, state: &mut KernelState) -> Result<(), KernelError> {
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
    async fn routes(
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
    async fn nexthops(&mut self, seen: &mut Seen) -> Result<(), KernelError> {
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
    fn has_no_nexthops(&mut self, refusal: &Refusal) {
        self.only_plain = true;
        tracing::info!(
            "this kernel has no nexthop objects ({}): every route is written by itself, which \
             takes longer where there are thousands",
            refusal.text
        );
    }

    /// Until all is read, whatever happens on a tunnel may be news.
    fn expect_nothing(&self, ours: &BTreeMap<u32, Link>) {
        self.expected.send_modify(|expected| {
            let tunnels = ours.iter().filter(|(_, link)| link.kind.is_tunnel());
            let names = tunnels.filter_map(|(index, _)| self.names.get_key_value(index));
            expected.tunnels = names.map(|(i, name)| (*i, name.clone())).collect();
            expected.neighbours.clear();
            expected.fdb.clear();
        });
    }

    /// Notifications can come before the answers.
    fn expect(&self, changes: &[&Change]) {
        self.expected.send_modify(|expected| {
            expected.port = self.socket.port();
            for change in changes {
                match change {
                    Change::PutNeighbour(row, mac) => {
                        expected.neighbours.insert(row.clone(), *mac);
                    }
                    Change::DelNeighbour(row) => drop(expected.neighbours.remove(row)),
                    Change::PutFdb(row, to) => drop(expected.fdb.insert(row.clone(), *to)),
                    Change::DelFdb(row) => drop(expected.fdb.remove(row)),
                    _ => {}
                }
            }
        });
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
        self.expect(changes);
        let answers = self.socket.batch("changing state", messages).await?;
        for ((at, accepted), answer) in owners.into_iter().zip(answers) {
            if let Err(refusal) = answer
                && !accepted.contains(&refusal.errno)
            {
                // What follows the first refusal of a change follows from it.
                let change = changes[at];
                if matches!(change, Change::PutNexthop(..)) && refusal.errno == libc::EOPNOTSUPP {
                    self.has_no_nexthops(&refusal);
                }
                let Refusal { errno, text } = refusal;
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

/// An observation that is under way.
#[derive(Debug, Default)]
struct Seen {
    state: KernelState,
    nexthops: Nexthops,
}

/// Whether the kernel does not know what it is asked.
const fn is_unknown(refusal: &Refusal) -> bool {
    matches!(refusal.errno, libc::EOPNOTSUPP | libc::EINVAL)
}

#[derive(Debug, Clone, Copy)]
enum Filter {
    Link(u32),
    Protocol(RouteProtocol),
}

impl Kernel for Netlink {
    async fn observe(&mut self, scope: &Scope) -> Result<KernelState, KernelError> {
        let mut seen = Seen::default();
        let state = &mut seen.state;
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
            let is = |index, of: fn(&LinkKind) -> bool| {
                ours.get(index).is_some_and(|link: &Link| of(&link.kind))
            };
            if let Some(index) = decode::controller(message)
                && (is(&index, |kind| *kind == LinkKind::Bridge)
                    || is(&message.header.index, LinkKind::is_tunnel))
                && let (Some(port), Some(bridge)) = (decode::name(message), self.names.get(&index))
            {
                state.ports.insert(port.to_owned(), bridge.to_string());
            }
        }
        self.expect_nothing(&ours);
        self.nexthops(&mut seen).await?;
        for (index, link) in &ours {
            if !matches!(link.kind, LinkKind::Other(_)) {
                self.addresses(*index, &mut seen.state).await?;
            }
            if matches!(link.kind, LinkKind::Vxlan { .. }) {
                self.neighbours(*index, &mut seen.state).await?;
                self.fdb(*index, &mut seen.state).await?;
            }
            if link.kind.is_tunnel() {
                self.routes(Filter::Link(*index), scope, &mut seen).await?;
            }
        }
        let mut protocols = vec![RouteProtocol::Other(PROTOCOL)];
        if scope.own.is_some() || !scope.routes.is_empty() {
            // flanneld's routes are of protocol boot, those of administrators often static.
            protocols.extend([RouteProtocol::Boot, RouteProtocol::Static]);
        }
        for protocol in protocols {
            let filter = Filter::Protocol(protocol);
            self.routes(filter, scope, &mut seen).await?;
        }
        self.expected.send_modify(|expected| {
            expected.neighbours.clone_from(&seen.state.neighbours);
            expected.fdb.clone_from(&seen.state.fdb);
        });
        Ok(seen.state)
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
