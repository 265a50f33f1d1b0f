//! From the peers to the device.
//!
//! Packets are taken from whom [`Origins`](super::origin::Origins) admits. What came together and
//! belongs together goes to the device together; nothing is copied but the headers of what is
//! joined.

use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;

use super::coalesce::{Coalescer, LONGEST_TRAIN, Train};
use super::counters::{Count, PeerCount, Tally};
use super::directory::{Directory, DirectoryReader};
use super::socket::Incoming;
use super::tun;
use super::virtio::{Header, Kind};
use super::worker::{Breakdown, Lane, Plane, Wake, Worker, admit, age};

/// The work of the thread that serves the queue of this number.
pub(super) fn work(plane: &Plane, queue: usize) -> Result<(), Breakdown> {
    let worker = Worker::Inbound(queue);
    let lane = &plane.lanes[queue];
    let mut inbound = Inbound {
        plane,
        lane,
        number: plane.number(worker),
        tally: plane.tally(worker),
        packets: Vec::with_capacity(PACKETS),
        coalescer: Coalescer::new(PACKETS),
    };
    let mut directory = DirectoryReader::new(&plane.directory);
    let mut incoming = Incoming::new(&lane.socket);
    let mut futile = 0;
    while !plane.has_ended() {
        plane.beat(worker);
        match incoming.receive() {
            Ok(()) => {
                futile = 0;
                let directory = directory.latest();
                inbound.join(directory, &mut incoming);
                let (bytes, _) = incoming.open();
                inbound.deliver(directory, bytes)?;
            }
            Err(Errno::EAGAIN) => {
                if plane.await_input(worker, lane.socket.as_fd(), lane)? == Wake::Stopped {
                    break;
                }
            }
            Err(Errno::EINTR) => {}
            Err(source) => {
                inbound.tally.add(Count::ReceiveErrors, 1);
                futile += 1;
                if futile == FUTILE {
                    return Err(Breakdown::Socket {
                        times: FUTILE,
                        source,
                    });
                }
                // An error that repeats must not keep the processor busy.
                plane.pause(RESPITE);
            }
        }
    }
    Ok(())
}

/// What a worker works with.
struct Inbound<'a> {
    plane: &'a Plane,
    lane: &'a Lane,
    /// This worker's among those that count.
    number: usize,
    tally: &'a Tally,
    /// Where the packets of the batch lie, ascending.
    packets: Vec<Range<usize>>,
    coalescer: Coalescer,
}

impl Inbound<'_> {
    /// Joins the sound packets among what has arrived.
    fn join(&mut self, directory: &Directory, incoming: &mut Incoming<'_>) {
        self.coalescer.clear();
        self.packets.clear();
        let joins = self.plane.offers.joins();
        let mut inspection = self.plane.origins.inspect(directory);
        let (bytes, arrivals) = incoming.open();
        for arrival in arrivals {
            if arrival.cut {
                self.tally.add(Count::TooBig, 1);
                continue;
            }
            for datagram in arrival.datagrams() {
                let start = datagram.start;
                let Some(mut packet) = admit(self.tally, &mut bytes[datagram]) else {
                    continue;
                };
                if !inspection.admits(arrival.source, packet.source()) {
                    self.tally.add(Count::Spoofed, 1);
                    continue;
                }
                if age(self.tally, &mut packet).is_none() {
                    continue;
                }
                let at = start..start + packet.bytes().len();
                self.coalescer.push(bytes, at.clone(), joins);
                self.packets.push(at);
            }
        }
        self.plane.origins.tell(&inspection);
    }

    /// Gives the device what has been joined.
    fn deliver(&self, directory: &Directory, bytes: &[u8]) -> Result<(), Breakdown> {
        for train in self.coalescer.trains() {
            match self.give(bytes, &train) {
                Ok(()) => self.delivered(directory, bytes, &train),
                Err(source) if tun::is_gone(source) => return Err(self.plane.gone(source)),
                Err(Errno::EINVAL) if train.packets > 1 => {
                    self.give_up(&train);
                    self.deliver_singly(directory, bytes, &train)?;
                }
                Err(_) => self.tally.add(Count::DeviceErrors, train.packets as u64),
            }
        }
        Ok(())
    }

    fn give(&self, bytes: &[u8], train: &Train<'_>) -> Result<(), Errno> {
        if let ([], [body]) = (train.head, train.bodies) {
            let whole = [IoSlice::new(&bytes[body.clone()])];
            return self.lane.queue.give(train.header, &whole);
        }
        let mut parts = [IoSlice::new(train.head); LONGEST_TRAIN + 1];
        for (part, body) in parts[1..].iter_mut().zip(train.bodies) {
            *part = IoSlice::new(&bytes[body.clone()]);
        }
        self.lane.queue.give(train.header, &parts[..=train.packets])
    }

    fn delivered(&self, directory: &Directory, bytes: &[u8], train: &Train<'_>) {
        let packets = train.packets as u64;
        let bodies: usize = train.bodies.iter().map(ExactSizeIterator::len).sum();
        let moved = (bodies + train.head.len() * train.packets) as u64;
        self.tally.add(Count::ReceivedPackets, packets);
        self.tally.add(Count::ReceivedBytes, moved);
        // All packets of a train come from the same host.
        let first = match (train.head, train.bodies) {
            ([], [body, ..]) => &bytes[body.clone()],
            (head, _) => head,
        };
        if let Some(peer) = source(first).and_then(|source| directory.peer(source)) {
            peer.add(self.number, PeerCount::ReceivedPackets, packets);
            peer.add(self.number, PeerCount::ReceivedBytes, moved);
        }
    }

    fn give_up(&self, train: &Train<'_>) {
        let Some(segments) = train.header.segments else {
            return;
        };
        if self.plane.offers.give_up(segments.kind) {
            let kind = match segments.kind {
                Kind::Tcp => "TCP segments",
                Kind::Udp => "UDP datagrams",
            };
            let device = &self.plane.device;
            tracing::warn!(
                "{device} refuses to take several {kind} as one: the udp data plane gives it each \
                 by itself from now on"
            );
        }
    }

    /// Gives the device the packets that a train was made of.
    fn deliver_singly(
        &self,
        directory: &Directory,
        bytes: &[u8],
        train: &Train<'_>,
    ) -> Result<(), Breakdown> {
        for body in train.bodies {
            // Each body is the end of its packet.
            let index = self.packets.partition_point(|packet| packet.end < body.end);
            let Some(packet) = self.packets.get(index) else {
                continue;
            };
            let single = Train {
                header: Header::default(),
                head: &[],
                bodies: std::slice::from_ref(packet),
                packets: 1,
            };
            match self.give(bytes, &single) {
                Ok(()) => self.delivered(directory, bytes, &single),
                Err(source) if tun::is_gone(source) => return Err(self.plane.gone(source)),
                Err(_) => self.tally.add(Count::DeviceErrors, 1),
            }
        }
        Ok(())
    }
}

/// The source address of an IPv4 packet.
fn source(packet: &[u8]) -> Option<Ipv4Addr> {
    let bytes: &[u8; 4] = packet.get(12..)?.first_chunk()?;
    Some(Ipv4Addr::from(*bytes))
}

/// As many packets as come with one call, as a rule: 16 messages of as many datagrams as one has.
const PACKETS: usize = 1024;
/// How many errors in a row, with a respite after each, mean that a socket is beyond help.
const FUTILE: u32 = 100;
const RESPITE: Duration = Duration::from_millis(10);
