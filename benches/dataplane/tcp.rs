//! TCP streams between the containers.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::contestant::{Container, Contestant};
use crate::pattern::{Check, LONGEST, piece};
use crate::window::Window;

/// A stream that makes no progress for this long is a failure, not a figure.
const STALL: Duration = Duration::from_secs(10);
/// How much is written, and read, with one call.
const CHUNK: usize = 128 << 10;

/// A connection, which carries data one way.
pub(crate) struct Stream {
    sender: TcpStream,
    receiver: TcpStream,
}

/// What some streams together have carried in a [`Window`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carried {
    pub(crate) bytes: u64,
    pub(crate) window: Window,
    /// Seconds of processor time that the whole machine used meanwhile.
    pub(crate) busy: f64,
}

impl Carried {
    pub(crate) fn gigabits(self) -> f64 {
        self.bytes as f64 * 8e-9 / self.window.seconds()
    }

    pub(crate) fn gigabytes(self) -> f64 {
        self.bytes as f64 * 1e-9
    }
}

impl Stream {
    /// Connects the container `from` to the other one.
    pub(crate) fn open(contestant: &Contestant, from: Container) -> Self {
        let to = from.other();
        let listener = contestant.inside(to, || TcpListener::bind((to.address(), 0)).unwrap());
        let target = listener.local_addr().unwrap();
        let sender = contestant.inside(from, || {
            TcpStream::connect_timeout(&target, STALL).expect("the containers are connected")
        });
        let (receiver, _) = listener.accept().unwrap();
        sender.set_write_timeout(Some(STALL)).unwrap();
        receiver.set_read_timeout(Some(STALL)).unwrap();
        Self { sender, receiver }
    }
}

/// Sends on all streams at once, and counts what arrives in the window.
///
/// # Panics
/// If a stream stalls, or something else arrives than was sent.
pub(crate) fn carry(streams: Vec<Stream>, window: Window, check: Check) -> Carried {
    thread::scope(|scope| {
        let start = |stream: Stream| {
            let Stream { sender, receiver } = stream;
            let sent = scope.spawn(move || send(sender, window));
            let received = scope.spawn(move || receive(receiver, window, check));
            (sent, received)
        };
        let running: Vec<_> = streams.into_iter().map(start).collect();
        let busy = window.busy();
        let mut bytes = 0;
        for (sent, received) in running {
            let (sent, received) = (sent.join().unwrap(), received.join().unwrap());
            assert_eq!(sent, received.all, "bytes of a stream sent and received");
            bytes += received.counted;
        }
        Carried {
            bytes,
            window,
            busy,
        }
    })
}

fn send(mut stream: TcpStream, window: Window) -> u64 {
    let mut sent = 0;
    while !window.is_over(Instant::now()) {
        sent += stream.write(piece(sent, CHUNK)).expect("a stream stalls") as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    sent
}

struct Received {
    counted: u64,
    all: u64,
}

fn receive(mut stream: TcpStream, window: Window, check: Check) -> Received {
    let mut buffer = vec![0; CHUNK];
    let (mut counted, mut all) = (0, 0);
    loop {
        let length = stream.read(&mut buffer).expect("a stream stalls");
        if length == 0 {
            return Received { counted, all };
        }
        check.compare(all, &buffer[..length]);
        all += length as u64;
        if window.holds(Instant::now()) {
            counted += length as u64;
        }
    }
}

const _: () = assert!(CHUNK <= LONGEST);
