//! Raw sockets, in the network namespace of the thread that opens them.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn,
    getsockopt, setsockopt, sockopt,
};

use super::packet::{self, Content, Cookie, Seen};

/// The largest MTU that an answer comes in.
const LONGEST: usize = 1 << 16;

/// Sends packets that are finished but for their checksum, and hears what comes for a protocol.
#[derive(Debug)]
pub(super) struct Raw {
    sender: OwnedFd,
    receiver: OwnedFd,
}

/// An echo request to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ping {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    /// Tells the answers apart.
    pub(super) number: u16,
    /// In bytes, with the IP header.
    pub(super) length: u16,
}

impl Raw {
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let raw = |protocol| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket::socket(AddressFamily::Inet, SockType::Raw, flags, protocol)
        };
        Ok(Self {
            sender: raw(SockProtocol::Raw)?,
            receiver: raw(protocol)?,
        })
    }

    /// Whether the kernel took it: one that it has no route for, or that is too long, is as lost as
    /// any other.
    pub(super) fn send(&self, packet: &[u8], to: Ipv4Addr) -> bool {
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        let (sender, flags) = (self.sender.as_raw_fd(), MsgFlags::empty());
        socket::sendto(sender, packet, &to, flags).is_ok()
    }

    /// Hands over what comes until `enough` says so, or the time is over.
    pub(super) fn hear(
        &self,
        cookie: Cookie,
        patience: Duration,
        mut enough: impl FnMut(Seen) -> bool,
    ) -> bool {
        let until = Instant::now() + patience;
        let mut buffer = vec![0; LONGEST];
        while wait(&self.receiver, until) {
            while let Ok(length) = receive(&self.receiver, &mut buffer) {
                let seen = cookie.read(buffer.get(..length).unwrap_or_default());
                if seen.is_some_and(&mut enough) {
                    return true;
                }
                // a flood does not hold it up
                if Instant::now() > until {
                    return false;
                }
            }
        }
        false
    }

    /// Sends each until it is answered, a few times; answers the numbers of those that were.
    /// Ends early where `enough` of them were.
    pub(super) fn exchange(
        &self,
        cookie: Cookie,
        pings: &[Ping],
        rounds: u32,
        enough: impl Fn(&BTreeMap<u16, Ipv4Addr>) -> bool,
    ) -> BTreeMap<u16, Ipv4Addr> {
        let mut answers = BTreeMap::new();
        for _ in 0..rounds {
            for ping in pings.iter().filter(|p| !answers.contains_key(&p.number)) {
                let packet = cookie.request(ping.from, ping.to, ping.number, ping.length);
                self.send(&packet, ping.to);
            }
            let done = self.hear(cookie, ROUND, |seen| {
                if let Content::Reply(number) = seen.content {
                    answers.insert(number, seen.source);
                }
                enough(&answers)
            });
            if done {
                break;
            }
        }
        answers
    }
}

/// What the kernel's own TCP hears of a closed port, for each of the addresses: any answer.
pub(super) fn knock(addresses: &[Ipv4Addr], patience: Duration) -> io::Result<Vec<bool>> {
    let until = Instant::now() + patience;
    let mut sockets = Vec::new();
    for address in addresses {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        let to = SockaddrIn::from(SocketAddrV4::new(*address, CLOSED_PORT));
        // an error of the network itself is an answer by nobody
        let begun = socket::connect(socket.as_raw_fd(), &to);
        let is_refused = begun == Err(Errno::ECONNREFUSED);
        sockets.push((socket, begun.is_ok() || is_refused));
    }
    let mut answers = Vec::new();
    for (socket, answered) in sockets {
        let answered = answered || {
            wait_for(&socket, PollFlags::POLLOUT, until)
                && [0, libc::ECONNREFUSED]
                    .contains(&getsockopt(&socket, sockopt::SocketError).unwrap_or(libc::EIO))
        };
        answers.push(answered);
    }
    Ok(answers)
}

