//! Tells when something may have changed.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::kernel::KernelError;

/// Notifications of links, IPv4 addresses, neighbours and routes, boiled down to "look again".
///
/// The receive buffer of the socket is the queue: while nobody asks, the kernel drops what does
/// not fit and says so, which is a hint as well. Our own changes are hints like all others.
#[derive(Debug)]
pub struct Hints {
    socket: Option<Events>,
    /// When to replace a broken socket.
    retry: Instant,
    concerned: watch::Receiver<BTreeSet<u32>>,
    buffer: Vec<u8>,
}

/// How long to wait before a broken socket is replaced, again and again.
const PAUSE: Duration = Duration::from_secs(1);

/// The kernel's largest notification is smaller (`NLMSG_GOODSIZE`).
const BUFFER: usize = 64 << 10;

impl Hints {
    pub(super) fn open(concerned: watch::Receiver<BTreeSet<u32>>) -> Result<Self, KernelError> {
        let socket = Events::open().map_err(|source| KernelError::Socket {
            doing: "subscribing to notifications",
            source,
        })?;
        Ok(Self {
            socket: Some(socket),
            retry: Instant::now(),
            concerned,
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
            match events.0.poll_recv(cx, &mut self.buffer) {
                Poll::Pending if hint => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {
                    hint |= matters(&self.buffer, &self.concerned.borrow());
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

struct Events(TokioSocket);

impl Events {
    fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        inner.bind(&SocketAddr::new(0, 0))?;
        for group in [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
        ] {
            inner.add_membership(group as u32)?;
        }
        Ok(Self(socket))
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

/// Whether one of the notifications may be our business. Busy hosts have neighbours come and go
/// on their other links all the time, and routing daemons routes; those are not.
fn matters(mut rest: &[u8], concerned: &BTreeSet<u32>) -> bool {
    while let Some(header) = rest.get(..16) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = rest.get(16..length) else {
            return true;
        };
        let matters = match u16::from_ne_bytes([header[4], header[5]]) {
            libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbour_matters(body, concerned),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => route_matters(body),
            _ => true,
        };
        if matters {
            return true;
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// `struct ndmsg`: the index of the link is at 4.
fn neighbour_matters(body: &[u8], concerned: &BTreeSet<u32>) -> bool {
    let index = body
        .get(4..8)
        .map(|i| u32::from_ne_bytes([i[0], i[1], i[2], i[3]]));
    index.is_none_or(|index| concerned.contains(&index))
}

/// `struct rtmsg`: the length of the destination is at 1, the protocol at 5. A daemon's default
/// route may lead to another uplink.
fn route_matters(body: &[u8]) -> bool {
    let is_daemons = |protocol: u8| {
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
    };
    match (body.get(1), body.get(5)) {
        (Some(0), _) => true,
        (Some(_), Some(protocol)) => !is_daemons(*protocol),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
