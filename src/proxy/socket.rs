//! The UDP socket, a batch of datagrams to each system call.
//!
//! A later way of sending (segmentation offload) fits in behind [`Socket::send`], one of
//! receiving behind [`Socket::receive`].

use std::array;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags, MultiHeaders, SockaddrIn, setsockopt, sockopt};

use super::ProxyError;

/// How many packets a system call moves at most.
pub(super) const BATCH: usize = 64;

/// A socket bound to the uplink's address. Peers listen on the same port.
#[derive(Debug)]
pub(super) struct Socket {
    socket: UdpSocket,
    port: u16,
}

impl Socket {
    pub(super) fn bind(address: SocketAddrV4) -> Result<Self, ProxyError> {
        let socket = UdpSocket::bind(address).map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => ProxyError::PortInUse { address },
            Some(libc::EADDRNOTAVAIL) => ProxyError::AddressUnavailable { address },
            _ => ProxyError::Socket { address, source },
        })?;
        enlarge_buffers(&socket);
        Ok(Self {
            socket,
            port: address.port(),
        })
    }

    /// Sends the packets of the batch from number `first` on; says how many went. At least one
    /// did; the error that stopped it, if any, comes with the next call.
    ///
    /// # Errors
    /// That of the packet number `first`; `EAGAIN` if the send buffer is full.
    pub(super) fn send(&self, batch: &mut Outgoing, first: usize) -> Result<usize, Errno> {
        let Outgoing {
            headers,
            slots,
            lengths,
            peers,
            count,
        } = batch;
        let packets: [[IoSlice<'_>; 1]; BATCH] = array::from_fn(|index| {
            let length = lengths.get(index).copied().unwrap_or(0);
            [IoSlice::new(&slots.slot(index)[..length])]
        });
        let sent = socket::sendmmsg(
            self.socket.as_raw_fd(),
            headers,
            &packets[first..*count],
            &peers[first..*count],
            [],
            MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(sent.count())
    }

    /// Fills the batch with the datagrams that have arrived.
    ///
    /// # Errors
    /// `EAGAIN` if there are none; or an error that the network has reported to the socket.
    pub(super) fn receive(&self, batch: &mut Incoming) -> Result<(), Errno> {
        let Incoming {
            headers,
            slots,
            arrivals,
            count,
        } = batch;
        *count = 0;
        let mut vacant = slots.all_mut();
        let mut places: [[IoSliceMut<'_>; 1]; BATCH] =
            array::from_fn(|_| [IoSliceMut::new(vacant.next().unwrap_or_default())]);
        let datagrams = socket::recvmmsg(
            self.socket.as_raw_fd(),
            headers,
            places.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        for (arrival, datagram) in arrivals.iter_mut().zip(datagrams) {
            arrival.length = datagram.bytes;
            arrival.cut = datagram.flags.contains(MsgFlags::MSG_TRUNC);
            *count += 1;
        }
        Ok(())
    }

    /// The address of a peer's socket.
    pub(super) fn at(&self, peer: Ipv4Addr) -> SockaddrIn {
        SocketAddrV4::new(peer, self.port).into()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Room for a burst while a worker waits for its turn on the processor. Beyond the system's limits
/// only with `CAP_NET_ADMIN`; a smaller buffer is no reason to fail.
fn enlarge_buffers(socket: &UdpSocket) {
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &BUFFER);
    }
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &BUFFER);
    }
}

/// In bytes; the kernel doubles it for its own bookkeeping.
const BUFFER: usize = 4 << 20;

/// Packets on their way to peers.
#[derive(Debug)]
pub(super) struct Outgoing {
    headers: MultiHeaders<SockaddrIn>,
    slots: Slots,
    lengths: [usize; BATCH],
    peers: [Option<SockaddrIn>; BATCH],
    count: usize,
}

impl Outgoing {
    /// An empty batch for packets of at most `longest` bytes.
    pub(super) fn new(longest: usize) -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            // A packet that fills its slot was longer: reading a TUN device cuts in silence.
            slots: Slots::new(longest + 1),
            lengths: [0; BATCH],
            peers: [None; BATCH],
            count: 0,
        }
    }

    /// Room for one more packet, a byte longer than the longest allowed; `None` if the batch is
    /// full. [`Outgoing::push`] keeps what is in it.
    pub(super) fn vacant(&mut self) -> Option<&mut [u8]> {
        (self.count < BATCH).then(|| self.slots.slot_mut(self.count))
    }

    /// Keeps the first `length` bytes of [`Outgoing::vacant`] as a packet for `peer`.
    pub(super) fn push(&mut self, length: usize, peer: SockaddrIn) {
        self.lengths[self.count] = length;
        self.peers[self.count] = Some(peer);
        self.count += 1;
    }

    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// The lengths of the packets in bytes.
    pub(super) fn lengths(&self) -> &[usize] {
        &self.lengths[..self.count]
    }
}

/// Datagrams that have arrived.
#[derive(Debug)]
pub(super) struct Incoming {
    headers: MultiHeaders<SockaddrIn>,
    slots: Slots,
    arrivals: [Arrival; BATCH],
    count: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Arrival {
    length: usize,
    cut: bool,
}

impl Incoming {
    /// An empty batch for datagrams of any length: a peer's MTU may be larger than ours.
    pub(super) fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            slots: Slots::new(LONGEST_DATAGRAM),
            arrivals: [Arrival::default(); BATCH],
            count: 0,
        }
    }

    /// How many datagrams there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A datagram's bytes; `None` if it was longer than there is room for.
    pub(super) fn datagram(&mut self, index: usize) -> Option<&mut [u8]> {
        let Arrival { length, cut } = self.arrivals[index];
        (!cut).then(|| &mut self.slots.slot_mut(index)[..length])
    }
}

const LONGEST_DATAGRAM: usize = 1 << 16;

/// Buffers side by side. The kernel provides memory for what is touched only, so long slots for
/// short packets cost little.
#[derive(Debug)]
struct Slots {
    bytes: Vec<u8>,
    stride: usize,
    size: usize,
}

impl Slots {
    fn new(size: usize) -> Self {
        // An odd number of cache lines: the packets' headers spread over all sets of the cache
        // instead of contending for one.
        let stride = (size.div_ceil(LINE) | 1) * LINE;
        Self {
            bytes: vec![0; stride * BATCH],
            stride,
            size,
        }
    }

    fn slot(&self, index: usize) -> &[u8] {
        &self.bytes[index * self.stride..][..self.size]
    }

    fn slot_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.bytes[index * self.stride..][..self.size]
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let size = self.size;
        self.bytes
            .chunks_exact_mut(self.stride)
            .map(move |slot| &mut slot[..size])
    }
}

const LINE: usize = 64;
