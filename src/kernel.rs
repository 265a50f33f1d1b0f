//! The kernel's network state: what is there, what should be, and the way from one to the other.
//!
//! [`KernelState`] is both the desired and the observed state. Ownership is written in the kernel,
//! never remembered: links that carry the alias [`state::ALIAS`], everything on them, routes and
//! nexthop objects of protocol [`state::PROTOCOL`] elsewhere, the nftables table
//! [`firewall::TABLE`], and rules with the comment [`firewall::MARK`] in chains of others. Nothing
//! else is ever deleted, with three exceptions: a gateway route for exactly our own subnet, which
//! would take our containers' packets away, a route with the same destination and metric as a
//! wanted one, and the packet filter that flanneld has left.
//!
//! [`reconcile::Reconciler`] is the only way to alter anything. It runs no tasks of its own; the
//! sockets of [`netlink::Netlink`] have one, which ends with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use change::Change;
use state::{KernelState, Link, LinkKind, PROTOCOL, Route, RouteKey};

pub mod change;
pub mod decode;
pub mod diff;
pub mod encode;
#[cfg(test)]
pub(crate) mod fake;
pub mod firewall;
pub mod message;
mod netconf;
pub mod netlink;
pub mod nexthop;
pub mod passage;
pub mod reconcile;
#[cfg(test)]
mod samples;
pub mod state;
pub mod uplink;

/// Something that holds network state: the kernel, or a test's stand-in for it.
pub trait Kernel: Send + 'static {
    /// Reads the part of the state that the scope says is our business.
    ///
    /// # Errors
    /// [`KernelError`] where nothing could be read at all.
    fn observe(
        &mut self,
        scope: &Scope,
    ) -> impl Future<Output = Result<KernelState, KernelError>> + Send;

    /// Makes the changes, in their order as [`Change`] sorts. Those that the kernel refused come
    /// back; they do not stop the others.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel cannot be reached.
    fn apply(
        &mut self,
        changes: &[Change],
    ) -> impl Future<Output = Result<Vec<Failure>, KernelError>> + Send;
}

/// What part of the kernel's state is our business. The default is what is left to clean up when
/// nothing is wanted any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The names of the links that we want.
    pub wanted: BTreeSet<String>,
    /// The keys of the routes that we want.
    pub routes: BTreeSet<RouteKey>,
    /// The links whose [`passage::Passage`] matters, and the hosts that send by each.
    pub passages: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// The whole network; addresses outside it are not ours to remove.
    pub overlay: Option<Ipv4Net>,
    /// Our own subnet, to which no gateway may lead.
    pub own: Option<Ipv4Net>,
    /// The subnet that we had before, perhaps in another network.
    pub former: Option<Ipv4Net>,
    /// A bridge that is to be ours, whoever has given it addresses: somebody has asked for that.
    pub claimed: Option<String>,
}

/// A change that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was asked for.
    pub change: Change,
    /// What the kernel said, and what to do next.
    pub reason: String,
}

/// The kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket, or it broke.
    #[error("netlink socket, {doing}: {source}")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// No answer. The socket has been replaced; asking again is safe.
    #[error("no answer from the kernel within {limit:?}, {doing}; trying again is safe")]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// How long the answer was waited for.
        limit: Duration,
    },
    /// The kernel refused to show its state.
    #[error("the kernel refused, {doing}: {reason}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// The kernel's words.
        reason: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.change, self.reason)
    }
}

impl Scope {
    /// The scope of a desired state.
    #[must_use]
    pub fn new(desired: &KernelState, overlay: Ipv4Net, own: Ipv4Net) -> Self {
        Self {
            wanted: desired.links.keys().cloned().collect(),
            routes: desired.routes.keys().copied().collect(),
            passages: (desired.passages.iter())
                .map(|(link, passage)| (link.clone(), passage.visitors.clone()))
                .collect(),
            overlay: Some(overlay),
            own: Some(own),
            former: None,
            claimed: None,
        }
    }

    /// The same after a move from another subnet.
    #[must_use]
    pub fn moved_from(self, former: Option<Ipv4Net>) -> Self {
        Self { former, ..self }
    }

    /// The same where this bridge is to be ours at any rate.
    #[must_use]
    pub fn claiming(self, claimed: Option<String>) -> Self {
        Self { claimed, ..self }
    }

    /// Whether a bridge is to be ours at any rate.
    #[must_use]
    pub fn claims(&self, bridge: &str) -> bool {
        self.claimed.as_deref() == Some(bridge)
    }

    /// Whether an address on a link of ours is of the overlay, and so ours to remove.
    #[must_use]
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        let nets = [self.overlay, self.former];
        nets.iter().flatten().any(|net| net.contains(&address))
    }

    /// Whether a link is to be observed.
    #[must_use]
    pub fn concerns_link(&self, name: &str, link: &Link) -> bool {
        link.marked || self.wanted.contains(name)
    }

    /// Whether a route is to be observed; `link` is its outgoing link where that is one which
    /// [`Scope::concerns_link`].
    #[must_use]
    pub fn concerns_route(&self, key: &RouteKey, route: &Route, link: Option<&Link>) -> bool {
        route.protocol == PROTOCOL
            || self.routes.contains(key)
            || link.is_some_and(|link| link.kind.is_tunnel())
            || self.is_stray(key, route)
    }

    /// Whether a route takes away the packets to our own containers: one that was there before
    /// the bridge's connected route wins over it.
    #[must_use]
    pub fn is_stray(&self, key: &RouteKey, route: &Route) -> bool {
        Some(key.destination) == self.own && route.gateway.is_some()
    }
}

impl LinkKind {
    /// Whether every neighbour, forwarding entry and route on such a link is ours.
    #[must_use]
    pub const fn is_tunnel(&self) -> bool {
        matches!(self, Self::Vxlan { .. } | Self::Tun)
    }
}
