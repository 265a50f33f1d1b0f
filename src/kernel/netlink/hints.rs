//! Tells when something may have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::net::Ipv4Addr;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NLM_F_REPLACE;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use tokio::sync::watch;
use tokio::time::Instant;

use super::nft::notice;
use crate::kernel::KernelError;
use crate::kernel::decode::{self, Names};
use crate::kernel::message::{DEL_NEXTHOP, Message, NEW_NEXTHOP};
use crate::kernel::netconf::{self, DEL_NETCONF, NEW_NETCONF};
use crate::kernel::state::{FdbEntry, Neighbour};
use crate::mac::Mac;

/// Notifications of links, IPv4 addresses, neighbours, routes, nexthop objects and of whether links
/// let packets pass, boiled down to
/// "look again".
///
/// The receive buffer of the socket is the queue: while nobody asks, the kernel drops what does
/// not fit and says so, which is a hint as well. What was changed through the socket of the
/// [`super::Netlink`] that this was made with is no hint.
///
/// Routes that go with their link, or with its last address, go without a notification: there the
/// link or the address is the hint.
#[derive(Debug)]
pub struct Hints {
    socket: Option<Events>,
    /// When to replace a broken socket.
    retry: Instant,
    expected: watch::Receiver<Expected>,
    buffer: Vec<u8>,
}

/// What notifications are expected to say.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// The number of the socket that our own changes go through. The kernel notes it in what
    /// comes of them, but for forwarding entries, neighbours that go, and most of what happens to
    /// links.
    pub(super) port: u32,
    /// The same of the socket for the packet filter.
    pub(super) filter_port: u32,
    /// The links whose neighbours and forwarding entries are our business.
    pub(super) tunnels: Names,
    /// The indexes of the links that packets have to pass by.
    pub(super) passages: BTreeSet<i32>,
    /// Neighbours as seen or put by us.
    pub(super) neighbours: BTreeMap<Neighbour, Mac>,
    /// Forwarding entries as seen or put by us.
    pub(super) fdb: BTreeMap<FdbEntry, Ipv4Addr>,
}

/// How long to wait before a broken socket is replaced, again and again.
const PAUSE: Duration = Duration::from_secs(1);

/// The kernel's largest notification is smaller (`NLMSG_GOODSIZE`).
const BUFFER: usize = 64 << 10;

/// `NFNLGRP_NFTABLES`.
const NFTABLES: u32 = 7;

/// Room for the notifications of some ten thousand changes.
const RECEIVE_BUFFER: usize = 4 << 20;

impl Hints {
    pub(super) fn open(expected: watch::Receiver<Expected>) -> Result<Self, KernelError> {
        let socket = Events::open().map_err(|source| KernelError::Socket {
            doing: "subscribing to notifications",
            source,
        })?;
        Ok(Self {
            socket: Some(socket),
            retry: Instant::now(),
            expected,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Waits until something may have changed since the last call. Many changes are one hint.
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) {
        if self.socket.is_none() {
            tokio::time::sleep_until(self.retry).await;
            self.retry = Instant::now() + PAUSE;
            self.socket = Events::open().ok();
            // Nobody knows what happened without a socket.
            return;
        }
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut hint = false;
        while let Some(events) = &self.socket {
            self.buffer.clear();
            match events.poll_recv(cx, &mut self.buffer) {
                Poll::Pending if hint => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Source::Route)) => {
                    hint |= matters(&self.buffer, &self.expected.borrow());
                }
                Poll::Ready(Ok(Source::Filter)) => {
                    hint |= filter_matters(&self.buffer, self.expected.borrow().filter_port);
                }
                Poll::Ready(Err(error)) => {
                    hint = true;
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        self.socket = None;
                        self.retry = Instant::now() + PAUSE;
                    }
                }
            }
        }
        Poll::Ready(())
    }
}

struct Events {
    route: TokioSocket,
    /// Only with CAP_NET_ADMIN, and where the kernel has a packet filter.
    filter: Option<TokioSocket>,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Route,
    Filter,
}

