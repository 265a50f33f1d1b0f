//! UDP from one container to the other, as fast as it goes.

use std::array;
use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags, MultiHeaders, SockaddrIn, setsockopt, sockopt};

use crate::contestant::{Container, Contestant};
use crate::pattern::piece;
use crate::window::Window;

/// Datagrams to a system call.
const BATCH: usize = 64;
/// Of a receiver, in bytes: a short absence from the processor must not look like loss.
const BUFFER: usize = 8 << 20;
/// Room for one datagram.
const SLOT: usize = 2048;
/// After the last datagram was sent, for those that are on their way.
const DRAIN: Duration = Duration::from_millis(100);

/// A flood to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flood {
    /// Payload in bytes, 8 to [`SLOT`].
    pub(crate) size: usize,
    /// Each with a port and a thread of its own at both ends.
    pub(crate) flows: usize,
}

/// Datagrams in a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) offered: f64,
    pub(crate) delivered: f64,
}

impl Flood {
    /// # Panics
    /// If a datagram arrives that was not sent.
    pub(crate) fn run(self, contestant: &Contestant, length: Duration) -> Pace {
        let sockets: Vec<_> = (0..self.flows).map(|_| pair(contestant)).collect();
        let window = Window::soon(length);
        let (mut offered, mut delivered) = (0, 0);
        thread::scope(|scope| {
            let start = |(sender, receiver): &(UdpSocket, UdpSocket)| {
                let (sender, receiver) = (sender.try_clone(), receiver.try_clone());
                let sent = scope.spawn(move || self.send(&sender.unwrap(), window));
                let received = scope.spawn(move || self.receive(&receiver.unwrap(), window));
                (sent, received)
            };
            let running: Vec<_> = sockets.iter().map(start).collect();
            for (sent, received) in running {
                offered += sent.join().unwrap();
                delivered += received.join().unwrap();
            }
        });
        // whoever is late finds its socket still there and calls forth no ICMP
        thread::sleep(DRAIN);
        Pace {
            offered: f64::from(offered) / window.seconds(),
            delivered: f64::from(delivered) / window.seconds(),
        }
    }

    /// How many datagrams were offered in the window.
    fn send(self, socket: &UdpSocket, window: Window) -> u32 {
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let (mut number, mut counted) = (0_u64, 0);
        loop {
            let numbers: [[u8; 8]; BATCH] =
                array::from_fn(|index| (number + index as u64).to_be_bytes());
            let datagrams: [[IoSlice<'_>; 2]; BATCH] = array::from_fn(|index| {
                let body = self.body(number + index as u64);
                [IoSlice::new(&numbers[index]), IoSlice::new(body)]
            });
            let flags = MsgFlags::empty();
            let sent = socket::sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                &datagrams,
                [None; BATCH],
                [],
                flags,
            );
            let sent = match sent {
                Ok(results) => results.count(),
                // full queues, and what routers had to say of earlier datagrams
                Err(
                    Errno::EAGAIN
                    | Errno::ENOBUFS
                    | Errno::ECONNREFUSED
                    | Errno::ENETUNREACH
                    | Errno::EHOSTUNREACH,
                ) => 0,
                Err(error) => panic!("cannot send a datagram: {error}"),
            };
            number += sent as u64;
            let now = Instant::now();
            if window.holds(now) {
                counted += u32::try_from(sent).unwrap();
            }
            if window.is_over(now) {
                return counted;
            }
        }
    }

    /// How many datagrams arrived in the window.
    fn receive(self, socket: &UdpSocket, window: Window) -> u32 {
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut bytes = vec![0; SLOT * BATCH];
        let mut counted = 0;
        while !window.is_over(Instant::now()) {
            let mut lengths = [0; BATCH];
            let mut slots = bytes.chunks_exact_mut(SLOT);
            let mut places: [[IoSliceMut<'_>; 1]; BATCH] =
                array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap())]);
            let arrived = socket::recvmmsg(
                socket.as_raw_fd(),
                &mut headers,
                places.iter_mut(),
                MsgFlags::MSG_WAITFORONE,
                None,
            );
            let arrived = match arrived {
                Ok(arrived) => arrived,
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(error) => panic!("cannot receive a datagram: {error}"),
            };
            let mut count = 0;
            for (length, datagram) in lengths.iter_mut().zip(arrived) {
                *length = datagram.bytes;
                count += 1;
            }
            let counts = window.holds(Instant::now());
            for (slot, length) in bytes.chunks_exact(SLOT).zip(&lengths[..count]) {
                self.compare(&slot[..*length]);
                counted += u32::from(counts);
            }
        }
        counted
    }

    fn compare(self, datagram: &[u8]) {
        assert_eq!(datagram.len(), self.size, "length of a datagram");
        let (number, body) = datagram.split_first_chunk().unwrap();
        let number = u64::from_be_bytes(*number);
        assert!(
            body == self.body(number),
            "wrong data in datagram {number}, of {} bytes",
            self.size
        );
    }

    /// What follows the number in a datagram.
    fn body(self, number: u64) -> &'static [u8] {
        piece(number * 31, self.size - 8)
    }
}

/// A socket in each container, connected to each other: the second listens to the first alone.
pub(crate) fn pair(contestant: &Contestant) -> (UdpSocket, UdpSocket) {
    let bind = |at: Container| {
        contestant.inside(at, || {
            let socket = UdpSocket::bind((at.address(), 0)).unwrap();
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).unwrap();
            let pause = Duration::from_millis(100);
            socket.set_read_timeout(Some(pause)).unwrap();
            socket
        })
    };
    let (first, second) = (bind(Container::First), bind(Container::Second));
    first.connect(second.local_addr().unwrap()).unwrap();
    second.connect(first.local_addr().unwrap()).unwrap();
    (first, second)
}
