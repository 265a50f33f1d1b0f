//! UDP datagrams between two containers, each of which tells whether it arrived as it was sent.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGsoSegment;

use crate::cluster::{Pair, within};
use crate::noise::Noise;

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Volley {
    /// The lengths of the datagrams in bytes, in turn, at least 4.
    pub(crate) lengths: Vec<usize>,
    /// How many are sent with one call (`UDP_SEGMENT`); they must have one length then.
    pub(crate) together: usize,
    /// How long to wait after each call.
    pub(crate) pause: Duration,
    /// When it ends.
    pub(crate) over: Arc<AtomicBool>,
}

impl Volley {
    /// Of these lengths, one at a time, a thousand or so in a second.
    pub(crate) fn of(lengths: &[usize], over: &Arc<AtomicBool>) -> Self {
        Self {
            lengths: lengths.to_vec(),
            together: 1,
            pause: Duration::from_millis(1),
            over: Arc::clone(over),
        }
    }
}

/// Datagrams that are under way.
pub(crate) struct Datagrams {
    sender: JoinHandle<u32>,
    receiver: JoinHandle<Heard>,
    sent: Arc<AtomicBool>,
}

/// What became of them, none of which was changed or doubled.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) sent: u32,
    pub(crate) received: u32,
    seen: Vec<bool>,
}

impl Datagrams {
    pub(crate) fn start(pair: &Pair, volley: Volley) -> Self {
        let sent = Arc::new(AtomicBool::new(false));
        let (ready, port) = mpsc::channel();
        let end = Arc::clone(&sent);
        let receiver = within(&pair.to, move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            ready.send(socket.local_addr().unwrap().port()).unwrap();
            Heard::listen(&socket, &end)
        });
        let to = SocketAddr::from((pair.address, port.recv().unwrap()));
        let sender = within(&pair.from, move || send(to, &volley));
        Self {
            sender,
            receiver,
            sent,
        }
    }

    /// Waits for the end, and fails if one arrived that was not sent so, or twice.
    pub(crate) fn finish(self) -> Heard {
        let sent = self.sender.join();
        self.sent.store(true, Ordering::Relaxed);
        let heard = self.receiver.join();
        let (Ok(sent), Ok(heard)) = (sent, heard) else {
            panic!("datagrams were spoiled, doubled or not sent");
        };
        assert!(heard.received <= sent);
        Heard { sent, ..heard }
    }
}

impl Heard {
    fn listen(socket: &UdpSocket, end: &AtomicBool) -> Self {
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut heard = Self::default();
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => heard.note(&buffer[..length]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    if end.load(Ordering::Relaxed) {
                        return heard;
                    }
                }
            }
        }
    }

    fn note(&mut self, datagram: &[u8]) {
        let number = u32::from_be_bytes(datagram[..4].try_into().unwrap());
        let right = datagram == contents(number, datagram.len());
        assert!(
            right,
            "datagram {number}, {} bytes: spoiled",
            datagram.len()
        );
        let index = number as usize;
        if self.seen.len() <= index {
            self.seen.resize(index + 1, false);
        }
        assert!(!self.seen[index], "datagram {number} came twice");
        self.seen[index] = true;
        self.received += 1;
    }
}

fn send(to: SocketAddr, volley: &Volley) -> u32 {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect(to).unwrap();
    if volley.together > 1 {
        let length = i32::try_from(volley.lengths[0]).unwrap();
        setsockopt(&socket, UdpGsoSegment, &length).unwrap();
    }
    let mut sent = 0;
    let mut lengths = volley.lengths.iter().cycle();
    while !volley.over.load(Ordering::Relaxed) {
        let datagrams = lengths.by_ref().take(volley.together);
        let bytes: Vec<u8> = datagrams
            .flat_map(|length| {
                sent += 1;
                contents(sent - 1, *length)
            })
            .collect();
        match socket.send(&bytes) {
            Ok(length) => assert_eq!(length, bytes.len()),
            // a way that is closed for a while
            Err(error) => assert_ne!(error.kind(), ErrorKind::InvalidInput, "{error}"),
        }
        thread::sleep(volley.pause);
    }
    sent
}

/// Its number, and bytes that depend on number and length.
fn contents(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Noise::new(u64::from(number) << 16 | length as u64).fill(&mut bytes);
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}