impl Events {
    fn open() -> io::Result<Self> {
        let mut route = socket(NETLINK_ROUTE)?;
        for group in [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Netconf,
        ] {
            route.socket_mut().add_membership(group as u32)?;
        }
        // Kernels before 5.3 have neither the group nor the objects.
        let nexthop = MulticastGroup::Nexthop as u32;
        let _ = route.socket_mut().add_membership(nexthop);
        let filter = socket(NETLINK_NETFILTER).and_then(|mut filter| {
            filter.socket_mut().add_membership(NFTABLES)?;
            Ok(filter)
        });
        let filter = filter.ok();
        Ok(Self { route, filter })
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<Source>> {
        let route = self.route.poll_recv(cx, buffer);
        match (route, &self.filter) {
            (Poll::Pending, Some(filter)) => {
                let received = filter.poll_recv(cx, buffer);
                received.map(|received| received.map(|()| Source::Filter))
            }
            (route, _) => route.map(|received| received.map(|()| Source::Route)),
        }
    }
}

fn socket(protocol: isize) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    let inner = socket.socket_mut();
    inner.bind(&SocketAddr::new(0, 0))?;
    // Beyond net.core.rmem_max only with CAP_NET_ADMIN, which observers may lack.
    if setsockopt(&*inner, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&*inner, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    Ok(socket)
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

/// Whether one of the notifications may be our business. Busy hosts have neighbours come and go
/// on their other links all the time, and routing daemons routes; those are not.
fn matters(rest: &[u8], expected: &Expected) -> bool {
    any(rest, expected.port, |kind, flags, body| match kind {
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbour_matters(kind, body, expected),
        // the row that was replaced may have been ours, whosesoever the new one is
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            flags & NLM_F_REPLACE != 0 || route_matters(body)
        }
        NEW_NETCONF | DEL_NETCONF => netconf_matters(body, expected),
        NEW_NEXTHOP | DEL_NEXTHOP => nexthop_matters(body),
        _ => true,
    })
}

fn filter_matters(rest: &[u8], port: u32) -> bool {
    any(rest, port, |kind, _, body| notice::matters(kind, body))
}

/// Whether any notification but what came of our own changes, through the socket of this number,
/// is what is looked for by its kind, flags and body; or cannot be read.
fn any(mut rest: &[u8], port: u32, matters: impl Fn(u16, u16, &[u8]) -> bool) -> bool {
    while let Some(header) = rest.get(..16) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = rest.get(16..length) else {
            return true;
        };
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let flags = u16::from_ne_bytes([header[6], header[7]]);
        let cause = u32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
        let by_us = cause != 0 && cause == port;
        if !by_us && matters(kind, flags, body) {
            return true;
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// `struct ndmsg`: the family is at 0, the index of the link at 4.
fn neighbour_matters(kind: u16, body: &[u8], expected: &Expected) -> bool {
    let (Some(family), Some(index)) = (body.first(), body.get(4..8)) else {
        return true;
    };
    let index = u32::from_ne_bytes([index[0], index[1], index[2], index[3]]);
    if !expected.tunnels.contains_key(&index) {
        return false;
    }
    let of_fdb = i32::from(*family) == libc::AF_BRIDGE;
    let body = body.to_vec();
    match (Message { kind, body }).parsed() {
        Some(RouteNetlinkMessage::NewNeighbour(row)) if of_fdb => fdb_differs(&row, true, expected),
        Some(RouteNetlinkMessage::DelNeighbour(row)) if of_fdb => {
            fdb_differs(&row, false, expected)
        }
        Some(RouteNetlinkMessage::NewNeighbour(row)) => neighbour_differs(&row, true, expected),
        Some(RouteNetlinkMessage::DelNeighbour(row)) => neighbour_differs(&row, false, expected),
        _ => true,
    }
}

/// Compares an entry that is there now, or is not, with what it should be. One that was learned
/// from traffic is none: it matters only in the place of ours.
fn fdb_differs(row: &NeighbourMessage, is_there: bool, expected: &Expected) -> bool {
    let found = decode::fdb(row, &expected.tunnels).filter(|_| is_there);
    let found = found.map(|(_, to)| to);
    let key = decode::fdb_key(row, &expected.tunnels);
    key.is_none_or(|key| found.as_ref() != expected.fdb.get(&key))
}

/// The same for a neighbour, where permanent ones count.
fn neighbour_differs(row: &NeighbourMessage, is_there: bool, expected: &Expected) -> bool {
    let found = decode::neighbour(row, &expected.tunnels).filter(|_| is_there);
    let found = found.map(|(_, mac)| mac);
    let key = decode::neighbour_key(row, &expected.tunnels);
    key.is_none_or(|key| found.as_ref() != expected.neighbours.get(&key))
}

/// `struct rtmsg`: the length of the destination is at 1, the protocol at 5. A daemon's default
/// route may lead to another uplink.
fn route_matters(body: &[u8]) -> bool {
    match (body.get(1), body.get(5)) {
        (Some(0), _) => true,
        (Some(_), Some(protocol)) => !is_daemons(*protocol),
        _ => true,
    }
}

/// Each link that comes or goes has its settings told too, and has told of itself already.
fn netconf_matters(body: &[u8], expected: &Expected) -> bool {
    let Some(row) = netconf::row(body) else {
        return true;
    };
    let tells = row.forwarding.is_some() || row.rp_filter.is_some();
    let is_all = row.index == netconf::ALL && !expected.passages.is_empty();
    tells && (is_all || expected.passages.contains(&row.index))
}

/// `struct nhmsg`: the protocol is at 2.
fn nexthop_matters(body: &[u8]) -> bool {
    body.get(2).is_none_or(|protocol| !is_daemons(*protocol))
}

fn is_daemons(protocol: u8) -> bool {
    matches!(
        protocol.into(),
        RouteProtocol::Zebra
            | RouteProtocol::Bird
            | RouteProtocol::Babel
            | RouteProtocol::Bgp
            | RouteProtocol::Isis
            | RouteProtocol::Ospf
            | RouteProtocol::Rip
            | RouteProtocol::Eigrp
    )
}

#[cfg(test)]
mod tests;
