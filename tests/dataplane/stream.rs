//! A TCP stream between two containers, with the SHA-256 of what went in and what came out.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpMaxSeg;
use sha2::{Digest, Sha256};

use crate::cluster::{Pair, within};
use crate::noise::Noise;
use crate::support::process::PATIENCE;

type Hash = [u8; 32];

/// What a stream carries.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// When it ends.
    pub(crate) end: End,
    /// The longest segments that the receiver asks for, in bytes.
    pub(crate) segment: Option<u32>,
    /// How long to wait after each piece of 64 KiB.
    pub(crate) pause: Duration,
}

/// When a stream ends.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// After so many bytes.
    Bytes(u64),
    /// When this is set.
    Told(Arc<AtomicBool>),
}

impl Load {
    /// So many bytes as fast as they go.
    pub(crate) fn bytes(count: u64) -> Self {
        Self {
            end: End::Bytes(count),
            segment: None,
            pause: Duration::ZERO,
        }
    }

    /// Until `over` is set, as fast as they go.
    pub(crate) fn until(over: &Arc<AtomicBool>) -> Self {
        Self {
            end: End::Told(Arc::clone(over)),
            segment: None,
            pause: Duration::ZERO,
        }
    }
}

/// A stream that is under way.
pub(crate) struct Stream {
    sender: JoinHandle<Hash>,
    receiver: JoinHandle<(Hash, Duration)>,
    received: Arc<AtomicU64>,
    name: String,
}

/// What became of a stream, all of which arrived as it was sent.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    /// The longest time in which nothing arrived.
    pub(crate) longest_pause: Duration,
}

impl Stream {
    /// Starts to send.
    pub(crate) fn start(pair: &Pair, load: Load) -> Self {
        let received = Arc::new(AtomicU64::new(0));
        let (ready, port) = mpsc::channel();
        let (segment, count) = (load.segment, Arc::clone(&received));
        let receiver = within(&pair.to, move || {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            if let Some(segment) = segment {
                setsockopt(&listener, TcpMaxSeg, &segment).unwrap();
            }
            ready.send(listener.local_addr().unwrap().port()).unwrap();
            receive(accept(&listener), &count)
        });
        let to = SocketAddr::from((pair.address, port.recv().unwrap()));
        let sender = within(&pair.from, move || send(to, &load));
        Self {
            sender,
            receiver,
            received,
            name: format!("{} to {}", pair.from, pair.to),
        }
    }

    /// How many bytes have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits for its end, and fails if not all arrived as it was sent.
    pub(crate) fn finish(self) -> Moved {
        let name = &self.name;
        let sent = self.sender.join();
        let received = self.receiver.join();
        let (Ok(sent), Ok((received, longest_pause))) = (sent, received) else {
            panic!("the stream {name} broke off");
        };
        let bytes = self.received.load(Ordering::Relaxed);
        assert!(
            sent == received,
            "{name}: SHA-256 of what arrived, {bytes} bytes, differs"
        );
        Moved {
            bytes,
            longest_pause,
        }
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(Instant::now() < deadline, "nobody connects");
        thread::sleep(Duration::from_millis(2));
    }
}

fn send(to: SocketAddr, load: &Load) -> Hash {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let (mut noise, mut hash) = (Noise::new(u64::from(to.port())), Sha256::new());
    let mut piece = vec![0; 64 << 10];
    let mut left = match load.end {
        End::Bytes(count) => count,
        End::Told(_) => u64::MAX,
    };
    while left > 0 && !load.is_over() {
        let length = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        noise.fill(&mut piece[..length]);
        hash.update(&piece[..length]);
        stream.write_all(&piece[..length]).unwrap();
        left -= length as u64;
        thread::sleep(load.pause);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    hash.finalize().into()
}

impl Load {
    fn is_over(&self) -> bool {
        match &self.end {
            End::Bytes(_) => false,
            End::Told(over) => over.load(Ordering::Relaxed),
        }
    }
}

fn receive(mut stream: TcpStream, count: &AtomicU64) -> (Hash, Duration) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut hash = Sha256::new();
    let mut piece = vec![0; 64 << 10];
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    loop {
        let length = stream.read(&mut piece).unwrap();
        longest = longest.max(last.elapsed());
        if length == 0 {
            return (hash.finalize().into(), longest);
        }
        last = Instant::now();
        hash.update(&piece[..length]);
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}
