//! The UDP sockets: many datagrams to each system call and, where the kernel can, to each message.
//!
//! What leaves goes through a [`Batch`], what has arrived through an [`Incoming`].

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, setsockopt, sockopt};

use super::{ProxyError, Tuning};

pub(super) use incoming::Incoming;
pub(super) use outgoing::{Batch, Bytes, Datagram, Full, Message, Remedy};

mod incoming;
mod outgoing;

/// The sockets of one queue: one to receive with, bound to the port that all nodes share, and those
/// to send with.
#[derive(Debug)]
pub(super) struct Socket {
    shared: UdpSocket,
    /// Bound to ports of their own, and those of all queues: a flow that the device moves to another
    /// queue keeps its port, or it would arrive through two sockets and out of order. If there are
    /// none `shared` sends.
    senders: Arc<[UdpSocket]>,
    port: u16,
    gathers: bool,
    segments: Arc<AtomicBool>,
}

/// Binds sockets to the uplink's address, for as many queues as asked for. Peers listen on the same
/// port. The kernel spreads over the queues what arrives, by the address and port it comes from.
pub(super) fn bind(
    address: SocketAddrV4,
    queues: usize,
    tuning: Tuning,
) -> Result<Vec<Socket>, ProxyError> {
    let refusal = |source: io::Error| match source.raw_os_error() {
        Some(libc::EADDRINUSE) => ProxyError::PortInUse { address },
        Some(libc::EADDRNOTAVAIL) => ProxyError::AddressUnavailable { address },
        _ => ProxyError::Socket { address, source },
    };
    // The first is bound while it shares the port with nobody: others could hold it otherwise
    // without our being told. Two that both share it later are one group (`udp_lib_get_port`).
    let first = UdpSocket::bind(address).map_err(refusal)?;
    let mut shared = vec![first];
    if let (2.., [first]) = (queues, shared.as_slice()) {
        setsockopt(first, sockopt::ReusePort, &true).map_err(|errno| refusal(errno.into()))?;
    }
    for _ in 1..queues {
        shared.push(bind_another(address).map_err(refusal)?);
    }
    let can_segment = tuning.offload && shared.iter().all(takes_segments);
    let segments = Arc::new(AtomicBool::new(can_segment));
    let senders: Arc<[UdpSocket]> = match tuning.port_per_flow {
        true => (0..SENDERS)
            .map(|_| bind_sender(address))
            .collect::<io::Result<_>>()
            .map_err(refusal)?,
        false => Arc::default(),
    };
    let sockets = shared.into_iter().map(|shared| {
        enlarge_receive_buffer(&shared);
        enlarge_send_buffer(&shared);
        Socket {
            gathers: tuning.offload && setsockopt(&shared, sockopt::UdpGroSegment, &true).is_ok(),
            senders: Arc::clone(&senders),
            port: address.port(),
            segments: Arc::clone(&segments),
            shared,
        }
    });
    Ok(sockets.collect())
}

impl Socket {
    /// How many sockets send, at least one.
    pub(super) fn senders(&self) -> usize {
        self.senders.len().max(1)
    }

    /// The sending socket of that number, below [`Socket::senders`].
    fn sender(&self, number: usize) -> &UdpSocket {
        self.senders.get(number).unwrap_or(&self.shared)
    }

    /// Whether a message may be cut into datagrams by the kernel (`UDP_SEGMENT`).
    pub(super) fn segments(&self) -> bool {
        self.segments.load(Ordering::Relaxed)
    }

    /// Sends single datagrams from now on, from all queues. Says whether that is news.
    pub(super) fn give_up_segments(&self) -> bool {
        self.segments.swap(false, Ordering::Relaxed)
    }

    /// Whether datagrams of one flow may arrive joined (`UDP_GRO`).
    pub(super) fn gathers(&self) -> bool {
        self.gathers
    }
}

/// The socket that receives.
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.as_fd()
    }
}

/// A socket on a port that others of ours are bound to.
fn bind_another(address: SocketAddrV4) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    Ok(UdpSocket::from(socket))
}

/// A socket that only sends. What arrives for it finds no room.
fn bind_sender(address: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddrV4::new(*address.ip(), 0))?;
    let _ = setsockopt(&socket, sockopt::RcvBuf, &0);
    enlarge_send_buffer(&socket);
    Ok(socket)
}

/// Whether the kernel knows `UDP_SEGMENT`; it gives no size to anything but single messages.
fn takes_segments(socket: &UdpSocket) -> bool {
    setsockopt(socket, sockopt::UdpGsoSegment, &0).is_ok()
}

/// Room for a burst while a worker waits for its turn on the processor. Beyond the system's limits
/// only with `CAP_NET_ADMIN`; a smaller buffer is no reason to fail.
fn enlarge_receive_buffer(socket: &UdpSocket) {
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &BUFFER);
    }
}

fn enlarge_send_buffer(socket: &UdpSocket) {
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &BUFFER);
    }
}

/// In bytes; the kernel doubles it for its own bookkeeping.
const BUFFER: usize = 4 << 20;
/// So many ports flows are spread over. More spread them better, and fewer datagrams share a system
/// call.
const SENDERS: usize = 16;
