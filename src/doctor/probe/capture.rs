//! What passes through links while packets are sent: a lost answer is told from a packet that
//! never left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::packet::{Content, Cookie, Seen};
use super::sockets::Tap;

/// A running capture. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Capture {
    over: Arc<AtomicBool>,
    record: Arc<Mutex<Record>>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The source address of a packet of ours, by link and destination.
    left: BTreeMap<(String, Ipv4Addr), Ipv4Addr>,
    /// Who has sent something, by link, and to which port if it was a datagram.
    senders: BTreeMap<String, BTreeSet<(Ipv4Addr, Option<u16>)>>,
}

impl Capture {
    /// Starts to read what passes through these links.
    pub(super) fn start(links: &[&str], cookie: Cookie) -> io::Result<Self> {
        let mut taps = Vec::new();
        for link in links {
            taps.push(((*link).to_owned(), Tap::open(link)?));
        }
        let capture = Self {
            over: Arc::default(),
            record: Arc::default(),
        };
        let (over, record) = (Arc::clone(&capture.over), Arc::clone(&capture.record));
        thread::Builder::new().spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let mut polled: Vec<_> = (taps.iter())
                    .map(|(_, tap)| PollFd::new(tap.as_fd(), PollFlags::POLLIN))
                    .collect();
                let _ = poll(&mut polled, PollTimeout::from(BEAT));
                for (link, tap) in &taps {
                    read(link, tap, cookie, &record);
                }
            }
        })?;
        Ok(capture)
    }

    /// Ends it as soon as what was seen is enough, or after a while; answers what was seen.
    pub(super) fn finish(self, enough: impl Fn(&Record) -> bool) -> Record {
        let until = Instant::now() + STRAGGLERS;
        let is_enough = || enough(&self.record.lock().unwrap_or_else(PoisonError::into_inner));
        while Instant::now() < until && !is_enough() {
            thread::sleep(Duration::from_millis(BEAT.into()));
        }
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut record)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A busy link must not keep the others waiting.
fn read(link: &str, tap: &Tap, cookie: Cookie, record: &Mutex<Record>) {
    let mut buffer = [0; SNIPPET];
    for _ in 0..BURST {
        let Ok(packet) = tap.receive(&mut buffer) else {
            return;
        };
        if let Some(seen) = packet.and_then(|packet| cookie.read(packet)) {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            record.note(link, seen);
        }
    }
}

impl Record {
    fn note(&mut self, link: &str, seen: Seen) {
        if matches!(seen.content, Content::Request(_) | Content::Outside) {
            let key = (link.to_owned(), seen.destination);
            self.left.entry(key).or_insert(seen.source);
        }
        let senders = self.senders.entry(link.to_owned()).or_default();
        let port = match seen.content {
            Content::Datagram(port) => Some(port),
            Content::Request(_)
            | Content::Reply(_)
            | Content::Outside
            | Content::Segment(..)
            | Content::Other => None,
        };
        if senders.len() < MOST_SENDERS {
            senders.insert((seen.source, port));
        }
    }

    /// The source address with which a packet of ours for an address left by a link.
    pub(super) fn left(&self, link: &str, to: Ipv4Addr) -> Option<Ipv4Addr> {
        self.left.get(&(link.to_owned(), to)).copied()
    }

    /// Whether a packet of a sender was seen on a link, who sent datagrams to this port if one is
    /// given.
    pub(super) fn heard(
        &self,
        link: &str,
        is_sender: impl Fn(Ipv4Addr) -> bool,
        port: Option<u16>,
    ) -> bool {
        let senders = self.senders.get(link).into_iter().flatten();
        senders
            .into_iter()
            .any(|(sender, to)| is_sender(*sender) && (port.is_none() || *to == port))
    }
}

/// So much of each packet is looked at, in bytes.
const SNIPPET: usize = 128;
/// In milliseconds.
const BEAT: u8 = 20;
const BURST: usize = 1000;
/// More than peers and their containers send in three seconds; a flood ends there.
const MOST_SENDERS: usize = 20_000;
/// So long the last packets are waited for: a gateway may have to be looked for first.
const STRAGGLERS: Duration = Duration::from_millis(300);