/// As [`knock`], with packets whose checksum no device has to finish.
pub(super) fn knock_by_hand(
    cookie: Cookie,
    ends: &[(Ipv4Addr, Ipv4Addr)],
    patience: Duration,
) -> io::Result<Vec<bool>> {
    let raw = Raw::open(SockProtocol::Tcp)?;
    // of the ports that nobody listens on and the kernel gives to nobody by itself
    let own = 1024 + u16::from_be_bytes([cookie.0[0], cookie.0[1]]) % 8192;
    for (from, to) in ends {
        raw.send(&packet::opening(*from, *to, (own, CLOSED_PORT)), *to);
    }
    let mut answers: Vec<bool> = ends.iter().map(|_| false).collect();
    raw.hear(cookie, patience, |seen| {
        if seen.content == Content::Segment(CLOSED_PORT, own) {
            for (answer, (_, to)) in answers.iter_mut().zip(ends) {
                *answer |= *to == seen.source;
            }
        }
        answers.iter().all(|answer| *answer)
    });
    Ok(answers)
}

/// A socket for the Ethernet frames of a link, and the link's address.
pub(super) fn frames(link: &str) -> io::Result<(OwnedFd, [u8; 6])> {
    let address = link_address(link)?;
    let socket = listen(SockType::Raw)?;
    bind(&socket, &address)?;
    let mac = address.addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, mac))
}

/// Shows every packet of a link, from its IP header on.
#[derive(Debug)]
pub(super) struct Tap {
    socket: OwnedFd,
    index: usize,
}

impl Tap {
    pub(super) fn open(link: &str) -> io::Result<Self> {
        let socket = listen(SockType::Datagram)?;
        // a device without an Ethernet address is in no list: then all links are listened to
        if let Ok(address) = link_address(link) {
            bind(&socket, &address)?;
        }
        // what is not wanted has to be read too; a smaller buffer is no reason to fail
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20));
        let index = nix::net::if_::if_nametoindex(link)?;
        let index = usize::try_from(index).unwrap_or_default();
        Ok(Self { socket, index })
    }

    /// The start of the next packet of the link; `None` for one of another link.
    ///
    /// # Errors
    /// `EAGAIN` where there is no more.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Errno> {
        let (length, from) = socket::recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer)?;
        let is_ours = from.is_some_and(|from| from.ifindex() == self.index);
        Ok(buffer.get(..length).filter(|_| is_ours))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn listen(kind: SockType) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let protocol = SockProtocol::EthAll;
    Ok(socket::socket(
        AddressFamily::Packet,
        kind,
        flags,
        protocol,
    )?)
}

/// The protocol, which is 0 in the address, stays that of the socket (`packet_bind`).
fn bind(socket: &OwnedFd, address: &LinkAddr) -> io::Result<()> {
    Ok(socket::bind(socket.as_raw_fd(), address)?)
}

fn link_address(link: &str) -> io::Result<LinkAddr> {
    let all = getifaddrs()?;
    let found = all.filter(|row| row.interface_name == link);
    let mut links = found.filter_map(|row| row.address?.as_link_addr().copied());
    links
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no link {link}")))
}

pub(super) fn send_frame(socket: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    socket::send(socket.as_raw_fd(), frame, MsgFlags::empty())?;
    Ok(())
}

/// Hands over what comes, for so long.
pub(super) fn hear(socket: &OwnedFd, patience: Duration, mut take: impl FnMut(&[u8])) {
    let until = Instant::now() + patience;
    let mut buffer = vec![0; LONGEST];
    while wait(socket, until) {
        while let Ok(length) = receive(socket, &mut buffer) {
            take(buffer.get(..length).unwrap_or_default());
            if Instant::now() > until {
                return;
            }
        }
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    socket::recv(socket.as_raw_fd(), buffer, MsgFlags::empty())
}

fn wait(socket: &OwnedFd, until: Instant) -> bool {
    wait_for(socket, PollFlags::POLLIN, until)
}

/// Whether a socket is ready before the time is over.
fn wait_for(socket: &OwnedFd, events: PollFlags, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    let mut sockets = [PollFd::new(socket.as_fd(), events)];
    poll(&mut sockets, left).is_ok_and(|ready| ready > 0)
}

/// TCPMUX (RFC 1078), which nobody has used for decades.
const CLOSED_PORT: u16 = 1;

/// So long an answer is waited for before the next attempt.
const ROUND: Duration = Duration::from_millis(300);
