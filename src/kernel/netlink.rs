//! The running kernel, over rtnetlink and nf_tables. Changing needs CAP_NET_ADMIN, and so does
//! reading the packet filter; reading all else needs no privilege.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages and attributes have no end"
)]

use std::collections::BTreeMap;

use rtnetlink::packet_route::route::RouteProtocol;
use tokio::sync::watch;

use super::change::Change;
use super::decode::{self, Names};
use super::encode::{self, Indexes};
use super::firewall::BaseChain;
use super::state::{KernelState, Link, LinkKind, PROTOCOL, Port};
use super::{Failure, Kernel, KernelError, Scope};
use hints::Expected;
use listing::{Filter, Seen};
use nft::Nftables;
use socket::{Refusal, Socket};

pub use hints::Hints;

mod advice;
mod hints;
mod interfaces;
mod listing;
mod nft;
mod passages;
mod socket;

/// The network namespace that this process lives in.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    filter: Nftables,
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
            filter: Nftables::default(),
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

    /// All chains that IPv4 packets come to by themselves, whoever made them.
    ///
    /// # Errors
    /// [`KernelError::Refused`] where the packet filter cannot be read.
    pub async fn base_chains(&mut self) -> Result<Vec<BaseChain>, KernelError> {
        self.filter.base_chains().await
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
    fn expect(&mut self, changes: &[&Change]) {
        let filter_port = self.filter.port();
        self.expected.send_modify(|expected| {
            expected.port = self.socket.port();
            expected.filter_port = filter_port;
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

    /// Makes the changes of the packet filter among these.
    async fn sift(&mut self, changes: &[&Change]) -> Vec<Failure> {
        let mut failures = Vec::new();
        for change in changes {
            if let Change::Firewall(step) = change
                && let Err(trouble) = self.filter.apply(step).await
            {
                let reason = advice::reason(change, trouble.errno(), &trouble.to_string());
                let change = (*change).clone();
                failures.push(Failure { change, reason });
            }
        }
        failures
    }
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
                let bridge = bridge.to_string();
                let mtu = decode::link(message, &self.names).mtu;
                state.ports.insert(port.to_owned(), Port { bridge, mtu });
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
        seen.state.passages = self.passages(scope).await?;
        self.expected.send_modify(|expected| {
            expected.neighbours.clone_from(&seen.state.neighbours);
            expected.fdb.clone_from(&seen.state.fdb);
        });
        seen.state.firewall = self.filter.observe(scope).await;
        Ok(seen.state)
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<Vec<Failure>, KernelError> {
        let mut sorted: Vec<&Change> = changes.iter().collect();
        sorted.sort();
        let filters = |change: &&Change| matches!(change, Change::Firewall(_));
        let filter = sorted.iter().rposition(filters).map_or(0, |last| last + 1);
        let (before, sorted) = sorted.split_at(filter);
        let makes = |change: &&Change| matches!(change, Change::AddLink(..));
        let rows = sorted.iter().rposition(makes).map_or(0, |last| last + 1);
        let (links, rows) = sorted.split_at(rows);
        let mut failures = Vec::new();
        if !before.is_empty() {
            failures.extend(self.make(before).await?);
            failures.extend(self.sift(before).await);
        }
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
